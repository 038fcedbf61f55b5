"""Text queries for image-only encoders: embeddings of known names, and a linear map to object vectors.

A name's vector t in the space of a text encoder is mapped to an object vector by a linear map M, which is trained on objects
with names: the name becomes M (t - o), where o is the mean of the training names. The result is an ordinary query vector.
Mapping names to objects, rather than objects to names, avoids hubs: names that are nearest to most objects (Shigeto et al.
2015).
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
    """Names, their text vectors, and the map to object vectors.

    Attributes:
        names: N names; several names may have equal vectors.
        vectors: (N, E) from the text encoder.
        projection: (E, S * K), the map M; None before training.
        mean: (S * K,), mean object vector of the training objects; None before training.
        origin: (E,), mean of the training names, subtracted before the map; None before training.
    """

    names: tuple[str, ...]
    vectors: NDArray[np.float32]
    projection: NDArray[np.float32] | None = None
    mean: NDArray[np.float32] | None = None
    origin: NDArray[np.float32] | None = None

    @classmethod
    def load(cls, path: Path) -> TextEmbeddings:
        """Read an .npz file with `names` (N,) and `vectors` (N, E).

        Raises:
            EncoderError: it cannot be read, or does not contain them (`bad_text_embeddings`).
        """
        try:
            names, vectors = read_arrays(path, ["names", "vectors"])
            if names.ndim != 1 or names.dtype.kind != "U" or vectors.dtype.kind not in "fiu":
                raise ValueError(f"names are {names.dtype} {names.shape}, vectors {vectors.dtype} {vectors.shape}")
        except ValueError as error:
            raise EncoderError(
                f"cannot read text embeddings from {path} ({error}): give an .npz file with names (N,) of text and vectors "
                "(N, E)",
                code="bad_text_embeddings",
            ) from error
        vectors = vectors.astype(np.float32)
        if vectors.ndim != 2 or len(vectors) != len(names) or not len(names) or not np.isfinite(vectors).all():
            raise EncoderError(
                f"text embeddings {path} have {len(names)} names and vectors of shape {vectors.shape}: give one finite vector "
                "per name",
                code="bad_text_embeddings",
            )
        return cls(tuple(names.tolist()), vectors)

    @cached_property
    def directions(self) -> NDArray[np.float32]:
        """(N, E) unit vectors of the names, centred on the mean of all names.

        Text vectors lie in a narrow cone; what all names share does not discriminate.
        """
        units = l2_normalize(self.vectors)
        return l2_normalize(units - units.mean(axis=0))

    @cached_property
    def _rows(self) -> dict[str, list[int]]:
        """Rows of each plain name."""
        rows: dict[str, list[int]] = {}
        for i, name in enumerate(self.names):
            if plain := plain_name(name):
                rows.setdefault(plain, []).append(i)
        return rows

    def __len__(self) -> int:
        """Number of different plain names: `desk_chair` and `Desk Chair` count once."""
        return len(self._rows)

    def direction_of(self, name: str) -> NDArray[np.float32] | None:
        """(E,) unit vector of a name, or None if it is unknown. Of a path, the last part counts: `furniture/desk`."""
        known = self.known_name(name)
        if known is None:
            return None
        return l2_normalize(np.asarray(self.directions[self._rows[known]].mean(axis=0), np.float32))

    def known_name(self, name: str) -> str | None:
        """The known plain name that `name` stands for, or None. A plural matches its singular."""
        plain = plain_name(name)
        return next((form for form in (plain, plain.removesuffix("s")) if form in self._rows), None)

    def nearest_name(self, label: str) -> str | None:
        """The known name for a class label, or None: the label itself, its ending, or that of a parent class.

        `furniture/seat/dining_chair` matches `chair` if `dining chair` is unknown, `vehicle/car/sedan` matches `car`, and
        `flower_with_stem` matches `flower`.
        """
        own = self.known_name(label)
        if own is not None:
            return own
        for part in reversed(label.split("/")):
            tokens = plain_name(part).split(" with ")[0].split()
            for start in range(len(tokens)):
                found = self.known_name(" ".join(tokens[start:]))
                if found is not None:
                    return found
        return None

    def object_vector(self, text: str) -> NDArray[np.float32]:
        """Object vector (S * K,) of a known name, unit norm.

        Raises:
            NoTextError: the name is unknown (`unknown_name`).
        """
        assert self.projection is not None and self.origin is not None
        direction = self.direction_of(text)
        if direction is None:
            raise NoTextError(
                f"'{text}' is not one of the adapter's {len(self)} names: {did_you_mean(plain_name(text), self._rows)}"
                "for free text use a collection with a CLIP encoder",
                code="unknown_name",
            )
        return l2_normalize(np.asarray((direction - self.origin) @ self.projection, np.float32))

    def name_scores(self, vectors: NDArray[np.float32], names: Sequence[str]) -> NDArray[np.float32]:
        """Cosines (N, C) of centred object vectors (N, S * K) and C known names.

        Raises:
            NoTextError: a name is unknown (`unknown_name`).
        """
        assert self.mean is not None
        targets = np.stack([self.object_vector(name) for name in names])
        return np.asarray(l2_normalize(vectors - self.mean) @ targets.T, np.float32)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays that an adapter's file stores."""
        assert self.projection is not None and self.mean is not None and self.origin is not None
        return {
            "text.vectors": self.vectors.astype(np.float16),
            "text.projection": self.projection,
            "text.mean": self.mean,
            "text.origin": self.origin,
        }


_SEPARATOR = "-"  # stands for punctuation until articles are removed
_ARTICLES = re.compile(r"^(?:(?:a|an|the) [ -]*)+(?=[^ -])")
_NO_ARTICLE = re.compile(r"^(a|an|the)-[ -]*(?=[^ -])")


def class_name(label: object) -> str:
    """The name of a class for text queries: `furniture/Desk_Chair` -> `desk chair`; empty for None or a label without letters."""
    return "" if label is None else plain_name(str(label))


def plain_name(text: str) -> str:
    """Normalize a name: `Furniture/Desk_Chair`, `a desk chair` and `desk-chair (wooden)` -> `desk chair`; `A-frame` -> `a-frame`.

    Letters and digits of any script are kept, with their combining marks. A text without them gives an empty name. The
    function is idempotent.
    """
    # Invisible characters are removed first: without them a letter and a mark may compose.
    name = "".join(c for c in text if c.isascii() or unicodedata.category(c) != "Cf")
    name = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    name = _separate(re.sub(r"\(.*?\)", " ", name).rsplit("/", 1)[-1]).strip(" -")
    name = _ARTICLES.sub("", name)
    first = _NO_ARTICLE.match(name)
    rest = name[first.end() :] if first else name
    return (f"{first[1]}-" if first else "") + re.sub("[ -]+", " ", rest)


def _separate(text: str) -> str:
    """Keep letters, digits and their marks; replace blanks and underscores by a blank, and everything else by `-`."""
    kept = ""
    for char in text:
        if char.isalnum() or (unicodedata.category(char)[0] == "M" and kept[-1:] not in ("", " ", _SEPARATOR)):
            kept += char
        else:
            kept += " " if char == "_" or char.isspace() else _SEPARATOR
    return kept
