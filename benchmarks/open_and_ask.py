"""Open a collection, ask once, then a hundred times: seconds from importing to the first answer, and bytes of memory of its own.

It takes the folder of a collection and a .npy file of questions.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path


def _own_bytes() -> int:
    """Memory that is this process's alone: neither files mapped into it nor what the system can drop and read again."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
    return int(fields["Anonymous"].split()[0]) * 1024


def main() -> None:
    """See above."""
    started = time.monotonic()
    import numpy as np

    from mvretrieval.api import Collection
    from mvretrieval.search.query import Query

    questions = np.load(sys.argv[2])
    with Collection.open(sys.argv[1]) as collection:
        hits = collection.search(Query(vector=questions[0]))
        seconds = time.monotonic() - started
        for question in questions[1:]:
            collection.search(Query(vector=question))
        print(json.dumps({"seconds": seconds, "bytes": _own_bytes(), "hits": [hit.id for hit in hits]}))


if __name__ == "__main__":
    main()
