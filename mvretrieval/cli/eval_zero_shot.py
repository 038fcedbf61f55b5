"""Evaluate zero-shot classification: the objects of a collection are classified by class names."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from mvretrieval.cli.eval_output import some_of
from mvretrieval.console import counted, print_json, say, table, warn_seen_classes
from mvretrieval.encoders.registry import tuning_of
from mvretrieval.errors import EvaluationError
from mvretrieval.evaluation.evaluation_set import EvaluationSet, Selection, load_evaluation_set, read_classes
from mvretrieval.evaluation.seen_classes import seen_names
from mvretrieval.evaluation.zero_shot.accuracy import TOP, Accuracy, accuracy, predict
from mvretrieval.evaluation.zero_shot.generalized import GeneralizedAccuracy, generalized_accuracy
from mvretrieval.evaluation.zero_shot.task import ZeroShotTask, candidate_names, zero_shot_task
from mvretrieval.evaluation.zero_shot.templates import DEFAULT, load_templates
from mvretrieval.evaluation.zero_shot.text_queries import ClassNameClassifier, class_name_classifier
from mvretrieval.evaluation.zero_shot.view_fusion import FusionStage, ViewFusion, WeightKind, class_scores
from mvretrieval.session.session import Session

_MAX_BIAS = 1000.0  # far beyond any score: one kind of classes always wins


@dataclass(frozen=True)
class Options:
    """Options of `mvr eval zero-shot`.

    Attributes:
        collection: folder of the collection.
        by: label with the class names; of a path, the last part (furniture/desk: desk).
        where: filter; only matching objects are classified.
        classes: file with one class per line: the candidates. Default: the classes of the objects.
        templates: prompt templates: a named set (name, photo, renders, depth, sketch, imagenet-80) or a file with one template
            per line. An adapter's text embeddings use the bare names.
        view_fusion: where views are fused: features (one object vector), logits (mean of the views' scores) or probabilities
            (mean of the views' softmax over the classes).
        weights: view weights: equal, the adapter's, or entropy (low entropy, high weight). Default: those of the stored object
            vectors.
        keep_views: number of views to keep per object, those with the lowest entropy; 0 for all.
        temperature: temperature of the softmax. Default: that of the encoder's training (0.01 for CLIP), 0.08 for an adapter's
            text embeddings.
        seen: generalized zero-shot: filter of the objects trained on. Their classes are candidates too; seen and unseen classes
            are evaluated separately.
        bias: subtracted from the scores of seen classes (calibrated stacking).
        per_class: print a row per class.
        json: print one JSON object.
    """

    collection: tyro.conf.Positional[Path]
    by: str = "label"
    where: str | None = None
    classes: Path | None = None
    templates: str = DEFAULT
    view_fusion: FusionStage = "features"
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
                "--bias applies to the scores of seen classes: add --seen with the objects trained on",
                code="bad_options",
            )
        if self.bias is not None and not abs(self.bias) <= _MAX_BIAS:
            raise EvaluationError(
                f"--bias {self.bias:g} is out of range, scores are between -1 and 1: give a number such as 0.05",
                code="bad_options",
            )
        self.fusion()

    def fusion(self) -> ViewFusion:
        """How views are fused.

        Raises:
            EvaluationError: a value is out of range.
        """
        return ViewFusion(self.view_fusion, self.weights, self.keep_views, self.temperature)


@dataclass(frozen=True)
class Measured:
    """Results of a zero-shot evaluation.

    Attributes:
        accuracy: top-k accuracies.
        task: the evaluated task.
        classifier: the class names.
        generalized: seen and unseen classes separately, with `--seen`.
        seen: evaluated classes, not declared as seen, that the adapter or the encoder was trained on.
        empty_classes: candidates of the file of classes without an object.
        single_views: whether each view was encoded independently.
    """

    accuracy: Accuracy
    task: ZeroShotTask
    classifier: ClassNameClassifier
    generalized: GeneralizedAccuracy | None
    seen: tuple[str, ...]
    empty_classes: tuple[str, ...]
    single_views: bool


def run(options: Options) -> int:
    """Evaluate and print."""
    measured = measure(options)
    _warn(options, measured)
    if options.json:
        print_json(_record(options, measured))
    else:
        _print_left_out(measured.task, measured.classifier)
        _print(options, measured)
    return 0


def measure(options: Options) -> Measured:
    """Classify the objects.

    Raises:
        MvrError: labels, filters, templates or text are missing.
    """
    templates = load_templates(options.templates)
    classes = None if options.classes is None else sorted(read_classes(options.classes))
    with Session.open(options.collection) as session, session.reading():
        options.fusion().check_fits(session)
        evaluation_set = load_evaluation_set(session, Selection(options.by, options.where))
        labels = evaluation_set.labels
        seen_labels, is_seen_object = _seen_objects(options, session, evaluation_set)
        names = candidate_names(labels, classes, seen_labels)
        classifier = class_name_classifier(session, names, templates)
        task = zero_shot_task(labels, classifier, seen_labels=seen_labels, is_seen_object=is_seen_object, by=options.by)
        row_ids, vectors = evaluation_set.row_ids[task.rows], evaluation_set.vectors[task.rows]
        scores = class_scores(session, row_ids, vectors, classifier, options.fusion())
        trained_on, tuning = seen_names(session.describer), tuning_of(session.describer.config.encoder)
    bias = options.bias or 0.0
    evaluated = {task.names[i] for i in np.unique(task.targets) if not task.is_seen[i]}
    predictions = predict((scores - bias * task.is_seen).round(9), task.targets)
    return Measured(
        accuracy=accuracy(predictions, task.targets, task.names),
        task=task,
        classifier=classifier,
        generalized=None if options.seen is None else generalized_accuracy(scores, task.targets, task.is_seen, bias),
        seen=tuple(sorted(evaluated & trained_on)),
        empty_classes=tuple(sorted(set(candidate_names((), classes or ())) - set(candidate_names(labels)))),
        single_views=tuning is None or not tuning.architecture.cross_view,
    )


def _seen_objects(options: Options, session: Session, evaluation_set: EvaluationSet) -> tuple[list[Any], Any]:
    """Labels of the objects trained on, and (N,) which evaluated objects are among them."""
    if options.seen is None:
        return [], np.zeros(len(evaluation_set.ids), bool)
    row_ids = session.store.select(options.seen)
    labels = session.store.column_values(options.by, [int(n) for n in row_ids])
    if not candidate_names(labels):
        raise EvaluationError(
            f"--seen {options.seen} matches no object with a '{options.by}': give a filter of the objects trained on",
            code="no_seen_objects",
        )
    return labels, np.isin(evaluation_set.row_ids, row_ids)


def _warn(options: Options, measured: Measured) -> None:
    warn_seen_classes(
        measured.seen,
        "this is not zero-shot; leave them out with --where, or declare the objects trained on with --seen",
    )
    if measured.empty_classes:
        n = counted(len(measured.empty_classes), "class")
        say(f"note: {n} of {options.classes} without an object in the collection: {some_of(measured.empty_classes)}")
    if options.fusion().scores_single_views and not measured.single_views:
        say(
            "note: in this tuned encoder the views of an object attend to each other, so single views are not independent"
        )


def _record(options: Options, measured: Measured) -> dict[str, Any]:
    found, task = measured.accuracy, measured.task
    record: dict[str, Any] = {
        "task": "zero-shot",
        "objects": found.objects,
        "classes": len(found.classes),
        "candidates": len(task.names),
        **{f"top{k}": found.top[k] for k in TOP},
        **{f"class_mean_top{k}": found.class_mean[k] for k in TOP},
        "chance": 1 / len(task.names),
        "text_encoder": measured.classifier.source,
        "templates": options.templates,
        "view_fusion": options.view_fusion,
        "weights": options.weights or "stored",
        "keep_views": options.keep_views,
        "merged_labels": [list(group) for group in task.merged],
        "left_out": task.left_out(),
        "seen_classes": list(measured.seen),
        "empty_classes": list(measured.empty_classes),
    }
    if measured.generalized is not None:
        record["generalized"] = {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in asdict(measured.generalized).items()
        }
    if options.per_class:
        record["per_class"] = [
            {
                "class": one.name,
                "objects": one.objects,
                **{f"top{k}": one.top[k] for k in TOP},
                "top_confusion": one.top_confusion,
            }
            for one in found.classes
        ]
    return record


def _print_left_out(task: ZeroShotTask, classifier: ClassNameClassifier) -> None:
    if task.unknown_objects or task.unknown_names:
        say(
            f"left out: {counted(task.unknown_objects, 'object')}, {counted(len(task.unknown_names), 'name')} unknown to "
            f"{classifier.source}: {some_of(task.unknown_names)}"
        )
    if task.unlabeled or task.not_candidates:
        say(
            f"left out: {counted(task.unlabeled, 'object')} without a usable label, {task.not_candidates} of classes that are not "
            "candidates"
        )
    if task.seen:
        say(f"left out: {counted(task.seen, 'object')} trained on")
    if task.merged:
        say(f"labels with the same name are one class: {some_of([', '.join(group) for group in task.merged], '; ')}")


def _print(options: Options, measured: Measured) -> None:
    found, task = measured.accuracy, measured.task
    head = [f"top-{k}" for k in TOP]
    rows = [
        [kind, *(f"{values[k]:.4f}" for k in TOP)]
        for kind, values in (("objects", found.top), ("class mean", found.class_mean))
    ]
    counts = ((found.objects, "object"), (len(found.classes), "class"), (len(task.names), "candidate"))
    print("{} of {}, {}".format(*(counted(n, noun) for n, noun in counts)))
    print(table(rows, ["mean over", *head]))
    if measured.generalized is not None:
        _print_generalized(measured.generalized)
    if options.per_class:
        print()
        each = [
            [one.name, str(one.objects), *(f"{one.top[k]:.3f}" for k in TOP), one.top_confusion or "-"]
            for one in found.classes
        ]
        print(table(each, ["class", "objects", *head, "top confusion"]))


def _print_generalized(found: GeneralizedAccuracy) -> None:
    print(f"\ngeneralized zero-shot, class means; bias {found.bias:g}")
    cells = [found.seen, found.unseen, found.harmonic, found.seen_alone, found.unseen_alone, found.area]
    names = ["seen", "unseen", "harmonic", "seen alone", "unseen alone", "area"]
    print(table([["-" if math.isnan(cell) else f"{cell:.4f}" for cell in cells]], names))
    print(
        f"{found.seen_objects} objects of seen classes, {found.unseen_objects} of unseen; candidates: {found.seen_classes} seen, "
        f"{found.unseen_classes} unseen"
    )
