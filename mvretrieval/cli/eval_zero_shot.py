"""Call the objects of a collection by the names of classes, none of which it has learnt from pictures."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from mvretrieval.api import Collection
from mvretrieval.console import counted, print_json, say, table, warn_seen_classes
from mvretrieval.encoders.tuned import tuning_of
from mvretrieval.errors import EvaluationError
from mvretrieval.evaluation.evaluation_set import Selection, evaluation_set_of, read_classes
from mvretrieval.evaluation.seen_classes import seen_names
from mvretrieval.evaluation.zero_shot.candidates import ZeroShotTask, candidate_names, naming_task
from mvretrieval.evaluation.zero_shot.classification import (
    TOP,
    Accuracy,
    ViewFusion,
    WeightKind,
    accuracy,
    object_scores,
    verdicts,
)
from mvretrieval.evaluation.zero_shot.generalized import Generalised, generalised
from mvretrieval.evaluation.zero_shot.templates import DEFAULT, named_or_file
from mvretrieval.evaluation.zero_shot.text_queries import Words, class_words
from mvretrieval.evaluation.zero_shot.view_fusion import Pooled

_LARGEST_BIAS = 1000.0  # far past any score: it shows what happens when one kind of classes always wins


@dataclass(frozen=True)
class Options:
    """Options of `mvr eval zero-shot`.

    Attributes:
        collection: folder of the collection.
        by: label that holds the name of an object's class; of a path, the last part (furniture/desk: desk).
        where: filter; only the objects that it keeps are asked.
        classes_file: file with one class a line: the candidates. Default: the classes of the objects.
        templates: what is said around a name: a named set (name, photo, renders, depth, sketch, imagenet-80) or a file with
            one template a line. An adapter's own names are said bare.
        views: where the views of an object meet: before the comparison, in one vector; after it, as the mean of each view's
            softmax over the classes; or as the mean of its scores (logits).
        weights: of the views: equal, the adapter's, or by entropy: the surer of one class, the heavier. Default: as the
            collection's own vectors are made.
        keep_views: only so many views of each object, those with the lowest entropy; 0 for all.
        temperature: of the softmax. Default: what the encoder was trained with (0.01 for CLIP), 0.08 for an adapter's names.
        seen: generalised zero-shot: filter of the objects that were learnt from. Their classes are candidates too, and seen
            and unseen classes are measured apart.
        bias: taken away from the scores of seen classes (calibrated stacking).
        per_class: one row for each class.
        json: one JSON object.
    """

    collection: tyro.conf.Positional[Path]
    by: str = "label"
    where: str | None = None
    classes_file: Path | None = None
    templates: str = DEFAULT
    views: Pooled = "before"
    weights: WeightKind | None = None
    keep_views: int = 0
    temperature: float | None = None
    seen: str | None = None
    bias: float | None = None
    per_class: bool = False
    json: bool = False

    def __post_init__(self) -> None:
        if self.bias is not None and self.seen is None:
            raise EvaluationError(
                "--bias is taken away from the scores of seen classes: say with --seen what was learnt from"
            )
        if self.bias is not None and not abs(self.bias) <= _LARGEST_BIAS:
            raise EvaluationError(
                f"--bias {self.bias:g} cannot be taken away from scores, which lie between -1 and 1: give a number such as 0.05"
            )
        self.looking()

    def looking(self) -> ViewFusion:
        """How the views are asked.

        Raises:
            EvaluationError: a value is out of range.
        """
        return ViewFusion(self.views, self.weights, self.keep_views, self.temperature)


@dataclass(frozen=True)
class Measured:
    """What is found.

    Attributes:
        found: accuracy.
        naming: the task.
        words: who read the names.
        apart: seen and unseen classes, if that is asked for.
        met: classes that were asked for as unseen ones, and that the adapter or the encoder was trained on.
        objectless: candidates of the file of classes that none of the objects is.
        views_apart: whether each view was encoded by itself.
    """

    found: Accuracy
    naming: ZeroShotTask
    words: Words
    apart: Generalised | None
    met: tuple[str, ...]
    objectless: tuple[str, ...]
    views_apart: bool


def run(options: Options) -> int:
    """Measure and print."""
    measured = measure(options)
    _warn(options, measured)
    if options.json:
        print_json(_plain(options, measured))
    else:
        _tell(measured.naming, measured.words)
        _print(options, measured)
    return 0


def measure(options: Options) -> Measured:
    """Call the objects by name.

    Raises:
        MvrError: labels, filters, templates or words are missing.
    """
    templates = named_or_file(options.templates)
    classes = None if options.classes_file is None else sorted(read_classes(options.classes_file))
    with Collection.open(options.collection) as collection, collection.reading():
        options.looking().check_fits(collection)
        evaluation_set = evaluation_set_of(collection, Selection(options.by, options.where))
        seen_labels: list[Any] = []
        learnt = np.zeros(len(evaluation_set.ids), bool)
        if options.seen is not None:
            seen_numbers = collection.store.select(options.seen)
            seen_labels = collection.store.column_values(options.by, [int(n) for n in seen_numbers])
            if not candidate_names(seen_labels):
                raise EvaluationError(
                    f"--seen {options.seen}: it keeps no object with a '{options.by}'; what was learnt from?"
                )
            learnt = np.isin(evaluation_set.row_ids, seen_numbers)
        words = class_words(collection, candidate_names(evaluation_set.labels, classes, seen_labels), templates)
        naming = naming_task(evaluation_set.labels, words, seen_labels=seen_labels, learnt=learnt, by=options.by)
        rows = naming.rows
        scores = object_scores(
            collection, evaluation_set.row_ids[rows], evaluation_set.vectors[rows], words, options.looking()
        )
        learnt_from, tuning = seen_names(collection.describer), tuning_of(collection.describer.config.encoder)
    bias = options.bias or 0.0
    found = accuracy(verdicts((scores - bias * naming.is_seen).round(9), naming.own), naming.own, naming.names)
    apart = None if options.seen is None else generalised(scores, naming.own, naming.is_seen, bias)
    asked = {naming.names[i] for i in np.unique(naming.own) if not naming.is_seen[i]}
    met = tuple(sorted(asked & learnt_from))
    objectless = tuple(sorted(set(candidate_names((), classes or ())) - set(candidate_names(evaluation_set.labels))))
    return Measured(found, naming, words, apart, met, objectless, tuning is None or not tuning.architecture.cross_view)


def _warn(options: Options, measured: Measured) -> None:
    warn_seen_classes(
        measured.met, "no zero-shot; leave them out with --where, or say with --seen what was learnt from"
    )
    if measured.objectless:
        some = ", ".join(measured.objectless[:5]) + (", ..." if len(measured.objectless) > 5 else "")
        say(
            f"note: {counted(len(measured.objectless), 'class')} of {options.classes_file} without an object here: {some}"
        )
    if options.looking().asks_single_views and not measured.views_apart:
        say("note: in this tuned encoder the views of an object attend to one another: no view speaks for itself alone")


def _plain(options: Options, measured: Measured) -> dict[str, Any]:
    found, naming, words, apart = measured.found, measured.naming, measured.words, measured.apart
    plain: dict[str, Any] = {
        "task": "zero-shot",
        "objects": found.objects,
        "classes": len(found.classes),
        "candidates": len(naming.names),
        **{f"top{k}": found.top[k] for k in TOP},
        **{f"class_mean_top{k}": found.class_mean[k] for k in TOP},
        "chance": 1 / len(naming.names),
        "words": words.source,
        "templates": options.templates,
        "views": options.views,
        "weights": options.weights or "as described",
        "keep_views": options.keep_views,
        "merged_labels": [list(group) for group in naming.merged],
        "left_out": naming.left_out(),
        "classes_learnt_from": list(measured.met),
        "classes_without_objects": list(measured.objectless),
    }
    if apart is not None:
        plain["generalised"] = {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in asdict(apart).items()
        }
    if options.per_class:
        plain["per_class"] = [
            {
                "class": one.name,
                "objects": one.objects,
                **{f"top{k}": one.top[k] for k in TOP},
                "mistaken_for": one.mistaken_for,
            }
            for one in found.classes
        ]
    return plain


def _tell(naming: ZeroShotTask, words: Words) -> None:
    if naming.unknown_objects or naming.unknown_names:
        some = ", ".join(naming.unknown_names[:5]) + (", ..." if len(naming.unknown_names) > 5 else "")
        say(
            f"left out: {counted(naming.unknown_objects, 'object')}, {counted(len(naming.unknown_names), 'name')} unknown to "
            f"{words.source}: {some}"
        )
    if naming.unlabelled or naming.not_candidates:
        say(
            f"left out: {counted(naming.unlabelled, 'object')} without a label that says something, {naming.not_candidates} of "
            "classes that are no candidates"
        )
    if naming.learnt:
        say(f"left out: {counted(naming.learnt, 'object')} learnt from")
    if naming.merged:
        some = "; ".join(", ".join(group) for group in naming.merged[:5]) + ("; ..." if len(naming.merged) > 5 else "")
        say(f"labels whose names are the same count as one class: {some}")


def _print(options: Options, measured: Measured) -> None:
    found, naming, apart = measured.found, measured.naming, measured.apart
    head = [f"top-{k}" for k in TOP]
    rows = [
        [kind, *(f"{values[k]:.4f}" for k in TOP)]
        for kind, values in (("objects", found.top), ("class mean", found.class_mean))
    ]
    counts = ((found.objects, "object"), (len(found.classes), "class"), (len(naming.names), "candidate"))
    print("{} of {}, {}".format(*(counted(n, noun) for n, noun in counts)))
    print(table(rows, ["mean over", *head]))
    if apart is not None:
        print(f"\nseen and unseen classes together, class means; bias {apart.bias:g}")
        cells = [apart.seen, apart.unseen, apart.harmonic, apart.seen_alone, apart.unseen_alone, apart.area]
        names = ["seen", "unseen", "harmonic", "seen alone", "unseen alone", "area"]
        print(table([["-" if math.isnan(cell) else f"{cell:.4f}" for cell in cells]], names))
        print(
            f"{apart.seen_objects} objects of seen classes, {apart.unseen_objects} of unseen ones; candidates: "
            f"{apart.seen_classes} seen, {apart.unseen_classes} unseen"
        )
    if options.per_class:
        print()
        each = [
            [one.name, str(one.objects), *(f"{one.top[k]:.3f}" for k in TOP), one.mistaken_for or "-"]
            for one in found.classes
        ]
        print(table(each, ["class", "objects", *head, "mistaken for"]))
