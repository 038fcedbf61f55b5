"""Ask a collection with words: every class name once, or the captions of a file, and see how early the right objects come."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from mvretrieval.api import Collection
from mvretrieval.console import counted, print_json, say, table, warn_seen_classes
from mvretrieval.errors import EvaluationError
from mvretrieval.evaluation.evaluation_set import Selection, evaluation_set_of
from mvretrieval.evaluation.seen_classes import seen_names
from mvretrieval.evaluation.zero_shot.candidates import candidate_names
from mvretrieval.evaluation.zero_shot.cross_modal import (
    Question,
    check_known,
    cross_modal_task,
    measure_found,
    read_questions,
    summary,
)
from mvretrieval.evaluation.zero_shot.templates import DEFAULT, named_or_file
from mvretrieval.evaluation.zero_shot.text_queries import directions
from mvretrieval.store.augmented import search_vectors
from mvretrieval.store.filters import column_in_words
from mvretrieval.weighting.text_embeddings import class_name


@dataclass(frozen=True)
class Options:
    """Options of `mvr eval text-to-3d`.

    Attributes:
        collection: folder of the collection.
        by: label whose values ask, each once; of a path, the last part (furniture/desk: desk).
        captions: CSV file with the columns id and text: its texts ask for their objects instead.
        where: filter; only the objects that it keeps are searched.
        templates: what is said around a name (see 'mvr eval zero-shot --help'); captions are said as they are.
        json: one JSON object.
    """

    collection: tyro.conf.Positional[Path]
    by: str | None = None
    captions: Path | None = None
    where: str | None = None
    templates: str = DEFAULT
    json: bool = False

    def __post_init__(self) -> None:
        if self.by is not None and self.captions is not None:
            raise EvaluationError("either --by (names ask) or --captions (texts ask): give one of them")


def run(options: Options) -> int:
    """Measure and print."""
    found = measure(options)
    warn_seen_classes(found["classes_learnt_from"], "their names are not new to it; leave them out with --where")
    if options.json:
        print_json(found)
        return 0
    if unknown := found["unknown_texts"]:
        some = ", ".join(unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        say(f"left out: {counted(len(unknown), 'unknown text')}: {some}")
    if found["without_right_object"]:
        say(f"left out: {counted(found['without_right_object'], 'text')} without a right object in the collection")
    if found["unlabelled"]:
        by = options.by or "label"
        say(
            f"{counted(found['unlabelled'], 'object')} of {found['objects']} without a '{by}' that says something count as wrong "
            f"answers; to leave out those that have none: --where {shlex.quote(f'{column_in_words(by)} is not null')}"
        )
    print_found(found)
    return 0


def measure(options: Options) -> dict[str, Any]:
    """What is found by each text alone, the texts that nobody knows, and how many objects no name can be right for.

    Raises:
        MvrError: labels, captions or words are missing.
    """
    templates = ("{}",) if options.captions is not None else named_or_file(options.templates)
    by = options.by or "label"
    with Collection.open(options.collection) as collection, collection.reading():
        # Any column will do where captions name objects.
        evaluation_set = evaluation_set_of(
            collection, Selection("faces" if options.captions is not None else by, options.where)
        )
        objects = search_vectors(collection.store, evaluation_set.row_ids.tolist())[1]
        if options.captions is not None:
            questions, name = read_questions(options.captions, "text", ["id"])
            keys: list[Any] = list(evaluation_set.ids)
        else:
            name = by
            keys = [class_name(label) or None for label in evaluation_set.labels]
            questions = [Question(key, key) for key in candidate_names(evaluation_set.labels)]
            if not questions:
                raise EvaluationError(
                    f"no object has a label '{by}' that could ask: give another --by or --where, or --captions"
                )
        learnt = seen_names(collection.describer) if options.captions is None else set()
        known = directions(collection, [question.asked for question in questions], templates)
    questions = [questions[i] for i in known.kept]
    if not questions:
        raise EvaluationError(
            f"none of the {len(known.unknown)} texts is known, the first is '{known.unknown[0]}': an adapter's own words are "
            "names alone; for free words use a collection with a CLIP encoder"
        )
    task, asking = cross_modal_task(questions, keys, evaluation_set.ids)
    check_known(task, questions, keys, name)
    found: dict[str, Any] = {"task": "text-to-3d", "questions": len(task.queries), "objects": len(evaluation_set.ids)}
    found |= summary(measure_found(task, known.vectors, objects))
    found["classes_learnt_from"] = sorted({questions[i].asked for i in asking} & learnt)
    left_out = {"unknown_texts": list(known.unknown), "without_right_object": task.skipped}
    return found | left_out | {"unlabelled": sum(key is None for key in keys)}


def print_found(found: dict[str, Any]) -> None:
    """As a table: found@k, recall@k, mAP and the median rank."""
    names = [name for name in found if "@" in name or name in ("mAP", "median_rank")]
    cells = [f"{found[name]:g}" if name == "median_rank" else f"{found[name]:.4f}" for name in names]
    print(f"{counted(found['questions'], 'question')}, {counted(found['objects'], 'object')}")
    print(table([cells], [name.replace("_", " ") for name in names]))
