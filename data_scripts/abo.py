"""Amazon Berkeley Objects: 7,953 products as GLB, labeled with their product type.

Layout and fields follow public code that reads the release; not verified against the archives.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from typing import Any

from data_scripts import checks
from data_scripts.archives import Source, unzipped
from data_scripts.command import DataSet, Result, damages, differences, index_command, progress, run, some
from data_scripts.errors import CorruptMember, DataError
from data_scripts.layout import Item, Layout, Part, plain_name

_BUCKET = "https://amazon-berkeley-objects.s3.amazonaws.com"
DATA_SET = DataSet(
    name="abo",
    title="Amazon Berkeley Objects",
    source=f"{_BUCKET}/index.html",
    licence="CC BY 4.0 (copies of early releases say CC BY-NC 4.0: see the licence file of your copy); credit Amazon.com",
    objects="7,953 models",
    layout="3dmodels/original/X/ID.glb and listings/metadata/listings_*.json.gz, as in abo-3dmodels.tar and abo-listings.tar: "
    "give the folder with both",
    verified="public code that reads the release",
    addresses=lambda _: (f"{_BUCKET}/archives/abo-listings.tar", f"{_BUCKET}/archives/abo-3dmodels.tar"),
)
_MODEL = re.compile(r"(?:^|/)original/[^/]+/(?P<id>[^/]+)\.glb$")
_LISTINGS = re.compile(r"(?:^|/)listings_[0-9a-f]+\.json(?:\.gz)?$")
_ENGLISH = ("en_US", "en_GB", "en_CA", "en_AU", "en_IN", "en_AE", "en_SG")


def prepare(source: Source, layout: Layout, options: argparse.Namespace) -> Result:
    """Copy the models, and label each from its listings."""
    members = {found["id"]: name for name in sorted(source.sizes) if (found := _MODEL.search(name))}
    if not members:
        raise DataError(
            f"{source.path} has no models original/X/ID.glb: expected {DATA_SET.layout}", code="wrong_data_set"
        )
    listings, damaged = _listings(source)
    items: list[Item] = []
    unlisted: list[str] = []
    for model, member in members.items():
        of_one = listings.get(model, [])
        labels = {
            "label": _product_type(of_one),
            "split": "",
            "name": _name(of_one),
            "model": model,
            "brand": _brand(of_one),
        }
        if not labels["label"]:
            unlisted.append(model)
        # Identifiers are case-sensitive; the folder is the last letter, as in the release.
        file = f"{plain_name(model[-1:])}/{plain_name(model)}.glb"
        items.append(Item(file, labels, (Part(member, file, checks.glb),)))
    outcome = layout.copy(source, items, progress())
    layout.write_labels([(item.file, item.labels) for item in outcome.items])
    warnings = damages(outcome) + damaged + differences({"models": (len(outcome.items), 7953)})
    warnings += some("models without a product type in the listings", unlisted)
    return Result(len(outcome.items), (index_command(layout, "abo"),), warnings)


def _listings(source: Source) -> tuple[dict[str, list[dict[str, Any]]], list[str]]:
    """Listings by model id, and warnings about damaged files."""
    files = [name for name in source.sizes if _LISTINGS.search(name)]
    if not files:
        raise DataError(
            f"{source.path} lacks listings/metadata/listings_*.json.gz with the labels: put abo-listings.tar beside "
            "abo-3dmodels.tar, and give their folder as SOURCE",
            code="missing_labels",
        )
    found: dict[str, list[dict[str, Any]]] = {}
    problems: list[str] = []
    for file in source.in_order(files):
        try:
            for line in unzipped(source.read(file)).decode().splitlines():
                listing = json.loads(line) if line.strip() else {}
                if listing.get("3dmodel_id"):
                    found.setdefault(listing["3dmodel_id"], []).append(listing)
        except (CorruptMember, ValueError, AttributeError, TypeError) as error:
            problems.append(f"{file} is damaged ({error}); models that only this file lists have no label")
    return found, problems


def _product_type(listings: list[dict[str, Any]]) -> str:
    """The most frequent product type; ties are broken alphabetically."""
    counts = Counter(str(entry["value"]) for listing in listings for entry in _entries(listing, "product_type"))
    return min(counts, key=lambda name: (-counts[name], name), default="")


def _name(listings: list[dict[str, Any]]) -> str:
    """The item name, in English if available."""
    names = [
        (entry.get("language_tag", ""), str(entry["value"])) for one in listings for entry in _entries(one, "item_name")
    ]
    ranked = sorted(names, key=lambda n: (_ENGLISH.index(n[0]) if n[0] in _ENGLISH else len(_ENGLISH), n))
    return " ".join(ranked[0][1].split()) if ranked else ""


def _brand(listings: list[dict[str, Any]]) -> str:
    return min((str(entry["value"]) for listing in listings for entry in _entries(listing, "brand")), default="")


def _entries(listing: dict[str, Any], field: str) -> list[dict[str, Any]]:
    """Entries of a field: dicts with `value` and `language_tag`."""
    value = listing.get(field)
    return [entry for entry in value if isinstance(entry, dict) and "value" in entry] if isinstance(value, list) else []


def main(arguments: list[str] | None = None) -> int:
    """Prepare the data set."""
    return run(DATA_SET, prepare, arguments)


if __name__ == "__main__":
    sys.exit(main())
