"""Tell what is in a collection, how it was described, and what could not be indexed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from mvretrieval.api import Collection
from mvretrieval.confidence.calibration import calibration_of, is_outdated
from mvretrieval.console import print_json, table
from mvretrieval.ingest.view_images import FORMAT
from mvretrieval.store.augmented import augmentation_of, is_up_to_date


@dataclass(frozen=True)
class Options:
    """Options of `mvr info`.

    Attributes:
        collection: folder of the collection.
        failures: list every file that could not be indexed, and why.
        notes: list what was left out of objects while loading.
        json: one JSON object.
    """

    collection: tyro.conf.Positional[Path]
    failures: bool = False
    notes: bool = False
    json: bool = False


def run(options: Options) -> int:
    """Print what is known."""
    with Collection.open(options.collection) as collection:
        facts = _facts(collection)
        failures = collection.store.failures()
        notes = _notes(collection) if options.notes else []
    if options.json:
        facts["failures"] = [{"path": p, "code": c, "message": m} for p, c, m in failures]
        print_json(facts | ({"notes": notes} if options.notes else {}))
        return 0
    print("\n".join(f"{name:<12}{value}" for name, value in facts.items()))
    if failures:
        counts = Counter(code for _, code, _ in failures)
        print(f"{'failures':<12}" + ", ".join(f"{n} {code}" for code, n in counts.most_common()))
    if options.failures and failures:
        print(table([[code, path, message] for path, code, message in failures], ["code", "file", "why"]))
    for object_id, note in notes:
        print(f"{object_id}: {note}")
    return 0


def _facts(collection: Collection) -> dict[str, Any]:
    describer, store = collection.describer, collection.store
    config = describer.config
    whitening = describer.whitening
    adapter = describer.adapter
    if adapter is not None:
        parts = (
            f"adapter {adapter.fingerprint} ({adapter.config.network.kind}, {len(adapter.config.classes)} classes seen)"
        )
        adapted = parts if adapter.text_embeddings is None else f"{parts}, knows {len(adapter.text_embeddings)} names"
    elif config.wants_whitening:
        wanted = f"whitened to {config.whiten} dimensions" if config.whiten else "centred"
        adapted = f"{wanted}, fitted on {whitening.n_views} views" if whitening else f"to be {wanted}: not fitted yet"
    else:
        adapted = "raw"
    if adapter is None:
        adapted += f", {config.pooling} pooling"
    size = sum(file.stat().st_size for file in collection.folder.iterdir() if file.is_file())
    index = collection.session.index.get()
    return {
        "objects": len(collection),
        "encoder": f"{config.encoder} ({store.get_meta('precision')})",
        "views": f"{describer.rig.short_name}, {', '.join(config.styles)}, {config.size} px{_given(collection)}",
        "vectors": f"{adapted}, {index.dim} dimensions",
        "smoothing": _smoothing(collection),
        "confidence": _confidence(collection),
        "index": f"{index.kind}, {len(index)} objects",
        "labels": ", ".join(store.metadata_columns()) or "none",
        "size": f"{size / 1e6:.1f} MB",
    }


def _given(collection: Collection) -> str:
    """How many objects came as pictures."""
    given = collection.store.count_of_format(FORMAT)
    if not given:
        return ""
    return "; given as pictures" if given == len(collection) else f"; {given} objects given as pictures"


def _smoothing(collection: Collection) -> str:
    setting = augmentation_of(collection.store)
    if setting is None:
        return "none"
    outdated = (
        "" if is_up_to_date(collection.store) else "; neighbours have changed, the next 'mvr index' takes them in"
    )
    return f"{setting}{outdated}"


def _confidence(collection: Collection) -> str:
    calibration = calibration_of(collection.store)
    if calibration is None:
        return "none"
    if is_outdated(collection.store, calibration):
        return f"outdated ({calibration.summary}): described anew since, so that hits carry none; run 'mvr calibrate' again"
    return calibration.summary


def _notes(collection: Collection) -> list[tuple[str, str]]:
    row_ids = [int(n) for n in collection.store.select(None)]
    records = collection.store.records(row_ids)
    return [(records[n].id, note) for n in row_ids for note in records[n].notes]
