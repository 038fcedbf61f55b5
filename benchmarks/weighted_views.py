"""View vectors of PSB in settings where views may differ in usefulness, for `weights-matter`. Each setting is built once.

ring          the default rig, 12 views
dodecahedron  20 views, some from below
random6, random12   random cameras, the same for all objects
occluded      the ring; a random third of the views is covered by a grey box
turned        the ring around a mesh that was turned at random
photos        the ring; a random third of the views is pasted, smaller, into a cluttered image
styles        the ring in three styles
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial.transform import Rotation

from benchmarks import data
from benchmarks.psb import RING, Psb
from mvrender.backends.selection import open_renderer
from mvrender.cameras import parse_rig
from mvrender.loading import load
from mvrender.mesh import Mesh, normalize
from mvrender.renderer import Renderer
from mvrender.shading import Style
from mvretrieval.encoders.registry import open_encoder
from mvretrieval.weighting.config import AdapterConfig
from mvtrain.features import Features

SETTINGS = ("ring", "dodecahedron", "random6", "random12", "occluded", "turned", "photos", "styles")
_RIGS = {"dodecahedron": "dodecahedron", "random6": "random:6@1", "random12": "random:12@0"}
_STYLES: dict[str, tuple[Style, ...]] = {"styles": ("clay", "depth", "normal")}
_SIZE = 224
_SHARE = 1 / 3  # of the views that are occluded or photos
_CLUTTER_MESHES = 40
_AT_ONCE = 48

Images = NDArray[np.uint8]


def rig_of(setting: str) -> str:
    """Name of a setting's rig."""
    return _RIGS.get(setting, RING)


@cache
def weighted_views(setting: str) -> Psb:
    """All 1809 objects in a setting, with the same splits as `psb`."""
    folder = data.meshes("psb")
    with (folder / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    views, mask = _encoded(setting, [folder / row["file"] for row in rows])
    labels, splits = np.array([row["label"] for row in rows]), np.array([row["split"] for row in rows])
    seen = set(labels[splits == "train"])
    unseen = (splits == "test") & np.array([label not in seen for label in labels])
    directions = parse_rig(rig_of(setting)).directions.astype(np.float32)
    features = Features(tuple(row["file"] for row in rows), tuple(labels), views, mask, directions, setting)
    styles = _STYLES.get(setting, ("texture",))
    config = AdapterConfig(setting, "mobilenet", rig_of(setting), styles, _SIZE, views.shape[2], views.shape[3])
    return Psb(features, splits == "train", splits == "test", unseen, config)


def _encoded(setting: str, files: list[Path]) -> tuple[NDArray[np.float16], NDArray[np.bool_]]:
    """(N, S, V, D) view vectors and (N, V) mask."""
    path = data.WORK / f"weights-{setting}.npz"
    if not path.exists():
        encoder = open_encoder(data.mobilenet(), "cpu")
        views, masks = [], []
        for images, mask in _rendered(setting, files):
            flat = encoder.encode_views(images.reshape(-1, *images.shape[3:]))
            views.append(flat.reshape(*images.shape[:3], -1).astype(np.float16))
            masks.append(mask)
        part = path.with_suffix(".part.npz")
        np.savez(part, views=np.concatenate(views), mask=np.concatenate(masks))
        part.replace(path)
    with np.load(path) as file:
        return file["views"], file["mask"]


def _rendered(setting: str, files: list[Path]) -> Iterator[tuple[Images, NDArray[np.bool_]]]:
    """Images (n, S, V, H, W, 3) and masks (n, V) of some objects at a time; the next are rendered meanwhile."""
    clutter = [str(file) for file in np.random.default_rng(7).choice(np.array(files, dtype=object), _CLUTTER_MESHES)]
    parts = [range(start, min(start + _AT_ONCE, len(files))) for start in range(0, len(files), _AT_ONCE)]

    def start(part: range) -> Iterator[tuple[Images, NDArray[np.bool_]]]:
        return pool.map(
            _render_one, *zip(*((setting, str(files[i]), i, clutter) for i in part), strict=True), chunksize=4
        )

    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        running = start(parts[0])
        for following in [*parts[1:], None]:
            images, masks = zip(*running, strict=True)
            if following is not None:
                running = start(following)
            yield np.stack(images), np.stack(masks)


@cache
def _renderer() -> Renderer:
    return open_renderer("raster")


def _render_one(setting: str, file: str, number: int, clutter: list[str]) -> tuple[Images, NDArray[np.bool_]]:
    """Images (S, V, H, W, 3) and mask (V,) of one mesh, in a process of its own."""
    rng = np.random.default_rng((SETTINGS.index(setting), number))
    mesh = load(Path(file)).mesh
    if setting == "turned":
        turned = Rotation.random(random_state=rng).apply(mesh.vertices).astype(np.float32)
        mesh = Mesh(turned, mesh.faces)
    rig = parse_rig(rig_of(setting))
    views = _renderer().render(normalize(mesh, rig.fit), rig, _STYLES.get(setting, ("texture",)), _SIZE)
    images = views.images.copy()
    if setting in ("occluded", "photos"):
        for v in np.flatnonzero(rng.random(rig.n_views) < _SHARE):
            images[0, v] = (
                _occluded(images[0, v], rng) if setting == "occluded" else _photo(images[0, v], tuple(clutter), rng)
            )
    return images, views.mask


def _occluded(image: Images, rng: np.random.Generator) -> Images:
    """A view with a grey box of 60 to 100 % of its width and height."""
    height, width = (rng.uniform(0.6, 1, 2) * _SIZE).astype(int)
    top, left = rng.integers(0, _SIZE - height + 1), rng.integers(0, _SIZE - width + 1)
    covered = image.copy()
    covered[top : top + height, left : left + width] = rng.integers(90, 180)
    return covered


def _photo(image: Images, clutter: tuple[str, ...], rng: np.random.Generator) -> Images:
    """A view at 50 to 80 % of its size, in front of other objects on a coloured gradient."""
    ramp = np.linspace(0, 1, _SIZE)[:, None, None]
    first, second = rng.uniform(40, 230, (2, 3))
    canvas = Image.fromarray(np.broadcast_to((1 - ramp) * first + ramp * second, (_SIZE, _SIZE, 3)).astype(np.uint8))
    for _ in range(8):
        other = _clutter_images(clutter)[rng.integers(_CLUTTER_MESHES)]
        _paste(canvas, other, rng.uniform(0.3, 0.7), rng, tint=rng.uniform(0.4, 1, 3))
    _paste(canvas, image, rng.uniform(0.5, 0.8), rng)
    return np.asarray(canvas)


def _paste(
    canvas: Image.Image, image: Images, scale: float, rng: np.random.Generator, tint: NDArray[np.floating] | None = None
) -> None:
    side = int(scale * _SIZE)
    small = np.asarray(Image.fromarray(image).resize((side, side)))
    cutout = Image.fromarray(((small < 250).any(axis=2) * 255).astype(np.uint8))
    colored = small if tint is None else (small * tint).astype(np.uint8)
    left, top = rng.integers(0, _SIZE - side + 1, 2)
    canvas.paste(Image.fromarray(colored), (int(left), int(top)), cutout)


@cache
def _clutter_images(files: tuple[str, ...]) -> list[Images]:
    """One view of each of some meshes."""
    rig = parse_rig("ring:1@20")
    return [
        _renderer().render(normalize(load(Path(file)).mesh, rig.fit), rig, ["texture"], _SIZE).images[0, 0]
        for file in files
    ]
