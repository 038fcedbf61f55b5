"""Objaverse-LVIS: the 46,832 objects of Objaverse 1.0 with one of 1,156 LVIS categories, as GLB.

Layout of the public `objaverse` package (`hf-objaverse-v1`); counts from memory. Not verified against a download.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_scripts import checks
from data_scripts.archives import Source, unzipped
from data_scripts.command import DataSet, Result, damages, differences, index_command, notify, progress, run, some
from data_scripts.downloads import download
from data_scripts.errors import CorruptMember, DataError
from data_scripts.layout import Item, Layout, Part, plain_name

_BASE = "https://huggingface.co/datasets/allenai/objaverse/resolve/main/"
_ANNOTATIONS = "lvis-annotations.json.gz"
_PATHS = "object-paths.json.gz"
_OBJECTS, _CATEGORIES = 46_832, 1_156


def _fetch(addresses: Sequence[str], folder: Path, options: argparse.Namespace) -> None:
    """Download the annotations, then each selected object."""
    if len(addresses) != 1:
        raise DataError("--download takes one URL here: the folder of lvis-annotations.json.gz", code="bad_url")
    base = addresses[0].rstrip("/") + "/"
    labels = _by_object(_json(download(base + _ANNOTATIONS, folder, notify).read_bytes(), _ANNOTATIONS))
    paths = _json(download(base + _PATHS, folder, notify).read_bytes(), _PATHS)
    if not isinstance(paths, dict):
        raise DataError(
            f"{_PATHS} is not a mapping of identifiers to paths: delete it from {folder}, and run the command again",
            code="bad_index",
        )
    chosen = [uid for uid in _select(labels, options) if uid in paths]
    for number, uid in enumerate(chosen):
        path = str(paths[uid])
        if not re.fullmatch(r"glbs/[\w-]+/[\w-]+\.glb", path):
            raise DataError(
                f"{_PATHS} has the path '{path}' for {uid}, not glbs/NNN-NNN/{uid}.glb: this is not Objaverse 1.0",
                code="bad_index",
            )
        if not (folder / path).exists():
            notify(f"{number + 1:,} of {len(chosen):,} objects")
            download(base + path, folder / Path(path).parent, notify)


DATA_SET = DataSet(
    name="objaverse_lvis",
    title="Objaverse-LVIS",
    source="https://huggingface.co/datasets/allenai/objaverse",
    licence="ODC-By for the collection; each object has its own Creative Commons licence, stated in the release's metadata",
    objects="46,832 objects, 1,156 categories",
    layout="glbs/NNN-NNN/UID.glb with lvis-annotations.json(.gz): identifiers by category, as in hf-objaverse-v1",
    verified="the objaverse package; counts: from memory",
    addresses=lambda _: (_BASE,),
    fetch=_fetch,
    decisive=("categories", "limit"),
)
_MODEL = re.compile(r"(?:^|/)(?P<uid>[^/]+)\.glb$", re.IGNORECASE)
_LVIS = re.compile(r"(?:^|/)lvis[-_]annotations\.json(?:\.gz)?$")


def prepare(source: Source, layout: Layout, options: argparse.Namespace) -> Result:
    """Copy the selected objects that have a category."""
    found = sorted((name for name in source.sizes if _LVIS.search(name)), key=lambda name: (name.count("/"), name))
    if not found:
        raise DataError(
            f"{source.path} lacks {_ANNOTATIONS} with the labels: get it from {_BASE}{_ANNOTATIONS}",
            code="missing_labels",
        )
    labels = _by_object(_json(source.read(found[0]), found[0]))
    members = {match["uid"]: name for name in sorted(source.sizes) if (match := _MODEL.search(name))}
    if not members:
        raise DataError(
            f"{source.path} has no GLB files: expected {DATA_SET.layout}; --download gets them", code="wrong_data_set"
        )
    chosen = _select(labels, options)
    items = [_item(uid, labels[uid], members[uid]) for uid in chosen if uid in members]
    if not items:
        raise DataError(
            f"none of the {len(members):,} GLB files of {source.path} has the name of an object of {found[0]}",
            code="no_objects",
        )
    outcome = layout.copy(source, items, progress())
    layout.write_labels([(item.file, item.labels) for item in outcome.items])
    warnings = damages(outcome) + some("objects are missing", [uid for uid in chosen if uid not in members])
    several = [uid for uid in chosen if len(labels[uid]) > 1]
    warnings += some("objects have several categories; the first is the label, all are in 'categories'", several)
    if not options.categories and not options.limit:
        n_categories = len({name for names in labels.values() for name in names})
        warnings += differences(
            {"objects": (len(outcome.items), _OBJECTS), "categories in the annotations": (n_categories, _CATEGORIES)}
        )
    return Result(len(outcome.items), (index_command(layout, "objaverse-lvis"),), warnings)


def _item(uid: str, categories: list[str], member: str) -> Item:
    file = f"{plain_name(categories[0])}/{plain_name(uid)}.glb"
    labels = {"label": categories[0], "split": "", "name": uid, "categories": ", ".join(categories)}
    return Item(file, labels, (Part(member, file, checks.glb),))


def _json(data: bytes, name: str) -> Any:
    try:
        return json.loads(unzipped(data))
    except (CorruptMember, ValueError) as error:
        raise CorruptMember(
            f"{name} is damaged ({error}): delete it, and download it again", code="bad_index"
        ) from error


def _by_object(annotations: Any) -> dict[str, list[str]]:
    """Categories of each object, in file order."""
    if not isinstance(annotations, dict) or not all(isinstance(uids, list) for uids in annotations.values()):
        raise DataError(
            f"the annotations are not lists of identifiers by category: get {_BASE}{_ANNOTATIONS}", code="bad_index"
        )
    labels: dict[str, list[str]] = {}
    for category, uids in annotations.items():
        for uid in uids:
            labels.setdefault(str(uid), []).append(category)
    return labels


def _select(labels: dict[str, list[str]], options: argparse.Namespace) -> list[str]:
    """Identifiers selected by --categories and --limit."""
    known = {name for names in labels.values() for name in names}
    if unknown := [name for name in options.categories if name not in known]:
        raise DataError(
            f"unknown category {', '.join(unknown)}: LVIS names are written like {', '.join(sorted(known)[:3])}",
            code="unknown_category",
        )
    taken: dict[str, int] = {}
    chosen: list[str] = []
    for uid in sorted(labels):
        category = labels[uid][0]
        if options.categories and not set(labels[uid]) & set(options.categories):
            continue
        taken[category] = taken.get(category, 0) + 1
        if not options.limit or taken[category] <= options.limit:
            chosen.append(uid)
    return chosen


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--categories", nargs="+", default=[], metavar="NAME", help="only these LVIS categories")
    parser.add_argument("--limit", type=int, default=0, metavar="N", help="maximum number of objects per category")


def main(arguments: list[str] | None = None) -> int:
    """Prepare the data set."""
    return run(DATA_SET, prepare, arguments, _options)


if __name__ == "__main__":
    sys.exit(main())
