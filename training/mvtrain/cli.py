"""Train an adapter (view weights and a linear layer) on the labels of a collection; it also helps classes without labels."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tyro

from mvretrieval.console import counted, print_json, progress, run_record, say
from mvretrieval.errors import AdapterError, TrainingError
from mvretrieval.session.session import Session
from mvretrieval.store.schema import FILE
from mvretrieval.weighting.adapter import Adapter
from mvretrieval.weighting.hub import HUB, push
from mvretrieval.weighting.network import NetworkConfig, PoolingKind
from mvretrieval.weighting.text_embeddings import TextEmbeddings
from mvretrieval.weighting.view_weighting import DatasetScores
from mvtrain.config import LossName, TrainConfig
from mvtrain.log import TrainingLog

_DEFAULTS = TrainConfig()
_Log = Callable[[dict[str, Any]], None]


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
        pooling: view weighting: adam, or a baseline.
        instance_scores: adam: view scores from the content of each view.
        dataset_scores: adam: view scores by camera direction, by slot, or none.
        linear: adam, mean and max: linear layer behind the pooled vector; without it adam only weights views.
        residual: weight of the linear layer's output; 1 by default, 0.2 for clip-adapter.
        whiten: output dimensions of the PCA whitening before the network; 0 for raw view vectors.
        loss: training loss; text needs an encoder with a text tower.
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
    pooling: PoolingKind = _DEFAULTS.network.kind
    instance_scores: bool = _DEFAULTS.network.instance_scores
    dataset_scores: DatasetScores = _DEFAULTS.network.dataset_scores
    linear: bool = _DEFAULTS.network.linear
    residual: float | None = None
    whiten: int = _DEFAULTS.whiten
    loss: LossName = _DEFAULTS.loss
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


def run(options: Options) -> int:
    """Train, write the adapter, and print the validation results."""
    started = time.monotonic()
    if (options.out / FILE).exists():
        raise AdapterError(f"{options.out} is a collection: choose another --out", code="out_is_a_collection")
    if (options.out / "config.json").exists() and not options.overwrite:
        raise AdapterError(
            f"{options.out} already has an adapter: choose another --out, or give --overwrite", code="adapter_exists"
        )
    metrics = train_and_save(options)
    metrics["seconds"] = round(time.monotonic() - started, 1)
    if options.json:
        print_json({"held_out_mAP": None, "untrained_mAP": None} | metrics)
    else:
        _report(options, metrics)
    return 0


def train_and_save(options: Options) -> dict[str, Any]:
    """Train and write the adapter; returns the metrics."""
    from mvretrieval.encoders.device import choose_device

    try:
        from mvtrain.fit import fit, load_training_data
    except ModuleNotFoundError as error:
        raise TrainingError(
            f"{error.name} is not installed: pip install 'mvretrieval[train]'", code="not_installed"
        ) from error

    config, device = options.config(), str(choose_device(options.device))
    embeddings = None if options.text_embeddings is None else TextEmbeddings.load(options.text_embeddings)
    init_from = None if options.init_from is None else Adapter.load(options.init_from)
    with Session.open(options.collection) as session:
        by = None if options.self_supervised else options.by
        data = load_training_data(session, by, config, options.where, options.shots, init_from)
        n_objects, n_classes = len(data.features), len(data.features.classes)
        say(f"training on {n_objects} objects, {n_classes} classes, on {device}")
        # Opened after all checks: a refused run leaves neither a folder nor an emptied log.
        with TrainingLog(options.out, options.tensorboard) as log, progress("step") as step:
            adapter = fit(data, config, embeddings, device, with_progress(log, step, config))
            counts = {name: int(adapter.config.metrics[name]) for name in _COUNTS if name in adapter.config.metrics}
            metrics: dict[str, Any] = adapter.config.metrics | counts
            log({"stage": "done", **metrics})
    if init_from is None and config.whiten:
        _note_reduced_whitening(adapter, min(config.whiten, data.features.views.shape[3]))
    adapter.config = replace(adapter.config, training=run_record("train", _without_paths(options)))
    adapter.save(options.out)
    if options.push is not None:
        say(f"uploaded to {push(options.out, options.push, options.private)}")
    return {"objects": n_objects, "classes": n_classes, **metrics}


def _note_reduced_whitening(adapter: Adapter, wanted: int) -> None:
    found = 0 if adapter.whitening is None else adapter.whitening.dim
    if found < wanted:
        say(
            f"note: whitened to {found} dimensions instead of {wanted}, since there are only {found + 1} views. Nearly as many "
            "dimensions as views amplify noise: compare with a much smaller --whiten, or with 0"
        )


_COUNTS = ("steps", "names_known")


def with_progress(log: _Log, progress: Callable[[int, int], None], config: TrainConfig) -> _Log:
    """A log that also reports the progress over all folds and the final run.

    Args:
        log: receives the records.
        progress: receives (done, total) steps; the total is an upper bound until the final run, whose length is chosen by
            the folds.
        config: of the training.
    """
    stages: list[str] = []

    def record(entry: dict[str, Any]) -> None:
        log(entry)
        if entry["stage"] not in stages:
            stages.append(entry["stage"])
        before = (len(stages) - 1) * config.max_steps
        folds = config.folds if stages[0].startswith("fold") else 0
        total = before + entry["of"] if len(stages) > folds else (folds + 1) * config.max_steps
        progress(before + entry["step"], total)

    return record


def _report(options: Options, metrics: dict[str, Any]) -> None:
    objects, classes = counted(metrics["objects"], "object"), counted(metrics["classes"], "class")
    steps = counted(metrics["steps"], "step")
    print(f"{options.out}: adapter trained on {objects}, {classes}, {metrics['seconds']} s")
    if "held_out_mAP" in metrics:
        print(
            f"  mAP on held-out classes: {metrics['held_out_mAP']:.4f} after {steps}, "
            f"{_compared(metrics)} {metrics['untrained_mAP']:.4f} without training"
        )
    elif options.self_supervised:
        print(f"  no validation: self-supervised training has no classes to hold out; {steps}")
    elif options.folds and metrics["steps"]:
        print(
            f"  no validation: too few classes with several objects for {options.folds} folds; {steps}. Label more classes, or "
            "choose the number with --folds 0 --max-steps N"
        )
    if "names_top1" in metrics:
        print(
            f"  text: {metrics['names_known']} classes have a known name; zero-shot accuracy on held-out names: "
            f"top-1 {metrics['names_top1']:.0%}, top-5 {metrics['names_top5']:.0%}"
        )
    print(f"  next: mvr reindex {options.collection} --adapter {options.out}")


def _compared(metrics: dict[str, Any]) -> str:
    difference = round(metrics["held_out_mAP"], 4) - round(metrics["untrained_mAP"], 4)
    return "better than" if difference > 0 else "NOT better than" if difference < 0 else "the same as"


def _without_paths(options: Options) -> Options:
    """Options for publication: file and folder names without their parents."""
    source, names = options.init_from, options.text_embeddings
    return replace(
        options,
        collection=Path(options.collection.name),
        out=Path(options.out.name),
        text_embeddings=None if names is None else Path(names.name),
        init_from=source if source is None or source.startswith(HUB) else Path(source).name,
    )
