"""Training images for tuning: cached views of labeled objects, one .npy file per object."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvrender.cameras import parse_rig
from mvrender.shading import Style
from mvretrieval.errors import TrainingError


@dataclass(frozen=True)
class ViewDataset:
    """Rendered views of N objects. One file per object, memory-mapped, so that a batch reads only the views it needs.

    Attributes:
        folder: of the files.
        ids: N object ids.
        labels: N class names.
        keys: N file names.
        rig: of the cameras.
        styles: of the views.
        size: pixels of a side.
        mask: (N, V) bool, True where a view was rendered.
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
        """(V, 3) camera directions of the rig."""
        return parse_rig(self.rig).directions.astype(np.float32)

    def images(self, row: int, views: NDArray[np.int64] | None = None) -> NDArray[np.uint8]:
        """(S, V, H, W, 3) images of an object: all views, or the given ones.

        Raises:
            TrainingError: the file is missing or damaged.
        """
        path = cache_file(self.folder, self.keys[row])
        try:
            images = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise TrainingError(
                f"cannot read {path}, the views of {self.ids[row]} ({error}): run the command again to render them",
                code="cached_views_unreadable",
            ) from error
        return np.array(images if views is None else images[:, views])

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> ViewDataset:
        """The objects in these rows."""
        picked = [int(i) for i in rows]
        return replace(
            self,
            ids=tuple(self.ids[i] for i in picked),
            labels=tuple(self.labels[i] for i in picked),
            keys=tuple(self.keys[i] for i in picked),
            mask=self.mask[picked],
        )

    def of_classes(self, names: Iterable[str]) -> ViewDataset:
        """The objects of these classes."""
        kept = set(names)
        return self.take([i for i, label in enumerate(self.labels) if label in kept])

    @property
    def fingerprint(self) -> str:
        """16 hex digits over the views and labels, in order."""
        return hashlib.sha256(json.dumps([self.keys, self.labels]).encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON values, except `mask` and `folder`."""
        return {name: getattr(self, name) for name in ("ids", "labels", "keys", "rig", "styles", "size")}

    @classmethod
    def from_dict(cls, folder: Path, values: dict[str, Any]) -> ViewDataset:
        """Inverse of `to_dict`; reads the masks from the cache.

        Raises:
            TrainingError: a file is missing.
        """
        lists = {name: tuple(values[name]) for name in ("ids", "labels", "keys", "styles")}
        return cls(folder, rig=values["rig"], size=values["size"], mask=load_masks(folder, lists["keys"]), **lists)


def cache_file(folder: Path, key: str) -> Path:
    """File with the images (S, V, H, W, 3) of one object; its mask is beside it."""
    return folder / key[:2] / f"{key}.npy"


def is_cached(folder: Path, key: str) -> bool:
    """Whether the images and the mask of an object are complete."""
    path = cache_file(folder, key)
    try:
        mask = np.load(path.with_suffix(".mask.npy"), allow_pickle=False)
        return bool(len(mask) == np.load(path, mmap_mode="r", allow_pickle=False).shape[1])
    except (OSError, ValueError, EOFError, IndexError, TypeError):
        return False


def save_views(folder: Path, key: str, images: NDArray[np.uint8], mask: NDArray[np.bool_]) -> None:
    """Write the images (S, V, H, W, 3) and the mask (V,) of one object, each file atomically, the mask first.

    Raises:
        TrainingError: the folder is not writable.
    """
    path = cache_file(folder, key)
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        path.parent.mkdir(exist_ok=True)
        for array, final in ((mask, path.with_suffix(".mask.npy")), (images, path)):
            with part.open("wb") as file:
                np.save(file, array, allow_pickle=False)
            part.replace(final)
    except OSError as error:
        raise TrainingError(
            f"cannot write views to {folder}: {error.strerror or error}; choose another --view-cache",
            code="not_writable",
        ) from error


def load_masks(folder: Path, keys: Sequence[str]) -> NDArray[np.bool_]:
    """(N, V) masks of cached objects.

    Raises:
        TrainingError: a mask is missing or damaged.
    """
    try:
        return np.stack([np.load(cache_file(folder, key).with_suffix(".mask.npy"), allow_pickle=False) for key in keys])
    except (OSError, ValueError) as error:
        raise TrainingError(
            f"cannot read the views in {folder} ({error}): run the command again to render them",
            code="cached_views_unreadable",
        ) from error
