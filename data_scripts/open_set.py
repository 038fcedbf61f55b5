"""OS-ESB-core, OS-NTU-core, OS-MN40-core and OS-ABO-core: open-set retrieval from 24 rendered views per object.

Two layouts, as read by the authors' loaders, and the published split file of OS-ESB-core. Not verified against the image
archives; OS-ABO-core is assumed to have the same layout:

- the release: `train/CLASS/OBJECT/image/h_DEG.jpg`, `query/OBJECT/...`, `target/OBJECT/...`, with `query_label.txt` and
  `target_label.txt` (one `OBJECT,CLASS` per line), which are separate downloads;
- `CLASS/OBJECT/image/h_DEG.jpg` with a split file `*__level_all__t2r8.json` (train.sample, retrieval.query, retrieval.target).

The number in a file name is interpreted as the azimuth. Point clouds and voxels are ignored.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_scripts import checks
from data_scripts.archives import Source, is_archive, read_text
from data_scripts.command import DataSet, Result, damages, differences, notify, progress, run, some, views_command
from data_scripts.downloads import download
from data_scripts.errors import DataError
from data_scripts.layout import Item, Layout, Part, View, plain_name

N_VIEWS = 24
ELEVATION_DEG = 30.0
SPLITS = ("train", "query", "target")
_SERVER = "https://data.shrec22.moon-lab.tech:18443/OS-3DOR"
_VIEW = re.compile(r"^(?P<object>.+)/image/h_(?P<azimuth>\d+(?:\.\d+)?)\.(?P<suffix>jpe?g|png)$", re.IGNORECASE)


@dataclass(frozen=True)
class Published:
    """Published counts: seen classes, training objects, unseen classes, queries, targets."""

    title: str
    seen_classes: int
    train: int | None
    unseen_classes: int
    query: int
    target: int


PUBLISHED = {
    "esb": Published("OS-ESB-core", 17, 98, 24, 120, 452),
    "ntu": Published("OS-NTU-core", 13, 378, 54, 270, 1271),
    "mn40": Published("OS-MN40-core", 8, 2821, 32, 160, 9329),
    "abo": Published("OS-ABO-core", 4, None, 17, 85, 5455),
}


def _addresses(options: argparse.Namespace) -> tuple[str, ...]:
    if options.set is None:
        raise DataError(f"--download needs --set: one of {', '.join(PUBLISHED)}", code="no_set")
    if options.set == "abo":
        return ()
    title = PUBLISHED[options.set].title
    return tuple(f"{_SERVER}/{title}/{file}" for file in (f"{title}.zip", "query_label.txt", "target_label.txt"))


def _fetch(addresses: Sequence[str], folder: Path, options: argparse.Namespace) -> None:
    """Download a set. Each set needs its own folder, because their lists have the same names."""
    if folder.is_dir():
        _check_one_set(folder, options.set)
    for address in addresses:
        download(address, folder, notify)


DATA_SET = DataSet(
    name="open_set",
    title="OS-ESB-core, OS-NTU-core, OS-MN40-core, OS-ABO-core",
    source="https://github.com/iMoonLab/HGM2R and https://moon-lab.tech/os3dor",
    licence="the models belong to their authors; the images are for academic research only; see source",
    objects="ESB 98 + 120 + 452, NTU 378 + 270 + 1,271, MN40 2,821 + 160 + 9,329, ABO ? + 85 + 5,455 (train + query + target)",
    layout="train/CLASS/OBJECT/image/h_DEG.jpg, {query,target}/OBJECT/image/h_DEG.jpg, query_label.txt and target_label.txt; "
    "or CLASS/OBJECT/image/h_DEG.jpg with a split file *.json",
    verified="the authors' loaders and ESB's split file; ABO: assumed to be the same",
    addresses=_addresses,
    fetch=_fetch,
)


@dataclass(frozen=True)
class Sample:
    """An object of the split: its folder in the source, label and split."""

    folder: str
    label: str
    split: str


def prepare(source: Source, layout: Layout, options: argparse.Namespace) -> Result:
    """Copy the views, and list them in both orders."""
    _check_one_set(source.path, options.set)
    members = _views_by_folder(source)
    if not members:
        raise DataError(
            f"{source.path} has no views image/h_DEG.jpg: expected {DATA_SET.layout}", code="wrong_data_set"
        )
    items: dict[str, Item] = {}
    views: dict[str, list[View]] = {}
    missing: list[str] = []
    uneven: list[str] = []
    for sample in _samples(source, members):
        of_one = members.get(sample.folder, {})
        name = plain_name(sample.folder.rsplit("/", 1)[-1])
        file = f"{sample.split}/{plain_name(sample.label)}/{name}"
        if file in items:
            raise DataError(
                f"{sample.folder} is listed twice as {file}: the split is not the released one", code="bad_split"
            )
        if not of_one:
            missing.append(f"{sample.split} {sample.folder}")
            continue
        if len(of_one) != N_VIEWS:
            uneven.append(f"{file} ({len(of_one)})")
        images = [(member, f"{file}/{member.rsplit('/', 1)[-1]}") for member in of_one.values()]
        parts = tuple(Part(member, image, checks.image, needed=False) for member, image in images)
        items[file] = Item(file, {"label": sample.label, "split": sample.split, "name": name}, parts)
        views[file] = [View(p.file, a, ELEVATION_DEG) for a, p in zip(of_one, parts, strict=True)]
    for split in ("query", "target"):
        lost = [folder for folder in missing if folder.startswith(f"{split} ")]
        if lost and not any(item.labels["split"] == split for item in items.values()):
            raise DataError(
                f"{source.path} has no views of any of the {len(lost)} {split} objects, such as {lost[0].split(' ', 1)[1]}: the "
                "list belongs to another set, or views are missing; download the set into its own folder",
                code="no_views",
            )
    outcome = layout.copy(source, list(items.values()), progress())
    views = {file: [view for view in of_one if view.file not in outcome.lacking] for file, of_one in views.items()}
    complete = [item for item in outcome.items if views[item.file]]
    layout.write_labels([(item.file, item.labels) for item in complete])
    layout.write_views("views.csv", [(item.file, views[item.file]) for item in complete])
    as_text = [(item.file, sorted(views[item.file], key=lambda view: view.file)) for item in complete]
    layout.write_views("views_text_order.csv", as_text)
    _write_queries(layout, complete)
    names = " ".join([str(source.path.absolute()), *list(source.sizes)[:1]])
    warnings = damages(outcome) + some("objects of the split without views", missing)
    warnings += some(f"objects with a number of views other than {N_VIEWS}", uneven) + _count_warnings(
        complete, options.set or _guess(names)
    )
    return Result(len(complete), (views_command(layout, "open-set"),), warnings)


def _views_by_folder(source: Source) -> dict[str, dict[float, str]]:
    """Views of each object folder, by ascending azimuth."""
    found: dict[str, list[tuple[float, str]]] = {}
    for member in source.sizes:
        if match := _VIEW.match(member):
            found.setdefault(match["object"], []).append((float(match["azimuth"]), member))
    return {folder: dict(sorted(views)) for folder, views in sorted(found.items())}


def _samples(source: Source, members: dict[str, dict[float, str]]) -> Iterator[Sample]:
    """Objects of the split, with their folders in the source."""
    splits = [name for name in sorted(source.sizes) if name.lower().endswith(".json")]
    for name in splits:
        try:
            split = json.loads(source.read(name))
        except ValueError as error:
            raise DataError(f"{name} is damaged: {error}; download it again", code="bad_split") from error
        if isinstance(split, dict) and "retrieval" in split:
            notify(f"split: {name}")
            yield from _of_split_file(split, name, members)
            return
    yield from _of_release(source, members)


def _of_split_file(split: dict[str, Any], name: str, members: dict[str, dict[float, str]]) -> Iterator[Sample]:
    by_end = _by_end(members, 2)
    try:
        lists = {"train": split["train"]["sample"], **{s: split["retrieval"][s] for s in ("query", "target")}}
        for part, samples in lists.items():
            for sample in samples:
                path = str(sample["path"])
                yield Sample(by_end.get(path, path), str(sample["label"]), part)
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{name} is not a split file of the open-set benchmarks ({error!r}): see --about", code="bad_split"
        ) from error


def _of_release(source: Source, members: dict[str, dict[float, str]]) -> Iterator[Sample]:
    roots = {m[1] for folder in members if (m := re.match(r"^(.*?)(?:train|query|target)/", folder))}
    if len(roots) != 1:
        raise DataError(
            f"{source.path} has neither folders train, query and target nor a split file *.json: expected {DATA_SET.layout}"
            if not roots
            else f"{source.path} has several sets ({', '.join(sorted(roots))}): give one of them",
            code="several_sets" if roots else "missing_split",
        )
    (root,) = roots
    for folder in members:
        parts = folder.removeprefix(root).split("/")
        if folder.startswith(f"{root}train/") and len(parts) == 3:
            yield Sample(folder, parts[1], "train")
    for split in ("query", "target"):
        for name, label in _read_labels(source, split):
            yield Sample(f"{root}{split}/{name}", label, split)


def _read_labels(source: Source, split: str) -> list[tuple[str, str]]:
    """Objects and classes of `query_label.txt` or `target_label.txt` (`query.txt`, `target.txt` in the authors' baseline)."""
    for wanted in (f"{split}_label.txt", f"{split}.txt"):
        found = sorted((n for n in source.sizes if n.rsplit("/", 1)[-1] == wanted), key=lambda n: (n.count("/"), n))
        if found:
            lines = read_text(source, found[0]).splitlines()
            pairs = [line.strip().rpartition(",") for line in lines if line.strip()]
            if not all(name and label for name, _, label in pairs):
                raise DataError(
                    f"{found[0]} has lines other than OBJECT,CLASS: get {split}_label.txt from {DATA_SET.source}",
                    code="bad_split",
                )
            return [(name.strip(), label.strip()) for name, _, label in pairs]
    raise DataError(
        f"{source.path} lacks {split}_label.txt, a separate download from {DATA_SET.source}: put it into the folder of the "
        "archive, and give that folder as SOURCE",
        code="missing_split",
    )


def _by_end(members: dict[str, dict[float, str]], depth: int) -> dict[str, str]:
    """Folders by their last path components."""
    return {"/".join(folder.split("/")[-depth:]): folder for folder in members}


def _write_queries(layout: Layout, items: list[Item]) -> None:
    """Write the published queries for `mvr eval --protocol open-set --queries`."""
    record = {
        "protocol": "open-set",
        "seed": 0,
        "queries_per_class": 5,
        "short_classes": 0,
        "queries": [item.file for item in items if item.labels["split"] == "query"],
    }
    layout.write("queries.json", (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode())


def _check_one_set(path: Path, wanted: str | None) -> None:
    """Refuse archives of several sets in one folder, or of another set than --set.

    Raises:
        DataError: there is another set.
    """
    archives = sorted(found for found in path.iterdir() if is_archive(found)) if path.is_dir() else [path]
    sets = {name: archive.name for archive in archives for name in [_guess(archive.name)] if name is not None}
    others = [name for name in sets if name != (wanted or next(iter(sets)))]
    if others:
        conflict = f"--set is {wanted}" if wanted else f"also {next(iter(sets.values()))}"
        raise DataError(
            f"{path} has {sets[others[0]]}, and {conflict}: the lists of all sets have the same names; use one folder per set, "
            f"such as {path if path.is_dir() else path.parent}/os-{wanted or others[0]}",
            code="several_sets",
        )


def _guess(text: str) -> str | None:
    """The set named in a path, if exactly one is."""
    patterns = {name: rf"os[-_]{name}\b|\b{name}(?:_2000)?_mm\b|\b{name}__level" for name in PUBLISHED}
    named = [name for name, pattern in patterns.items() if re.search(pattern, text.lower())]
    return named[0] if len(named) == 1 else None


def _count_warnings(items: list[Item], name: str | None) -> list[str]:
    if name is None:
        return [f"the set is not clear from the names, so counts were not checked: give --set {'|'.join(PUBLISHED)}"]
    published = PUBLISHED[name]
    counts: dict[str, tuple[int, int | None]] = {
        f"{split} objects": (sum(item.labels["split"] == split for item in items), getattr(published, split))
        for split in SPLITS
    }
    seen = {item.labels["label"] for item in items if item.labels["split"] == "train"}
    unseen = {item.labels["label"] for item in items if item.labels["split"] != "train"}
    counts |= {
        "seen classes": (len(seen), published.seen_classes),
        "unseen classes": (len(unseen), published.unseen_classes),
    }
    return differences(counts) + some("classes that are both seen and unseen", sorted(seen & unseen))


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--set", choices=tuple(PUBLISHED), help="the set; by default derived from file names")


def main(arguments: list[str] | None = None) -> int:
    """Prepare a set."""
    return run(DATA_SET, prepare, arguments, _options)


if __name__ == "__main__":
    sys.exit(main())
