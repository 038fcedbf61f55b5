"""A collection of random view vectors in classes, without meshes or rendering."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
from made_meshes import new_object, unit
from PIL import Image

from mvretrieval.api import Collection, OpenOptions
from mvretrieval.describe import DescriberConfig

N_CLASSES, N_PER_CLASS, N_UNLABELLED = 12, 8, 4


def make_synthetic_classes(folder: Path, config: DescriberConfig) -> Collection:
    """Create 96 objects of twelve classes and four without a label, with three views each.

    Labels: `label` (class), `same` (equal for all), `own` (different for all), `split` (a or b).
    """
    rng = np.random.default_rng(3)
    collection = Collection.create(folder, config, OpenOptions(workers=1))
    store, describer = collection.session.store, collection.describer
    dim = describer.encoder.dim
    centres = unit(rng.normal(size=(N_CLASSES, dim)) + 1.2 * rng.normal(size=dim))
    with store.transaction():
        sequence = store.next_sequence()
        for i in range(N_CLASSES * N_PER_CLASS + N_UNLABELLED):
            class_id = i % N_CLASSES
            labeled = i < N_CLASSES * N_PER_CLASS
            centre = centres[class_id] if labeled else unit(rng.normal(size=dim))
            # Some classes are narrow, some wide.
            own = centre + (0.5 + class_id / 8) * rng.normal(size=dim) / math.sqrt(dim)
            views = unit(own + 0.5 * rng.normal(size=(1, 3, dim)) / math.sqrt(dim)).astype(np.float16)
            mask = np.ones(3, bool)
            vector, _ = describer.pool(views[None].astype(np.float32), mask[None])
            made = replace(new_object(f"{i:03d}.ply", vector[0]), view_vectors=views, view_mask=mask, strip=_strip())
            row_id = store.put(made, sequence)
            if labeled:
                split = "a" if class_id < N_CLASSES // 2 else "b"
                labels = {"label": f"class {class_id}", "same": "one", "own": f"o{i}", "split": split}
                store.set_metadata(row_id, labels)
    return collection


def _strip() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (24, 8), "white").save(out, "WEBP")
    return out.getvalue()
