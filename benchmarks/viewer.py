"""The browser's image of a model against our view from the same camera, group `files`."""

from __future__ import annotations

import contextlib
import functools
import http.server
import io
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

import mvretrieval
from benchmarks import data
from benchmarks.benchmark import Benchmark, Skipped
from mvrender.backends.raster import RasterRenderer
from mvrender.cameras import parse_rig
from mvrender.glb import to_glb
from mvrender.loading import load
from mvrender.mesh import normalize

_VENDOR = Path(mvretrieval.__file__).parent / "service" / "page" / "vendor" / "model-viewer.min.js"
_CHROMIUM = Path("/usr/bin/chromium")
_N_MODELS = 12
_SIZE = 256
# As in service/page/viewer.js.
_PAGE = """<!doctype html>
<style>body{{margin:0}}model-viewer{{width:{size}px;height:{size}px;background:#fff;--poster-color:#fff}}</style>
<script type="module" src="model-viewer.min.js"></script>
<model-viewer src="model.glb" camera-target="0m 0m 0m" camera-orbit="30deg 60deg 3.94m" field-of-view="30deg"
 min-camera-orbit="auto auto 0m" max-camera-orbit="auto auto 100m" interaction-prompt="none" {more}></model-viewer>"""
_ATTRIBUTES = 'tone-mapping="neutral" environment-image="neutral" exposure="0.55" shadow-intensity="0"'


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def _served(folder: Path) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def viewer() -> dict[str, float]:
    """Mean difference of 255 over the pixels that show the object in either image, for twelve coloured models of quaternius."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise Skipped("playwright is not installed") from None
    if not _VENDOR.exists() or not _CHROMIUM.exists():
        raise Skipped("the 3D viewer or Chromium is not installed")
    paths = sorted(data.meshes("quaternius").rglob("*.glb"))
    chosen = [paths[i] for i in np.linspace(0, len(paths) - 1, _N_MODELS).astype(int)]
    rig, renderer = parse_rig("ring:12@30"), RasterRenderer()  # the second camera is at 30 degrees
    arguments = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]
    differences: list[float] = []
    with tempfile.TemporaryDirectory() as place, _served(Path(place)) as url, sync_playwright() as started:
        folder = Path(place)
        shutil.copy(_VENDOR, folder / "model-viewer.min.js")
        (folder / "index.html").write_text(_PAGE.format(size=_SIZE, more=_ATTRIBUTES))
        browser = started.chromium.launch(executable_path=_CHROMIUM, args=arguments)
        for path in chosen:
            mesh = load(path).mesh
            (folder / "model.glb").write_bytes(to_glb(mesh))
            page = browser.new_page(viewport={"width": _SIZE, "height": _SIZE})
            page.goto(f"{url}/index.html")
            page.wait_for_function("document.querySelector('model-viewer')?.loaded === true", timeout=60_000)
            page.wait_for_timeout(1500)
            shown = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB"), float)
            page.close()
            ours = renderer.render(normalize(mesh), rig, ("texture",), _SIZE).images[0, 1].astype(float)
            seen = (shown < 250).any(axis=2) | (ours < 250).any(axis=2)
            differences.append(float(np.abs(shown - ours)[seen].mean()))
        browser.close()
    return {"mean": float(np.mean(differences)), "worst": max(differences)}


BENCHMARKS = (
    Benchmark(
        "viewer", "files", "the browser's image against ours, twelve coloured models: mean difference of 255 on the object",
        {"mean": 25}, viewer, True,
    ),
)  # fmt: skip
