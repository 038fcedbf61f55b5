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
            DescriberError: its rig has unknown directions (code `unknown_directions`).
        """
        if not describer.rig.is_known:
            raise DescriberError(
                f"meshes cannot be rendered for this collection: its objects are {describer.rig.n_views} images from unknown "
                "directions. Query with images, text or the id of an object, and index meshes into their own collection",
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

    def close(self) -> None:
        """Stop all workers."""
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()
