"""SSIM of the images of two renderers to their own supersampled references; prints JSON.

`python -m benchmarks.render_quality FOLDER EVERY`: one view of every n-th mesh of a folder, each from the next camera. The
reference of a renderer is its own image at eight times the size, averaged over 8 x 8 pixels, because the lighting of two renderers
differs.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

from benchmarks.plain_pyrender import PlainPyrender
from benchmarks.render_rate import RIG, SIZE, meshes
from mvrender.backends.raster import draw_views

_LARGER = 8


def _averaged(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(h / 8, w / 8) grey."""
    height, width = image.shape[0] // _LARGER, image.shape[1] // _LARGER
    cells = image[..., 0].reshape(height, _LARGER, width, _LARGER)
    return np.asarray(cells.mean(axis=(1, 3), dtype=np.float64))


def _ssim(image: NDArray[np.uint8], large: NDArray[np.uint8]) -> float:
    return float(structural_similarity(image[..., 0].astype(float), _averaged(large), data_range=255))


def main() -> None:
    """Print the mean SSIM of both renderers, and the standard error of their difference."""
    folder, every = Path(sys.argv[1]), int(sys.argv[2])
    small, large = PlainPyrender(SIZE), PlainPyrender(SIZE * _LARGER)
    ours, theirs = [], []
    for i, mesh in enumerate(meshes(folder)[::every]):
        camera = i % RIG.n_views
        rig = replace(RIG, directions=RIG.directions[camera : camera + 1])
        theirs.append(_ssim(small.draw(mesh, rig)[0], large.draw(mesh, rig)[0]))
        images = [draw_views(mesh, rig, ("clay",), size).images[0, 0] for size in (SIZE, SIZE * _LARGER)]
        ours.append(_ssim(*images))
    difference = np.subtract(ours, theirs)
    error = float(difference.std() / np.sqrt(len(difference)))
    print(json.dumps({"ours": float(np.mean(ours)), "pyrender": float(np.mean(theirs)), "standard_error": error}))


if __name__ == "__main__":
    main()
