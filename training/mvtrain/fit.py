"""Python API of adapter training: from an open collection to an adapter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import nn

from mvrender.shading import Style
from mvretrieval.api import Collection
from mvretrieval.console import run_record
from mvretrieval.describe import Describer
from mvretrieval.encoders.device import choose_device
from mvretrieval.encoders.registry import public_encoder
from mvretrieval.errors import ShapeError, TrainingError
from mvretrieval.session.session import Session
from mvretrieval.weighting.adapter import Adapter
from mvretrieval.weighting.config import AdapterConfig
from mvretrieval.weighting.plugin import register_module
from mvretrieval.weighting.text_embeddings import TextEmbeddings
from mvretrieval.weighting.whitening import Whitening
from mvtrain.class_names import fit_text_projection, text_vectors
from mvtrain.config import TrainConfig
from mvtrain.features import ARRAYS, Features, from_arrays, from_collection
from mvtrain.losses import Loss, register_loss
from mvtrain.train import Log, Trained, check_trainable, train


def fit_adapter(
    collection: Collection,
    by: str | None = "label",
    config: TrainConfig | None = None,
    where: str | None = None,
    *,
    shots: int | None = None,
    init_from: Adapter | None = None,
    text_embeddings: TextEmbeddings | None = None,
    weighting: nn.Module | None = None,
    loss: Loss | None = None,
    device: str = "auto",
    log: Log | None = None,
) -> Adapter:
    """Train an adapter on the view vectors of a collection. The collection is not changed.

    Args:
        collection: open; its stored view vectors are the training data.
        by: label column with the class names. None trains without labels (self-supervised): every object is its own
            class.
        config: options of the training; the defaults of `TrainConfig` if None.
        where: filter; only matching objects are used, such as "split = 'train'".
        shots: maximum number of objects per class, drawn at random with `config.seed`.
        init_from: adapter to start from, trained on the same kind of views.
        text_embeddings: names with text vectors; a projection to object vectors is fitted, so that text queries work
            with an encoder that has no text tower.
        weighting: untrained view weighting of your own, instead of the one that `config.network` names (see
            `weighting.plugin`). The adaptive layer follows it unless `config.network.linear` is off.
        loss: of your own, instead of the one that `config` names (see `mvtrain.losses`).
        device: cpu, cuda, cuda:N or auto.
        log: receives a dict with the numbers of objects and classes and the device, and one per validation: stage, step, of,
            loss, mAP.

    Returns:
        The adapter. `adapter.config.metrics` has the number of steps and, if enough classes could be held out, the
        validation mAP (`held_out_mAP`) beside that of the untrained network (`untrained_mAP`).

    Raises:
        FilterError: unknown label column, or an invalid filter.
        AdapterError: `init_from` was trained on other views, or `weighting` breaks the contract of `ViewPooling`.
        TrainingError: no labeled objects, too few classes, `loss` returns no loss, or the training diverged.
    """
    config = _with_objects(config or TrainConfig(), weighting, loss)
    data = load_training_data(collection.session, by, config, where, shots, init_from)
    adapter = fit(data, config, text_embeddings, device, log)
    record = run_record("fit_adapter", config)
    record["options"] |= {"by": by, "where": where, "shots": shots}
    adapter.config = replace(adapter.config, training=record)
    return adapter


def fit_adapter_on_views(
    views: NDArray[np.floating],
    labels: Sequence[str],
    directions: NDArray[np.floating] | None = None,
    config: TrainConfig | None = None,
    *,
    mask: NDArray[np.bool_] | None = None,
    styles: Sequence[Style] = ("texture",),
    describer: Describer | None = None,
    init_from: Adapter | None = None,
    weighting: nn.Module | None = None,
    loss: Loss | None = None,
    device: str = "auto",
    log: Log | None = None,
) -> Adapter:
    """Train an adapter on view vectors from anywhere, without a collection.

        adapter = fit_adapter_on_views(views, labels, parse_rig("ring:12@30").directions)
        vectors, weights = adapter.pool(views[:, None], mask, directions)

    Args:
        views: (N, V, D) view vectors of unit norm, or (N, S, V, D) with S styles.
        labels: N class names.
        directions: (V, 3) unit vectors from the object to the cameras; None if they are unknown or differ between objects.
        config: options of the training; the defaults of `TrainConfig` if None.
        mask: (N, V), True where a view exists; all by default.
        styles: S names of the styles; those of the describer if it is given.
        describer: that made the views. The adapter then fits collections with the same views; without it, it is used with
            `Adapter.pool` alone.
        init_from: adapter to start from, trained on the same kind of views.
        weighting: of your own, as in `fit_adapter`.
        loss: of your own, as in `fit_adapter`.
        device: cpu, cuda, cuda:N or auto.
        log: as in `fit_adapter`.

    Raises:
        AdapterError: `init_from` was trained on other views, or `weighting` breaks the contract of `ViewPooling`.
        ShapeError: the shapes disagree, an object has no view, or a number is not finite.
        TrainingError: too few classes, or the training diverged.
    """
    config = _with_objects(config or TrainConfig(), weighting, loss)
    styles = tuple(styles) if describer is None else describer.config.styles
    features = from_arrays(views, labels, directions, mask, ARRAYS if describer is None else describer.view_fingerprint)
    if features.views.shape[1] != len(styles):
        raise ShapeError(
            f"the views have {features.views.shape[1]} styles, and {len(styles)} are named ({', '.join(styles)}): name each",
            code="style_count",
        )
    if config.loss == "text" and (describer is None or not describer.encoder.has_text):
        raise TrainingError(
            "the text loss needs a describer whose encoder has a text tower: use another loss", code="no_text_tower"
        )
    if init_from is not None:
        init_from.config.check_fits(features.fingerprint)
    check_trainable(features, config, init_from)
    before = () if init_from is None else init_from.config.classes
    data = TrainingData(features, describer, tuple(sorted({*before, *features.classes})), init_from, styles)
    adapter = fit(data, config, None, device, log)
    adapter.config = replace(adapter.config, training=run_record("fit_adapter_on_views", config))
    return adapter


def _with_objects(config: TrainConfig, weighting: nn.Module | None, loss: Loss | None) -> TrainConfig:
    """The configuration, naming a weighting and a loss that are given as objects."""
    if weighting is not None:
        config = replace(config, network=replace(config.network, kind=register_module(weighting)))
    return config if loss is None else replace(config, loss=register_loss(loss))


@dataclass(frozen=True)
class TrainingData:
    """Checked inputs of a training.

    Attributes:
        features: view vectors of the training objects.
        describer: that made the views; None if it is not known.
        classes: class names that the adapter records as seen; empty without labels.
        init_from: adapter to start from.
        styles: of the views.
    """

    features: Features
    describer: Describer | None
    classes: tuple[str, ...]
    init_from: Adapter | None = None
    styles: tuple[Style, ...] = ()


def load_training_data(
    session: Session,
    by: str | None,
    config: TrainConfig,
    where: str | None = None,
    shots: int | None = None,
    init_from: Adapter | None = None,
) -> TrainingData:
    """Read and check the training data; see `fit_adapter` for arguments and errors."""
    describer = session.describer
    if config.loss == "text" and not describer.encoder.has_text:
        raise TrainingError(
            f"{describer.config.encoder} has no text tower, which the text loss needs: use another --loss; "
            "--text-embeddings adds text queries to any encoder",
            code="no_text_tower",
        )
    if config.loss == "text" and by is None:
        raise TrainingError("the text loss needs class names: use another --loss without labels", code="needs_labels")
    features = from_collection(session, by, where)
    if shots is not None:
        features = features.shots(shots, config.seed)
    if init_from is not None:
        init_from.config.check_fits(features.fingerprint)
    check_trainable(features, config, init_from)
    before = () if init_from is None else init_from.config.classes
    classes = tuple(sorted({*before, *(() if by is None else features.classes)}))
    return TrainingData(features, describer, classes, init_from, describer.config.styles)


def fit(
    data: TrainingData,
    config: TrainConfig,
    text_embeddings: TextEmbeddings | None = None,
    device: str = "auto",
    log: Log | None = None,
) -> Adapter:
    """Train on checked data; see `fit_adapter`. The adapter has no training record yet."""

    def texts(classes: list[str], whitening: Whitening | None) -> NDArray[np.float32]:
        assert data.describer is not None  # checked before
        return text_vectors(data.describer, classes, whitening)

    chosen = str(choose_device(device))
    if log is not None:
        counts = {"objects": len(data.features), "classes": len(data.features.classes)}
        log({"stage": "start", **counts, "device": chosen})
    trained = train(data.features, config, chosen, texts, log, data.init_from)
    adapter = Adapter(_adapter_config(data, config, trained), trained.whitening, trained.network)
    if text_embeddings is not None:
        _add_text(adapter, data.features, text_embeddings, config.seed)
    return adapter


def _adapter_config(data: TrainingData, config: TrainConfig, trained: Trained) -> AdapterConfig:
    features = data.features
    views = None if data.describer is None else data.describer.config
    return AdapterConfig(
        views=features.fingerprint,
        encoder=ARRAYS if views is None else public_encoder(views.encoder),
        rig=ARRAYS if views is None else views.rig,
        styles=data.styles,
        size=0 if views is None else views.size,
        n_views=features.views.shape[2],
        dim=features.views.shape[3] if trained.whitening is None else trained.whitening.dim,
        network=config.network,
        plugin=trained.network.plugin_fingerprint,
        text="frozen" if config.loss == "text" else "adapted",
        classes=data.classes,
        metrics={"steps": float(trained.steps), **trained.metrics},
    )


def _add_text(adapter: Adapter, features: Features, text_embeddings: TextEmbeddings, seed: int) -> None:
    """Fit a projection from text embeddings to the adapted object vectors, and store it in the adapter."""
    vectors, _ = adapter.pool(features.views.astype(np.float32), features.mask, features.directions)
    fitted = fit_text_projection(text_embeddings, vectors, features.labels, seed)
    metrics = {"names_known": float(fitted.n_classes), "names_top1": fitted.top1, "names_top5": fitted.top5}
    adapter.text_embeddings = fitted.text_embeddings
    adapter.config = replace(adapter.config, text="named", metrics=adapter.config.metrics | metrics)
