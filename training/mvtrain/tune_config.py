"""What decides how an encoder is tuned."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from mvretrieval.encoders.encoder import Precision
from mvretrieval.errors import TrainingError, did_you_mean
from mvretrieval.weighting.network import NetworkConfig
from mvtrain.config import LossName, TrainConfig

Method = Literal["lora", "last-blocks"]


@dataclass(frozen=True)
class TuneConfig:
    """Options of a tuning.

    Attributes:
        method: lora (low-rank parts of the attention of all blocks) or last-blocks (all weights of the last ones).
        rank: lora: r.
        alpha: lora: the low-rank part counts alpha / rank.
        last_blocks: last-blocks: how many, besides the norm and projection behind them.
        bias: also learn a vector that is added to every view vector, as DAC does.
        cross_view: last blocks in which all views of an object attend to one another; 0 for none.
        network: the view weighting that is trained jointly.
        loss: see `TrainConfig`.
        temperature: of the loss.
        classes_per_batch: P classes in a batch.
        objects_per_class: K objects of each.
        views_per_object: views that an object is shown with in a step, drawn anew each time.
        max_steps: batches.
        learning_rate: of AdamW, for the encoder; it rises for a tenth of the steps and falls as a cosine does.
        pooling_rate: the same for the view weighting.
        weight_decay: of AdamW.
        averaging: decay of the running mean of the weights, which is what is kept.
        held_out: share of the classes that are not trained on, to find the best number of steps; 0 for none.
        evaluate_every: steps between two looks at them.
        save_every: steps between two checkpoints.
        checkpointing: forget activations and compute them again: less memory, a third more time.
        precision: of activations; weights and sums are float32.
        seed: of everything random.
    """

    method: Method = "lora"
    rank: int = 8
    alpha: float = 16.0
    last_blocks: int = 2
    bias: bool = False
    cross_view: int = 0
    network: NetworkConfig = field(default_factory=NetworkConfig)
    loss: LossName = "supcon"
    temperature: float = 0.07
    classes_per_batch: int = 12
    objects_per_class: int = 4
    views_per_object: int = 4
    max_steps: int = 300
    learning_rate: float = 1e-4
    pooling_rate: float = 1e-3
    weight_decay: float = 1e-2
    averaging: float = 0.98
    held_out: float = 0.15
    evaluate_every: int = 50
    save_every: int = 50
    checkpointing: bool = False
    precision: Precision = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise TrainingError(
                f"unknown method '{self.method}': {did_you_mean(self.method, get_args(Method))}known are lora and last-blocks"
            )
        if self.precision not in get_args(Precision):
            raise TrainingError(f"precision is float32 or bfloat16, not {self.precision}")
        at_least = {
            "rank": 1, "last_blocks": 1, "cross_view": 0, "views_per_object": 1, "max_steps": 1, "evaluate_every": 1,
            "save_every": 1, "weight_decay": 0,
        }  # fmt: skip
        for name, least in at_least.items():
            if getattr(self, name) < least:
                raise TrainingError(f"{name} has to be at least {least}, not {getattr(self, name)}")
        for name in ("alpha", "learning_rate", "pooling_rate"):
            if not getattr(self, name) > 0:
                raise TrainingError(f"{name} has to be above 0, not {getattr(self, name)}")
        if not 0 <= self.held_out <= 0.5:
            raise TrainingError(f"held_out is a share of the classes from 0 to 0.5, not {self.held_out:g}")
        if self.network.by_slot or self.network.kind == "chunk":
            raise TrainingError(
                "steps show other views each time: take a view weighting that is not tied to slots or order"
            )
        self.of_loss()

    def of_loss(self) -> TrainConfig:
        """The part that says which loss; refuses what makes no sense there."""
        names: dict[str, Any] = {
            name: getattr(self, name)
            for name in ("loss", "temperature", "classes_per_batch", "objects_per_class", "averaging", "seed")
        }
        return TrainConfig(network=self.network, **names)
