"""Copy a collection, also while it is being served or written. The copy is checked, and appears whole or not at all.

Use it for backups, and for copies behind a load balancer. Meshes are not copied, except those that were uploaded through a
service.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from mvretrieval.console import counted, print_json, say
from mvretrieval.ingest.copy_collection import copy_collection


@dataclass(frozen=True)
class Options:
    """Options of `mvr copy`.

    Attributes:
        source: folder of the collection.
        target: folder of the copy; it must not exist, or be empty.
        json: print one JSON object: the numbers of objects, uploads and bytes, and the ids of objects whose upload is missing.
    """

    source: tyro.conf.Positional[Path]
    target: tyro.conf.Positional[Path]
    json: bool = False


def run(options: Options) -> int:
    """Copy and print what was copied."""
    report = copy_collection(options.source, options.target)
    if options.json:
        print_json({"target": str(options.target), **vars(report)})
    else:
        uploads = f", {counted(report.uploads, 'upload')}" if report.uploads else ""
        print(f"{options.target}: {counted(report.objects, 'object')}{uploads}, {report.size_bytes / 1e6:.1f} MB")
    if report.missing:
        shown = ", ".join(report.missing[:3])
        say(f"note: the uploaded files of {counted(len(report.missing), 'object')} are missing in the source ({shown})")
    return 0
