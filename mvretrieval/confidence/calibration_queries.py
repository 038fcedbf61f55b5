"""Questions that a collection can ask itself, and what they find: what curves are fitted on.

What is calibrated is what people see: the first ten hits of a question, itself left out. Every object that has a label may
ask, also one that is alone of its kind, whose hits are then all of another. In a smoothed collection an object that asks has
a share in its neighbours' vectors, which one from elsewhere has not: of the latter, confidence is a little too low there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mvretrieval.confidence.curve import cohort_size
from mvretrieval.confidence.fit import Asked
from mvretrieval.describe import IMAGE_STYLES
from mvretrieval.store.batches import original_vectors, view_vectors

if TYPE_CHECKING:
    from mvretrieval.session.session import Session

HITS = 10
# So many questions make 20,000 pairs; more say nothing new.
MOST_QUESTIONS = 2000
MOST_WORDS = 500
_MOST_PICTURES = 3  # of one object in a question
_AT_ONCE = 256


@dataclass(frozen=True)
class Labelled:
    """Objects that may ask and be found.

    Attributes:
        row_ids: (n,) ascending.
        codes: (n,) class of each.
        everything: whether these are all objects of the session.
    """

    row_ids: NDArray[np.int64]
    codes: NDArray[np.int64]
    everything: bool

    def draw(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """Rows of at most `MOST_QUESTIONS` of them, ascending."""
        return np.sort(rng.permutation(len(self.row_ids))[:MOST_QUESTIONS])

    def codes_of(self, row_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Classes of objects that are among them."""
        return self.codes[np.searchsorted(self.row_ids, row_ids)]


def asked_with_objects(session: Session, labelled: Labelled, rng: np.random.Generator) -> Asked:
    """Objects as they are in the session."""
    rows = labelled.draw(rng)

    def parts() -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        for start in range(0, len(rows), _AT_ONCE):
            some = rows[start : start + _AT_ONCE]
            yield some, original_vectors(session.store, labelled.row_ids[some].tolist())[1]

    return _asked(session, labelled, parts())


def asked_with_pictures(session: Session, labelled: Labelled, rng: np.random.Generator) -> Asked:
    """One to three of an object's views, as if they were pictures of unknown direction."""
    describer, rows = session.describer, labelled.draw(rng)
    style = next(s for s, name in enumerate(describer.config.styles) if name in IMAGE_STYLES)

    def parts() -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        for start in range(0, len(rows), _AT_ONCE):
            some = rows[start : start + _AT_ONCE]
            _, views, masks = view_vectors(session.store, labelled.row_ids[some].tolist(), describer.n_styles)
            pictures = np.zeros((len(some), _MOST_PICTURES, views.shape[3]), np.float32)
            shown = np.zeros((len(some), _MOST_PICTURES), bool)
            for i, mask in enumerate(masks):
                picked = rng.permutation(np.flatnonzero(mask))[: rng.integers(1, _MOST_PICTURES + 1)]
                pictures[i, : len(picked)], shown[i, : len(picked)] = views[i, style, picked], True
            yield some, describer.pool_images(pictures, shown)

    return _asked(session, labelled, parts())


def asked_with_words(session: Session, labelled: Labelled, vectors: NDArray[np.float32], codes: Sequence[int]) -> Asked:
    """Names (Q, D) of classes (Q,), which are all looked for among all objects."""
    found = _found(session, vectors, np.full(len(vectors), -1), labelled)
    return _pairs([(np.asarray(codes, np.int64), *found)], labelled)


def asked_with_halves(session: Session, row_ids: NDArray[np.int64], rng: np.random.Generator, pictures: bool) -> Asked:
    """Without labels: some views of an object ask for the rest of it, among all other objects.

    Args:
        session: not smoothed.
        row_ids: (n,) of the objects.
        rng: draws objects and views.
        pictures: ask with one to three views as if they were pictures; otherwise with half of them.
    """
    store, describer = session.store, session.describer
    everything = Labelled(row_ids, np.arange(len(row_ids)), len(row_ids) == len(session))
    rows = everything.draw(rng)
    parts = []
    for start in range(0, len(rows), _AT_ONCE):
        some = rows[start : start + _AT_ONCE]
        own, views, masks = view_vectors(store, row_ids[some].tolist(), describer.n_styles)
        asking, rest = masks.copy(), masks.copy()
        for i, mask in enumerate(masks):
            seen = rng.permutation(np.flatnonzero(mask))
            count = min(int(rng.integers(1, _MOST_PICTURES + 1)), len(seen) // 2) if pictures else len(seen) // 2
            asking[i, seen[count:]], rest[i, seen[:count]] = False, False
        kept = asking.any(axis=1)  # an object with one view has no other to be known by
        own, some, views, asking, rest = own[kept], some[kept], views[kept], asking[kept], rest[kept]
        if not len(own):
            continue
        if pictures:
            style = next(s for s, name in enumerate(describer.config.styles) if name in IMAGE_STYLES)
            vectors = describer.pool_images(views[:, style], asking)
        else:
            vectors, _ = describer.pool(views, asking)
        others, _ = describer.pool(views, rest)
        cosines, found, heights = _found(session, vectors, own, everything)
        # The other half takes its place among the hits.
        cosines = np.concatenate([np.einsum("qd,qd->q", vectors, others)[:, None], cosines], axis=1)
        found = np.concatenate([own[:, None], found], axis=1)
        order = np.argsort(-cosines, axis=1, kind="stable")[:, :HITS]
        parts.append((some, np.take_along_axis(cosines, order, 1), np.take_along_axis(found, order, 1), heights))
    return _pairs(parts, everything)


def _asked(
    session: Session, labelled: Labelled, parts: Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]
) -> Asked:
    """Pairs of questions of labelled objects, in parts of rows (q,) and vectors (q, D)."""
    answers = [
        (labelled.codes[rows], *_found(session, vectors, labelled.row_ids[rows], labelled)) for rows, vectors in parts
    ]
    return _pairs(answers, labelled)


def _found(
    session: Session, vectors: NDArray[np.float32], own: NDArray[np.int64], labelled: Labelled
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    """First hits of questions (Q, D) among labelled objects, themselves (Q,) left out.

    Returns:
        Cosines (Q, HITS), -inf where there are fewer, and numbers (Q, HITS), -1 there; heights (Q,) in the whole session.
    """
    index = session.index.get()
    reach = cohort_size(len(index))
    cosines, row_ids = np.full((len(vectors), HITS), -np.inf), np.full((len(vectors), HITS), -1)
    heights = np.zeros(len(vectors))
    for start in range(0, len(vectors), _AT_ONCE):
        some = vectors[start : start + _AT_ONCE]
        wide = index.search(some, max(reach, HITS) + 1)
        near = wide if labelled.everything else index.search(some, HITS + 1, labelled.row_ids)
        for q, ((wide_cosines, wide_numbers), (hit_cosines, hit_numbers)) in enumerate(
            zip(wide, near, strict=True), start
        ):
            heights[q] = wide_cosines[wide_numbers != own[q]][:reach].mean()
            others = np.flatnonzero(hit_numbers != own[q])[:HITS]
            cosines[q, : len(others)], row_ids[q, : len(others)] = hit_cosines[others], hit_numbers[others]
    return cosines, row_ids, heights


def _pairs(
    answers: Sequence[tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]],
    labelled: Labelled,
) -> Asked:
    """One row for each hit of answers: classes (q,) of the questions, cosines, numbers and heights as `_found` gives them."""
    if not answers:
        empty = np.empty(0)
        return Asked(empty, empty, empty.astype(bool), empty.astype(np.int64), 0)
    codes, cosines, row_ids, heights = (np.concatenate(part) for part in zip(*answers, strict=True))
    q, h = np.nonzero(row_ids >= 0)
    same = labelled.codes_of(row_ids[q, h]) == codes[q]
    return Asked(cosines[q, h], heights[q], same, codes[q], len(codes))
