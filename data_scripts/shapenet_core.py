"""ShapeNetCore, version 2: about 52,000 textured OBJ models of 55 classes.

Model layout and columns of all.csv follow public code; the number of models and the fields of taxonomy.json are from memory.
Not verified against the release, which needs a registration.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import re
import sys
from dataclasses import dataclass

from data_scripts import checks
from data_scripts.archives import Source, read_text
from data_scripts.command import DataSet, Result, damages, differences, index_command, progress, run, some
from data_scripts.errors import CorruptMember, DataError
from data_scripts.layout import Item, Layout, Part, plain_name

DATA_SET = DataSet(
    name="shapenet_core",
    title="ShapeNetCore, version 2",
    source="https://shapenet.org/ and https://huggingface.co/datasets/ShapeNet/ShapeNetCore (registration needed)",
    licence="terms of ShapeNet: non-commercial research and education; see source",
    objects="52,472 models, 55 classes (from memory)",
    layout="SYNSET/MODEL/models/model_normalized.{obj,mtl} with SYNSET/MODEL/images/*, taxonomy.json, and all.csv (SHREC 2016: "
    "id,synsetId,subSynsetId,modelId,split); or a folder with a zip per synset",
    verified="public code that reads it; counts and taxonomy.json: from memory",
)
_FILE = re.compile(r"(?:^|/)(?P<synset>\d{8})/(?P<model>[^/]+)/(?P<kind>models|images)/(?P<name>[^/]+)$")
_MESH = "model_normalized.obj"
_COLUMNS = {"synsetId", "subSynsetId", "modelId", "split"}


@dataclass(frozen=True)
class Row:
    """The row of a model in all.csv."""

    sub_synset: str
    split: str


def prepare(source: Source, layout: Layout, options: argparse.Namespace) -> Result:
    """Copy the models with materials and textures."""
    files = _files(source)
    if not files:
        raise DataError(f"{source.path} is not ShapeNetCore.v2: expected {DATA_SET.layout}", code="wrong_data_set")
    names = _taxonomy(source)
    rows, warnings = ({}, []) if options.no_split else _rows(source)
    items: list[Item] = []
    for (synset, model), parts in files.items():
        row = rows.get((synset, model), Row(synset, ""))
        synonyms = names.get(synset, synset).split(",")
        labels = {"label": synonyms[0].strip(), "split": row.split, "name": model, "synset": f"n{synset}"}
        labels["sub_label"] = names.get(row.sub_synset, "").split(",")[0].strip()
        labels["names"] = ", ".join(name.strip() for name in synonyms)
        items.append(Item(f"{synset}/{plain_name(model)}/models/{_MESH}", labels, parts))
    outcome = layout.copy(source, items, progress())
    layout.write_labels([(item.file, item.labels) for item in outcome.items])
    warnings += damages(outcome)
    warnings += differences(
        {
            "models": (len(outcome.items), 52472),
            "classes": (len({item.labels["synset"] for item in outcome.items}), 55),
        }
    )
    warnings += some("synsets without a name in taxonomy.json", sorted({synset for synset, _ in files} - set(names)))
    if not options.no_split:
        warnings += some("models without a split in all.csv", [f"{s}/{m}" for s, m in files if (s, m) not in rows])
        warnings += some("models of all.csv missing", [f"{s}/{m}" for s, m in rows if (s, m) not in files])
    return Result(len(outcome.items), (index_command(layout, "shapenet"),), warnings)


def _files(source: Source) -> dict[tuple[str, str], tuple[Part, ...]]:
    """Files of each model that has a mesh. Meshes refer to materials, and these to `../images/...`."""
    found: dict[tuple[str, str], dict[str, Part]] = {}
    for member in sorted(source.sizes):
        if match := _FILE.search(member):
            mesh = match["kind"] == "models" and match["name"] == _MESH
            if match["kind"] == "images" or mesh or match["name"].endswith(".mtl"):
                file = f"{match['synset']}/{plain_name(match['model'])}/{match['kind']}/{plain_name(match['name'])}"
                part = Part(member, file, checks.obj if mesh else None, needed=mesh)
                found.setdefault((match["synset"], match["model"]), {})[file] = part
    return {key: tuple(parts.values()) for key, parts in found.items() if any(part.needed for part in parts.values())}


def _named(source: Source, name: str) -> str | None:
    """The member with this name that is nearest to the root."""
    found = [member for member in source.sizes if member.rsplit("/", 1)[-1] == name]
    return min(found, key=lambda member: (member.count("/"), member), default=None)


def _taxonomy(source: Source) -> dict[str, str]:
    """Comma-separated names by synset."""
    member = _named(source, "taxonomy.json")
    if member is None:
        raise DataError(
            f"{source.path} lacks taxonomy.json with the class names: get it from the release", code="missing_labels"
        )
    try:
        return {str(entry["synsetId"]).zfill(8): str(entry["name"]) for entry in json.loads(source.read(member))}
    except (CorruptMember, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{member} is damaged ({error!r}): get it from the release again", code="bad_taxonomy"
        ) from error


def _rows(source: Source) -> tuple[dict[tuple[str, str], Row], list[str]]:
    member = _named(source, "all.csv")
    if member is None:
        raise DataError(
            f"{source.path} lacks all.csv, the split of SHREC 2016: put it beside taxonomy.json, or give --no-split",
            code="missing_split",
        )
    reader = csv.DictReader(io.StringIO(read_text(source, member), newline=""))
    try:
        lines = list(reader)
    except csv.Error as error:
        raise DataError(
            f"{member} is damaged ({error}): get the file of SHREC 2016 again, or give --no-split", code="bad_split"
        ) from error
    if lacking := _COLUMNS - set(reader.fieldnames or ()):
        raise DataError(
            f"{member} lacks the columns {', '.join(sorted(lacking))}: get the file of SHREC 2016, or give --no-split",
            code="bad_split",
        )
    rows: dict[tuple[str, str], Row] = {}
    twice: list[str] = []
    for line in lines:
        key = (str(line["synsetId"]).zfill(8), str(line["modelId"]))
        if key in rows:
            twice.append("/".join(key))
        # Spreadsheet programs drop leading zeros.
        rows[key] = Row(str(line["subSynsetId"]).zfill(8), str(line["split"]))
    return rows, some("models listed twice in all.csv, the last row is used", twice)


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-split", action="store_true", help="do without all.csv; objects have no split")


def main(arguments: list[str] | None = None) -> int:
    """Prepare the data set."""
    return run(DATA_SET, prepare, arguments, _options)


if __name__ == "__main__":
    sys.exit(main())
