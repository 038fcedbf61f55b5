"""Writing the object vectors of a collection as a FAISS index that plain FAISS opens."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from mvretrieval.errors import CollectionError
from mvretrieval.index.faiss_candidates import index_of_vectors, metric_of, reason_of, write_index
from mvretrieval.index.kinds import IndexKind
from mvretrieval.session.session import Session
from mvretrieval.store.augmented import search_vectors

IDS_SUFFIX = ".json"
"""Added to the name of the index: a JSON object whose `ids` are in the order of the vectors."""

_SCHEMA = 1


def export_faiss(session: Session, path: Path, kind: IndexKind = "exact", where: str | None = None) -> int:
    """Write a FAISS index of the vectors that searches use, and beside it a JSON file with their ids.

    The i-th vector of the index is that of `ids[i]`. Vectors have unit norm. `metric` in the JSON file is `inner product`, where
    larger is better, or `L2`, where smaller is.

    Args:
        session: of the collection.
        path: of the index; the ids go to the same name with `.json` added.
        kind: `exact` or `auto` (a flat index), `hnsw`, `ivf` or a FAISS factory string.
        where: filter of the objects; all by default.

    Returns:
        Number of vectors.

    Raises:
        CollectionError: there are no objects or too few for this kind, or a file cannot be written.
        FilterError: the filter cannot be parsed.
    """
    with session.store.snapshot():
        row_ids = session.store.select(where).tolist()
        if not row_ids:
            raise CollectionError(
                f"{session.folder} has no objects" + (f" where {where}" if where else ""), code="nothing_to_export"
            )
        found, vectors = search_vectors(session.store, row_ids)
        records = session.store.records(found.tolist())
        about: dict[str, Any] = {
            "schema": _SCHEMA,
            "kind": kind,
            "dim": int(vectors.shape[1]),
            "describer": session.describer.fingerprint,
            "ids": [records[row_id].id for row_id in found.tolist()],
        }
    ids_path = path.with_name(path.name + IDS_SUFFIX)
    parts = [file.with_name(file.name + ".part") for file in (path, ids_path)]
    index = None
    try:
        index = index_of_vectors(kind, np.ascontiguousarray(vectors))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_index(index, parts[0])
        about["metric"] = metric_of(index)
        parts[1].write_text(json.dumps(about, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        for part, file in zip(parts, (path, ids_path), strict=True):
            part.replace(file)
    except (OSError, RuntimeError) as error:
        for part in parts:
            with suppress(OSError):
                part.unlink(missing_ok=True)
        fix = "free space, or give another file" if index is not None else "give another --index"
        reason = getattr(error, "strerror", None) or reason_of(error)
        raise CollectionError(f"{path} was not written ({reason}): {fix}", code="export_failed") from error
    return len(found)
