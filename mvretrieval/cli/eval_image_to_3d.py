"""Evaluate image-to-3D retrieval: the images of a file are the queries."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from numpy.typing import NDArray

from mvretrieval.cli.eval_output import print_cross_modal
from mvretrieval.console import counted, print_json, progress, say
from mvretrieval.errors import EvaluationError, QueryError
from mvretrieval.evaluation.evaluation_set import Selection, load_evaluation_set
from mvretrieval.evaluation.zero_shot.cross_modal import (
    CrossModalQuery,
    check_targets,
    cross_modal_task,
    evaluate_cross_modal,
    read_queries,
    summary,
)
from mvretrieval.images import Background, load_image
from mvretrieval.session.session import Session
from mvretrieval.store.augmented import search_vectors


@dataclass(frozen=True)
class Options:
    """Options of `mvr eval image-to-3d`.

    Attributes:
        collection: folder of the collection.
        queries: CSV file with the columns image (paths relative to the file) and id or label of the relevant objects.
        by: label of the objects that corresponds to the column label.
        where: filter; only matching objects are in the gallery.
        background: auto crops to the object if the background is plain, and makes it white; keep only resizes.
        json: print one JSON object.
    """

    collection: tyro.conf.Positional[Path]
    queries: Path
    by: str = "label"
    where: str | None = None
    background: Background = "auto"
    json: bool = False


def run(options: Options) -> int:
    """Evaluate and print."""
    result = measure(options)
    if options.json:
        print_json(result)
        return 0
    if result["without_relevant_object"]:
        say(f"left out: {counted(result['without_relevant_object'], 'image')} without a relevant object")
    print_cross_modal(result)
    return 0


def measure(options: Options) -> dict[str, Any]:
    """Evaluate every image as a query.

    Raises:
        MvrError: the file, its images or labels are missing.
    """
    queries, target_name = read_queries(options.queries, "image", ["id", "label"])
    by_id = target_name == "id"
    with Session.open(options.collection) as session, session.reading():
        evaluation_set = load_evaluation_set(session, Selection("faces" if by_id else options.by, options.where))
        object_vectors = search_vectors(session.store, evaluation_set.row_ids.tolist())[1]
        targets: list[Any] = list(evaluation_set.ids)
        if not by_id:
            targets = [None if label is None else str(label) for label in evaluation_set.labels]
        task, kept = cross_modal_task(queries, targets, evaluation_set.ids)
        check_targets(task, queries, targets, "id" if by_id else options.by)
        session.check_encoder()
        vectors = _embed(session, options, queries, kept.tolist(), object_vectors.shape[1])
    return {
        "task": "image-to-3d",
        "queries": len(task.queries),
        "objects": len(evaluation_set.ids),
        **summary(evaluate_cross_modal(task, vectors, object_vectors)),
        "without_relevant_object": task.skipped,
    }


def _embed(
    session: Session, options: Options, queries: list[CrossModalQuery], kept: list[int], dim: int
) -> NDArray[np.float32]:
    """(Q, D) vectors of the kept queries; zero for the others."""
    describer = session.describer
    vectors = np.zeros((len(queries), dim), np.float32)
    unreadable: list[str] = []
    with progress("image") as step:
        for done, i in enumerate(kept, 1):
            path = options.queries.parent / queries[i].content
            try:
                image = load_image(path, describer.encoder.image_size, options.background)
                vectors[i] = describer.embed_images(image[None])
            except QueryError as error:
                unreadable.append(str(error))
            step(done, len(kept))
    if unreadable:
        raise EvaluationError(
            f"{len(unreadable)} of {len(kept)} images cannot be read, the first: {unreadable[0]}; fix or remove their rows in "
            f"{options.queries}",
            code="unreadable_images",
        )
    return vectors
