"""Options of `mvr tune`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import tyro

from mvrender.renderer import BackendName, NamedBackend
from mvretrieval.encoders.encoder import Precision
from mvretrieval.encoders.registry import public_encoder
from mvretrieval.store.schema import FILE as COLLECTION_FILE
from mvretrieval.weighting.network import NamedPooling, NetworkConfig, PoolingKind
from mvtrain.config import LossName, NamedLoss
from mvtrain.tune_config import Method, TuneConfig

_DEFAULTS = TuneConfig()


@dataclass(frozen=True)
class Options:
    """Options of `mvr tune`. Several GPUs: torchrun --nproc-per-node 4 --no-python mvr tune ...

    Attributes:
        meshes: folder of a collection, whose meshes are rendered with its rig and styles; or of meshes, with --labels.
        out: folder of the tuned encoder.
        by: label column with the class names.
        where: filter; only matching objects of the collection are used, such as "split = 'train'".
        labels: for a folder of meshes: CSV with a `file` column.
        encoder: encoder to tune; by default that of the collection.
        rig: camera rig; by default that of the collection.
        styles: of the views; by default those of the collection.
        size: pixels of a view; by default that of the collection.
        view_cache: folder where rendered views are kept between runs; `views` in --out by default. 1.8 MB per object with
            12 views.
        method: lora (low-rank updates of all attention layers) or last-blocks (all weights of the last blocks).
        rank: lora: rank of the updates.
        alpha: lora: the updates are scaled by alpha / rank.
        last_blocks: last-blocks: number of blocks.
        bias: also learn a vector that is added to every view vector (DAC).
        cross_view: number of last blocks in which the views of an object attend to each other (Duoduo CLIP).
        pooling: view weighting trained jointly: adam, mean, max or clip-adapter.
        loss: training loss; text needs an encoder with a text tower.
        temperature: of the loss.
        classes_per_batch: classes per batch.
        objects_per_class: objects per class.
        views_per_object: views per object and step, drawn at random in every step.
        max_steps: number of batches.
        learning_rate: of AdamW, for the encoder.
        pooling_rate: of AdamW, for the view weighting.
        weight_decay: of AdamW.
        averaging: decay of the exponential moving average of the weights.
        held_out: fraction of the classes held out to choose the number of steps; 0 for none.
        evaluate_every: steps between two validations.
        save_every: steps between two checkpoints.
        checkpointing: recompute activations: less memory, a third more time.
        precision: of activations in training: float32 or bfloat16.
        seed: of all random numbers.
        backend: renderer; the best available one by default.
        workers: render processes; one per core by default.
        device: cpu, cuda, or auto.
        overwrite: start over, whatever --out contains.
        json: print the metrics as one JSON object.
    """

    meshes: tyro.conf.Positional[Path]
    out: Path
    by: str = "label"
    where: str | None = None
    labels: Path | None = None
    encoder: str | None = None
    rig: str | None = None
    styles: str | None = None
    size: int | None = None
    view_cache: Path | None = None
    method: Method = _DEFAULTS.method
    rank: int = _DEFAULTS.rank
    alpha: float = _DEFAULTS.alpha
    last_blocks: int = _DEFAULTS.last_blocks
    bias: bool = False
    cross_view: int = _DEFAULTS.cross_view
    pooling: NamedPooling | PoolingKind = "adam"
    loss: NamedLoss | LossName = _DEFAULTS.loss
    temperature: float = _DEFAULTS.temperature
    classes_per_batch: int = _DEFAULTS.classes_per_batch
    objects_per_class: int = _DEFAULTS.objects_per_class
    views_per_object: int = _DEFAULTS.views_per_object
    max_steps: int = _DEFAULTS.max_steps
    learning_rate: float = _DEFAULTS.learning_rate
    pooling_rate: float = _DEFAULTS.pooling_rate
    weight_decay: float = _DEFAULTS.weight_decay
    averaging: float = _DEFAULTS.averaging
    held_out: float = _DEFAULTS.held_out
    evaluate_every: int = _DEFAULTS.evaluate_every
    save_every: int = _DEFAULTS.save_every
    checkpointing: bool = False
    precision: Precision = _DEFAULTS.precision
    seed: int = _DEFAULTS.seed
    backend: NamedBackend | BackendName | None = None
    workers: int | None = None
    device: str = "auto"
    overwrite: bool = False
    json: bool = False

    def __post_init__(self) -> None:
        self.config()

    def config(self) -> TuneConfig:
        """The tuning configuration.

        Raises:
            TrainingError: a value is out of range.
        """
        own = {name: getattr(self, name) for name in TuneConfig.__dataclass_fields__ if name in vars(self)}
        return TuneConfig(network=NetworkConfig(kind=self.pooling), **own)

    @property
    def is_collection(self) -> bool:
        """Whether `meshes` is a collection, not a folder of meshes."""
        return (self.meshes / COLLECTION_FILE).exists()

    @property
    def views_folder(self) -> Path:
        """Folder of the rendered views."""
        return self.view_cache or self.out / "views"

    def without_paths(self) -> Options:
        """Options for publication: file and folder names without their parents."""
        return replace(
            self,
            meshes=Path(self.meshes.name),
            out=Path(self.out.name),
            labels=None if self.labels is None else Path(self.labels.name),
            view_cache=None if self.view_cache is None else Path(self.view_cache.name),
            encoder=None if self.encoder is None else public_encoder(self.encoder),
        )
