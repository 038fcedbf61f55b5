"""Show what a collection holds, how it is embedded, and which files failed."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tyro

from mvretrieval.api import Collection
from mvretrieval.confidence.calibration import calibration_of, is_outdated
from mvretrieval.console import counted, print_json, table
from mvretrieval.ingest.imported_objects import FORMAT as IMPORTED
from mvretrieval.ingest.index_report import PASSED_OVER
from mvretrieval.ingest.outdated import outdated_by_format
from mvretrieval.ingest.view_images import FORMAT
from mvretrieval.session.session import Session
from mvretrieval.store.augmented import augmentation_of, is_up_to_date


@dataclass(frozen=True)
class Options:
    """Options of `mvr info`.

    Attributes:
        collection: folder of the collection.
        failures: list every file that failed, with the reason.
        notes: list what loading noted about objects, such as ignored parts, by kind; --json has them by object too.
        json: print one JSON object, with numbers as numbers.
    """

    collection: tyro.conf.Positional[Path]
    failures: bool = False
    notes: bool = False
    json: bool = False


def run(options: Options) -> int:
    """Print the facts about a collection."""
    with Collection.open(options.collection) as collection:
        session = collection.session
        facts = _facts(session)
        failures = session.store.failures()
        notes = _notes(session) if options.notes else []
    kinds = _kinds(notes)
    if options.json:
        facts["failures"] = [{"path": p, "code": c, "message": m} for p, c, m in failures]
        print_json(facts | ({"notes": notes, "note_kinds": kinds} if options.notes else {}))
        return 0
    print("\n".join(f"{name:<14}{value}" for name, value in _lines(facts).items()))
    if failures:
        counts = Counter(code for _, code, _ in failures)
        print(f"{'failures':<14}" + ", ".join(f"{n} {code}" for code, n in counts.most_common()))
    elif options.failures:
        print(f"{'failures':<14}none")
    if options.failures and failures:
        print(table([[code, path, message] for path, code, message in failures], ["code", "file", "reason"]))
    if kinds:
        rows = [[str(kind["objects"]), kind["note"], kind["example"]] for kind in kinds]
        print(table(rows, ["objects", "note", "such as"]))
    elif options.notes:
        print(f"{'notes':<14}none")
    return 0


def _facts(session: Session) -> dict[str, Any]:
    """What `--json` prints, without the failures."""
    describer, store = session.describer, session.store
    config = describer.config
    index = session.index.get()
    return {
        "objects": len(session),
        "encoder": {"id": config.encoder, "precision": store.get_meta("precision")},
        "views": {
            "rig": describer.rig.short_name,
            "n_views": describer.rig.n_views,
            "styles": list(config.styles),
            "size": config.size,
            "from_images": store.count_of_format(FORMAT),
            "imported": store.count_of_format(IMPORTED),
        },
        "vectors": {"dim": index.dim, **_weighting(session)},
        "augmentation": _augmentation(session),
        "confidence": _confidence(session),
        "index": {"kind": index.kind, "wanted": store.get_meta("index", "auto"), "objects": len(index)},
        "labels": list(store.metadata_columns()),
        "outdated": outdated_by_format(session),
        "passed_over": store.read_meta(PASSED_OVER, json.loads) or {},
        "size_bytes": _size(session.folder),
    }


def _weighting(session: Session) -> dict[str, Any]:
    config, whitening, adapter = session.describer.config, session.describer.whitening, session.describer.adapter
    if adapter is not None:
        names = adapter.text_embeddings
        found = {
            "fingerprint": adapter.fingerprint,
            "kind": adapter.config.network.kind,
            "classes": len(adapter.config.classes),
            "class_names": 0 if names is None else len(names),
        }
        return {"adapter": found, "whitening": None, "pooling": None}
    fitted = None
    if config.wants_whitening:
        fitted = {
            "whiten": config.whiten,
            "center": config.center,
            "fitted_on_views": None if whitening is None else whitening.n_views,
        }
    return {"adapter": None, "whitening": fitted, "pooling": config.pooling}


def _augmentation(session: Session) -> dict[str, Any] | None:
    config = augmentation_of(session.store)
    return None if config is None else {**asdict(config), "up_to_date": is_up_to_date(session.store)}


def _confidence(session: Session) -> dict[str, Any] | None:
    calibration = calibration_of(session.store)
    if calibration is None:
        return None
    return {
        "by": calibration.by,
        "where": calibration.where,
        "errors": {name: curve.error for name, curve in calibration.curves.items()},
        "outdated": is_outdated(session.store, calibration),
        "summary": calibration.summary,
    }


def _notes(session: Session) -> list[tuple[str, str]]:
    row_ids = session.store.select(None).tolist()
    records = session.store.records(row_ids)
    return [(records[n].id, note) for n in row_ids for note in records[n].notes]


def _kinds(notes: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """Notes that differ only in names and numbers, the most frequent first: number of objects, text, and an example."""
    objects: dict[str, dict[str, str]] = {}
    for object_id, note in notes:
        kind = re.sub(r"\d[\d,.]*", "N", re.sub(r"'[^']*'", "'...'", note))
        objects.setdefault(kind, {}).setdefault(object_id, note)
    found = [
        {
            "objects": len(own),
            "note": next(iter(own.values())) if len(set(own.values())) == 1 else kind,
            "example": min(own),
        }
        for kind, own in objects.items()
    ]
    return sorted(found, key=lambda kind: -kind["objects"])


# -- as text -----------------------------------------------------------------------------------------------------------


def _lines(facts: dict[str, Any]) -> dict[str, str]:
    index = facts["index"]
    return {
        "objects": str(facts["objects"]),
        "encoder": f"{facts['encoder']['id']} ({facts['encoder']['precision']})",
        "views": _views_line(facts["views"], facts["objects"]),
        "vectors": f"{_weighting_line(facts['vectors'])}, {facts['vectors']['dim']} dimensions",
        "augmentation": _augmentation_line(facts["augmentation"]),
        "confidence": _confidence_line(facts["confidence"]),
        "index": f"{_index_line(index)}, {counted(index['objects'], 'object')}",
        "labels": ", ".join(facts["labels"]) or "none",
        **({"outdated": _outdated_line(facts["outdated"])} if facts["outdated"] else {}),
        **({"passed over": _passed_over_line(facts["passed_over"])} if facts["passed_over"] else {}),
        "size": "unknown: the folder may not be listed"
        if facts["size_bytes"] is None
        else f"{facts['size_bytes'] / 1e6:.1f} MB",
    }


def _views_line(views: dict[str, Any], n_objects: int) -> str:
    if views["imported"]:
        return "none, all vectors were imported"
    given = views["from_images"]
    from_images = f"; {'all' if given == n_objects else given} given as images" if given else ""
    return f"{views['rig']}, {', '.join(views['styles'])}, {views['size']} px{from_images}"


def _outdated_line(counts: dict[str, int]) -> str:
    kinds = ", ".join(f"{n} {name}" for name, n in counts.items())
    total = counted(sum(counts.values()), "object")
    return f"{total} may look different with the present readers ({kinds}): 'mvr reindex COLLECTION --outdated'"


def _passed_over_line(counts: dict[str, int]) -> str:
    kinds = ", ".join(f"{n} {suffix}" for suffix, n in sorted(counts.items(), key=lambda item: -item[1]))
    return f"{counted(sum(counts.values()), 'file')} in the last run: {kinds}"


def _index_line(index: dict[str, Any]) -> str:
    kind, wanted = index["kind"], index["wanted"]
    return kind if wanted in (kind, "auto") else f"{kind} ({wanted} with more objects)"


def _weighting_line(vectors: dict[str, Any]) -> str:
    if adapter := vectors["adapter"]:
        names = f", {adapter['class_names']} class names" if adapter["class_names"] else ""
        return f"adapter {adapter['fingerprint']} ({adapter['kind']}, {adapter['classes']} training classes{names})"
    whitening = vectors["whitening"]
    if not whitening:
        return f"{vectors['pooling']} pooling"
    kind = f"whitening to {whitening['whiten']} dimensions" if whitening["whiten"] else "centring"
    views = whitening["fitted_on_views"]
    return f"{kind}, {'not fitted yet' if views is None else f'fitted on {views} views'}, {vectors['pooling']} pooling"


def _augmentation_line(augmentation: dict[str, Any] | None) -> str:
    if augmentation is None:
        return "none"
    outdated = "" if augmentation["up_to_date"] else "; outdated for some objects until the next 'mvr index'"
    return f"{augmentation['k']} neighbours, alpha {augmentation['alpha']:g}{outdated}"


def _confidence_line(confidence: dict[str, Any] | None) -> str:
    if confidence is None:
        return "none"
    if confidence["outdated"]:
        return f"outdated ({confidence['summary']}): re-embedded since; run 'mvr calibrate' again"
    return str(confidence["summary"])


def _size(folder: Path) -> int | None:
    """Size of the collection's files in bytes; None if they may not be listed."""
    try:
        return sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
    except PermissionError:
        return None
