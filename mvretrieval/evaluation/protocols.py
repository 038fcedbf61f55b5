"""Who asks and among whom: leave-one-out, and the open-set protocol with queries that are written down."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvretrieval.errors import EvaluationError, ShapeError

_NAME = "open-set"


@dataclass(frozen=True)
class Task:
    """Who asks, among whom, and what counts as right.

    Attributes:
        queries: (Q,) index of each object that asks; each has a relevant item.
        gallery: (G,) index of each object that is ranked, in the order in which equal scores are ranked. A query that is
            among them is left out of its own ranking.
        codes: (N,) class of each object as a number; -1 for none, which is relevant to nothing.
        skipped: objects that would have asked, had they a relevant item.
    """

    queries: NDArray[np.int64]
    gallery: NDArray[np.int64]
    codes: NDArray[np.int64]
    skipped: int = 0

    def __post_init__(self) -> None:
        inside = np.isin(self.queries, self.gallery)
        if inside.any() and not inside.all():
            raise EvaluationError(
                f"{inside.sum()} of {len(inside)} queries are in the gallery: put all in it, or none, or their rankings differ "
                "in length"
            )

    @property
    def n_relevant(self) -> NDArray[np.int64]:
        """(Q,) relevant items of each query in the gallery, itself not counted."""
        return _n_relevant(self.codes, self.queries, self.gallery)


@dataclass(frozen=True)
class OpenSetQueries:
    """The draw of an open-set protocol; another run with the same file asks the same.

    Attributes:
        ids: objects that ask. All others are the gallery.
        per_class: queries of each class.
        seed: of the draw.
        short_classes: classes of at most `per_class` objects. They ask fewer, since one object has to be left to find.
    """

    ids: tuple[str, ...]
    per_class: int = 5
    seed: int = 0
    short_classes: int = 0

    def write(self, path: Path) -> None:
        """As JSON.

        Raises:
            EvaluationError: the file cannot be written.
        """
        record = {
            "protocol": _NAME,
            "seed": self.seed,
            "queries_per_class": self.per_class,
            "short_classes": self.short_classes,
            "queries": list(self.ids),
        }
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        except OSError as error:
            raise EvaluationError(f"queries {path} cannot be written: {error.strerror}; name another file") from error

    @classmethod
    def read(cls, path: Path) -> OpenSetQueries:
        """What `write` wrote.

        Raises:
            EvaluationError: the file cannot be read, or is something else.
        """
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise EvaluationError(f"queries {path} cannot be read: {error}") from error
        mend = "delete it, or name a new file, to draw queries"
        if not isinstance(record, dict) or record.get("protocol") != _NAME:
            raise EvaluationError(f"{path} holds no queries of an open-set protocol; {mend}")
        ids, per_class, seed, short = (record.get(k) for k in ("queries", "queries_per_class", "seed", "short_classes"))
        if not isinstance(ids, list) or not all(isinstance(i, str) for i in ids) or len(set(ids)) < len(ids):
            raise EvaluationError(f"{path}: 'queries' has to be a list of ids, each once; {mend}")
        if not (isinstance(per_class, int) and isinstance(seed, int) and isinstance(short, int)):
            raise EvaluationError(
                f"{path}: 'queries_per_class', 'seed', 'short_classes' have to be whole numbers; {mend}"
            )
        return cls(tuple(ids), per_class, seed, short)


def leave_one_out_task(labels: Sequence[Any], ids: Sequence[str] | None = None) -> Task:
    """Every object asks for its like among all others.

    Args:
        labels: N; an object without one (None) is neither asked nor relevant, but stays in the gallery.
        ids: N; equal scores are ranked by them, and by position without.
    """
    codes = _codes(labels)
    gallery = _in_order(len(labels), ids)
    asked = np.flatnonzero(codes >= 0)
    answerable = asked[_n_relevant(codes, asked, gallery) > 0]
    return Task(answerable, gallery, codes, len(asked) - len(answerable))


def draw_queries(labels: Sequence[Any], ids: Sequence[str], per_class: int = 5, seed: int = 0) -> OpenSetQueries:
    """Draw the queries of an open-set protocol: `per_class` of each class, but always one less than it has objects.

    The draw depends on ids and labels, not on their order.

    Args:
        labels: N; an object without one (None) does not ask.
        ids: N, each once.
        per_class: queries of each class.
        seed: of numpy's default generator.

    Raises:
        EvaluationError: `per_class` is below 1 or the seed below 0.
    """
    if per_class < 1 or seed < 0:
        raise EvaluationError(
            f"an open-set protocol needs at least 1 query of each class and a seed from 0, not {per_class} and {seed}"
        )
    members: dict[Any, list[str]] = {}
    for i in _in_order(len(labels), ids):
        if labels[i] is not None:
            members.setdefault(labels[i], []).append(ids[i])
    rng = np.random.default_rng(seed)
    drawn: list[str] = []
    for some in members.values():
        chosen = rng.choice(len(some), size=min(per_class, len(some) - 1), replace=False)
        drawn += [some[i] for i in sorted(chosen)]
    short = sum(len(some) <= per_class for some in members.values())
    return OpenSetQueries(tuple(drawn), per_class, seed, short)


def open_set_task(labels: Sequence[Any], ids: Sequence[str], queries: OpenSetQueries) -> Task:
    """The drawn objects ask, the rest is the gallery.

    Args:
        labels: N; an object without one (None) stays in the gallery and is relevant to nothing.
        ids: N, each once; equal scores are ranked by them.
        queries: who asks; a query without a relevant item is skipped and counted.

    Raises:
        EvaluationError: a query is not among the objects.
    """
    place = {object_id: i for i, object_id in enumerate(ids)}
    missing = [object_id for object_id in queries.ids if object_id not in place]
    if missing:
        raise EvaluationError(
            f"{len(missing)} of {len(queries.ids)} queries are not among the {len(ids)} objects, the first is '{missing[0]}'; "
            "evaluate the objects that the queries were drawn from, or draw anew into a new file"
        )
    codes = _codes(labels)
    asked = np.array([place[object_id] for object_id in queries.ids], np.int64)
    gallery = _in_order(len(labels), ids)
    gallery = gallery[~np.isin(gallery, asked)]
    answerable = asked[_n_relevant(codes, asked, gallery) > 0]
    return Task(answerable, gallery, codes, len(asked) - len(answerable))


def _codes(labels: Sequence[Any]) -> NDArray[np.int64]:
    names: dict[Any, int] = {}
    return np.array([-1 if label is None else names.setdefault(label, len(names)) for label in labels], np.int64)


def _in_order(n: int, ids: Sequence[str] | None) -> NDArray[np.int64]:
    """Positions in order of id."""
    if ids is None:
        return np.arange(n)
    if len(ids) != n or len(set(ids)) != n:
        raise ShapeError(
            f"{n} labels have {len(ids)} ids, {len(set(ids))} of them different; each object needs its own"
        )
    return np.array(sorted(range(n), key=ids.__getitem__), np.int64)


def _n_relevant(codes: NDArray[np.int64], queries: NDArray[np.int64], gallery: NDArray[np.int64]) -> NDArray[np.int64]:
    labelled = codes[gallery][codes[gallery] >= 0]
    counts = np.bincount(labelled, minlength=max(codes.max(initial=-1) + 1, 1))
    return np.asarray(np.where(codes[queries] >= 0, counts[codes[queries]] - np.isin(queries, gallery), 0), np.int64)
