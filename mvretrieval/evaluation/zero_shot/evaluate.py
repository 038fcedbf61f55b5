"""Zero-shot classification of the objects of a collection by class names."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvretrieval.encoders.registry import tuning_of
from mvretrieval.errors import EvaluationError
from mvretrieval.evaluation.evaluation_set import EvaluationSet, Selection, load_evaluation_set
from mvretrieval.evaluation.seen_classes import seen_names
from mvretrieval.evaluation.zero_shot.accuracy import TOP, Accuracy, accuracy, predict
from mvretrieval.evaluation.zero_shot.generalized import GeneralizedAccuracy, generalized_accuracy
from mvretrieval.evaluation.zero_shot.task import ZeroShotTask, candidate_names, zero_shot_task
from mvretrieval.evaluation.zero_shot.templates import DEFAULT, load_templates
from mvretrieval.evaluation.zero_shot.text_queries import ClassNameClassifier, class_name_classifier
from mvretrieval.evaluation.zero_shot.view_fusion import ViewFusion, class_scores
from mvretrieval.session.session import Session
from mvretrieval.weighting.text_embeddings import class_name


@dataclass(frozen=True)
class ZeroShotOptions:
    """Options of a zero-shot classification.

    Attributes:
        by: label with the class names.
        where: filter; only matching objects are classified.
        classes: labels of the candidates; those of the objects if None. Classes without an object are candidates too.
        templates: name of a set of prompt templates or path of a file (see `templates.load_templates`), or the templates.
        fusion: how the views of an object are fused.
        seen: generalized zero-shot: filter of the objects trained on. Their classes are candidates too.
        bias: subtracted from the scores of seen classes (calibrated stacking); needs `seen`.
        name_of: turns a label into the name in the prompts. Labels with the same name are one class. The default drops what is
            in parentheses and the folders of a path, so that `bow_(weapon)` and `toys/bow` are both `bow`.
    """

    by: str = "label"
    where: str | None = None
    classes: tuple[str, ...] | None = None
    templates: str | tuple[str, ...] = DEFAULT
    fusion: ViewFusion = field(default_factory=ViewFusion)
    seen: str | None = None
    bias: float = 0.0
    name_of: Callable[[object], str] = class_name

    def __post_init__(self) -> None:
        if self.bias and self.seen is None:
            raise EvaluationError(
                "a bias applies to the scores of seen classes: give a filter of the objects trained on as `seen`",
                code="bad_options",
            )


@dataclass(frozen=True)
class ZeroShotResult:
    """Result of a zero-shot classification.

    Attributes:
        accuracy: top-k accuracies, over the objects and over the classes.
        task: the evaluated task.
        classifier: the class names.
        generalized: seen and unseen classes separately, if `seen` was given.
        seen_classes: evaluated classes, not declared as seen, that the adapter or the encoder was trained on.
        empty_classes: names of the given `classes` without an object.
        single_views: whether each view was encoded independently.
    """

    accuracy: Accuracy
    task: ZeroShotTask
    classifier: ClassNameClassifier
    generalized: GeneralizedAccuracy | None
    seen_classes: tuple[str, ...]
    empty_classes: tuple[str, ...]
    single_views: bool

    def to_dict(self, per_class: bool = False) -> dict[str, Any]:
        """The result as values for JSON; `per_class` adds the accuracy of each class."""
        found, task = self.accuracy, self.task
        record: dict[str, Any] = {
            "objects": found.objects,
            "classes": len(found.classes),
            "candidates": len(task.names),
            **{f"top{k}": found.top[k] for k in TOP},
            **{f"class_mean_top{k}": found.class_mean[k] for k in TOP},
            "chance": 1 / len(task.names),
            "text_encoder": self.classifier.source,
            "merged_labels": [list(group) for group in task.merged],
            "left_out": task.left_out(),
            "seen_classes": list(self.seen_classes),
            "empty_classes": list(self.empty_classes),
        }
        if self.generalized is not None:
            record["generalized"] = {
                name: None if isinstance(value, float) and math.isnan(value) else value
                for name, value in asdict(self.generalized).items()
            }
        if per_class:
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


def evaluate_zero_shot(session: Session, options: ZeroShotOptions | None = None) -> ZeroShotResult:
    """Classify objects by class names, and compare with their labels.

        with Collection.open("things/") as things:
            result = evaluate_zero_shot(things.session, ZeroShotOptions(templates="photo"))
            print(result.accuracy.top[1], result.accuracy.class_mean[1])

    Args:
        session: of an open collection, whose encoder has a text tower or whose adapter has text embeddings.
        options: see `ZeroShotOptions`.

    Raises:
        EvaluationError: no object can be classified, or an option does not fit the collection.
        FilterError: the label does not exist, or a filter cannot be parsed.
        NoTextError: the collection has neither a text tower nor text embeddings.
    """
    options = options or ZeroShotOptions()
    templates = load_templates(options.templates) if isinstance(options.templates, str) else options.templates
    name_of, classes = options.name_of, options.classes
    with session.reading():
        options.fusion.check_fits(session)
        evaluation_set = load_evaluation_set(session, Selection(options.by, options.where))
        labels = evaluation_set.labels
        seen_labels, is_seen_object = _seen_objects(options, session, evaluation_set)
        names = candidate_names(labels, classes, seen_labels, name_of)
        classifier = class_name_classifier(session, names, templates)
        task = zero_shot_task(
            labels,
            classifier,
            seen_labels=seen_labels,
            is_seen_object=is_seen_object,
            by=options.by,
            name_of=name_of,
        )
        row_ids, vectors = evaluation_set.row_ids[task.rows], evaluation_set.vectors[task.rows]
        scores = class_scores(session, row_ids, vectors, classifier, options.fusion)
        trained_on, tuning = seen_names(session.describer, name_of), tuning_of(session.describer.config.encoder)
    predictions = predict((scores - options.bias * task.is_seen).round(9), task.targets)
    evaluated = {task.names[i] for i in np.unique(task.targets) if not task.is_seen[i]}
    empty = set(candidate_names((), classes or (), name_of=name_of)) - set(candidate_names(labels, name_of=name_of))
    generalized = None
    if options.seen is not None:
        generalized = generalized_accuracy(scores, task.targets, task.is_seen, options.bias)
    return ZeroShotResult(
        accuracy=accuracy(predictions, task.targets, task.names),
        task=task,
        classifier=classifier,
        generalized=generalized,
        seen_classes=tuple(sorted(evaluated & trained_on)),
        empty_classes=tuple(sorted(empty)),
        single_views=tuning is None or not tuning.architecture.cross_view,
    )


def _seen_objects(
    options: ZeroShotOptions, session: Session, evaluation_set: EvaluationSet
) -> tuple[list[Any], NDArray[np.bool_]]:
    """Labels of the objects trained on, and (N,) which evaluated objects are among them."""
    if options.seen is None:
        return [], np.zeros(len(evaluation_set.ids), bool)
    row_ids = session.store.select(options.seen)
    labels = session.store.column_values(options.by, [int(n) for n in row_ids])
    if not candidate_names(labels, name_of=options.name_of):
        raise EvaluationError(
            f"the filter of seen objects, {options.seen}, matches no object with a '{options.by}': give one that selects the "
            "objects trained on",
            code="no_seen_objects",
        )
    return labels, np.isin(evaluation_set.row_ids, row_ids)
