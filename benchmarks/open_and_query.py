"""Open a collection and query it a hundred times: seconds from import to the first result, and private memory in bytes.

`python -m benchmarks.open_and_query COLLECTION QUERIES.npy` prints JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path


def _own_bytes() -> int:
    """Private anonymous memory: excludes mapped files and everything that the system can drop."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
    return int(fields["Anonymous"].split()[0]) * 1024


def main() -> None:
    """Print the measurements."""
    started = time.monotonic()
    import numpy as np

    from mvretrieval.api import Collection
    from mvretrieval.search.query import Query

    queries = np.load(sys.argv[2])
    with Collection.open(sys.argv[1]) as collection:
        hits = collection.search(Query(vector=queries[0]))
        seconds = time.monotonic() - started
        for query in queries[1:]:
            collection.search(Query(vector=query))
        print(json.dumps({"seconds": seconds, "bytes": _own_bytes(), "hits": [hit.id for hit in hits]}))


if __name__ == "__main__":
    main()
