"""Ask a collection with words: every class name once, or the captions of a file, and see how early the right objects come."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from mvretrieval.adapters.text_space import plain_name
from mvretrieval.cli.common import counted, say, table
from mvretrieval.collection.collection import Collection
from mvretrieval.collection.smoothed import searched_vectors
from mvretrieval.errors import EvaluationError
from mvretrieval.evaluation.cross_modal import (
    Question,
    check_known,
    cross_modal_task,
    measure_found,
    read_questions,
    summary,
)
from mvretrieval.evaluation.subject import Selection, subject_of
from mvretrieval.evaluation.templates import DEFAULT, named_or_file
from mvretrieval.evaluation.words import directions


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
    if options.json:
        print(json.dumps(found))
        return 0
    if unknown := found["unknown_texts"]:
        some = ", ".join(unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        say(f"left out: {counted(len(unknown), 'unknown text')}: {some}")
    if found["without_right_object"]:
        say(f"left out: {counted(found['without_right_object'], 'text')} without a right object in the collection")
    print_found(found)
    return 0


def measure(options: Options) -> dict[str, Any]:
    """What is found by each text alone, and the texts that nobody knows.

    Raises:
        MvrError: labels, captions or words are missing.
    """
    templates = ("{}",) if options.captions is not None else named_or_file(options.templates)
    by = options.by or "label"
    with Collection.open(options.collection) as collection, collection.reading():
        # Any column will do where captions name objects.
        subject = subject_of(collection, Selection("faces" if options.captions is not None else by, options.where))
        objects = searched_vectors(collection.store, subject.numbers.tolist())[1]
        if options.captions is not None:
            questions, name = read_questions(options.captions, "text", ["id"])
            keys: list[Any] = list(subject.ids)
        else:
            name = by
            keys = [None if label is None else plain_name(str(label)) for label in subject.labels]
            questions = [Question(key, key) for key in sorted({key for key in keys if key})]
            if not questions:
                raise EvaluationError(f"no object has a label '{by}' that could ask: give another --by or --where, or --captions")
        known = directions(collection, [question.asked for question in questions], templates)
    questions = [questions[i] for i in known.kept]
    if not questions:
        raise EvaluationError(
            f"none of the {len(known.unknown)} texts is known, the first is '{known.unknown[0]}': an adapter's own words are "
            "names alone; for free words use a collection with a CLIP encoder"
        )
    task, _ = cross_modal_task(questions, keys, subject.ids)
    check_known(task, questions, keys, name)
    found: dict[str, Any] = {"task": "text-to-3d", "questions": len(task.queries), "objects": len(subject.ids)}
    found |= summary(measure_found(task, known.vectors, objects))
    return found | {"unknown_texts": list(known.unknown), "without_right_object": task.skipped}


def print_found(found: dict[str, Any]) -> None:
    """As a table: found@k, recall@k, mAP and the median rank."""
    names = [name for name in found if "@" in name or name in ("mAP", "median_rank")]
    cells = [f"{found[name]:g}" if name == "median_rank" else f"{found[name]:.4f}" for name in names]
    print(f"{counted(found['questions'], 'question')}, {counted(found['objects'], 'object')}")
    print(table([cells], [name.replace("_", " ") for name in names]))


