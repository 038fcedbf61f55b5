"""Evaluate text-to-3D retrieval: class names, or the captions of a file, are the queries."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from mvretrieval.cli.eval_output import print_cross_modal, some_of
from mvretrieval.console import counted, print_json, say, warn_seen_classes
from mvretrieval.errors import EvaluationError
from mvretrieval.evaluation.evaluation_set import EvaluationSet, Selection, load_evaluation_set
from mvretrieval.evaluation.seen_classes import seen_names
from mvretrieval.evaluation.zero_shot.cross_modal import (
    CrossModalQuery,
    check_targets,
    cross_modal_task,
    evaluate_cross_modal,
    read_queries,
    summary,
)
from mvretrieval.evaluation.zero_shot.task import candidate_names
from mvretrieval.evaluation.zero_shot.templates import DEFAULT, load_templates
from mvretrieval.evaluation.zero_shot.text_queries import encode_text_queries
from mvretrieval.session.session import Session
from mvretrieval.store.augmented import search_vectors
from mvretrieval.store.filters import quote_column
from mvretrieval.weighting.text_embeddings import class_name


@dataclass(frozen=True)
class Options:
    """Options of `mvr eval text-to-3d`.

    Attributes:
        collection: folder of the collection.
        by: label whose values are the queries, each once; of a path, the last part (furniture/desk: desk).
        captions: CSV file with the columns id and text: captions as queries instead of class names.
        where: filter; only matching objects are in the gallery.
        templates: prompt templates of class names (see 'mvr eval zero-shot --help'); captions are used as they are.
        json: print one JSON object.
    """

    collection: tyro.conf.Positional[Path]
    by: str | None = None
    captions: Path | None = None
    where: str | None = None
    templates: str = DEFAULT
    json: bool = False

    def __post_init__(self) -> None:
        if self.by is not None and self.captions is not None:
            raise EvaluationError(
                "--by (class names) and --captions exclude each other: give one of them", code="bad_options"
            )


def run(options: Options) -> int:
    """Evaluate and print."""
    result = measure(options)
    warn_seen_classes(result["seen_classes"], "their names are not new to it; leave them out with --where")
    if options.json:
        print_json(result)
        return 0
    if unknown := result["unknown_texts"]:
        say(f"left out: {counted(len(unknown), 'unknown text')}: {some_of(unknown)}")
    if result["without_relevant_object"]:
        say(f"left out: {counted(result['without_relevant_object'], 'text')} without a relevant object")
    if result["unlabeled"]:
        by = options.by or "label"
        filter_text = shlex.quote(f"{quote_column(by)} is not null")
        say(
            f"{counted(result['unlabeled'], 'object')} of {result['objects']} without a usable '{by}' are in the gallery as not "
            f"relevant; to leave out those without a label: --where {filter_text}"
        )
    print_cross_modal(result)
    return 0


def measure(options: Options) -> dict[str, Any]:
    """Evaluate every text as a query.

    Raises:
        MvrError: labels, captions or text are missing.
    """
    by_captions = options.captions is not None
    templates = ("{}",) if by_captions else load_templates(options.templates)
    with Session.open(options.collection) as session, session.reading():
        # Captions name objects by id, so any column will do as the label.
        by = "faces" if by_captions else options.by or "label"
        evaluation_set = load_evaluation_set(session, Selection(by, options.where))
        object_vectors = search_vectors(session.store, evaluation_set.row_ids.tolist())[1]
        queries, targets, target_name = _queries(options, evaluation_set)
        seen = set() if by_captions else seen_names(session.describer)
        encoded = encode_text_queries(session, [query.content for query in queries], templates)
    queries = [queries[i] for i in encoded.kept]
    if not queries:
        raise EvaluationError(
            f"none of the {len(encoded.unknown)} texts is known, the first is '{encoded.unknown[0]}': an adapter's text embeddings "
            "know names only; for free text use a collection with a CLIP encoder",
            code="unknown_text",
        )
    task, kept = cross_modal_task(queries, targets, evaluation_set.ids)
    check_targets(task, queries, targets, target_name)
    return {
        "task": "text-to-3d",
        "queries": len(task.queries),
        "objects": len(evaluation_set.ids),
        **summary(evaluate_cross_modal(task, encoded.vectors, object_vectors)),
        "seen_classes": sorted({queries[i].content for i in kept} & seen),
        "unknown_texts": list(encoded.unknown),
        "without_relevant_object": task.skipped,
        "unlabeled": sum(target is None for target in targets),
    }


def _queries(options: Options, evaluation_set: EvaluationSet) -> tuple[list[CrossModalQuery], list[Any], str]:
    """Return the queries, the target that each object is, and what targets are called."""
    if options.captions is not None:
        queries, name = read_queries(options.captions, "text", ["id"])
        return queries, list(evaluation_set.ids), name
    by = evaluation_set.selection.by
    queries = [CrossModalQuery(name, name) for name in candidate_names(evaluation_set.labels)]
    if not queries:
        raise EvaluationError(
            f"no object has a usable label '{by}': give another --by or --where, or --captions", code="no_queries"
        )
    return queries, [class_name(label) or None for label in evaluation_set.labels], by
