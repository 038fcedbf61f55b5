"""Three renderers agree on forty meshes of every kind; pyrender, which others know, is the reference."""

from __future__ import annotations

import numpy as np
import pytest

from mvrender.cameras import parse_rig
from mvrender.renderer import Renderer
from mvrender.shading import STYLES

pytest.importorskip("skimage", reason="scikit-image is not installed: pip install scikit-image")

from benchmarks.assorted_meshes import N_MESHES, assorted_meshes
from benchmarks.render_fidelity import agreement

RIG = parse_rig("ring:2@30")
SIZE = 96
MESHES = dict(assorted_meshes())


def test_there_are_forty_meshes_of_every_kind() -> None:
    assert len(MESHES) == N_MESHES
    assert sum(mesh.vertex_colors is not None for mesh in MESHES.values()) > 10
    assert sum(bool(mesh.textures) for mesh in MESHES.values()) == N_MESHES // 5


@pytest.mark.parametrize("backend", ["raster", "gl"])
@pytest.mark.parametrize("name", MESHES)
def test_a_backend_agrees_with_pyrender(
    name: str, backend: str, pyrender: Renderer, request: pytest.FixtureRequest
) -> None:
    """The figures of `python -m benchmarks pyrender-agrees`, on less."""
    renderer: Renderer = request.getfixturevalue(backend)
    ours, theirs = (each.render(MESHES[name], RIG, STYLES, SIZE) for each in (renderer, pyrender))
    np.testing.assert_array_equal(ours.mask, theirs.mask)
    np.testing.assert_array_equal(ours.cameras, theirs.cameras)
    found = agreement(ours.images, theirs.images)
    assert found.iou > 0.98 and found.depth < 0.01 and found.difference < 1 and found.ssim > 0.98, found


def test_agreement_is_that_of_the_worst_view() -> None:
    images = np.full((len(STYLES), 2, 32, 32, 3), 255, np.uint8)
    images[:, :, 8:24, 8:24] = 0
    same = agreement(images, images)
    assert (same.iou, same.depth, same.difference) == (1, 0, 0) and same.ssim == pytest.approx(1)
    other = images.copy()
    other[STYLES.index("silhouette"), 1, 8:16, 8:24] = 255  # half of one silhouette
    other[STYLES.index("depth"), 1, 8:24, 8:24] = 217  # the far end
    worst = agreement(images, other)
    assert worst.iou == 0.5 and worst.depth == pytest.approx(2, abs=0.01)
    assert worst.difference == pytest.approx(217 * 256 / 1024) and worst.ssim < 0.9
