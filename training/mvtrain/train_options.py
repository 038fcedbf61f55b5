"""Options of `mvr train`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import tyro

from mvretrieval.errors import AdapterError, TrainingError
from mvretrieval.store.schema import FILE
from mvretrieval.weighting.hub import HUB
from mvretrieval.weighting.network import NamedPooling, NetworkConfig, PoolingKind
from mvretrieval.weighting.view_weighting import DatasetScores
from mvtrain.config import LossName, NamedLoss, TrainConfig

_DEFAULTS = TrainConfig()


@dataclass(frozen=True)
class Options:
    """Options of `mvr train`.

    Attributes:
        collection: folder of the collection; its stored view vectors are the training data.
        out: folder of the adapter.
        by: label column with the class names.
        self_supervised: train without labels: every object is its own class, recognized from other views.
        where: filter; only matching objects are used, such as "split = 'train'".
        shots: maximum number of objects per class, drawn at random.
        pooling: view weighting: adam, a baseline, or a plug-in.
        instance_scores: adam: view scores from the content of each view.
        dataset_scores: adam: view scores by camera direction, by slot, or none.
        linear: adam, mean, max and plug-ins: linear layer behind the pooled vector; without it adam only weights views.
        residual: weight of the linear layer's output; 1 by default, 0.2 for clip-adapter.
        whiten: output dimensions of the PCA whitening before the network; 0 for raw view vectors.
        loss: training loss, or a plug-in; text needs an encoder with a text tower.
        temperature: of the loss.
        max_steps: maximum number of batches during cross-validation; the final run makes as many passes over all
            objects, hence more steps.
        learning_rate: of AdamW.
        weight_decay: of AdamW.
        min_views: minimum number of views per object after view dropout; 0 disables view dropout.
        folds: number of cross-validation folds over the classes, used to choose the number of steps; 0 disables
            validation.
        seed: of all random numbers.
        text_embeddings: .npz file with names and text vectors; adds text queries to an encoder without a text tower.
        init_from: adapter to start from, trained on the same kind of views.
        push: repository on the model hub (owner/name) to upload the adapter to.
        private: make that repository private.
        tensorboard: also write TensorBoard event files.
        device: cpu, cuda, or auto.
        overwrite: replace an existing adapter.
        json: print the metrics as one JSON object.
    """

    collection: tyro.conf.Positional[Path]
    out: Path
    by: str = "label"
    self_supervised: bool = False
    where: str | None = None
    shots: int | None = None
    pooling: NamedPooling | PoolingKind = _DEFAULTS.network.kind
    instance_scores: bool = _DEFAULTS.network.instance_scores
    dataset_scores: DatasetScores = _DEFAULTS.network.dataset_scores
    linear: bool = _DEFAULTS.network.linear
    residual: float | None = None
    whiten: int = _DEFAULTS.whiten
    loss: NamedLoss | LossName = _DEFAULTS.loss
    temperature: float = _DEFAULTS.temperature
    max_steps: int = _DEFAULTS.max_steps
    learning_rate: float = _DEFAULTS.learning_rate
    weight_decay: float = _DEFAULTS.weight_decay
    min_views: int = _DEFAULTS.min_views
    folds: int = _DEFAULTS.folds
    seed: int = _DEFAULTS.seed
    text_embeddings: Path | None = None
    init_from: str | None = None
    push: str | None = None
    private: bool = False
    tensorboard: bool = False
    device: str = "auto"
    overwrite: bool = False
    json: bool = False

    def __post_init__(self) -> None:
        self.config()
        if self.shots is not None and self.shots < 1:
            raise TrainingError(f"shots must be at least 1, not {self.shots}", code="out_of_range")
        if self.self_supervised and (self.by != "label" or self.shots is not None or self.text_embeddings is not None):
            raise TrainingError(
                "--self-supervised uses no labels: leave out --by, --shots and --text-embeddings", code="unused_option"
            )
        if self.self_supervised and self.loss == "text":
            raise TrainingError(
                "--self-supervised has no class names, which the text loss needs: use another --loss",
                code="needs_labels",
            )

    def config(self) -> TrainConfig:
        """The training configuration.

        Raises:
            TrainingError: a value is out of range.
        """
        network = NetworkConfig(
            kind=self.pooling,
            instance_scores=self.instance_scores,
            dataset_scores=self.dataset_scores,
            linear=self.linear,
            residual=self.residual,
        )
        own = {name: getattr(self, name) for name in TrainConfig.__dataclass_fields__ if name in vars(self)}
        return TrainConfig(network=network, **own)

    def check_out(self) -> None:
        """Check that the adapter may be written.

        Raises:
            AdapterError: the folder holds a collection, or an adapter that may not be replaced.
        """
        if (self.out / FILE).exists():
            raise AdapterError(f"{self.out} is a collection: choose another --out", code="out_is_a_collection")
        if (self.out / "config.json").exists() and not self.overwrite:
            raise AdapterError(
                f"{self.out} already has an adapter: choose another --out, or give --overwrite", code="adapter_exists"
            )

    def without_paths(self) -> Options:
        """Options for publication: file and folder names without their parents."""
        source, names = self.init_from, self.text_embeddings
        return replace(
            self,
            collection=Path(self.collection.name),
            out=Path(self.out.name),
            text_embeddings=None if names is None else Path(names.name),
            init_from=source if source is None or source.startswith(HUB) else Path(source).name,
        )
