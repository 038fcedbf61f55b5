"""Training pictures: the views of labelled meshes, rendered once into a folder and kept there by what they show."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvrender.cameras import parse_rig
from mvrender.mesh import UpAxis
from mvrender.pool import Failed, Job, Opened, Rendered, RenderPool, RenderSpec
from mvrender.shading import VIEWS_VERSION, Style
from mvretrieval.api import Collection
from mvretrieval.errors import TrainingError, did_you_mean
from mvretrieval.ingest.labels_csv import read_labels
from mvretrieval.ingest.scan import find_meshes
from mvtrain.features import nothing_labelled

Say = Callable[[str], None]


@dataclass(frozen=True)
class Labelled:
    """A mesh with its class.

    Attributes:
        id: for messages.
        label: class name.
        path: its file.
        root: folder that its references may not leave.
        up: axis that is up; the format's convention if None.
        content: hash of all that its looks depend on, where it is known before the file is read.
    """

    id: str
    label: str
    path: Path
    root: Path | None = None
    up: UpAxis | None = None
    content: str = ""


@dataclass(frozen=True)
class Pictures:
    """Rendered views of N objects, in one file each, so that a batch reads the views that it shows and no others.

    Attributes:
        folder: where the files are.
        ids: N.
        labels: N class names.
        keys: N, names of the files.
        rig: where the cameras stood.
        styles: what the views look like.
        size: their pixels.
        mask: (N, V) bool.
    """

    folder: Path
    ids: tuple[str, ...]
    labels: tuple[str, ...]
    keys: tuple[str, ...]
    rig: str
    styles: tuple[Style, ...]
    size: int
    mask: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def classes(self) -> list[str]:
        """Class names, sorted."""
        return sorted(set(self.labels))

    @property
    def directions(self) -> NDArray[np.float32]:
        """(V, 3) of the rig."""
        return parse_rig(self.rig).directions.astype(np.float32)

    def of(self, row: int, views: NDArray[np.int64] | None = None) -> NDArray[np.uint8]:
        """(S, V, H, W, 3) pictures of an object, of all its views or of some.

        Raises:
            TrainingError: the file is gone or damaged.
        """
        path = _file(self.folder, self.keys[row])
        try:
            images = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise TrainingError(
                f"{path}, views of {self.ids[row]}, cannot be read ({error}): run again to render them"
            ) from error
        return np.array(images if views is None else images[:, views])

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> Pictures:
        """Some of the objects."""
        picked = [int(i) for i in rows]
        return replace(
            self,
            ids=tuple(self.ids[i] for i in picked),
            labels=tuple(self.labels[i] for i in picked),
            keys=tuple(self.keys[i] for i in picked),
            mask=self.mask[picked],
        )

    def of_classes(self, names: Iterable[str]) -> Pictures:
        """The objects of some classes."""
        kept = set(names)
        return self.take([i for i, label in enumerate(self.labels) if label in kept])

    @property
    def fingerprint(self) -> str:
        """16 hex digits over what is shown, of which class, in which order."""
        return hashlib.sha256(json.dumps([self.keys, self.labels]).encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """For JSON; the masks lie beside the pictures."""
        return {name: getattr(self, name) for name in ("ids", "labels", "keys", "rig", "styles", "size")}

    @classmethod
    def from_dict(cls, folder: Path, values: dict[str, Any]) -> Pictures:
        """Back from `to_dict`.

        Raises:
            TrainingError: a file is gone.
        """
        lists = {name: tuple(values[name]) for name in ("ids", "labels", "keys", "styles")}
        return cls(folder, rig=values["rig"], size=values["size"], mask=_masks(folder, lists["keys"]), **lists)


def of_collection(collection: Collection, by: str, where: str | None) -> list[Labelled]:
    """The objects of a collection that have a label.

    Raises:
        FilterError: there is no such label, or the filter cannot be understood.
        TrainingError: no object is left, or one is no mesh.
    """
    store = collection.store
    with collection.reading():
        row_ids = [int(n) for n in store.select(where)]
        store.check_column(by)
        records = store.records(row_ids)
        labels = store.column_values(by, row_ids)
        roots = {row_id: store.root_of(row_id) for row_id in row_ids}
    found = []
    for row_id, label in zip(row_ids, labels, strict=True):
        if label is not None:
            own, root = records[row_id], roots[row_id]
            if own.facts.get("format") == "views":
                raise TrainingError(
                    f"'{own.id}' came as pictures, and tuning draws its views from meshes: name a collection of meshes, or "
                    "leave such objects out with --where \"format != 'views'\""
                )
            up = own.facts["up"]
            found.append(
                Labelled(own.id, str(label), Path(own.path), Path(root) if root else None, up, own.content_hash)
            )
    if not found:
        raise nothing_labelled(collection, by, where, len(row_ids))
    return found


def of_folder(folder: Path, by: str, labels: Path | None) -> list[Labelled]:
    """The meshes of a folder that a CSV names.

    Raises:
        LabelsError: the CSV cannot be read.
        TrainingError: it has no such column, or names no mesh of the folder.
    """
    if labels is None:
        raise TrainingError(
            f"{folder} is no collection: name one, or give classes of its meshes with --labels labels.csv"
        )
    read = read_labels(labels)
    if by not in read.columns:
        raise TrainingError(
            f"{labels} has no column '{by}': {did_you_mean(by, read.columns)}it has {', '.join(read.columns)}"
        )
    found = []
    for item in find_meshes([folder]):
        label = read.rows.get(str(item.path), {}).get(by)
        if label is not None and item.problem is None:
            up = read.up.get(str(item.path))
            found.append(Labelled(str(item.path.relative_to(item.root)), str(label), item.path, item.root, up))  # type: ignore[arg-type]
    if not found:
        raise TrainingError(
            f"{labels} names no mesh of {folder} with a '{by}': its column 'file' is relative to the CSV"
        )
    return found


def render(
    objects: Sequence[Labelled],
    spec: RenderSpec,
    folder: Path,
    workers: int | None = None,
    say: Say = lambda text: None,
    progress: Callable[[int, int], None] | None = None,
) -> Pictures:
    """Views of labelled meshes; those that the folder has are not rendered again, whoever rendered them.

    A mesh that cannot be rendered is told and left out. About 1.8 MB an object with 12 views of 224 pixels, not
    compressed: unpacking a batch of PNGs takes longer than a small network takes to look at it.

    Raises:
        TrainingError: the folder cannot be written, or nothing could be rendered.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(f"the folder of views {folder} cannot be made: {error.strerror or error}") from error
    keys: dict[int, str] = {}
    waiting: dict[str, int] = {}

    def jobs() -> Iterator[Job]:
        for i, item in enumerate(objects):
            key = _key(spec, item.content) if item.content else ""
            if key and _is_whole(folder, key):
                keys[i] = key
                continue
            waiting[str(item.path)] = i
            yield Job(item.path, item.root, item.up)

    def wanted(opened: Opened) -> bool:
        return not _is_whole(folder, _key(spec, opened.content_hash))

    with RenderPool(spec, workers) as pool:
        for result in pool.run(jobs(), wanted):
            if isinstance(result, Failed):
                say(f"left out {result.job.path}: {result.message} ({result.code})")
                continue
            i = waiting[str(result.opened.job.path)]
            keys[i] = _keep(result, spec, folder)
            known = objects[i].content
            if known and known != result.opened.content_hash:
                say(f"note: {result.opened.job.path} has changed since it was indexed; what it is now is learnt from")
            if progress is not None:
                progress(len(keys), len(objects))
    rows = sorted(keys)
    if not rows:
        raise TrainingError(f"none of {len(objects)} meshes could be rendered: 'mvr doctor' tells what works here")
    return Pictures(
        folder,
        tuple(objects[i].id for i in rows),
        tuple(objects[i].label for i in rows),
        tuple(keys[i] for i in rows),
        spec.rig.name,
        spec.styles,
        spec.size,
        _masks(folder, [keys[i] for i in rows]),
    )


def _key(spec: RenderSpec, content: str) -> str:
    text = f"views={VIEWS_VERSION} rig={spec.rig.fingerprint} styles={','.join(spec.styles)} size={spec.size} {content}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _file(folder: Path, key: str) -> Path:
    return folder / key[:2] / f"{key}.npy"


def _is_whole(folder: Path, key: str) -> bool:
    """Whether an object's pictures and their mask are there, and not cut short."""
    path = _file(folder, key)
    try:
        mask = np.load(path.with_suffix(".mask.npy"), allow_pickle=False)
        return bool(len(mask) == np.load(path, mmap_mode="r", allow_pickle=False).shape[1])
    except (OSError, ValueError, EOFError, IndexError, TypeError):
        return False


def _keep(result: Rendered, spec: RenderSpec, folder: Path) -> str:
    """Write one object's pictures; a file of its final name is whole, and its mask is there."""
    key = _key(spec, result.opened.content_hash)
    if result.views is None:
        return key
    path = _file(folder, key)
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        path.parent.mkdir(exist_ok=True)
        for array, final in ((result.views.mask, path.with_suffix(".mask.npy")), (result.views.images, path)):
            with part.open("wb") as file:
                np.save(file, array, allow_pickle=False)
            part.replace(final)
    except OSError as error:
        raise TrainingError(
            f"views cannot be kept in {folder}: {error.strerror or error}; name another with --views"
        ) from error
    return key


def _masks(folder: Path, keys: Sequence[str]) -> NDArray[np.bool_]:
    try:
        return np.stack([np.load(_file(folder, key).with_suffix(".mask.npy"), allow_pickle=False) for key in keys])
    except (OSError, ValueError) as error:
        raise TrainingError(f"views in {folder} cannot be read ({error}): run again to render them") from error
