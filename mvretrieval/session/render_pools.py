"""Render workers of an open collection, started when they are first needed and kept until it is closed."""

from __future__ import annotations

import threading
from typing import Any

from mvrender.backends.selection import choose_backend
from mvrender.mesh import Limits
from mvrender.pool import RenderPool, RenderSpec
from mvretrieval.describe import Describer
from mvretrieval.errors import DescriberError

THUMBNAIL_SIZE = 112


class RenderPools:
    """One pool of workers for each way in which views have been asked for."""

    def __init__(self) -> None:
        self._pools: dict[tuple[Any, ...], RenderPool] = {}
        self._lock = threading.Lock()

    def get(self, describer: Describer, workers: int | None, limits: Limits) -> RenderPool:
        """Workers that render what `describer` looks at.

        Args:
            describer: its rig, styles, size and backend count.
            workers: processes; one per core by default.
            limits: what one file may cost.

        Raises:
            DescriberError: nobody knows where its cameras stand.
        """
        if not describer.rig.is_known:
            raise DescriberError(
                f"no mesh can be seen as these objects were: they came as {describer.rig.n_views} pictures from unknown "
                "directions. Ask with pictures, words or an object's id, and index meshes into a collection of their own"
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
