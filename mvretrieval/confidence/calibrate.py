"""Calibrate a collection: query it with its own objects, and fit a confidence curve per query modality."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvretrieval.confidence.calibration import Calibration, put_calibration
from mvretrieval.confidence.calibration_queries import (
    MAX_TEXT_QUERIES,
    CalibrationObjects,
    image_queries,
    object_queries,
    split_view_queries,
    text_queries,
)
from mvretrieval.confidence.curve import Curve
from mvretrieval.confidence.fit import CalibrationPairs, check_extra, fit_curve
from mvretrieval.describe import IMAGE_STYLES
from mvretrieval.errors import CalibrationError, EncoderError
from mvretrieval.session.session import Session
from mvretrieval.store.augmented import augmentation_of
from mvretrieval.weighting.text_embeddings import class_name

MIN_OBJECTS = 8
MIN_NAMES = 10

# By query modality.
_Pairs = dict[str, CalibrationPairs]
_LeftOut = dict[str, str]


def calibrate(session: Session, by: str | None = None, where: str | None = None, seed: int = 0) -> Calibration:
    """Fit a curve for each query modality, and store them in the collection.

    Args:
        session: of the collection; becomes its writer.
        by: label that defines the classes. Without it, each object is its own class: the curve gives the probability that a
            hit is the same object, estimated from some of an object's views against the others. This is a stricter criterion.
        where: filter of the objects that are queries and targets; all by default. With `by`, objects without the label are
            neither.
        seed: of the drawn queries, views and folds.

    Returns:
        The stored calibration.

    Raises:
        CalibrationError: too few objects (`too_few_objects`), a single class (`one_class`), classes of one object each
            (`all_distinct`), too few pairs (see `fit_curve`), no labels with database-side augmentation or one view
            (`needs_labels`), a negative seed (`bad_seed`), or no scikit-learn (`needs_extra`).
        FilterError: the label does not exist, or the filter cannot be parsed.
    """
    check_extra()
    if seed < 0:
        raise CalibrationError(f"the seed must be a whole number from 0, not {seed}", code="bad_seed")
    session.lock_for_writing()
    with session.reading():
        pairs, left_out = _without_labels(session, where, seed) if by is None else _by_label(session, by, where, seed)
        curves = _fit(pairs, left_out, seed)
        calibration = Calibration(by, where, session.store.generation, curves, left_out)
    with session.store.transaction():
        put_calibration(session.store, calibration)
    return calibration


def _fit(pairs: _Pairs, left_out: _LeftOut, seed: int) -> dict[str, Curve]:
    """One curve per modality; reasons for missing ones go to `left_out`. The curve for objects is required."""
    curves: dict[str, Curve] = {}
    for modality, own in pairs.items():
        try:
            curves[modality] = fit_curve(own, seed)
        except CalibrationError as error:
            if modality == "objects":
                raise
            left_out[modality] = str(error)
    return curves


def _without_labels(session: Session, where: str | None, seed: int) -> tuple[_Pairs, _LeftOut]:
    """Pairs where each object is its own class."""
    if augmentation_of(session.store) is not None:
        raise CalibrationError(
            f"{session.folder} uses database-side augmentation, which does not apply to half of an object's views: calibrate "
            f"by a label (--by), or switch augmentation off with 'mvr reindex {session.folder} --dba 0'",
            code="needs_labels",
        )
    if session.describer.rig.n_views == 1:
        raise CalibrationError(
            f"without a label, calibration compares views of the same object, and the objects of {session.folder} have one view: "
            "calibrate by a label (--by)",
            code="needs_labels",
        )
    row_ids = session.store.select(where)
    _check_count(session, len(row_ids), where)
    left_out: _LeftOut = {"text": "text queries need class names (--by) and an encoder with a text tower"}
    pairs: _Pairs = {"objects": split_view_queries(session, row_ids, np.random.default_rng(seed), as_images=False)}
    if reason := _no_images(session):
        left_out["images"] = reason
    else:
        pairs["images"] = split_view_queries(session, row_ids, np.random.default_rng(seed), as_images=True)
    return pairs, left_out


def _by_label(session: Session, by: str, where: str | None, seed: int) -> tuple[_Pairs, _LeftOut]:
    """Pairs where a label defines the classes."""
    objects, labels = _labeled_objects(session, by, where)
    left_out: _LeftOut = {}
    pairs: _Pairs = {"objects": object_queries(session, objects, np.random.default_rng(seed))}
    if reason := _no_images(session):
        left_out["images"] = reason
    else:
        pairs["images"] = image_queries(session, objects, np.random.default_rng(seed))
    names, reason = _class_name_vectors(session, labels, seed)
    if names is None:
        left_out["text"] = reason
    else:
        pairs["text"] = text_queries(session, objects, *names)
    return pairs, left_out


def _labeled_objects(session: Session, by: str, where: str | None) -> tuple[CalibrationObjects, list[Any]]:
    """Objects with the label, and the label of each class."""
    store = session.store
    store.check_column(by)
    row_ids = store.select(where)
    values = store.column_values(by, row_ids.tolist())
    kept = [i for i, value in enumerate(values) if value is not None]
    _check_count(session, len(kept), where, by)
    counts = Counter(values[i] for i in kept)
    if len(counts) == 1:
        raise CalibrationError(
            f"all {len(kept)} objects have the same '{by}' ({next(iter(counts))}): calibration needs several classes. Give "
            "another label or --where, or leave --by out",
            code="one_class",
        )
    if max(counts.values()) == 1:
        raise CalibrationError(
            f"no two of {len(kept)} objects have the same '{by}': calibration needs classes of several objects. Give another "
            "label, or leave --by out",
            code="all_distinct",
        )
    labels = sorted(counts, key=str)
    class_of = {label: i for i, label in enumerate(labels)}
    class_ids = np.array([class_of[values[i]] for i in kept], np.int64)
    return CalibrationObjects(row_ids[kept], class_ids, len(kept) == len(session)), labels


def _check_count(session: Session, count: int, where: str | None, by: str | None = None) -> None:
    if count < MIN_OBJECTS:
        objects = f"{count} object{'' if count == 1 else 's'}"
        labeled = f" with a label '{by}'" if by is not None else ""
        filtered = f" where {where}" if where else ""
        fix = "; add labels with 'mvr index --labels'" if by is not None else ""
        raise CalibrationError(
            f"{session.folder} has {objects}{labeled}{filtered}, too few for calibration: {MIN_OBJECTS} are needed{fix}",
            code="too_few_objects",
        )


def _no_images(session: Session) -> str:
    """Why stored views cannot stand in for query images; empty where they can."""
    styles = session.describer.config.styles
    if not session.describer.config.has_encoder:
        return "the vectors were imported, and no encoder is known for images"
    if set(styles) & set(IMAGE_STYLES):
        return ""
    return f"images are compared with the styles {' and '.join(IMAGE_STYLES)}; the collection has {', '.join(styles)}"


def _class_name_vectors(
    session: Session, labels: list[Any], seed: int
) -> tuple[tuple[NDArray[np.float32], list[int]] | None, str]:
    """Embed class names as text queries.

    Returns:
        Vectors (Q, D) with their class ids (Q,) and "", or None and the reason.
    """
    describer = session.describer
    has_names = describer.adapter is not None and describer.adapter.text_embeddings is not None
    try:
        if not has_names and not describer.encoder.has_text:
            return None, "the encoder has no text tower"
    except EncoderError as error:
        return None, f"the encoder cannot be opened ({error})"
    vectors, class_ids = [], []
    drawn = np.random.default_rng(seed).permutation(len(labels))[:MAX_TEXT_QUERIES]
    for class_id in np.sort(drawn).tolist():
        name = class_name(labels[class_id])
        if not name:
            continue
        try:
            vectors.append(describer.embed_text(name))
        except EncoderError:  # an adapter may not know the name
            continue
        class_ids.append(class_id)
    if len(class_ids) < MIN_NAMES:
        return None, f"{len(class_ids)} class names can be embedded, {MIN_NAMES} are needed"
    return (np.stack(vectors), class_ids), ""
