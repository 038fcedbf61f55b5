"""Learn an adapter from the labels of a collection: what sets its classes apart, for classes that have no label yet."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tyro

from mvretrieval.api import Collection
from mvretrieval.console import counted, progress, run_record, say
from mvretrieval.encoders.registry import public_encoder
from mvretrieval.errors import AdapterError, TrainingError
from mvretrieval.weighting.adapter import Adapter
from mvretrieval.weighting.config import AdapterConfig
from mvretrieval.weighting.hub import HUB, push
from mvretrieval.weighting.network import NetworkConfig, PoolingKind
from mvretrieval.weighting.text_embeddings import TextEmbeddings
from mvretrieval.weighting.view_weighting import DatasetScores
from mvtrain.config import LossName, TrainConfig

_DEFAULTS = TrainConfig()


@dataclass(frozen=True)
class Options:
    """Options of `mvr train`.

    Attributes:
        collection: folder of the collection, whose view vectors are learnt from.
        out: folder of the adapter.
        by: label that names the classes.
        unlabelled: no labels: every object is a class of its own, known again by other views of it.
        where: filter; only the objects that it keeps are learnt from, such as "split = 'train'".
        shots: at most so many objects of each class, drawn by seed.
        pooling: what weighs the views: adam, or one of its rivals.
        instance_scores: adam: view scores from each view's content.
        dataset_scores: adam: view scores by camera direction, by slot, or none.
        linear: adam, mean and max: the linear layer behind the pooled vector; without it adam only weighs views.
        residual: how much of what the layer says is added; 1 by default, and 0.2 for clip-adapter.
        whiten: dimensions left by PCA whitening before the network; 0 for raw view vectors.
        loss: what training drives at; text needs an encoder that reads words.
        temperature: of the loss.
        max_steps: batches at most while classes are held out; then all classes are learnt in as many passes over the objects,
            which are more batches.
        learning_rate: of AdamW.
        weight_decay: of AdamW.
        min_views: fewest views that an object is shown with in training; 0 shows all of them always.
        folds: parts that the classes are split into; each is held out once to find the number of steps. 0: no validation.
        seed: of everything random.
        names: .npz file with names and vectors of a text encoder, to teach words to an encoder that reads none.
        start: adapter to begin with, trained on the same kind of views.
        push: repository on the model hub (owner/name) that the adapter is uploaded to.
        private: make that repository private.
        tensorboard: also write TensorBoard's event files.
        device: cpu, cuda, or auto.
        overwrite: replace an adapter that is there.
        json: print the metrics as one JSON object.
    """

    collection: tyro.conf.Positional[Path]
    out: Path
    by: str = "label"
    unlabelled: bool = False
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
    names: Path | None = None
    start: str | None = None
    push: str | None = None
    private: bool = False
    tensorboard: bool = False
    device: str = "auto"
    overwrite: bool = False
    json: bool = False

    def __post_init__(self) -> None:
        self.config()
        if self.shots is not None and self.shots < 1:
            raise TrainingError(f"shots is a number of objects from 1, not {self.shots}")
        if self.unlabelled and (self.by != "label" or self.shots is not None or self.names is not None):
            raise TrainingError("--unlabelled takes no labels: leave --by, --shots and --names out")
        if self.unlabelled and self.loss == "text":
            raise TrainingError("--unlabelled knows no class names, which the text loss needs: use another --loss")

    def config(self) -> TrainConfig:
        """What decides the training.

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
    """Train, write the adapter, and tell what it is worth."""
    import json

    started = time.monotonic()
    if (options.out / "config.json").exists() and not options.overwrite:
        raise AdapterError(f"{options.out} has an adapter: name another folder, or give --overwrite")
    metrics = learn(options)
    metrics["seconds"] = round(time.monotonic() - started, 1)
    if options.json:
        print(json.dumps({"held_out_mAP": None, "untrained_mAP": None} | metrics))
        return 0
    print(
        f"{options.out}: adapter of {counted(metrics['objects'], 'object')} in {counted(metrics['classes'], 'class')}, "
        f"{metrics['seconds']} s"
    )
    if "held_out_mAP" in metrics:
        better = "better than" if metrics["held_out_mAP"] > metrics["untrained_mAP"] else "NOT better than"
        print(
            f"  mAP on classes held out of the training: {metrics['held_out_mAP']:.4f} after {metrics['steps']} steps, "
            f"{better} {metrics['untrained_mAP']:.4f} without training"
        )
    elif options.unlabelled:
        print(f"  no validation: without labels no class can be held out; {counted(metrics['steps'], 'step')} taken")
    elif options.folds and metrics["steps"]:
        print(
            f"  no validation: too few classes with several objects, on which the encoder was not tuned, for {options.folds} "
            f"folds; {counted(metrics['steps'], 'step')} taken. Give --folds 0 --max-steps N to choose them, or label more classes"
        )
    if "names_top1" in metrics:
        print(
            f"  words: {metrics['names_known']} classes have a known name; objects of a class that the map to words has not "
            f"met (the adapter has) are called by their own name in {metrics['names_top1']:.0%}, within five in "
            f"{metrics['names_top5']:.0%}"
        )
    print(f"  next: mvr reindex {options.collection} --adapter {options.out}")
    return 0


def learn(options: Options) -> dict[str, Any]:
    """Train and write; the metrics."""
    from mvretrieval.encoders.device import choose_device
    from mvtrain.features import from_collection
    from mvtrain.log import TrainingLog
    from mvtrain.names import fit_names, text_vectors

    try:
        from mvtrain.train import train
    except ModuleNotFoundError as error:
        raise TrainingError(f"{error.name} is not installed: pip install 'mvretrieval[train]'") from error

    config = options.config()
    device = str(choose_device(options.device))
    space = None if options.names is None else TextEmbeddings.load(options.names)
    start = None if options.start is None else Adapter.load(options.start)
    with Collection.open(options.collection) as collection:
        describer = collection.describer
        if config.loss == "text" and not describer.encoder.has_text:
            raise TrainingError(
                f"{describer.config.encoder} reads no words, which the text loss compares with: take another --loss; words can be "
                "learnt beside it with --names"
            )
        features = from_collection(collection, None if options.unlabelled else options.by, options.where)
        if options.shots is not None:
            features = features.shots(options.shots, options.seed)
        say(f"learning from {len(features)} objects, {len(features.classes)} classes, on {device}")
        if start is not None:
            start.config.check_fits(features.fingerprint)
        # After what may be refused: an attempt that never began leaves neither a folder nor an emptied log behind.
        with TrainingLog(options.out, options.tensorboard) as log:

            def texts(classes: list[str], whitening: Any) -> Any:
                return text_vectors(describer, classes, whitening)

            with progress("step") as step:
                stages: list[str] = []

                def record(entry: dict[str, Any]) -> None:
                    log(entry)
                    if entry["stage"] not in stages:
                        stages.append(entry["stage"])
                    # The last stage may be shorter: how many steps it takes is what the others find out.
                    before = (len(stages) - 1) * config.max_steps
                    folds = config.folds if stages[0].startswith("fold") else 0
                    step(
                        before + entry["step"],
                        before + entry["of"] if len(stages) > folds else (folds + 1) * config.max_steps,
                    )

                trained = train(features, config, device, texts, record, start)
            metrics: dict[str, Any] = {"steps": trained.steps, **trained.metrics}
            adapter = Adapter(
                AdapterConfig(
                    views=features.fingerprint,
                    encoder=public_encoder(describer.config.encoder),
                    rig=describer.config.rig,
                    styles=describer.config.styles,
                    size=describer.config.size,
                    n_views=features.views.shape[2],
                    dim=features.views.shape[3] if trained.whitening is None else trained.whitening.dim,
                    network=config.network,
                    text="frozen" if config.loss == "text" else "adapted",
                    classes=_classes(options, features.classes, start),
                    metrics={name: float(value) for name, value in metrics.items()},
                    training=run_record("train", _without_folders(options)),
                ),
                trained.whitening,
                trained.network,
            )
            if space is not None:
                vectors, _ = adapter.pool(features.views.astype("float32"), features.mask, features.directions)
                names = fit_names(space, vectors, features.labels, options.seed)
                metrics |= {"names_known": names.classes, "names_top1": names.top1, "names_top5": names.top5}
                adapter.text_embeddings = names.space
                adapter.config = replace(adapter.config, text="named", metrics=adapter.config.metrics | metrics)
            log({"stage": "done", **metrics})
    adapter.save(options.out)
    if options.push is not None:
        say(f"uploaded to {push(options.out, options.push, options.private)}")
    return {"objects": len(features), "classes": len(features.classes), **metrics}


def _without_folders(options: Options) -> Options:
    """Options as they are published: names of files and folders without where they lie."""
    start = options.start
    return replace(
        options,
        collection=Path(options.collection.name),
        out=Path(options.out.name),
        names=None if options.names is None else Path(options.names.name),
        start=start if start is None or start.startswith(HUB) else Path(start).name,
    )


def _classes(options: Options, own: list[str], start: Adapter | None) -> tuple[str, ...]:
    """All that the weights have seen, the start's classes too."""
    before = () if start is None else start.config.classes
    return tuple(sorted({*before, *(() if options.unlabelled else own)}))
