"""How well two renderers agree on forty meshes; `python -m benchmarks.render_fidelity BACKEND SIZE` prints JSON.

All styles, twelve views, against the `pyrender` backend. Each value is that of the worst view of all meshes.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

from benchmarks.assorted_meshes import assorted_meshes
from mvrender.backends.selection import choose_backend, open_renderer
from mvrender.cameras import parse_rig
from mvrender.shading import DEPTH_FAR, DEPTH_NEAR, STYLES


@dataclass(frozen=True)
class Agreement:
    """The worst of some views.

    Attributes:
        iou: intersection over union of the silhouettes.
        depth: mean error of the depth, in radii of the object, where both show it.
        difference: mean absolute difference of an image, of 255.
        ssim: structural similarity of an image.
    """

    iou: float
    depth: float
    difference: float
    ssim: float


def agreement(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> Agreement:
    """Compare images (S, V, H, W, 3) of all styles."""
    silhouette, depth = STYLES.index("silhouette"), STYLES.index("depth")
    in_a, in_b = a[silhouette, ..., 0] < 128, b[silhouette, ..., 0] < 128
    both, either = in_a & in_b, in_a | in_b
    # The greys of the depth style span the diameter of the unit sphere.
    radii_per_grey = 2 / (255 * (DEPTH_FAR - DEPTH_NEAR))
    errors = np.abs(a[depth, ..., 0].astype(float) - b[depth, ..., 0]) * both
    images = [image.reshape(-1, *image.shape[2:]) for image in (a, b)]
    return Agreement(
        iou=float((both.sum(axis=(1, 2)) / either.sum(axis=(1, 2))).min()),
        depth=float((errors.sum(axis=(1, 2)) / both.sum(axis=(1, 2)).clip(1)).max() * radii_per_grey),
        difference=float(np.abs(a.astype(int) - b).mean(axis=(2, 3, 4)).max()),
        ssim=min(float(structural_similarity(x, y, channel_axis=2)) for x, y in zip(*images, strict=True)),
    )


def main() -> None:
    """Print the worst agreement of a backend with pyrender."""
    backend, _ = choose_backend(sys.argv[1])
    size, rig = int(sys.argv[2]), parse_rig("ring:12@30")
    ours, theirs = open_renderer(backend), open_renderer("pyrender")
    found = []
    for _, mesh in assorted_meshes():
        images = [each.render(mesh, rig, STYLES, size).images for each in (ours, theirs)]
        found.append(asdict(agreement(*images)))
    worst = {"iou": min, "depth": max, "difference": max, "ssim": min}
    print(json.dumps({name: best(each[name] for each in found) for name, best in worst.items()}))


if __name__ == "__main__":
    main()
