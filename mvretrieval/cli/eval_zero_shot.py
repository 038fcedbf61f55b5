"""Evaluate zero-shot classification: the objects of a collection are classified by class names."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from mvretrieval.cli.eval_output import some_of
from mvretrieval.console import counted, print_json, say, table, warn_seen_classes
from mvretrieval.errors import EvaluationError
from mvretrieval.evaluation.evaluation_set import read_classes
from mvretrieval.evaluation.zero_shot.accuracy import TOP
from mvretrieval.evaluation.zero_shot.evaluate import ZeroShotOptions, ZeroShotResult, evaluate_zero_shot
from mvretrieval.evaluation.zero_shot.generalized import GeneralizedAccuracy
from mvretrieval.evaluation.zero_shot.task import ZeroShotTask
from mvretrieval.evaluation.zero_shot.templates import DEFAULT
from mvretrieval.evaluation.zero_shot.text_queries import ClassNameClassifier
from mvretrieval.evaluation.zero_shot.view_fusion import FusionStage, ViewFusion, WeightKind
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

    def zero_shot(self) -> ZeroShotOptions:
        """The options of the library, with the classes read from their file.

        Raises:
            LabelsError: the file cannot be read.
        """
        classes = None if self.classes is None else tuple(sorted(read_classes(self.classes)))
        bias = self.bias or 0.0
        return ZeroShotOptions(self.by, self.where, classes, self.templates, self.fusion(), self.seen, bias)


def run(options: Options) -> int:
    """Evaluate and print."""
    zero_shot = options.zero_shot()
    with Session.open(options.collection) as session:
        result = evaluate_zero_shot(session, zero_shot)
    _warn(options, result)
    if options.json:
        print_json(_record(options, result))
    else:
        _print_left_out(result.task, result.classifier)
        _print(options, result)
    return 0


def _warn(options: Options, result: ZeroShotResult) -> None:
    warn_seen_classes(
        result.seen_classes,
        "this is not zero-shot; leave them out with --where, or declare the objects trained on with --seen",
    )
    if result.empty_classes:
        n = counted(len(result.empty_classes), "class")
        say(f"note: {n} of {options.classes} without an object in the collection: {some_of(result.empty_classes)}")
    if options.fusion().scores_single_views and not result.single_views:
        say(
            "note: in this tuned encoder the views of an object attend to each other, so single views are not independent"
        )


def _record(options: Options, result: ZeroShotResult) -> dict[str, Any]:
    return {
        "task": "zero-shot",
        "templates": options.templates,
        "view_fusion": options.view_fusion,
        "weights": options.weights or "stored",
        "keep_views": options.keep_views,
        **result.to_dict(options.per_class),
    }


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


def _print(options: Options, result: ZeroShotResult) -> None:
    found, task = result.accuracy, result.task
    head = [f"top-{k}" for k in TOP]
    rows = [
        [kind, *(f"{values[k]:.4f}" for k in TOP)]
        for kind, values in (("objects", found.top), ("class mean", found.class_mean))
    ]
    counts = ((found.objects, "object"), (len(found.classes), "class"), (len(task.names), "candidate"))
    print("{} of {}, {}".format(*(counted(n, noun) for n, noun in counts)))
    print(table(rows, ["mean over", *head]))
    if result.generalized is not None:
        _print_generalized(result.generalized)
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
