"""What decides how an adapter is trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from mvretrieval.errors import TrainingError, did_you_mean
from mvretrieval.weighting.network import NetworkConfig

LossName = Literal["supcon", "multi-similarity", "prototypes", "text"]


@dataclass(frozen=True)
class TrainConfig:
    """Options of a training. The defaults were chosen on held-out classes of PSB's train split (benchmarks/NOTES.md).

    Attributes:
        network: which module, and its parts.
        whiten: dimensions left by PCA whitening before the network; 0 leaves raw view vectors.
        loss: supcon (supervised contrastive), multi-similarity, prototypes (cross-entropy against learnt class vectors)
            or text (cross-entropy against the frozen text vectors of the class names).
        temperature: of supcon, prototypes and text.
        classes_per_batch: P classes in a batch, as many from large classes as from small ones.
        objects_per_class: K objects of each.
        max_steps: batches at most while classes are held out; with all classes as many passes over the objects.
        learning_rate: of AdamW.
        weight_decay: of AdamW.
        averaging: decay of the running mean of the weights, which is what is kept.
        min_views: fewest views that an object is shown with in training; 0 shows all of them always.
        folds: the seen classes are split into so many parts; each is held out once, to find the best number of steps.
        evaluate_every: steps between two looks at the held-out classes.
        tolerance: held-out mAP that may be lost for more steps: what is learnt beyond the best still helps seen classes.
        seed: of everything random.
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
        if self.loss not in get_args(LossName):
            raise TrainingError(
                f"unknown loss '{self.loss}': {did_you_mean(self.loss, get_args(LossName))}known are "
                f"{', '.join(get_args(LossName))}"
            )
        for name in ("temperature", "learning_rate"):
            if not getattr(self, name) > 0:
                raise TrainingError(f"{name} has to be above 0, not {getattr(self, name)}")
        at_least = {"classes_per_batch": 2, "objects_per_class": 2, "max_steps": 1, "evaluate_every": 1}
        for name, least in (
            at_least | {"whiten": 0, "weight_decay": 0, "tolerance": 0, "min_views": 0, "folds": 0}
        ).items():
            if getattr(self, name) < least:
                raise TrainingError(f"{name} has to be at least {least}, not {getattr(self, name)}")
        if self.loss == "multi-similarity" and self.temperature != type(self).temperature:
            raise TrainingError("multi-similarity has no temperature: leave it out, or take another loss")
        if self.folds == 1:
            raise TrainingError("one fold leaves no class to train on: take 2 or more, or 0 for no validation")
        if not 0 <= self.seed < 1 << 32:
            raise TrainingError(f"seed is a number from 0 to 4294967295, not {self.seed}")
        if not 0 <= self.averaging < 1:
            raise TrainingError(f"averaging lies in [0, 1), not {self.averaging}")
