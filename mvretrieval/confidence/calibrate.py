"""Calibrating a collection: it asks itself, and what its questions find says how sure a cosine makes."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mvretrieval.confidence.calibration import Calibration, put_calibration
from mvretrieval.confidence.calibration_queries import (
    MOST_WORDS,
    Labelled,
    asked_with_halves,
    asked_with_objects,
    asked_with_pictures,
    asked_with_words,
)
from mvretrieval.confidence.curve import Curve
from mvretrieval.confidence.fit import Asked, check_extra, fit_curve
from mvretrieval.describe import IMAGE_STYLES
from mvretrieval.errors import CalibrationError, EncoderError
from mvretrieval.store.augmented import augmentation_of
from mvretrieval.weighting.text_embeddings import class_name

if TYPE_CHECKING:
    from mvretrieval.session.session import Session

FEWEST_OBJECTS = 8
FEWEST_NAMES = 10


def calibrate(session: Session, by: str | None = None, where: str | None = None, seed: int = 0) -> Calibration:
    """Fit a curve for each kind of question that the collection can be asked with, and remember them in it.

    Args:
        session: open; the right to write is taken.
        by: label that says what is of the same kind. Without one, what is learnt is how likely a hit is *the same object* as the
            question, from some of an object's views against the others: a stricter thing.
        where: objects that ask and are found; all by default. One without the label does neither.
        seed: of the draw of questions, views and folds.

    Returns:
        What was remembered.

    Raises:
        CalibrationError: too few objects, labels or classes, or scikit-learn is missing.
        FilterError: there is no such label, or the filter cannot be understood.
    """
    check_extra()
    if seed < 0:
        raise CalibrationError(f"the seed is a whole number from 0, not {seed}")
    session.lock_for_writing()
    with session.reading():
        asked, left_out = _unlabelled(session, where, seed) if by is None else _labelled(session, by, where, seed)
        curves: dict[str, Curve] = {}
        for name, pairs in asked.items():
            try:
                curves[name] = fit_curve(pairs, seed)
            except CalibrationError as error:
                if name == "objects":
                    raise
                left_out[name] = str(error)
        generation = session.store.generation
        calibration = Calibration(by, where, generation, curves, left_out)
    with session.store.transaction():
        put_calibration(session.store, calibration)
    return calibration


def _unlabelled(session: Session, where: str | None, seed: int) -> tuple[dict[str, Asked], dict[str, str]]:
    """Pairs for each kind of question, and why there are none for others: objects known again by their other views."""
    if augmentation_of(session.store) is not None:
        raise CalibrationError(
            f"{session.folder} is smoothed, and half of an object's views is not: calibrate by a label (--by), or end "
            f"smoothing with 'mvr reindex {session.folder} --smooth 0'"
        )
    row_ids = session.store.select(where)
    _check_enough(session, len(row_ids), where)
    left_out = {"words": "words are compared with labels: give --by"}
    asked = {"objects": asked_with_halves(session, row_ids, np.random.default_rng(seed), pictures=False)}
    if reason := _no_pictures(session):
        left_out["pictures"] = reason
    else:
        asked["pictures"] = asked_with_halves(session, row_ids, np.random.default_rng(seed), pictures=True)
    return asked, left_out


def _labelled(session: Session, by: str, where: str | None, seed: int) -> tuple[dict[str, Asked], dict[str, str]]:
    """The same by a label."""
    labelled, names = _objects(session, by, where)
    left_out: dict[str, str] = {}
    asked = {"objects": asked_with_objects(session, labelled, np.random.default_rng(seed))}
    if reason := _no_pictures(session):
        left_out["pictures"] = reason
    else:
        asked["pictures"] = asked_with_pictures(session, labelled, np.random.default_rng(seed))
    known, reason = _names_as_vectors(session, names, seed)
    if known is None:
        left_out["words"] = reason
    else:
        asked["words"] = asked_with_words(session, labelled, *known)
    return asked, left_out


def _objects(session: Session, by: str, where: str | None) -> tuple[Labelled, list[Any]]:
    """Objects that have the label, and the names of its classes."""
    store = session.store
    store.check_column(by)
    row_ids = store.select(where)
    values = store.column_values(by, row_ids.tolist())
    kept = [i for i, value in enumerate(values) if value is not None]
    _check_enough(session, len(kept), where, f" with a label '{by}'")
    counts = Counter(values[i] for i in kept)
    if len(counts) == 1:
        raise CalibrationError(
            f"all {len(kept)} objects have the same '{by}' ({next(iter(counts))}): nothing tells what is of another kind. Give "
            "another label or --where, or leave --by out"
        )
    if max(counts.values()) == 1:
        raise CalibrationError(
            f"no two of {len(kept)} objects have the same '{by}': nothing tells what is of the same kind. Give another label, or "
            "leave --by out"
        )
    names = sorted(counts, key=str)
    code = {name: i for i, name in enumerate(names)}
    codes = np.array([code[values[i]] for i in kept], np.int64)
    return Labelled(row_ids[kept], codes, len(kept) == len(session)), names


def _check_enough(session: Session, count: int, where: str | None, what: str = "") -> None:
    if count < FEWEST_OBJECTS:
        there = f"{count} object{'' if count == 1 else 's'}{what}{f' where {where}' if where else ''}"
        mend = ", give labels with 'mvr index --labels'" if what else ""
        raise CalibrationError(
            f"{session.folder} has {there}, too few to calibrate by: {FEWEST_OBJECTS} are needed{mend}"
        )


def _no_pictures(session: Session) -> str:
    """Why stored views cannot stand for pictures; empty where they can."""
    if not set(session.describer.config.styles) & set(IMAGE_STYLES):
        return f"no view looks like a picture (there are {', '.join(session.describer.config.styles)})"
    return ""


def _names_as_vectors(
    session: Session, names: list[Any], seed: int
) -> tuple[tuple[NDArray[np.float32], list[int]] | None, str]:
    """Classes' names (Q, D) as questions in words, with their codes (Q,); or None, and why."""
    describer = session.describer
    by_adapter = describer.adapter is not None and describer.adapter.text_embeddings is not None
    try:
        if not by_adapter and not describer.encoder.has_text:
            return None, "the encoder reads no words"
    except EncoderError as error:
        return None, f"the encoder cannot be opened ({error})"
    vectors, codes = [], []
    for code in np.sort(np.random.default_rng(seed).permutation(len(names))[:MOST_WORDS]).tolist():
        name = class_name(names[code])
        if not name:
            continue
        try:
            vectors.append(describer.embed_text(name))
        except EncoderError:  # an adapter does not know every name
            continue
        codes.append(code)
    if len(codes) < FEWEST_NAMES:
        return None, f"{len(codes)} names of classes can be read, {FEWEST_NAMES} are needed"
    return (np.stack(vectors), codes), ""
