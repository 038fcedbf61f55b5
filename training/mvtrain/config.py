"""Configuration of adapter training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

from mvrender import plugins
from mvretrieval.errors import TrainingError, did_you_mean
from mvretrieval.weighting.network import NetworkConfig

NamedLoss = Literal["supcon", "multi-similarity", "prototypes", "text"]
LossName: TypeAlias = str
"""A `NamedLoss`, or the name of a plug-in (see `losses`)."""


@dataclass(frozen=True)
class TrainConfig:
    """Options of adapter training. Defaults were chosen on held-out classes of PSB's train split (benchmarks/NOTES.md).

    Attributes:
        network: architecture of the adapter.
        whiten: output dimensions of the PCA whitening before the network; 0 keeps raw view vectors.
        loss: supcon (supervised contrastive), multi-similarity, prototypes (cross-entropy against learned class
            vectors) or text (cross-entropy against frozen text vectors of the class names); or the name of a plug-in.
        temperature: of supcon, prototypes and text.
        classes_per_batch: P classes per batch; each class is drawn equally often, whatever its size.
        objects_per_class: K objects per class.
        max_steps: maximum number of batches during cross-validation. The final run on all classes makes as many passes
            over the objects, hence more steps.
        learning_rate: of AdamW.
        weight_decay: of AdamW.
        averaging: decay of the exponential moving average of the weights; the average is the result.
        min_views: minimum number of views per object after view dropout; 0 disables view dropout.
        folds: number of cross-validation folds over the seen classes, used to choose the number of steps; 0 disables
            validation.
        evaluate_every: steps between two validations.
        tolerance: validation mAP below the best that is accepted for more steps; more steps help the seen classes.
        seed: of all random numbers.
    """

    network: NetworkConfig = field(default_factory=NetworkConfig)
    whiten: int = 512
    loss: LossName = "supcon"
    temperature: float = 0.07
    classes_per_batch: int = 24
    objects_per_class: int = 4
    max_steps: int = 300
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    averaging: float = 0.98
    min_views: int = 3
    folds: int = 3
    evaluate_every: int = 25
    tolerance: float = 0.002
    seed: int = 0

    def __post_init__(self) -> None:
        check_loss(self.loss)
        check_positive(self, "temperature", "learning_rate")
        check_minimum(
            self, classes_per_batch=2, objects_per_class=2, max_steps=1, evaluate_every=1, whiten=0, weight_decay=0,
            tolerance=0, min_views=0, folds=0,
        )  # fmt: skip
        if self.loss == "multi-similarity" and self.temperature != type(self).temperature:
            raise TrainingError(
                "the multi-similarity loss has no temperature: leave temperature out, or choose another loss",
                code="unused_option",
            )
        if self.folds == 1:
            raise TrainingError(
                "folds is 1, which leaves no class to train on: use 2 or more, or 0 for no validation", code="one_fold"
            )
        if not 0 <= self.seed < 1 << 32:
            raise TrainingError(f"seed must be between 0 and 4294967295, not {self.seed}", code="out_of_range")
        if not 0 <= self.averaging < 1:
            raise TrainingError(f"averaging must be in [0, 1), not {self.averaging}", code="out_of_range")


def check_loss(name: str) -> None:
    """Raise a TrainingError if no loss and no plug-in has this name."""
    if name not in get_args(NamedLoss) and plugins.find("losses", name) is None:
        check_choice("loss", name, (*get_args(NamedLoss), *plugins.names("losses")))


def check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    """Raise a TrainingError if `value` is not one of the known ones."""
    if value not in known:
        raise TrainingError(
            f"unknown {name} '{value}': {did_you_mean(value, known)}choose one of {', '.join(known)}",
            code="unknown_choice",
        )


def check_positive(config: object, *names: str) -> None:
    """Raise a TrainingError if one of these attributes is not above 0 (NaN included)."""
    for name in names:
        if not getattr(config, name) > 0:
            raise TrainingError(f"{name} must be above 0, not {getattr(config, name)}", code="out_of_range")


def check_minimum(config: object, **minimum: int) -> None:
    """Raise a TrainingError if an attribute is below its minimum."""
    for name, least in minimum.items():
        if getattr(config, name) < least:
            raise TrainingError(f"{name} must be at least {least}, not {getattr(config, name)}", code="out_of_range")
