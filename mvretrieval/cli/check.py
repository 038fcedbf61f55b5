"""Check a collection: database, vectors, saved index, uploaded files. The exit code is 1 if something is damaged.

It reads everything, which takes about as long as copying the folder. Nothing is changed without --repair.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from mvretrieval.api import Collection
from mvretrieval.console import print_json
from mvretrieval.ingest.check_collection import check_collection, repair


@dataclass(frozen=True)
class Options:
    """Options of `mvr check`.

    Attributes:
        collection: folder of the collection.
        repair: delete a damaged index, which the next search builds again, and uploads that no object uses.
        json: print one JSON object: the findings, and whether they were repaired.
    """

    collection: tyro.conf.Positional[Path]
    repair: bool = False
    json: bool = False


def run(options: Options) -> int:
    """Check, repair, and print the findings."""
    with Collection.open(options.collection, write=options.repair) as collection:
        findings = check_collection(collection.session)
        count = len(collection)
    repaired = repair(findings) if options.repair else []
    damage = [finding for finding in findings if finding.is_damage and finding not in repaired]
    if options.json:
        shown = [
            {"code": f.code, "message": f.message, "damage": f.is_damage, "repaired": f in repaired} for f in findings
        ]
        print_json({"objects": count, "findings": shown, "damaged": bool(damage)})
        return 1 if damage else 0
    for finding in findings:
        state = "repaired" if finding in repaired else "damaged" if finding.is_damage else "note"
        hint = " (--repair)" if finding.paths and not options.repair else ""
        print(f"{state}: {finding.message}{hint}")
    if not findings:
        print(f"{options.collection}: {count} objects, nothing wrong")
    return 1 if damage else 0
