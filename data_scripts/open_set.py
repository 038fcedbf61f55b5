"""OS-ESB-core, OS-NTU-core, OS-MN40-core and OS-ABO-core: open-set retrieval from 24 rendered views of each object.

Two layouts, both as the authors' own loaders read them, and the split file of OS-ESB-core as they publish it; not verified
against the archives of the pictures, and that OS-ABO-core has the layout of the others is an assumption:

- the release: `train/CLASS/OBJECT/image/h_DEG.jpg`, `query/OBJECT/...`, `target/OBJECT/...`, with `query_label.txt` and
  `target_label.txt` (`OBJECT,CLASS` a line) beside them, which are separate downloads;
- `CLASS/OBJECT/image/h_DEG.jpg` with a split file `*__level_all__t2r8.json` (train.sample, retrieval.query, retrieval.target).

The number in a file's name is taken as its azimuth. Point clouds and voxels of the objects are left where they are.
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
from data_scripts.command import DataSet, Result, damages, differences, progress, run, some, tell, views_command
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
    """Numbers of a set: seen classes, their objects, unseen classes, queries, targets."""

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
        raise DataError(f"--download needs --set, one of {', '.join(PUBLISHED)}")
    if options.set == "abo":
        return ()
    title = PUBLISHED[options.set].title
    return tuple(f"{_SERVER}/{title}/{file}" for file in (f"{title}.zip", "query_label.txt", "target_label.txt"))


def _fetch(addresses: Sequence[str], folder: Path, options: argparse.Namespace) -> None:
    """Fetch a set into a folder of its own: the lists of all sets have the same names."""
    if folder.is_dir():
        _check_one_set(folder, options.set)
    for address in addresses:
        download(address, folder, tell)


DATA_SET = DataSet(
    name="open_set",
    title="OS-ESB-core, OS-NTU-core, OS-MN40-core, OS-ABO-core",
    source="https://github.com/iMoonLab/HGM2R and https://moon-lab.tech/os3dor",
    licence="the models belong to their authors; the pictures are offered for academic research only; see source",
    objects="ESB 98 + 120 + 452, NTU 378 + 270 + 1,271, MN40 2,821 + 160 + 9,329, ABO ? + 85 + 5,455 (train + query + target)",
    layout="train/CLASS/OBJECT/image/h_DEG.jpg, {query,target}/OBJECT/image/h_DEG.jpg, query_label.txt and target_label.txt; "
    "or CLASS/OBJECT/image/h_DEG.jpg with a split file *.json",
    verified="the authors' loaders and ESB's split file; ABO: assumed to be like the others",
    addresses=_addresses,
    fetch=_fetch,
)


@dataclass(frozen=True)
class Sample:
    """An object as the split lists it: where its folder ends, its label, its split."""

    folder: str
    label: str
    split: str


def prepare(source: Source, layout: Layout, options: argparse.Namespace) -> Result:
    """Copy the views, and write them down in both orders."""
    _check_one_set(source.path, options.set)
    members = _views_by_folder(source)
    if not members:
        raise DataError(f"{source.path} holds no views image/h_DEG.jpg: expected {DATA_SET.layout}")
    items: dict[str, Item] = {}
    views: dict[str, list[View]] = {}
    missing: list[str] = []
    uneven: list[str] = []
    for sample in _samples(source, members):
        of_one = members.get(sample.folder, {})
        name = plain_name(sample.folder.rsplit("/", 1)[-1])
        file = f"{sample.split}/{plain_name(sample.label)}/{name}"
        if file in items:
            raise DataError(f"{sample.folder} is listed twice as {file}: the split is not the released one")
        if not of_one:
            missing.append(f"{sample.split} {sample.folder}")
            continue
        if len(of_one) != N_VIEWS:
            uneven.append(f"{file} ({len(of_one)})")
        pictures = [(member, f"{file}/{member.rsplit('/', 1)[-1]}") for member in of_one.values()]
        parts = tuple(Part(member, picture, checks.picture, needed=False) for member, picture in pictures)
        items[file] = Item(file, {"label": sample.label, "split": sample.split, "name": name}, parts)
        views[file] = [View(p.file, a, ELEVATION_DEG) for a, p in zip(of_one, parts, strict=True)]
    for split in ("query", "target"):
        lost = [folder for folder in missing if folder.startswith(f"{split} ")]
        if lost and not any(item.labels["split"] == split for item in items.values()):
            raise DataError(
                f"{source.path} has no views of any of the {len(lost)} {split} objects, such as {lost[0].split(' ', 1)[1]}: they "
                "are of another set, or views are missing; fetch the set into a folder of its own"
            )
    outcome = layout.copy(source, list(items.values()), progress())
    views = {file: [view for view in of_one if view.file not in outcome.lacking] for file, of_one in views.items()}
    whole = [item for item in outcome.items if views[item.file]]
    layout.write_labels([(item.file, item.labels) for item in whole])
    layout.write_views("views.csv", [(item.file, views[item.file]) for item in whole])
    as_text = [(item.file, sorted(views[item.file], key=lambda view: view.file)) for item in whole]
    layout.write_views("views_text_order.csv", as_text)
    _write_queries(layout, whole)
    names = " ".join([str(source.path.absolute()), *list(source.sizes)[:1]])
    warnings = damages(outcome) + some("objects of the split have no views", missing)
    warnings += some(f"objects have other than {N_VIEWS} views", uneven) + _compared(
        whole, options.set or _guess(names)
    )
    return Result(len(whole), (views_command(layout, "open-set"),), warnings)


def _views_by_folder(source: Source) -> dict[str, dict[float, str]]:
    """Folder of each object: its views by azimuth, from 0 up."""
    found: dict[str, list[tuple[float, str]]] = {}
    for member in source.sizes:
        if match := _VIEW.match(member):
            found.setdefault(match["object"], []).append((float(match["azimuth"]), member))
    return {folder: dict(sorted(views)) for folder, views in sorted(found.items())}


def _samples(source: Source, members: dict[str, dict[float, str]]) -> Iterator[Sample]:
    """Objects of the split, with the folders that they have in the source."""
    splits = [name for name in sorted(source.sizes) if name.lower().endswith(".json")]
    for name in splits:
        try:
            split = json.loads(source.read(name))
        except ValueError as error:
            raise DataError(f"{name} is damaged: {error}; fetch it again") from error
        if isinstance(split, dict) and "retrieval" in split:
            tell(f"split: {name}")
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
        raise DataError(f"{name} is no split file of the open-set sets ({error!r} is amiss): see --about") from error


def _of_release(source: Source, members: dict[str, dict[float, str]]) -> Iterator[Sample]:
    roots = {m[1] for folder in members if (m := re.match(r"^(.*?)(?:train|query|target)/", folder))}
    if len(roots) != 1:
        raise DataError(
            f"{source.path} has no folders train, query and target, nor a split file *.json: expected {DATA_SET.layout}"
            if not roots
            else f"{source.path} holds several sets ({', '.join(sorted(roots))}): name one of them"
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
    """Objects and classes of `query_label.txt` or `target_label.txt`, which the baseline calls `query.txt`, `target.txt`."""
    for wanted in (f"{split}_label.txt", f"{split}.txt"):
        found = sorted((n for n in source.sizes if n.rsplit("/", 1)[-1] == wanted), key=lambda n: (n.count("/"), n))
        if found:
            lines = read_text(source, found[0]).splitlines()
            pairs = [line.strip().rpartition(",") for line in lines if line.strip()]
            if not all(name and label for name, _, label in pairs):
                raise DataError(
                    f"{found[0]} has lines other than OBJECT,CLASS: fetch {split}_label.txt from {DATA_SET.source}"
                )
            return [(name.strip(), label.strip()) for name, _, label in pairs]
    raise DataError(
        f"{source.path} lacks {split}_label.txt, a download of its own: put it into the folder of the archive, and name that "
        f"folder as SOURCE (from {DATA_SET.source})"
    )


def _by_end(members: dict[str, dict[float, str]], depth: int) -> dict[str, str]:
    """Folders by their last parts."""
    return {"/".join(folder.split("/")[-depth:]): folder for folder in members}


def _write_queries(layout: Layout, items: list[Item]) -> None:
    """The published queries, as `mvr eval --protocol open-set --queries` reads them."""
    record = {
        "protocol": "open-set",
        "seed": 0,
        "queries_per_class": 5,
        "short_classes": 0,
        "queries": [item.file for item in items if item.labels["split"] == "query"],
    }
    layout.write("queries.json", (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode())


def _check_one_set(path: Path, wanted: str | None) -> None:
    """Refuse archives of several sets in one folder, or of another set than the one that is asked for.

    Raises:
        DataError: with the archive, and what to do.
    """
    archives = sorted(found for found in path.iterdir() if is_archive(found)) if path.is_dir() else [path]
    sets = {name: archive.name for archive in archives for name in [_guess(archive.name)] if name is not None}
    others = [name for name in sets if name != (wanted or next(iter(sets)))]
    if others:
        kept = f"--set {wanted} is asked for" if wanted else f"{next(iter(sets.values()))} too"
        raise DataError(
            f"{path} holds {sets[others[0]]}, and {kept}: the lists of all sets have the same names and would be mixed up; use one "
            f"folder for each set, such as {path if path.is_dir() else path.parent}/os-{wanted or others[0]}"
        )


def _guess(text: str) -> str | None:
    """The set that a name says it is."""
    patterns = {name: rf"os[-_]{name}\b|\b{name}(?:_2000)?_mm\b|\b{name}__level" for name in PUBLISHED}
    named = [name for name, pattern in patterns.items() if re.search(pattern, text.lower())]
    return named[0] if len(named) == 1 else None


def _compared(items: list[Item], name: str | None) -> list[str]:
    if name is None:
        return [f"which set this is cannot be told by its name: nothing was compared; give --set {'|'.join(PUBLISHED)}"]
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
    return differences(counts) + some("classes are both seen and unseen", sorted(seen & unseen))


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--set", choices=tuple(PUBLISHED), help="which set it is; by default, what its name says")


def main(arguments: list[str] | None = None) -> int:
    """Lay a set out."""
    return run(DATA_SET, prepare, arguments, _options)


if __name__ == "__main__":
    sys.exit(main())
