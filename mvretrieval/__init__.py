"""Open-set retrieval of 3D objects by rendered views.

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
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mvrender.plugins import register
    from mvrender.render_views import render_views
    from mvretrieval.api import Collection
    from mvretrieval.client import Client
    from mvretrieval.describe import Describer, DescriberConfig
    from mvretrieval.encoders.registry import open_encoder
    from mvretrieval.errors import MvrError
    from mvretrieval.evaluation.metrics import leave_one_out
    from mvretrieval.evaluation.zero_shot.evaluate import ZeroShotOptions, evaluate_zero_shot
    from mvretrieval.evaluation.zero_shot.view_fusion import ViewFusion
    from mvretrieval.index.kinds import IndexParameters
    from mvretrieval.ingest.import_run import ImportReport
    from mvretrieval.ingest.import_vectors import import_vectors
    from mvretrieval.ingest.index_report import IndexOptions, IndexReport
    from mvretrieval.search.hits import Hit
    from mvretrieval.search.options import RerankOptions, SearchOptions
    from mvretrieval.search.query import Query, Term
    from mvretrieval.session.options import OpenOptions
    from mvretrieval.weighting.adapter import Adapter
    from mvretrieval.weighting.adaptive_layer import AdaptiveLayer
    from mvretrieval.weighting.view_weighting import ViewWeighting, ViewWeightingConfig

__version__ = "0.2.0.dev0"

# After each matrix product, the threads of numpy's OpenBLAS spin for 0.1 s, on cores that the encoder and the renderer need:
# a mesh query took 140 ms instead of 115 ms. The variable must be set before numpy is imported.
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")

# Type checkers read the imports above, Python this table: torch and faiss cost seconds, and not every use needs them.
_MODULES = {
    "Adapter": "mvretrieval.weighting.adapter",
    "AdaptiveLayer": "mvretrieval.weighting.adaptive_layer",
    "Client": "mvretrieval.client",
    "Collection": "mvretrieval.api",
    "Describer": "mvretrieval.describe",
    "DescriberConfig": "mvretrieval.describe",
    "Hit": "mvretrieval.search.hits",
    "ImportReport": "mvretrieval.ingest.import_run",
    "IndexOptions": "mvretrieval.ingest.index_report",
    "IndexParameters": "mvretrieval.index.kinds",
    "IndexReport": "mvretrieval.ingest.index_report",
    "MvrError": "mvretrieval.errors",
    "OpenOptions": "mvretrieval.session.options",
    "Query": "mvretrieval.search.query",
    "RerankOptions": "mvretrieval.search.options",
    "SearchOptions": "mvretrieval.search.options",
    "Term": "mvretrieval.search.query",
    "ViewFusion": "mvretrieval.evaluation.zero_shot.view_fusion",
    "ViewWeighting": "mvretrieval.weighting.view_weighting",
    "ViewWeightingConfig": "mvretrieval.weighting.view_weighting",
    "ZeroShotOptions": "mvretrieval.evaluation.zero_shot.evaluate",
    "evaluate_zero_shot": "mvretrieval.evaluation.zero_shot.evaluate",
    "import_vectors": "mvretrieval.ingest.import_vectors",
    "leave_one_out": "mvretrieval.evaluation.metrics",
    "open_encoder": "mvretrieval.encoders.registry",
    "register": "mvrender.plugins",
    "render_views": "mvrender.render_views",
}
__all__ = [
    "Adapter",
    "AdaptiveLayer",
    "Client",
    "Collection",
    "Describer",
    "DescriberConfig",
    "Hit",
    "ImportReport",
    "IndexOptions",
    "IndexParameters",
    "IndexReport",
    "MvrError",
    "OpenOptions",
    "Query",
    "RerankOptions",
    "SearchOptions",
    "Term",
    "ViewFusion",
    "ViewWeighting",
    "ViewWeightingConfig",
    "ZeroShotOptions",
    "evaluate_zero_shot",
    "import_vectors",
    "leave_one_out",
    "open_encoder",
    "register",
    "render_views",
]


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])


if not TYPE_CHECKING:  # a type checker would take it to mean that any name exists

    def __getattr__(name: str) -> Any:
        """Import a public name on first use."""
        if name not in _MODULES:
            raise AttributeError(f"module 'mvretrieval' has no attribute '{name}'")
        value = getattr(importlib.import_module(_MODULES[name]), name)
        globals()[name] = value
        return value
