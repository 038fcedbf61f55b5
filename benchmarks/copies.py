"""Collections of any size, made of copies of real objects."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks import data
from benchmarks.commands import fresh
from mvretrieval.api import Collection
from mvretrieval.describe import DescriberConfig

_MESHES = 200


def collection_of(count: int, name: str, encoder: str) -> Path:
    """Build a collection of `count` objects: 200 of PSB, and copies with slightly perturbed vectors.

    Args:
        count: number of objects.
        name: of the folder.
        encoder: of the collection.
    """
    folder = fresh(name)
    rng = np.random.default_rng(0)
    with Collection.create(folder, DescriberConfig(encoder)) as collection:
        collection.add_folder(data.fixed_psb(_MESHES))
        store, rig = collection.session.store, collection.describer.rig
        originals = [
            store.whole(int(row_id), (1, rig.n_views, collection.session.dim)) for row_id in store.select(None)
        ]
        for start in range(0, count - len(originals), 1000):
            with store.transaction():
                change = store.next_sequence()
                for i in range(start, min(start + 1000, count - len(originals))):
                    original = originals[i % len(originals)]
                    moved = original.vector + rng.normal(0, 0.02, len(original.vector)).astype(np.float32)
                    copy = f"copy {i} of {original.id}"
                    vector = moved / np.linalg.norm(moved)
                    store.put(
                        replace(original, id=copy, path=f"/copies/{copy}", content_hash=copy, vector=vector), change
                    )
    return folder
