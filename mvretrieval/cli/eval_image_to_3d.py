"""Ask a collection with the pictures of a file, and see how early the right objects come."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from mvretrieval.api import Collection
from mvretrieval.cli.eval_text_to_3d import print_found
from mvretrieval.console import counted, print_json, progress, say
from mvretrieval.errors import EvaluationError, QueryError
from mvretrieval.evaluation.evaluation_set import Selection, evaluation_set_of
from mvretrieval.evaluation.zero_shot.cross_modal import (
    Question,
    check_known,
    cross_modal_task,
    measure_found,
    read_questions,
    summary,
)
from mvretrieval.images import Background, load_image
from mvretrieval.store.augmented import search_vectors


@dataclass(frozen=True)
class Options:
    """Options of `mvr eval image-to-3d`.

    Attributes:
        collection: folder of the collection.
        queries: CSV file with the columns image (paths relative to the file) and id or label: what each picture shows.
        by: label of the objects that the column label of the queries means.
        where: filter; only the objects that it keeps are searched.
        background: auto makes a plain background white and crops it away; keep only resizes.
        json: one JSON object.
    """

    collection: tyro.conf.Positional[Path]
    queries: Path
    by: str = "label"
    where: str | None = None
    background: Background = "auto"
    json: bool = False


def run(options: Options) -> int:
    """Measure and print."""
    found = measure(options)
    if options.json:
        print_json(found)
        return 0
    if found["without_right_object"]:
        say(f"left out: {counted(found['without_right_object'], 'picture')} without a right object in the collection")
    print_found(found)
    return 0


def measure(options: Options) -> dict[str, Any]:
    """What is found by each picture alone.

    Raises:
        MvrError: the file, its pictures or labels are missing.
    """
    questions, key = read_questions(options.queries, "image", ["id", "label"])
    with Collection.open(options.collection) as collection, collection.reading():
        by_id = key == "id"
        evaluation_set = evaluation_set_of(collection, Selection("faces" if by_id else options.by, options.where))
        objects = search_vectors(collection.store, evaluation_set.row_ids.tolist())[1]
        keys = (
            list(evaluation_set.ids)
            if by_id
            else [None if label is None else str(label) for label in evaluation_set.labels]
        )
        task, asking = cross_modal_task(questions, keys, evaluation_set.ids)
        check_known(task, questions, keys, "id" if by_id else options.by)
        collection.check_encoder()
        vectors = np.zeros((len(questions), objects.shape[1]), np.float32)
        unreadable: list[str] = []
        with progress("picture") as step:
            for done, i in enumerate(asking.tolist(), 1):
                try:
                    vectors[i] = _vector(collection, options, questions[i])
                except QueryError as error:
                    unreadable.append(str(error))
                step(done, len(asking))
    if unreadable:
        raise EvaluationError(
            f"{len(unreadable)} of {len(asking)} pictures cannot be asked with, the first: {unreadable[0]}; mend or remove their "
            f"rows in {options.queries}"
        )
    found: dict[str, Any] = {"task": "image-to-3d", "questions": len(task.queries), "objects": len(evaluation_set.ids)}
    return found | summary(measure_found(task, vectors, objects)) | {"without_right_object": task.skipped}


def _vector(collection: Collection, options: Options, question: Question) -> Any:
    describer = collection.describer
    path = options.queries.parent / question.asked
    return describer.embed_images(load_image(path, describer.encoder.image_size, options.background)[None])
