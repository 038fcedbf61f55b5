"""ModelNet40: 12,311 CAD models of 40 classes, as OFF files.

Layout from memory: `ModelNet40/CLASS/{train,test}/CLASS_0001.off`; not verified against the archive.
"""

from __future__ import annotations

import argparse
import re
import sys

from data_scripts import checks
from data_scripts.archives import Source
from data_scripts.command import DataSet, Result, damages, differences, index_command, progress, run
from data_scripts.errors import DataError
from data_scripts.layout import Item, Layout, Part

DATA_SET = DataSet(
    name="modelnet40",
    title="ModelNet40",
    source="https://modelnet.cs.princeton.edu/",
    licence="the models belong to their authors, the release is for academic research; see source",
    objects="9,843 train, 2,468 test, 40 classes",
    layout="ModelNet40/CLASS/{train,test}/CLASS_0001.off, as in ModelNet40.zip",
    verified="from memory",
    addresses=lambda _: ("http://modelnet.cs.princeton.edu/ModelNet40.zip",),
)
_MEMBER = re.compile(r"(?:^|/)(?P<label>[^/]+)/(?P<split>train|test)/(?P<name>[^/]+)\.off$", re.IGNORECASE)


def prepare(source: Source, layout: Layout, options: argparse.Namespace) -> Result:
    """Copy the models; folder names are the labels."""
    items: dict[str, Item] = {}
    for member in sorted(source.sizes, key=lambda name: (name.count("/"), name)):
        if found := _MEMBER.search(member):
            label, split, name = found["label"], found["split"].lower(), found["name"]
            file = f"{split}/{label}/{name}.off"
            # The OFF format defines no up axis; these models are +Z up.
            labels = {"label": label, "split": split, "name": name, "up": "+z"}
            items.setdefault(file, Item(file, labels, (Part(member, file, checks.off),)))
    if not items:
        raise DataError(f"{source.path} is not ModelNet40: expected {DATA_SET.layout}", code="wrong_data_set")
    outcome = layout.copy(source, list(items.values()), progress())
    rows = [(item.file, item.labels) for item in outcome.items]
    layout.write_labels(rows)
    splits = [labels["split"] for _, labels in rows]
    counts = {
        "train models": (splits.count("train"), 9843),
        "test models": (splits.count("test"), 2468),
        "classes": (len({labels["label"] for _, labels in rows}), 40),
    }
    return Result(len(rows), (index_command(layout, "modelnet40"),), damages(outcome) + differences(counts))


def main(arguments: list[str] | None = None) -> int:
    """Prepare ModelNet40."""
    return run(DATA_SET, prepare, arguments)


if __name__ == "__main__":
    sys.exit(main())
