"""Tune the encoder itself from labelled meshes: low-rank parts of its attention, or its last blocks. Resumes where it stopped."""

from __future__ import annotations

import tempfile
import time
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from mvrender.backends.selection import choose_backend
from mvrender.renderer import BackendName
from mvrender.shading import parse_styles
from mvretrieval.api import Collection
from mvretrieval.console import counted, progress, run_record, say
from mvretrieval.describe import DescriberConfig
from mvretrieval.encoders.encoder import Precision
from mvretrieval.encoders.registry import parse_encoder, public_encoder
from mvretrieval.errors import TrainingError
from mvretrieval.store.schema import FILE as COLLECTION_FILE
from mvretrieval.weighting.network import NetworkConfig, PoolingKind
from mvtrain.checkpoint import FILE as CHECKPOINT_FILE
from mvtrain.config import LossName
from mvtrain.tune_config import Method, TuneConfig

if TYPE_CHECKING:
    from mvretrieval.encoders.network import NetworkEncoder
    from mvtrain.distributed import Ranks
    from mvtrain.images import Pictures

_DEFAULTS = TuneConfig()


@dataclass(frozen=True)
class Options:
    """Options of `mvr tune`. Several GPUs: torchrun --nproc-per-node 4 --no-python mvr tune ...

    Attributes:
        meshes: folder of a collection, whose files are rendered with its cameras and styles; or of meshes, with --labels.
        out: folder of the tuned encoder.
        by: label that names the classes.
        where: filter; only the objects of the collection that it keeps are learnt from, such as "split = 'train'".
        labels: of a folder of meshes: CSV with a `file` column.
        encoder: what is tuned; the collection's by default.
        rig: where the cameras stand; the collection's by default.
        styles: what the views look like; the collection's by default.
        size: pixels of a view; the collection's by default.
        views: folder where views are kept between runs; `views` in --out by default. 1.8 MB an object of 12 views.
        method: lora (low-rank parts of all attention) or last-blocks (all weights of the last blocks).
        rank: lora: rank of the parts.
        alpha: lora: the parts count alpha / rank.
        last_blocks: last-blocks: how many.
        bias: also learn a vector that is added to every view vector (DAC).
        cross_view: last blocks in which all views of an object attend to one another (Duoduo CLIP).
        pooling: view weighting that is trained jointly: adam, mean, max or clip-adapter.
        loss: what training drives at; text needs an encoder that reads words.
        temperature: of the loss.
        classes_per_batch: classes in a batch.
        objects_per_class: objects of each.
        views_per_object: views of each, others in every step.
        max_steps: batches.
        learning_rate: of AdamW, for the encoder.
        pooling_rate: of AdamW, for the view weighting.
        weight_decay: of AdamW.
        averaging: decay of the running mean of the weights.
        held_out: share of the classes that is held out to find the best number of steps; 0 for none.
        evaluate_every: steps between two looks at the held-out classes.
        save_every: steps between two checkpoints.
        checkpointing: less memory, a third more time.
        precision: of activations in training: float32 or bfloat16.
        seed: of everything random.
        backend: renderer; the best one here by default.
        workers: render processes; one per core by default.
        device: cpu, cuda, or auto.
        overwrite: begin anew, whatever is in --out.
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
    views: Path | None = None
    method: Method = _DEFAULTS.method
    rank: int = _DEFAULTS.rank
    alpha: float = _DEFAULTS.alpha
    last_blocks: int = _DEFAULTS.last_blocks
    bias: bool = False
    cross_view: int = _DEFAULTS.cross_view
    pooling: PoolingKind = "adam"
    loss: LossName = _DEFAULTS.loss
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
    backend: BackendName | None = None
    workers: int | None = None
    device: str = "auto"
    overwrite: bool = False
    json: bool = False

    def __post_init__(self) -> None:
        self.config()

    def config(self) -> TuneConfig:
        """What decides the tuning.

        Raises:
            TrainingError: a value is out of range.
        """
        own = {name: getattr(self, name) for name in TuneConfig.__dataclass_fields__ if name in vars(self)}
        return TuneConfig(network=NetworkConfig(kind=self.pooling), **own)


def run(options: Options) -> int:
    """Render, tune, write the encoder, and tell what it is worth."""
    import json

    from mvretrieval.encoders.device import choose_device
    from mvtrain.distributed import join_ranks

    started = time.monotonic()
    with join_ranks(str(choose_device(options.device))) as ranks:
        ranks.lead(lambda: _check_out(options))
        metrics = learn(options, ranks)
        if not ranks.first:
            return 0
    metrics["seconds"] = round(time.monotonic() - started, 1)
    if options.json:
        print(json.dumps({"held_out_mAP": None, "untrained_mAP": None} | metrics))
        return 0
    print(
        f"{options.out}: {counted(metrics['objects'], 'object')} in {counted(metrics['classes'], 'class')}, {metrics['seconds']} s"
    )
    if "held_out_mAP" in metrics:
        helped = metrics["held_out_mAP"] > metrics["untrained_mAP"]
        advice = f"All classes: --held-out 0 --max-steps {metrics['steps']}"
        print(
            f"  mAP on held-out classes, mean of the views: {metrics['held_out_mAP']:.4f} after {metrics['steps']} steps, "
            f"{'better' if helped else 'NOT better'} than {metrics['untrained_mAP']:.4f} before. "
            + (
                advice
                if helped
                else "The encoder as it was is as good: use that, or try a lower --learning-rate or more classes"
            )
        )
    elif options.held_out:
        print(
            f"  no validation: too few classes with several objects, new to the encoder, to hold out a share of "
            f"{options.held_out:g}; {counted(metrics['steps'], 'step')} taken. Give --held-out 0 --max-steps N to choose them, or "
            "label more classes"
        )
    print(f"  rendered views are kept in {_views_folder(options)}; where no more is tuned, they may be deleted")
    source = "reindex" if _is_collection(options) else "index things/"
    print(f"  next: mvr {source} {options.meshes} --encoder tuned:{options.out}")
    print(
        f"  then: mvr train COLLECTION --by {options.by}   (view weights by themselves, with more views and whitening)"
    )
    print(f"    or: mvr reindex COLLECTION --adapter {options.out / 'adapter'}   (those that were trained jointly)")
    return 0


def _check_out(options: Options) -> None:
    """A finished encoder is not replaced unasked, nor by one that is made of it; until the end it stays what it is."""
    from mvretrieval.encoders.tuned import CONFIG

    if (options.out / CONFIG).exists() and not options.overwrite:
        raise TrainingError(f"{options.out} has a tuned encoder: name another folder, or give --overwrite")
    base = parse_encoder(_described(options).encoder)
    if base.family == "tuned" and base.file is not None and base.file.resolve() == options.out.resolve():
        raise TrainingError(f"{options.out} is the encoder that is tuned further: name another --out")
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=options.out):
            pass
    except OSError as error:
        raise TrainingError(
            f"{options.out} cannot be written: {error.strerror or error}; name another --out"
        ) from error


def _go_on(options: Options, identity: dict[str, Any]) -> bool:
    """Whether a checkpoint of this very tuning is there; one of another makes way, if that is asked for."""
    from mvtrain.tune import check_checkpoint

    try:
        return check_checkpoint(options.out, identity)
    except TrainingError:
        if not options.overwrite:
            raise
        (options.out / CHECKPOINT_FILE).unlink()
        return False


def learn(options: Options, ranks: Ranks) -> dict[str, Any]:
    """Render, tune and write; the metrics."""
    from mvretrieval.encoders.network import NetworkEncoder
    from mvretrieval.encoders.registry import open_encoder
    from mvretrieval.encoders.tuned import tuning_of
    from mvtrain.log import TrainingLog
    from mvtrain.tune_output import write_tuned

    try:
        from mvtrain.tunable import check_tunable
        from mvtrain.tune import identity_of, tune
    except ModuleNotFoundError as error:
        raise TrainingError(f"{error.name} is not installed: pip install 'mvretrieval[train]'") from error

    config = options.config()
    described = _described(options)
    encoder = open_encoder(described.encoder, ranks.device, "float32")
    if not isinstance(encoder, NetworkEncoder):
        raise TrainingError(f"{described.encoder} has no weights that could be tuned: name another with --encoder")
    check_tunable(encoder, config)
    before = tuning_of(described.encoder)
    base, known = encoder.fingerprint, () if before is None else before.classes
    pictures = _pictures(options, ranks, described)
    goes_on = ranks.lead(lambda: _go_on(options, identity_of(encoder, pictures, config)))
    texts = _texts(encoder, described, pictures.classes) if config.loss == "text" else None
    if ranks.first:
        say(f"tuning {encoder.id} on {len(pictures)} objects, {len(pictures.classes)} classes, on {ranks.device}")
    told: Any = TrainingLog(options.out, go_on=bool(goes_on)) if ranks.first else nullcontext(lambda entry: None)
    with told as log, progress("step") as step:

        def record(entry: dict[str, Any]) -> None:
            log(entry)
            if ranks.first:
                step(entry["step"], entry["of"])

        tuned = tune(encoder, pictures, config, options.out, texts, record, ranks, known)
        metrics = {"steps": tuned.steps, **tuned.metrics}
        if ranks.first:
            training = run_record("tune", _without_folders(options))
            write_tuned(options.out, config, encoder, base, pictures, tuned, training, known)
            log({"stage": "done", **metrics})
    return {"objects": len(pictures), "classes": len(pictures.classes), **metrics}


def _described(options: Options) -> DescriberConfig:
    """Encoder and views, as asked for, or as the collection has them."""
    default = DescriberConfig(encoder="builtin:")
    if _is_collection(options):
        if options.labels is not None:
            raise TrainingError(f"{options.meshes} is a collection, with labels of its own: leave --labels out")
        with Collection.open(options.meshes) as collection:
            default = collection.describer.config
    elif options.encoder is None:
        raise TrainingError("a folder of meshes has no encoder of its own: say with --encoder what should be tuned")
    styles = parse_styles(options.styles) if options.styles else default.styles
    return DescriberConfig(
        options.encoder or default.encoder, options.rig or default.rig, styles, options.size or default.size
    )


def _is_collection(options: Options) -> bool:
    return (options.meshes / COLLECTION_FILE).exists()


def _pictures(options: Options, ranks: Ranks, described: DescriberConfig) -> Pictures:
    """The first process renders; the others read what it wrote down."""
    import json

    from mvtrain.images import Pictures

    listed = options.out / "objects.json"

    def rendered() -> Pictures:
        pictures = _rendered(options, described)
        try:
            listed.write_text(json.dumps(pictures.to_dict()), encoding="utf-8")
        except OSError as error:
            raise TrainingError(f"{listed} cannot be written: {error.strerror or error}") from error
        return pictures

    own = ranks.lead(rendered)
    return own or Pictures.from_dict(_views_folder(options), json.loads(listed.read_text(encoding="utf-8")))


def _views_folder(options: Options) -> Path:
    return options.views or options.out / "views"


def _rendered(options: Options, described: DescriberConfig) -> Pictures:
    from mvrender.cameras import parse_rig
    from mvrender.pool import RenderSpec
    from mvtrain.images import of_collection, of_folder, render

    if _is_collection(options):
        with Collection.open(options.meshes) as collection:
            objects = of_collection(collection, options.by, options.where)
    else:
        if options.where is not None:
            raise TrainingError("--where filters a collection: index the meshes first, or leave it out")
        objects = of_folder(options.meshes, options.by, options.labels)
    backend, reason = choose_backend(options.backend)
    looks = f"{described.rig}, {', '.join(described.styles)}, {described.size} px"
    say(f"views: {looks}; {backend} ({reason}); kept in {_views_folder(options)}")
    spec = RenderSpec(parse_rig(described.rig), described.styles, described.size, backend)
    with progress("mesh") as step:
        return render(objects, spec, _views_folder(options), options.workers, say, step)


def _texts(encoder: NetworkEncoder, described: DescriberConfig, classes: list[str]) -> Any:
    from mvretrieval.describe import Describer
    from mvtrain.names import text_vectors

    describer = Describer(replace(described, styles=described.styles[:1]))
    describer.__dict__["encoder"] = encoder
    return text_vectors(describer, classes, None)


def _without_folders(options: Options) -> Options:
    """Options as they are published: names of files and folders without where they lie."""
    return replace(
        options,
        meshes=Path(options.meshes.name),
        out=Path(options.out.name),
        labels=None if options.labels is None else Path(options.labels.name),
        views=None if options.views is None else Path(options.views.name),
        encoder=None if options.encoder is None else public_encoder(options.encoder),
    )
