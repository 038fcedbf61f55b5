"""Kinds of index by name, and which of them searches how many vectors.

    auto      exact up to 250,000 objects, then hnsw, or ivf where memory is short
    exact     all inner products
    hnsw      a graph (Malkov and Yashunin 2016) over 8-bit codes of the principal axes: the fastest
    ivf       inverted lists of one-bit codes (RaBitQ, Gao and Long 2024): the smallest, and the fastest to build
    cagra     a graph on the GPU (see `index.gpu_copy`); `hnsw` without a GPU, and for filtered searches
    FACTORY   any FAISS factory string, for example IVF1024,PQ64

All but `exact` propose candidates, which are then re-scored by their vectors.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from mvretrieval.errors import QueryError

NamedKind: TypeAlias = Literal["auto", "exact", "hnsw", "ivf", "cagra"]
IndexKind: TypeAlias = str
"""A `NamedKind` or a FAISS factory string."""

# Scoring 250,000 vectors of 512 dimensions for one query takes 20 ms on two cores; with codes it takes 1 ms.
EXACT_UP_TO = 250_000
FEWEST_WITH_CODES = 1000
"""Fewer vectors are too few to train codes on, and gain nothing."""

_HNSW = "HNSW24,SQ8"
_HNSW_LINK_BYTES = 210  # 48 neighbours of 4 bytes, and those of the upper levels
_MOST_OF_MEMORY = 0.25  # share of the machine's memory that `auto` may use for the graph


@dataclass(frozen=True)
class IndexParameters:
    """How thoroughly an approximate index is searched; None for its defaults. Indexes without such a parameter ignore it.

    Attributes:
        nprobe: number of inverted lists to search, at least 1.
        ef_search: length of the candidate list while a graph is searched, at least 1.
    """

    nprobe: int | None = None
    ef_search: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("nprobe", self.nprobe), ("ef_search", self.ef_search)):
            if value is not None and value < 1:
                raise QueryError(f"{name} is at least 1, not {value}", code="bad_index_parameters")


def is_named(kind: IndexKind) -> bool:
    """Whether `kind` is not a factory string."""
    return kind in get_args(NamedKind)


def n_lists_for(count: int) -> int:
    """Number of inverted lists for `count` vectors, of kind `ivf`."""
    return max(1, round(2 * math.sqrt(count)))


def factory_of(kind: IndexKind, count: int) -> str:
    """FAISS factory string of an approximate kind for `count` vectors, without a projection."""
    return {"hnsw": _HNSW, "cagra": _HNSW, "ivf": f"IVF{n_lists_for(count)},RaBitQfs"}.get(kind, kind)


def resolve_kind(kind: IndexKind, count: int, dim: int) -> IndexKind:
    """How `count` vectors (count, dim) are searched: `exact`, `hnsw`, `ivf`, `cagra` or a factory string."""
    if kind == "exact" or count <= FEWEST_WITH_CODES or (kind == "auto" and count <= EXACT_UP_TO):
        return "exact"
    if kind != "auto":
        return kind
    return "hnsw" if count * (dim + _HNSW_LINK_BYTES) <= _MOST_OF_MEMORY * _memory_bytes() else "ivf"


def _memory_bytes() -> float:
    """Memory of this machine; infinite where the system does not tell."""
    try:
        return float(os.sysconf("SC_PHYS_PAGES")) * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return math.inf
