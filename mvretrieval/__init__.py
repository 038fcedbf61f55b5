"""Find 3D objects by what they look like.

Example:
    from mvretrieval import Collection, Query

    with Collection.create("things/") as things:
        things.add_folder("meshes/")
        for hit in things.search(Query(mesh="chair.glb")):
            print(hit.rank, hit.id, hit.score)
"""

from __future__ import annotations

import importlib
import os
from typing import Any

__version__ = "0.1.0"

# After each product of matrices, numpy's OpenBLAS lets its threads spin for a tenth of a second: on cores that the encoder
# and the renderer need. A mesh query took 140 ms instead of 115. It has to be said before numpy is imported.
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")

_PLACES = {
    "Client": "client",
    "Collection": "api",
    "Describer": "describe",
    "DescriberConfig": "describe",
    "Hit": "search.pipeline",
    "IndexOptions": "ingest.indexing",
    "IndexReport": "ingest.indexing",
    "MvrError": "errors",
    "OpenOptions": "api",
    "Query": "search.query",
    "Refinement": "search.options",
    "Term": "search.query",
    "leave_one_out": "evaluation.metrics",
    "open_encoder": "encoders.registry",
}
__all__ = sorted(_PLACES)


def __getattr__(name: str) -> Any:
    """Import on first use: torch and faiss cost seconds, and not every use needs them."""
    if name not in _PLACES:
        raise AttributeError(f"module 'mvretrieval' has no attribute '{name}'")
    return getattr(importlib.import_module(f"mvretrieval.{_PLACES[name]}"), name)
