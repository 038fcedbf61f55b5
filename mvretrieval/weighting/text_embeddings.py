"""Words for encoders that read none: known names with their vectors in a text encoder's space, and a map into it.

A name's vector t in the space of a text encoder is mapped among the object vectors of an image-only encoder by a linear map
M that was learnt from objects with names. A name so becomes an object vector, M (t - o) with o in the middle of the names it
was learnt from, and any index answers it. Mapping names to objects rather than objects to names keeps a few names from
being everybody's nearest (Shigeto et al. 2015).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvretrieval.errors import EncoderError, NoTextError, did_you_mean
from mvretrieval.normalize import l2_normalize
from mvretrieval.npz_file import read_arrays


@dataclass(frozen=True)
class TextEmbeddings:
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
    def load(cls, path: Path) -> TextEmbeddings:
        """Names and vectors from an .npz file with `names` (N,) and `vectors` (N, E).

        Raises:
            EncoderError: it cannot be read, or does not hold them.
        """
        try:
            names, vectors = read_arrays(path, ["names", "vectors"])
            if names.ndim != 1 or names.dtype.kind != "U" or vectors.dtype.kind not in "fiu":
                raise ValueError(
                    f"its names are {names.dtype} {names.shape}, its vectors {vectors.dtype} {vectors.shape}"
                )
        except ValueError as error:
            raise EncoderError(
                f"text space {path} cannot be read ({error}): an .npz file with names (N,) of text and vectors (N, E) is needed"
            ) from error
        vectors = vectors.astype(np.float32)
        if vectors.ndim != 2 or len(vectors) != len(names) or not len(names) or not np.isfinite(vectors).all():
            raise EncoderError(
                f"text space {path}: names {len(names)} and vectors {vectors.shape} do not belong together"
            )
        return cls(tuple(names.tolist()), vectors)

    @cached_property
    def directions(self) -> NDArray[np.float32]:
        """(N, E) unit vectors of the names, the middle of all names taken away.

        Text vectors lie in a narrow cone; what all names share says nothing about any of them.
        """
        units = l2_normalize(self.vectors)
        return l2_normalize(units - units.mean(axis=0))

    @cached_property
    def _rows(self) -> dict[str, list[int]]:
        rows: dict[str, list[int]] = {}
        for i, name in enumerate(self.names):
            if plain := plain_name(name):
                rows.setdefault(plain, []).append(i)
        return rows

    def __len__(self) -> int:
        """How many names can be told apart: `desk_chair` and `Desk Chair` are one."""
        return len(self._rows)

    def direction_of(self, name: str) -> NDArray[np.float32] | None:
        """(E,) unit vector of a name, or None where it is unknown. A label's path is left out: `furniture/desk`."""
        known = self.known_name(name)
        if known is None:
            return None
        return l2_normalize(np.asarray(self.directions[self._rows[known]].mean(axis=0), np.float32))

    def known_name(self, name: str) -> str | None:
        """The plain name that is meant, or None where it is unknown: a plural's singular, if only that is known."""
        plain = plain_name(name)
        return next((form for form in (plain, plain.removesuffix("s")) if form in self._rows), None)

    def nearest_name(self, label: str) -> str | None:
        """The name by which a label can be called, or None: its own, its last words, or those of what it is a kind of.

        `furniture/seat/dining_chair` is a `chair` where `dining chair` is unknown, `vehicle/car/sedan` a `car`, and
        `flower_with_stem` a `flower`.
        """
        own = self.known_name(label)
        if own is not None:
            return own
        for part in reversed(label.split("/")):
            words = plain_name(part).split(" with ")[0].split()
            for start in range(len(words)):
                found = self.known_name(" ".join(words[start:]))
                if found is not None:
                    return found
        return None

    def object_direction(self, text: str) -> NDArray[np.float32]:
        """(S * K,) unit vector in the space of the objects that a known name points to.

        Raises:
            NoTextError: the name is not among the known ones.
        """
        assert self.projection is not None and self.origin is not None
        direction = self.direction_of(text)
        if direction is None:
            raise NoTextError(
                f"'{text}' is not among the {len(self)} names that this adapter knows: "
                f"{did_you_mean(plain_name(text), self._rows)}for free words use a collection with a CLIP encoder"
            )
        return l2_normalize(np.asarray((direction - self.origin) @ self.projection, np.float32))

    def name_scores(self, vectors: NDArray[np.float32], names: Sequence[str]) -> NDArray[np.float32]:
        """How well each of C known names fits each of N object vectors (N, S * K): cosines (N, C) seen from the middle.

        Raises:
            NoTextError: a name is not among the known ones.
        """
        assert self.mean is not None
        there = np.stack([self.object_direction(name) for name in names])
        return np.asarray(l2_normalize(vectors - self.mean) @ there.T, np.float32)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What is written into an adapter's file."""
        assert self.projection is not None and self.mean is not None and self.origin is not None
        return {
            "text.vectors": self.vectors.astype(np.float16),
            "text.projection": self.projection,
            "text.mean": self.mean,
            "text.origin": self.origin,
        }


_SEPARATOR = "-"  # stands for everything that is neither said nor blank, until articles are told from letters
_ARTICLES = re.compile(r"^(?:(?:a|an|the) [ -]*)+(?=[^ -])")
_NO_ARTICLE = re.compile(r"^(a|an|the)-[ -]*(?=[^ -])")


def plain_name(text: str) -> str:
    """`Furniture/Desk_Chair`, `a desk chair` and `desk-chair (wooden)` all say `desk chair`; `A-frame` says `a-frame`.

    Letters and digits of any script are kept, with the marks that belong to them. Empty for a text that says nothing. What it
    gives is its own plain name.
    """
    # Invisible characters come first: without them letters and marks may become one.
    words = "".join(c for c in text if c.isascii() or unicodedata.category(c) != "Cf")
    words = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", words).casefold())
    words = _spelt(re.sub(r"\(.*?\)", " ", words).rsplit("/", 1)[-1]).strip(" -")
    words = _ARTICLES.sub("", words)
    first = _NO_ARTICLE.match(words)
    rest = words[first.end() :] if first else words
    return (f"{first[1]}-" if first else "") + re.sub("[ -]+", " ", rest)


def _spelt(text: str) -> str:
    """Letters, digits and their marks as they are, a blank for blanks and underscores, and `-` for everything else."""
    spelt = ""
    for char in text:
        if char.isalnum() or (unicodedata.category(char)[0] == "M" and spelt[-1:] not in ("", " ", _SEPARATOR)):
            spelt += char
        else:
            spelt += " " if char == "_" or char.isspace() else _SEPARATOR
    return spelt
