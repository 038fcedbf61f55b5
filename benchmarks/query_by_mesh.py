"""Milliseconds from a mesh file to ten hits in a warm process: `python -m benchmarks.query_by_mesh COLLECTION MESH`, as JSON."""

from __future__ import annotations

import json
import statistics
import sys
import time

from mvretrieval import Collection, Query

_TIMES = 20


def main() -> None:
    """Print the median time, after three queries for warm-up."""
    folder, mesh = sys.argv[1:]
    taken = []
    with Collection.open(folder) as collection:
        for i in range(-3, _TIMES):
            started = time.monotonic()
            collection.search(Query(mesh=mesh))
            if i >= 0:
                taken.append(1000 * (time.monotonic() - started))
    print(json.dumps({"ms": statistics.median(taken)}))


if __name__ == "__main__":
    main()
