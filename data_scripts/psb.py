"""Princeton Shape Benchmark, version 1: 1,814 models, base classification, train and test.

`unseen-classes.txt` lists the test classes that are not in the train split, for `mvr eval --classes`.

Model folders and the .cla format follow the benchmark's README and format page. The path of the .cla files,
`benchmark/classification/v1/base/{train,test}.cla`, follows public code. Not verified against the archive.
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass

from data_scripts import checks
from data_scripts.archives import Source
from data_scripts.command import DataSet, Result, damages, differences, index_command, progress, run, some
from data_scripts.errors import DataError
from data_scripts.layout import Item, Layout, Part, plain_name

DATA_SET = DataSet(
    name="psb",
    title="Princeton Shape Benchmark, version 1",
    source="https://shape.cs.princeton.edu/benchmark/",
    licence="none stated: models collected from the web for research; see source",
    objects="907 train in 90 classes, 907 test in 92 classes",
    layout="db/N/mID/mID.off with N = ID // 100, and classification/v1/base/{train,test}.cla, at any depth",
    verified="the benchmark's README and format page, public code that reads it",
)
_MODEL = re.compile(r"(?:^|/)m(?P<id>\d+)\.off$", re.IGNORECASE)
_BASE = re.compile(r"(?:^|/)base/(?P<split>train|test)\.cla$", re.IGNORECASE)
_ANY = re.compile(r"(?:^|/)(?P<split>train|test)\.cla$", re.IGNORECASE)
_PUBLISHED = {"train": (90, 907), "test": (92, 907)}


@dataclass(frozen=True)
class ShapeClass:
    """A class of a .cla file: its name, its ancestors (outermost first) and its models."""

    name: str
    parents: tuple[str, ...]
    models: tuple[int, ...]

    @property
    def path(self) -> str:
        """Such as `aircraft/airplane/F117`."""
        return "/".join((*self.parents, self.name))


def read_cla(text: str) -> list[ShapeClass]:
    """Parse a .cla file; returns the classes that have models.

    The format is whitespace-separated tokens: `PSB 1`, the number of classes and of models, and for each class its name,
    its parent's name (0 for none), the number of its models, and the model numbers. Parents precede their children.

    Raises:
        DataError: the file is not a valid .cla file.
    """
    tokens = iter(text.split())
    try:
        magic, version = next(tokens), next(tokens)
        if magic != "PSB" or version != "1":
            raise DataError(f"begins with '{magic} {version}', not 'PSB 1'", code="not_cla")
        n_classes, n_models = int(next(tokens)), int(next(tokens))
        classes: dict[str, ShapeClass] = {}
        for _ in range(n_classes):
            name, parent, count = next(tokens), next(tokens), int(next(tokens))
            if name in classes:
                raise DataError(f"lists the class '{name}' twice", code="duplicate_class")
            if parent != "0" and parent not in classes:
                raise DataError(f"lists '{name}' before its parent '{parent}'", code="missing_parent")
            parents = () if parent == "0" else (*classes[parent].parents, parent)
            models = [int(next(tokens)) for _ in range(count)]
            classes[name] = ShapeClass(name, parents, tuple(models))
    except StopIteration:
        raise DataError("is truncated", code="truncated") from None
    except ValueError as error:
        raise DataError(f"has a token that is not a number ({error})", code="not_a_number") from error
    rest = list(tokens)
    listed = [model for one in classes.values() for model in one.models]
    if rest:
        raise DataError(f"has data after its {n_classes} classes: {' '.join(rest[:3])}", code="trailing_data")
    if len(listed) != n_models or len(set(listed)) != len(listed):
        raise DataError(
            f"lists {len(listed)} models ({len(set(listed))} distinct), but states {n_models}", code="wrong_model_count"
        )
    return [one for one in classes.values() if one.models]


def prepare(source: Source, layout: Layout, options: argparse.Namespace) -> Result:
    """Copy the models of the base classification."""
    members = {int(found["id"]): name for name in sorted(source.sizes, reverse=True) if (found := _MODEL.search(name))}
    if not members:
        raise DataError(
            f"{source.path} is not the Princeton Shape Benchmark: it has no mID.off; expected {DATA_SET.layout}",
            code="wrong_data_set",
        )
    items: list[Item] = []
    missing: list[str] = []
    warnings: list[str] = []
    for split, cla in _classifications(source).items():
        try:
            classes = read_cla(source.read(cla).decode("latin-1"))
        except DataError as error:
            raise DataError(f"{cla} {error}; download the archive again", code=error.code) from error
        n_classes, n_models = _PUBLISHED[split]
        warnings += differences(
            {
                f"{split} classes": (len(classes), n_classes),
                f"{split} models in {cla}": (sum(len(one.models) for one in classes), n_models),
            }
        )
        for one in classes:
            missing += [f"m{model}" for model in one.models if model not in members]
            items += [_item(split, one, model, members[model]) for model in one.models if model in members]
    outcome = layout.copy(source, items, progress())
    layout.write_labels([(item.file, item.labels) for item in outcome.items])
    by_split = {
        split: {item.labels["label"] for item in outcome.items if item.labels["split"] == split} for split in _PUBLISHED
    }
    layout.write(
        "unseen-classes.txt", "".join(f"{name}\n" for name in sorted(by_split["test"] - by_split["train"])).encode()
    )
    warnings += some("classified models missing", missing) + damages(outcome)
    return Result(len(outcome.items), (index_command(layout, "psb"),), warnings)


def _classifications(source: Source) -> dict[str, str]:
    """Members with the base classification, by split."""
    for pattern in (_BASE, _ANY):
        found = {match["split"].lower(): name for name in sorted(source.sizes) if (match := pattern.search(name))}
        if found:
            break
    if lacking := sorted({"train", "test"} - set(found)):
        raise DataError(
            f"{source.path} lacks {' and '.join(f'base/{split}.cla' for split in lacking)}: unpack the benchmark's classification "
            "folder beside db",
            code="missing_labels",
        )
    return found


def _item(split: str, one: ShapeClass, model: int, member: str) -> Item:
    file = f"{split}/{plain_name(one.path.replace('/', '__'))}/m{model}.off"
    top = (*one.parents, one.name)[0]
    labels = {"label": one.path, "split": split, "leaf_class": one.name, "top_class": top, "name": f"m{model}"}
    return Item(file, labels, (Part(member, file, checks.off),))


def main(arguments: list[str] | None = None) -> int:
    """Prepare the benchmark."""
    return run(DATA_SET, prepare, arguments)


if __name__ == "__main__":
    sys.exit(main())
