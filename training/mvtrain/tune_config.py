"""Configuration of encoder tuning."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from mvretrieval.encoders.encoder import Precision
from mvretrieval.errors import TrainingError
from mvretrieval.weighting.network import NetworkConfig
from mvtrain.config import LossName, TrainConfig, check_choice, check_minimum, check_positive

Method = Literal["lora", "last-blocks"]


@dataclass(frozen=True)
class TuneConfig:
    """Options of encoder tuning.

    Attributes:
        method: lora (low-rank updates of the attention of all blocks) or last-blocks (all weights of the last blocks).
        rank: lora: rank r.
        alpha: lora: the low-rank product is scaled by alpha / rank.
        last_blocks: last-blocks: number of blocks, besides the norm and projection behind them.
        bias: also learn a vector that is added to every view vector, as DAC does.
        cross_view: number of last blocks in which the views of an object attend to each other; 0 for none.
        network: view weighting trained jointly.
        loss: see `TrainConfig`.
        temperature: of the loss.
        classes_per_batch: P classes per batch.
        objects_per_class: K objects per class.
        views_per_object: views per object and step, drawn at random in every step.
        max_steps: number of batches.
        learning_rate: of AdamW, for the encoder; linear warm-up over a tenth of the steps, then cosine decay.
        pooling_rate: the same for the view weighting.
        weight_decay: of AdamW.
        averaging: decay of the exponential moving average of the weights; the average is the result.
        held_out: fraction of the classes held out to choose the number of steps; 0 for none.
        evaluate_every: steps between two validations.
        save_every: steps between two checkpoints.
        checkpointing: recompute activations in the backward pass: less memory, a third more time.
        precision: of activations; weights and sums are float32.
        seed: of all random numbers.
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
        check_choice("method", self.method, get_args(Method))
        check_choice("precision", self.precision, get_args(Precision))
        check_minimum(
            self, rank=1, last_blocks=1, cross_view=0, views_per_object=1, max_steps=1, evaluate_every=1, save_every=1,
            weight_decay=0,
        )  # fmt: skip
        check_positive(self, "alpha", "learning_rate", "pooling_rate")
        if not 0 <= self.held_out <= 0.5:
            raise TrainingError(
                f"held_out is a fraction of the classes between 0 and 0.5, not {self.held_out:g}", code="out_of_range"
            )
        if self.network.by_slot or self.network.kind == "chunk":
            raise TrainingError(
                "tuning draws other views in every step: choose a view weighting that does not depend on view slots "
                "or their order",
                code="slots_not_supported",
            )
        self.loss_config()

    def loss_config(self) -> TrainConfig:
        """The options of the loss as a TrainConfig.

        Raises:
            TrainingError: an option is out of range.
        """
        names: dict[str, Any] = {
            name: getattr(self, name)
            for name in ("loss", "temperature", "classes_per_batch", "objects_per_class", "averaging", "seed")
        }
        return TrainConfig(network=self.network, **names)
