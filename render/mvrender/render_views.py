"""Views of one mesh in a single call, rendered in this process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mvrender.backends.selection import choose_backend, open_renderer
from mvrender.cameras import Rig, parse_rig
from mvrender.loading import load
from mvrender.mesh import Mesh, UpAxis, normalize
from mvrender.renderer import BackendName, Views
from mvrender.shading import Style, check_style


def render_views(
    mesh: str | Path | Mesh,
    rig: str | Rig = "ring:12@30",
    styles: Sequence[Style] = ("texture",),
    size: int = 224,
    *,
    up: UpAxis | None = None,
    backend: BackendName | None = None,
) -> Views:
    """Render one mesh.

        images = render_views("chair.glb", "dodecahedron", ["clay", "normal"]).images   # (2, 20, 224, 224, 3) uint8

    For many files, or files from strangers, use `RenderPool`: its processes are kept, and limited in memory and time.

    Args:
        mesh: file, or a mesh with +Y up.
        rig: V cameras, or their name (see `cameras.parse_rig`).
        styles: S styles.
        size: width and height of a view in pixels.
        up: up axis of a file; the convention of its format by default.
        backend: renderer; the best one of this machine by default.

    Raises:
        MeshError: the file cannot be rendered, or nothing of it is visible.
        RigError: unknown rig or style, or the size is out of range.
        BackendError: the renderer cannot start.
    """
    cameras = parse_rig(rig) if isinstance(rig, str) else rig
    checked = [check_style(style) for style in styles]
    name, _ = choose_backend(backend)
    loaded = mesh if isinstance(mesh, Mesh) else load(Path(mesh), up=up).mesh
    renderer = open_renderer(name)
    try:
        return renderer.render(normalize(loaded, cameras.fit), cameras, checked, size)
    finally:
        renderer.close()
