"""Evaluation protocols: leave-one-out, and the open-set protocol with queries kept in a file."""

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
    """A retrieval task: queries, gallery and relevance by class.

    Attributes:
        queries: (Q,) index of each query object; each has at least one relevant item.
        gallery: (G,) index of each ranked object, in tie-breaking order. A query in the gallery is excluded from its own
            ranking.
        class_ids: (N,) class of each object; -1 for an object without a label, which is relevant to no query.
        skipped: queries dropped because they have no relevant item.
    """

    queries: NDArray[np.int64]
    gallery: NDArray[np.int64]
    class_ids: NDArray[np.int64]
    skipped: int = 0

    def __post_init__(self) -> None:
        inside = np.isin(self.queries, self.gallery)
        if inside.any() and not inside.all():
            raise EvaluationError(
                f"{inside.sum()} of {len(inside)} queries are in the gallery: rankings would differ in length; put all "
                "queries into the gallery, or none",
                code="mixed_gallery",
            )

    @property
    def n_relevant(self) -> NDArray[np.int64]:
        """(Q,) number of relevant gallery items of each query, itself excluded."""
        return _n_relevant(self.class_ids, self.queries, self.gallery)


@dataclass(frozen=True)
class OpenSetQueries:
    """The drawn queries of an open-set protocol. Runs that share the file use the same queries.

    Attributes:
        ids: ids of the query objects. All other objects are the gallery.
        per_class: queries drawn per class.
        seed: seed of the draw.
        short_classes: classes of at most `per_class` objects. They have fewer queries, since one object stays in the gallery.
    """

    ids: tuple[str, ...]
    per_class: int = 5
    seed: int = 0
    short_classes: int = 0

    def write(self, path: Path) -> None:
        """Write the queries as JSON.

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
            raise EvaluationError(
                f"query split {path} cannot be written: {error.strerror}; choose another path", code="not_writable"
            ) from error

    @classmethod
    def read(cls, path: Path) -> OpenSetQueries:
        """Read queries that `write` wrote.

        Raises:
            EvaluationError: the file cannot be read, or is not a query split.
        """
        fix = "give a file that --query-split has written, or a new path to draw queries"
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error  # without the path, which is named already
            raise EvaluationError(f"query split {path} cannot be read ({reason}): {fix}", code="unreadable") from error
        if not isinstance(record, dict) or record.get("protocol") != _NAME:
            raise EvaluationError(
                f"{path} is not a query split of the open-set protocol; {fix}", code="bad_query_split"
            )
        ids, per_class, seed, short = (record.get(k) for k in ("queries", "queries_per_class", "seed", "short_classes"))
        if not isinstance(ids, list) or not all(isinstance(i, str) for i in ids) or len(set(ids)) < len(ids):
            raise EvaluationError(f"{path}: 'queries' must be a list of distinct ids; {fix}", code="bad_query_split")
        if not (isinstance(per_class, int) and isinstance(seed, int) and isinstance(short, int)):
            raise EvaluationError(
                f"{path}: 'queries_per_class', 'seed' and 'short_classes' must be integers; {fix}",
                code="bad_query_split",
            )
        return cls(tuple(ids), per_class, seed, short)


def leave_one_out_task(labels: Sequence[Any], ids: Sequence[str] | None = None) -> Task:
    """Every labeled object is a query; all other objects are its gallery.

    Args:
        labels: N labels; an object without one (None) is no query and never relevant, but stays in the gallery.
        ids: N ids, which break ties; ties are broken by position without them.
    """
    class_ids = _class_ids(labels)
    gallery = _in_order(len(labels), ids)
    queries = np.flatnonzero(class_ids >= 0)
    answerable = queries[_n_relevant(class_ids, queries, gallery) > 0]
    return Task(answerable, gallery, class_ids, len(queries) - len(answerable))


def draw_queries(labels: Sequence[Any], ids: Sequence[str], per_class: int = 5, seed: int = 0) -> OpenSetQueries:
    """Draw the queries of an open-set protocol: `per_class` of each class, at most one less than the class has objects.

    The draw depends on ids and labels, not on their order.

    Args:
        labels: N labels; an object without one (None) is never drawn.
        ids: N distinct ids.
        per_class: queries of each class.
        seed: seed of numpy's default generator.

    Raises:
        EvaluationError: `per_class` is below 1 or the seed below 0.
    """
    if per_class < 1 or seed < 0:
        raise EvaluationError(
            f"the open-set protocol needs at least 1 query per class and a seed >= 0, got {per_class} and {seed}",
            code="bad_options",
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
    """The drawn objects are the queries; all others are the gallery.

    Args:
        labels: N labels; an object without one (None) stays in the gallery and is never relevant.
        ids: N distinct ids, which break ties.
        queries: the drawn queries; one without a relevant item is skipped and counted.

    Raises:
        EvaluationError: a query is not among the objects.
    """
    position = {object_id: i for i, object_id in enumerate(ids)}
    missing = [object_id for object_id in queries.ids if object_id not in position]
    if missing:
        raise EvaluationError(
            f"{len(missing)} of {len(queries.ids)} queries are not among the {len(ids)} objects, the first is '{missing[0]}'; "
            "evaluate the objects that the queries were drawn from, or draw new queries into a new file",
            code="unknown_query",
        )
    class_ids = _class_ids(labels)
    drawn = np.array([position[object_id] for object_id in queries.ids], np.int64)
    gallery = _in_order(len(labels), ids)
    gallery = gallery[~np.isin(gallery, drawn)]
    answerable = drawn[_n_relevant(class_ids, drawn, gallery) > 0]
    return Task(answerable, gallery, class_ids, len(drawn) - len(answerable))


def _class_ids(labels: Sequence[Any]) -> NDArray[np.int64]:
    names: dict[Any, int] = {}
    return np.array([-1 if label is None else names.setdefault(label, len(names)) for label in labels], np.int64)


def _in_order(n: int, ids: Sequence[str] | None) -> NDArray[np.int64]:
    """Positions sorted by id."""
    if ids is None:
        return np.arange(n)
    if len(ids) != n or len(set(ids)) != n:
        raise ShapeError(
            f"{n} labels have {len(ids)} ids, {len(set(ids))} of them distinct; every object needs its own id",
            code="bad_ids",
        )
    return np.array(sorted(range(n), key=ids.__getitem__), np.int64)


def _n_relevant(
    class_ids: NDArray[np.int64], queries: NDArray[np.int64], gallery: NDArray[np.int64]
) -> NDArray[np.int64]:
    labeled = class_ids[gallery][class_ids[gallery] >= 0]
    counts = np.bincount(labeled, minlength=max(class_ids.max(initial=-1) + 1, 1))
    n_alike = counts[class_ids[queries]] - np.isin(queries, gallery)
    return np.asarray(np.where(class_ids[queries] >= 0, n_alike, 0), np.int64)
