"""Render workers of an open collection: started on first use, kept until the collection is closed."""

from __future__ import annotations

import threading
from typing import Any

from mvrender.backends.selection import choose_backend
from mvrender.jobs import RenderSpec
from mvrender.mesh import Limits
from mvrender.pool import RenderPool
from mvretrieval.describe import Describer
from mvretrieval.errors import DescriberError

THUMBNAIL_SIZE = 112


class RenderPools:
    """One pool of render workers per combination of rig, styles, size, backend, worker count and limits."""

    def __init__(self) -> None:
        self._pools: dict[tuple[Any, ...], RenderPool] = {}
        self._lock = threading.Lock()

    def get(self, describer: Describer, workers: int | None, limits: Limits) -> RenderPool:
        """Render workers for the views of a describer.

        Args:
            describer: gives rig, styles, size and backend.
            workers: processes; one per core by default.
            limits: time and memory for one file.

        Raises:
            DescriberError: its rig has unknown directions (`unknown_directions`), or it has no encoder (`imported_vectors`).
        """
        if not describer.config.has_encoder:
            raise DescriberError(
                "meshes cannot be indexed or rendered for this collection: it holds vectors that were computed elsewhere. Add "
                "vectors with 'mvr import', and index meshes into their own collection",
                code="imported_vectors",
            )
        if not describer.rig.is_known:
            n_views = describer.rig.n_views
            raise DescriberError(
                f"meshes cannot be rendered for this collection: its objects have {n_views} view{'' if n_views == 1 else 's'} of "
                "unknown direction. Query with images, text or the id of an object, and index meshes into their own collection",
                code="unknown_directions",
            )
        backend, _ = choose_backend(describer.backend)
        config = describer.config
        key = (backend, config.rig, config.styles, config.size, workers, limits)
        with self._lock:
            if key not in self._pools:
                spec = RenderSpec(
                    rig=describer.rig,
                    styles=config.styles,
                    size=config.size,
                    backend=backend,
                    limits=limits,
                    strip_size=THUMBNAIL_SIZE,
                )
                self._pools[key] = RenderPool(spec, workers)
            return self._pools[key]

    def for_images(self, describer: Describer, workers: int | None, limits: Limits) -> RenderPool:
        """Workers that decode images: those for views, or of a collection without rendered views, others."""
        if describer.rig.is_known and describer.config.has_encoder:
            return self.get(describer, workers, limits)
        with self._lock:
            key = ("images", workers, limits)
            if key not in self._pools:
                self._pools[key] = RenderPool(RenderSpec(limits=limits), workers)
            return self._pools[key]

    def close(self) -> None:
        """Stop all workers."""
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()
