"""The work of `mvr tune`: check, render, tune, and write the encoder."""

from __future__ import annotations

import json
import tempfile
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvrender.backends.selection import choose_backend
from mvrender.cameras import parse_rig
from mvrender.jobs import RenderSpec
from mvrender.shading import parse_styles
from mvretrieval.console import progress, run_record, say
from mvretrieval.describe import Describer, DescriberConfig
from mvretrieval.encoders.handle import EncoderHandle
from mvretrieval.encoders.network import NetworkEncoder
from mvretrieval.encoders.registry import open_encoder, parse_encoder, tuning_of
from mvretrieval.encoders.tuned import CONFIG
from mvretrieval.errors import TrainingError
from mvretrieval.session.session import Session
from mvtrain.checkpoint import FILE as CHECKPOINT_FILE
from mvtrain.checkpoint import check_identity
from mvtrain.class_names import text_vectors
from mvtrain.distributed import World
from mvtrain.log import TrainingLog
from mvtrain.render_views import meshes_of_collection, meshes_of_folder, render_views
from mvtrain.tunable import check_tunable
from mvtrain.tune import identity_of, tune
from mvtrain.tune_options import Options
from mvtrain.tune_output import write_tuned
from mvtrain.view_dataset import ViewDataset


def check_out(options: Options) -> None:
    """Check that --out can be used. Existing files are replaced only at the end of the run.

    Raises:
        TrainingError: it has a tuned encoder and --overwrite is not given, it is the encoder to tune, or it is not
            writable.
    """
    if (options.out / CONFIG).exists() and not options.overwrite:
        raise TrainingError(
            f"{options.out} already has a tuned encoder: choose another --out, or give --overwrite",
            code="encoder_exists",
        )
    base = parse_encoder(_describer_config(options).encoder)
    if base.family == "tuned" and base.file is not None and base.file.resolve() == options.out.resolve():
        raise TrainingError(f"--out {options.out} is the encoder to tune: choose another --out", code="out_is_encoder")
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=options.out):
            pass
    except OSError as error:
        raise TrainingError(
            f"cannot write to {options.out}: {error.strerror or error}; choose another --out", code="not_writable"
        ) from error


def tune_and_save(options: Options, world: World) -> dict[str, Any]:
    """Render, tune and write the encoder; returns the metrics.

    Raises:
        TrainingError: see `mvtrain.tune.tune`, or there is nothing to train on.
    """
    config = options.config()
    described = _describer_config(options)
    encoder = open_encoder(described.encoder, world.device, "float32")
    if not isinstance(encoder, NetworkEncoder):
        raise TrainingError(
            f"{described.encoder} has no trainable weights: choose another --encoder", code="no_weights"
        )
    check_tunable(encoder, config)
    before = tuning_of(described.encoder)
    base, seen = encoder.fingerprint, () if before is None else before.classes
    views = _views(options, world, described)
    resumes = world.run_on_first(lambda: _resumes(options, identity_of(encoder, views, config)))
    texts = _texts(encoder, described, views.classes) if config.loss == "text" else None
    if world.is_first:
        say(f"tuning {encoder.id} on {len(views)} objects, {len(views.classes)} classes, on {world.device}")
    opened: Any = TrainingLog(options.out, append=bool(resumes)) if world.is_first else nullcontext(lambda entry: None)
    with opened as log, progress("step") as step:

        def record(entry: dict[str, Any]) -> None:
            log(entry)
            if world.is_first:
                step(entry["step"], entry["of"])

        tuned = tune(encoder, views, config, options.out, texts, record, world, seen)
        metrics = {"steps": tuned.steps, **tuned.metrics}
        if world.is_first:
            training = run_record("tune", options.without_paths())
            write_tuned(options.out, config, encoder, base, views, tuned, training, seen)
            log({"stage": "done", **metrics})
    return {"objects": len(views), "classes": len(views.classes), **metrics}


def _resumes(options: Options, identity: dict[str, Any]) -> bool:
    """Whether there is a checkpoint of this run; with --overwrite, that of another run is deleted."""
    try:
        return check_identity(options.out, identity)
    except TrainingError:
        if not options.overwrite:
            raise
        (options.out / CHECKPOINT_FILE).unlink()
        return False


def _describer_config(options: Options) -> DescriberConfig:
    """Encoder, rig, styles and size from the options, with those of the collection as defaults."""
    default = DescriberConfig(encoder="builtin:")
    if options.is_collection:
        if options.labels is not None:
            raise TrainingError(
                f"{options.meshes} is a collection and has its own labels: leave --labels out", code="unused_option"
            )
        with Session.open(options.meshes) as session:
            default = session.describer.config
    elif options.encoder is None:
        raise TrainingError("a folder of meshes has no encoder: give the one to tune with --encoder", code="no_encoder")
    styles = parse_styles(options.styles) if options.styles else default.styles
    return DescriberConfig(
        options.encoder or default.encoder, options.rig or default.rig, styles, options.size or default.size
    )


def _views(options: Options, world: World, described: DescriberConfig) -> ViewDataset:
    """Views of the training objects: the first process renders and writes a list, the others read it."""
    listing = options.out / "objects.json"

    def render() -> ViewDataset:
        views = _render(options, described)
        try:
            listing.write_text(json.dumps(views.to_dict()), encoding="utf-8")
        except OSError as error:
            raise TrainingError(
                f"cannot write {listing}: {error.strerror or error}; choose another --out", code="not_writable"
            ) from error
        return views

    own = world.run_on_first(render)
    return own or ViewDataset.from_dict(options.views_folder, json.loads(listing.read_text(encoding="utf-8")))


def _render(options: Options, described: DescriberConfig) -> ViewDataset:
    if options.is_collection:
        with Session.open(options.meshes) as session:
            objects = meshes_of_collection(session, options.by, options.where)
    else:
        if options.where is not None:
            raise TrainingError(
                "--where filters a collection, not a folder of meshes: index the meshes first, or leave it out",
                code="unused_option",
            )
        objects = meshes_of_folder(options.meshes, options.by, options.labels)
    backend, reason = choose_backend(options.backend)
    kind = f"{described.rig}, {', '.join(described.styles)}, {described.size} px"
    say(f"views: {kind}; {backend} ({reason}); cached in {options.views_folder}")
    spec = RenderSpec(parse_rig(described.rig), described.styles, described.size, backend)
    with progress("mesh") as step:
        return render_views(objects, spec, options.views_folder, options.workers, say, step)


def _texts(encoder: NetworkEncoder, described: DescriberConfig, classes: list[str]) -> NDArray[np.float32]:
    describer = Describer(replace(described, styles=described.styles[:1]), EncoderHandle.of(encoder))
    return text_vectors(describer, classes, None)
