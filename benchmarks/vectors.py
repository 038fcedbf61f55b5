"""Any number of vectors with a realistic distribution, and collections of them.

Source: the 21,708 view vectors of PSB's meshes by MobileNetV2, centred, projected to their 512 principal axes (0.93 of the
variance), unit norm. One object in twenty is held out; its views are the queries. A gallery vector is made from the others:

    unit((1 - t) a + t b + 0.3 s z),   t uniform in 0..1/2, z normal, s the deviation of each axis

where a is a random view and b one of its 32 nearest. The density around a query is that of views of so many meshes:
with a million, the mean cosine of the 1st, 10th, 100th and 1000th neighbour is 0.74, 0.72, 0.68 and 0.58, with the original views
0.72, 0.63, 0.45 and 0.25; two random vectors have 0.
"""

from __future__ import annotations

import hashlib
import shutil
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import data
from benchmarks.psb import psb
from mvretrieval.api import Collection
from mvretrieval.describe import DescriberConfig
from mvretrieval.index.kinds import EXACT_UP_TO
from mvretrieval.normalize import l2_normalize
from mvretrieval.store.store import NewObject

DIM = 512
CLASSES = 100
_NEAR = 32
_JITTER = 0.3
_HELD_OUT = 0.05
_AT_ONCE = 1 << 16

Vectors = NDArray[np.float32]


@cache
def real() -> tuple[Vectors, Vectors]:
    """Source views of the gallery, and views of held-out objects."""
    views = l2_normalize(psb().features.views[:, 0].astype(np.float32))
    order = np.random.default_rng(0).permutation(len(views))
    n_held = int(_HELD_OUT * len(views))
    held, kept = (views[some].reshape(-1, views.shape[-1]) for some in (order[:n_held], order[n_held:]))
    mean = kept.mean(axis=0)
    axes = np.linalg.eigh(np.cov(kept, rowvar=False))[1][:, ::-1][:, :DIM].astype(np.float32)
    return l2_normalize((kept - mean) @ axes), l2_normalize((held - mean) @ axes)


@cache
def _digest() -> str:
    """8 hex digits over the source views: queries match only a gallery made from the same views."""
    return hashlib.sha256(real()[0].tobytes()).hexdigest()[:8]


@cache
def _near() -> NDArray[np.int64]:
    kept = real()[0]
    near = []
    for start in range(0, len(kept), 1024):
        scores = kept[start : start + 1024] @ kept.T
        scores[np.arange(len(scores)), start + np.arange(len(scores))] = -np.inf
        near.append(np.argpartition(-scores, _NEAR, axis=1)[:, :_NEAR])
    return np.concatenate(near)


def gallery(n: int) -> Vectors:
    """(n, 512) gallery, generated once and memory-mapped."""
    path = data.WORK / f"vectors-{n}-{_digest()}.npy"
    if not path.exists():
        part = path.with_suffix(".part")
        out = np.lib.format.open_memmap(part, "w+", np.float32, (n, DIM))
        kept, near, rng = real()[0], _near(), np.random.default_rng(1)
        deviation = kept.std(axis=0)
        for start in range(0, n, _AT_ONCE):
            size = min(_AT_ONCE, n - start)
            a = rng.integers(len(kept), size=size)
            b = near[a, rng.integers(_NEAR, size=size)]
            t = rng.uniform(0, 0.5, (size, 1)).astype(np.float32)
            noise = _JITTER * deviation * rng.standard_normal((size, DIM), np.float32)
            out[start : start + size] = l2_normalize((1 - t) * kept[a] + t * kept[b] + noise)
        out.flush()
        part.rename(path)
    return np.asarray(np.load(path, mmap_mode="r"))


def query_vectors(n: int) -> Vectors:
    """(n, 512) held-out views, in a fixed order."""
    held = real()[1]
    return np.ascontiguousarray(held[np.random.default_rng(2).permutation(len(held))[:n]])


def new_object(name: str, vector: Vectors, n_views: int) -> NewObject:
    """An object record as `mvr index` writes it; each view is a perturbed copy of the vector."""
    views = np.stack([np.roll(vector, v) * 0.2 + vector for v in range(n_views)])
    return NewObject(
        name, f"/meshes/{name}", name, "[[1, 2]]", {"format": "off", "faces": 5000}, (),
        vector=vector, view_vectors=views[None].astype(np.float16), view_mask=np.ones(n_views, bool),
    )  # fmt: skip


def collection_of(n: int, n_views: int) -> Path:
    """Folder of a collection of `gallery(n)`, built once; each object has `n_views` views and one of a hundred labels.

    A million objects with one view take 8 GB; with twelve they would take 20.
    """
    folder = data.WORK / f"search-{n}-{n_views}-{_digest()}"
    if folder.exists():
        return folder
    part = folder.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    labels = np.random.default_rng(3).integers(CLASSES, size=n)
    vectors = gallery(n)
    index = "auto" if n <= EXACT_UP_TO else "ivf"  # the smallest
    config = DescriberConfig(encoder="builtin:", rig=f"ring:{n_views}@30")
    with Collection.create(part, config, index=index) as collection:
        store = collection.session.store
        store.set_meta("view_dim", DIM)
        for start in range(0, n, _AT_ONCE):
            with store.transaction():
                sequence = store.next_sequence()
                for i in range(start, min(n, start + _AT_ONCE)):
                    row_id = store.put(new_object(f"object-{i:07}.off", vectors[i], n_views), sequence)
                    store.set_metadata(row_id, {"label": f"class {labels[i]}"})
    part.rename(folder)
    return folder
