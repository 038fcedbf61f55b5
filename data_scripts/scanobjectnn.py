"""ScanObjectNN: scanned objects of 15 classes, as point clouds.

`mvr` renders only triangles, so each cloud is rendered here. Views are listed in `views.csv`; the clouds are also written as
PLY below `points/`. Two source layouts, as described by the authors, not verified against the archives:

- the raw objects, `CLASS/SCENE_ID.bin`: a float32 with the number of points, then 11 per point (x y z, normal, r g b, labels),
  and a list that marks the test objects, `split_new.txt` for the main split;
- `h5_files/main_split/{training,test}_VARIANT.h5`: data (n, 2048, 3), label (n,), mask (n, 2048), -1 for background.

From memory: +Y is up (`--up` changes it), colours are 0 to 255, and the object counts of the variants.
"""

from __future__ import annotations

import argparse
import io
import math
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_scripts import point_views
from data_scripts.archives import Source, read_text
from data_scripts.command import DataSet, Result, differences, notify, progress, run, some, views_command
from data_scripts.errors import CorruptMember, DataError
from data_scripts.layout import Layout, View, plain_name

CLASSES = (
    *("bag", "bin", "box", "cabinet", "chair", "desk", "display", "door"),
    *("shelf", "table", "bed", "pillow", "sink", "sofa", "toilet"),
)
ELEVATION_DEG = 30.0
_PUBLISHED = {
    "objectdataset": (2309, 581),
    "objectdataset_augmentedrot_scale75": (11416, 2882),
}
DATA_SET = DataSet(
    name="scanobjectnn",
    title="ScanObjectNN",
    source="https://hkust-vgd.github.io/scanobjectnn/ (terms of use to be accepted first)",
    licence="code MIT; for the scans see the terms of use at the source",
    objects="2,902 objects in 15 classes; variant objectdataset 2,309 train, 581 test (from memory)",
    layout="CLASS/SCENE_ID.bin with split_new.txt or split1.txt ..., or SPLIT/{training,test}_VARIANT.h5",
    verified="the authors' README, data_utils.py and FAQ; up axis, range of colours, counts of the variants: from memory",
    decisive=("variant", "split", "views", "size", "no_background", "up"),
)
_BIN = re.compile(r"(?:^|/)(?P<label>[^/]+)/(?P<name>(?:\d{3}|scene\d{4}_\d{2})_\d{5})\.bin$")
_H5 = re.compile(r"(?:^|/)(?P<folder>[^/]+)/(?P<split>training|test)_(?P<variant>[^/]+)\.h5$")
_FIELDS = 11
_BACKGROUND = (0, 1, 2)
"""Semantic labels of the raw files that are background: none, wall, floor."""


@dataclass(frozen=True)
class Cloud:
    """A point cloud: (n, 3) points and (n, 3) colours, or None."""

    split: str
    label: str
    name: str
    points: NDArray[np.float32]
    colours: NDArray[np.uint8] | None


def prepare(source: Source, layout: Layout, options: argparse.Namespace) -> Result:
    """Render each cloud, and write it as PLY."""
    found = {match.group("label", "name"): name for name in sorted(source.sizes) if (match := _BIN.search(name))}
    raw = [name for (label, _), name in found.items() if label in CLASSES]
    warnings: list[str] = []
    rows: list[tuple[str, dict[str, str]]] = []
    views: list[tuple[str, list[View]]] = []
    clouds = _raw_clouds(source, raw, options, warnings) if raw else _h5_clouds(source, options, warnings)
    for cloud in clouds:
        file, of_one = _write_cloud(layout, cloud, options)
        rows.append((file, {"label": cloud.label, "split": cloud.split, "name": cloud.name}))
        views.append((file, of_one))
    rows.sort(key=lambda row: row[0])
    views.sort(key=lambda row: row[0])
    layout.write_labels(rows)
    layout.write_views("views.csv", views)
    splits = [labels["split"] for _, labels in rows]
    if raw:
        warnings += differences({"raw objects": (len(rows), 2902)})
    elif published := _PUBLISHED.get(options.variant):
        train, test = published
        warnings += differences(
            {"train objects": (splits.count("train"), train), "test objects": (splits.count("test"), test)}
        )
    warnings += differences({"classes": (len({labels["label"] for _, labels in rows}), len(CLASSES))})
    return Result(len(rows), (views_command(layout, "scanobjectnn"),), warnings)


def _write_cloud(layout: Layout, cloud: Cloud, options: argparse.Namespace) -> tuple[str, list[View]]:
    """Write the missing files of one cloud."""
    place = (
        f"{cloud.split}/{cloud.label}/{plain_name(cloud.name)}"
        if cloud.split
        else f"{cloud.label}/{plain_name(cloud.name)}"
    )
    folder = f"views/{place}"
    upright = cloud.points if options.up == "+y" else cloud.points[:, [1, 2, 0]]
    if not layout.has(f"points/{place}.ply"):
        layout.write(f"points/{place}.ply", point_views.ply(cloud.points, cloud.colours))
    views: list[View] = []
    for number, azimuth_deg in enumerate(point_views.azimuths_deg(options.views)):
        views.append(View(f"{folder}/{number:03d}.png", azimuth_deg, ELEVATION_DEG))
        if not layout.has(views[-1].file):
            image = point_views.draw(upright, cloud.colours, azimuth_deg, ELEVATION_DEG, options.size)
            layout.write(views[-1].file, point_views.png(image))
    return folder, views


def _raw_clouds(
    source: Source, members: list[str], options: argparse.Namespace, warnings: list[str]
) -> Iterator[Cloud]:
    tests = _test_objects(source, options)
    step = progress()
    unlisted: list[str] = []
    for number, member in enumerate(source.in_order(members)):
        step(number, len(members))
        found = _BIN.search(member)
        assert found is not None
        label, name = found["label"], found["name"]
        split = "" if tests is None else ("test" if tests.get(name) else "train")
        if tests is not None and name not in tests:
            unlisted.append(name)
            split = ""
        try:
            points, colours = _read_bin(source.read(member), options.no_background)
        except CorruptMember as error:
            warnings.append(f"{member} {error}; left out")
            continue
        yield Cloud(split, label, name, points, colours)
    warnings += some("objects without an entry in the split", unlisted)


def _read_bin(data: bytes, no_background: bool) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Points and colours of a raw object."""
    count = float(np.frombuffer(data[:4], "<f4")[0]) if len(data) >= 4 else 0.0
    stated = int(count) if math.isfinite(count) else 0
    if stated < 1 or len(data) != 4 * (1 + _FIELDS * stated):
        raise CorruptMember(f"has {len(data):,} bytes, not {4 * (1 + _FIELDS * stated):,} for {stated:,} points")
    table = np.frombuffer(data[4:], "<f4").reshape(-1, _FIELDS)
    if no_background:
        kinds = table[:, 10].astype(np.int64)
        of_object = kinds[~np.isin(kinds, _BACKGROUND)]
        if len(of_object):
            values, counts = np.unique(of_object, return_counts=True)
            table = table[kinds == values[counts.argmax()]]
    if not np.isfinite(table[:, :3]).all():
        raise CorruptMember("has points that are not finite")
    return table[:, :3].astype(np.float32), np.clip(table[:, 6:9], 0, 255).astype(np.uint8)


def _test_objects(source: Source, options: argparse.Namespace) -> dict[str, bool] | None:
    """Whether each listed object is a test object. A line is `SCENE_ID.bin<tab>class`, plus `<tab>t` for a test object."""
    if options.split == "none":
        return None
    wanted = "split_new.txt" if options.split == "main_split" else f"{options.split}.txt"
    found = sorted(name for name in source.sizes if name.rsplit("/", 1)[-1] == wanted)
    if not found:
        raise DataError(
            f"{source.path} lacks {wanted}: use the complete object_dataset.zip, a list from "
            "https://github.com/hkust-vgd/scanobjectnn/tree/master/training_data with --split split1, or --split none",
            code="missing_split",
        )
    lines = [line.split("\t") for line in read_text(source, found[0]).splitlines() if line.strip()]
    return {line[0].removesuffix(".bin"): line[-1].strip() == "t" for line in lines}


def _h5_clouds(source: Source, options: argparse.Namespace, warnings: list[str]) -> Iterator[Cloud]:
    wanted: dict[str, str] = {}
    known: set[str] = set()
    for member in sorted(source.sizes):
        if found := _H5.search(member):
            known.add(f"--split {found['folder']} --variant {found['variant']}")
            if (found["folder"], found["variant"]) == (options.split, options.variant):
                wanted["train" if found["split"] == "training" else "test"] = member
    if not known:
        raise DataError(f"{source.path} is not ScanObjectNN: expected {DATA_SET.layout}", code="wrong_data_set")
    if len(wanted) < 2:
        lacking = " and ".join(
            sorted({"train": "training_", "test": "test_"}[s] for s in {"train", "test"} - set(wanted))
        )
        raise DataError(
            f"{source.path} lacks {lacking} of {options.split}/*_{options.variant}.h5; it has {', '.join(sorted(known))}",
            code="missing_split",
        )
    for split, member in wanted.items():
        notify(f"{split}: {member}")
        try:
            arrays = _h5_arrays(source.read(member))
            data, labels = arrays["data"], arrays["label"].reshape(-1)
            if data.ndim != 3 or data.shape[2] != 3 or len(labels) != len(data):
                raise CorruptMember(f"has data {data.shape} and labels {labels.shape}, not (n, points, 3) and (n,)")
        except KeyError as error:
            raise DataError(
                f"{member} lacks the array {error}: not a ScanObjectNN file", code="wrong_data_set"
            ) from error
        except CorruptMember as error:
            raise DataError(f"{member} {error}", code=error.code) from error
        mask = arrays.get("mask") if options.no_background else None
        step = progress()
        for number, (points, label) in enumerate(zip(data, labels, strict=True)):
            step(number, len(data))
            if not 0 <= int(label) < len(CLASSES):
                warnings.append(f"{member}: object {number} has the label {label}; left out")
                continue
            kept = points if mask is None else points[mask[number].reshape(-1) != -1]
            cloud = (kept if len(kept) else points).astype(np.float32)
            yield Cloud(split, CLASSES[int(label)], f"{split}-{number:05d}", cloud, None)


def _h5_arrays(data: bytes) -> dict[str, NDArray[Any]]:
    """Read the known arrays of an HDF5 file.

    Raises:
        CorruptMember: it is not an HDF5 file, or damaged.
    """
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise DataError("h5py is not installed: pip install h5py", code="not_installed") from error
    try:
        with h5py.File(io.BytesIO(data)) as file:
            return {name: np.asarray(file[name]) for name in ("data", "label", "mask") if name in file}
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise CorruptMember(f"is not a readable HDF5 file ({error}): get it from the release again") from error


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--split", default="main_split", help="folder of the h5 files, or list of the raw objects; none: no split"
    )
    parser.add_argument(
        "--variant", default="objectdataset", help="of the h5 files, such as objectdataset_augmentedrot_scale75"
    )
    parser.add_argument("--no-background", action="store_true", help="render only the points of the object")
    parser.add_argument("--views", type=int, default=12, help="views per object")
    parser.add_argument("--size", type=int, default=224, help="pixels of a view")
    parser.add_argument("--up", choices=("+y", "+z"), default="+y", help="up axis of the clouds")


def main(arguments: list[str] | None = None) -> int:
    """Prepare the data set."""
    return run(DATA_SET, prepare, arguments, _options)


if __name__ == "__main__":
    sys.exit(main())
