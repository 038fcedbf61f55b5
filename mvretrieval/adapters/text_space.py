"""Words for encoders that read none: known names with their vectors in a text encoder's space, and a map into it.

A name's vector t in the space of a text encoder is mapped among the object vectors of an image-only encoder by a linear map
M that was learnt from objects with names. A name so becomes an object vector, M (t - o) with o in the middle of the names it
was learnt from, and any index answers it. Mapping names to objects rather than objects to names keeps a few names from
being everybody's nearest (Shigeto et al. 2015).
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvretrieval.errors import EncoderError, did_you_mean
from mvretrieval.unit_norm import unit


@dataclass(frozen=True)
class TextSpace:
    """Names and their vectors.

    Attributes:
        names: N names; some may share a vector.
        vectors: (N, E) as the text encoder gave them.
        projection: (E, S * K) map M to object vectors, or None before it is learnt.
        mean: (S * K,) object vector in the middle, from which names point; or None with it.
        origin: (E,) in the middle of the names that it was learnt from, taken away before the map; or None with it.
    """

    names: tuple[str, ...]
    vectors: NDArray[np.float32]
    projection: NDArray[np.float32] | None = None
    mean: NDArray[np.float32] | None = None
    origin: NDArray[np.float32] | None = None

    @classmethod
    def load(cls, path: Path) -> TextSpace:
        """Names and vectors from an .npz file with `names` (N,) and `vectors` (N, E).

        Raises:
            EncoderError: it cannot be read, or does not hold them.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                names, vectors = tuple(str(name) for name in arrays["names"]), arrays["vectors"].astype(np.float32)
        except (OSError, EOFError, ValueError, KeyError, AttributeError, TypeError, IndexError, zipfile.BadZipFile) as error:
            # numpy takes what it does not know for a pickle, and advises to load it.
            why = "it holds neither text nor numbers" if "pickle" in str(error) else str(error)
            why = "it is no .npz file" if path.is_file() and not zipfile.is_zipfile(path) else why
            raise EncoderError(
                f"text space {path} cannot be read ({why}): an .npz file with names (N,) of text and vectors (N, E) is needed"
            ) from error
        if vectors.ndim != 2 or len(vectors) != len(names) or not len(names) or not np.isfinite(vectors).all():
            raise EncoderError(f"text space {path}: names {len(names)} and vectors {vectors.shape} do not belong together")
        return cls(names, vectors)

    @cached_property
    def directions(self) -> NDArray[np.float32]:
        """(N, E) unit vectors of the names, the middle of all names taken away.

        Text vectors lie in a narrow cone; what all names share says nothing about any of them.
        """
        units = unit(self.vectors)
        return unit(units - units.mean(axis=0))

    @cached_property
    def _rows(self) -> dict[str, list[int]]:
        rows: dict[str, list[int]] = {}
        for i, name in enumerate(self.names):
            rows.setdefault(plain_name(name), []).append(i)
        return rows

    def __len__(self) -> int:
        """How many names can be told apart: `desk_chair` and `Desk Chair` are one."""
        return len(self._rows)

    def direction_of(self, name: str) -> NDArray[np.float32] | None:
        """(E,) unit vector of a name, or None where it is unknown. A label's path is left out: `furniture/desk`."""
        rows = self._rows.get(plain_name(name))
        if rows is None:
            return None
        return unit(np.asarray(self.directions[rows].mean(axis=0), np.float32))

    def nearest_name(self, label: str) -> str | None:
        """The name by which a label can be called, or None: its own, its last words, or those of what it is a kind of.

        `furniture/seat/dining_chair` is a `chair` where `dining chair` is unknown, `vehicle/car/sedan` a `car`, and
        `flower_with_stem` a `flower`.
        """
        own = plain_name(label)
        if own in self._rows:
            return own
        for part in reversed(label.split("/")):
            words = plain_name(part).split(" with ")[0].split()
            for start in range(len(words)):
                name = " ".join(words[start:])
                found = next((form for form in (name, name.removesuffix("s")) if form in self._rows), None)
                if found is not None:
                    return found
        return None

    def object_direction(self, text: str) -> NDArray[np.float32]:
        """(S * K,) unit vector in the space of the objects that a known name points to.

        Raises:
            EncoderError: the name is not among the known ones.
        """
        assert self.projection is not None and self.origin is not None
        direction = self.direction_of(text)
        if direction is None:
            raise EncoderError(
                f"'{text}' is not among the {len(self)} names that this adapter knows: "
                f"{did_you_mean(plain_name(text), self._rows)}for free words use a collection with a CLIP encoder"
            )
        return unit(np.asarray((direction - self.origin) @ self.projection, np.float32))

    def name_scores(self, vectors: NDArray[np.float32], names: Sequence[str]) -> NDArray[np.float32]:
        """How well each of C known names fits each of N object vectors (N, S * K): cosines (N, C) seen from the middle.

        Raises:
            EncoderError: a name is not among the known ones.
        """
        assert self.mean is not None
        there = np.stack([self.object_direction(name) for name in names])
        return np.asarray(unit(vectors - self.mean) @ there.T, np.float32)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What is written into an adapter's file."""
        assert self.projection is not None and self.mean is not None and self.origin is not None
        return {
            "text.vectors": self.vectors.astype(np.float16),
            "text.projection": self.projection,
            "text.mean": self.mean,
            "text.origin": self.origin,
        }


def plain_name(text: str) -> str:
    """`Furniture/Desk_Chair`, `a desk chair` and `desk-chair (wooden)` all say `desk chair`."""
    words = re.sub(r"\(.*?\)", " ", text).rsplit("/", 1)[-1]
    words = re.sub(r"[^a-z0-9]+", " ", words.lower()).strip()
    return re.sub(r"^(a|an|the) (?=\w)", "", words)
