"""View vectors of PSB in settings where views may differ in usefulness, for `weights-matter-SETTING`. Each setting is built once.

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
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial.transform import Rotation

from benchmarks import data
from benchmarks.psb import RING, Psb
from mvrender.backends.selection import open_renderer
from mvrender.cameras import parse_rig
from mvrender.loading import load
from mvrender.mesh import Mesh, normalize
from mvrender.renderer import Renderer, Views
from mvrender.shading import Style
from mvretrieval.encoders.encoder import ViewEncoder
from mvretrieval.encoders.registry import open_encoder
from mvretrieval.weighting.config import AdapterConfig
from mvtrain.features import Features

SETTINGS = ("ring", "dodecahedron", "random6", "random12", "occluded", "turned", "photos", "styles")
_RIGS = {"dodecahedron": "dodecahedron", "random6": "random:6@1", "random12": "random:12@0"}
_STYLES: dict[str, tuple[Style, ...]] = {"styles": ("clay", "depth", "normal")}
_ON_THE_RING = ("ring", "occluded", "photos")
_SIZE = 224
_SHARE = 1 / 3  # of the views that are occluded or photos
_CLUTTER_MESHES = 40

Images = NDArray[np.uint8]


def rig_of(setting: str) -> str:
    """Name of a setting's rig."""
    return _RIGS.get(setting, RING)


@cache
def weighted_views(setting: str) -> Psb:
    """The objects of the train split and of the unseen classes in a setting."""
    folder = data.meshes("psb")
    with (folder / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    seen = {row["label"] for row in rows if row["split"] == "train"}
    rows = [row for row in rows if row["split"] == "train" or row["label"] not in seen]
    views, mask = _encoded(setting, [str(folder / row["file"]) for row in rows])
    is_train = np.array([row["split"] == "train" for row in rows])
    directions = parse_rig(rig_of(setting)).directions.astype(np.float32)
    labels = tuple(row["label"] for row in rows)
    features = Features(tuple(row["file"] for row in rows), labels, views, mask, directions, setting)
    styles = _STYLES.get(setting, ("texture",))
    config = AdapterConfig(setting, "mobilenet", rig_of(setting), styles, _SIZE, views.shape[2], views.shape[3])
    return Psb(features, is_train, ~is_train, ~is_train, config)


def _encoded(setting: str, files: list[str]) -> tuple[NDArray[np.float16], NDArray[np.bool_]]:
    """(N, S, V, D) view vectors and (N, V) mask. The settings with the same renders are encoded together."""
    path = data.WORK / f"weights-{setting}.npz"
    if not path.exists():
        together = _ON_THE_RING if setting in _ON_THE_RING else (setting,)
        chosen = tuple(map(str, np.random.default_rng(7).choice(np.array(files, dtype=object), _CLUTTER_MESHES)))
        jobs = partial(_encode_one, together, data.mobilenet(), chosen)
        with ProcessPoolExecutor(2, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
            found = list(pool.map(jobs, files, range(len(files)), chunksize=8))
        for name in together:
            part = path.with_suffix(".part.npz")
            np.savez(
                part, views=np.stack([views[name] for views, _ in found]), mask=np.stack([mask for _, mask in found])
            )
            part.replace(data.WORK / f"weights-{name}.npz")
    with np.load(path) as file:
        return file["views"], file["mask"]


def _encode_one(
    settings: tuple[str, ...], encoder: str, clutter: tuple[str, ...], file: str, number: int
) -> tuple[dict[str, NDArray[np.float16]], NDArray[np.bool_]]:
    """View vectors (S, V, D) by setting, and mask (V,), of one mesh, in a process of its own."""
    views = _render_one(settings[0], file, number)
    encode = _encoder(encoder).encode_views
    flat = views.images.reshape(-1, *views.images.shape[2:])
    plain = encode(flat).astype(np.float16).reshape(*views.images.shape[:2], -1)
    vectors: dict[str, NDArray[np.float16]] = {}
    for setting in settings:
        vectors[setting] = own = plain.copy()
        if setting in ("occluded", "photos"):
            rng = np.random.default_rng((SETTINGS.index(setting), number))
            changed = np.flatnonzero(rng.random(len(flat)) < _SHARE)
            if len(changed):
                images = [
                    _occluded(flat[v], rng) if setting == "occluded" else _photo(flat[v], clutter, rng) for v in changed
                ]
                own[0, changed] = encode(np.stack(images)).astype(np.float16)
    return vectors, views.mask


@cache
def _encoder(name: str) -> ViewEncoder:
    return open_encoder(name, "cpu")


@cache
def _renderer() -> Renderer:
    return open_renderer("raster")


def _render_one(setting: str, file: str, number: int) -> Views:
    mesh = load(Path(file)).mesh
    if setting == "turned":
        turned = Rotation.random(random_state=np.random.default_rng(number)).apply(mesh.vertices)
        mesh = Mesh(turned.astype(np.float32), mesh.faces)
    rig = parse_rig(rig_of(setting))
    return _renderer().render(normalize(mesh, rig.fit), rig, _STYLES.get(setting, ("texture",)), _SIZE)


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
