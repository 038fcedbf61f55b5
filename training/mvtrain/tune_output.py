"""Write the results of tuning: the encoder, its low-rank parts, and the jointly trained adapter."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mvretrieval.describe import Describer, DescriberConfig
from mvretrieval.encoders.handle import EncoderHandle
from mvretrieval.encoders.network import NetworkEncoder
from mvretrieval.encoders.registry import public_encoder
from mvretrieval.encoders.tuned import TunedConfig, save_tuned, tuned_fingerprint, weights_of
from mvretrieval.weighting.adapter import Adapter
from mvretrieval.weighting.config import AdapterConfig
from mvtrain.checkpoint import FILE as CHECKPOINT
from mvtrain.lora import low_rank_tensors, merge
from mvtrain.tune import Tuned
from mvtrain.tune_config import TuneConfig
from mvtrain.view_dataset import ViewDataset

ADAPTER = "adapter"


def write_tuned(
    folder: Path,
    config: TuneConfig,
    encoder: NetworkEncoder,
    base: str,
    views: ViewDataset,
    tuned: Tuned,
    training: dict[str, Any],
    seen: Sequence[str] = (),
) -> None:
    """Merge the low-rank parts and write all files. The configuration is written last: a folder with one is complete.

    Args:
        folder: of the tuned encoder.
        config: of the run.
        encoder: tuned.
        base: fingerprint of the encoder before tuning.
        views: the training objects.
        tuned: result of the run.
        training: record of the run.
        seen: classes the encoder was tuned on before.

    Raises:
        EncoderError: the folder is not writable.
    """
    low_rank = low_rank_tensors(encoder.network)
    merge(encoder.network)
    weights = weights_of(encoder)
    assert encoder.architecture is not None
    shared: dict[str, Any] = {
        "classes": tuple(sorted({*seen, *views.classes})),
        "metrics": {"steps": float(tuned.steps), **tuned.metrics},
        "training": training,
    }
    about = TunedConfig(
        base=public_encoder(encoder.id),
        base_fingerprint=base,
        architecture=encoder.architecture,
        preprocessing=encoder.preprocessing,
        method=config.method,
        **shared,
    )
    encoder.id = f"tuned:{folder}"
    encoder.fingerprint = tuned_fingerprint(encoder.architecture, encoder.preprocessing, weights)
    adapter = _adapter_config(config, encoder, views, shared)
    Adapter(adapter, None, tuned.pooling).save(folder / ADAPTER)
    save_tuned(folder, about, weights, low_rank)
    (folder / CHECKPOINT).unlink(missing_ok=True)


def _adapter_config(
    config: TuneConfig, encoder: NetworkEncoder, views: ViewDataset, shared: dict[str, Any]
) -> AdapterConfig:
    # The encoder is not in its folder yet.
    config_of_views = DescriberConfig(encoder.id, views.rig, views.styles, views.size)
    describer = Describer(config_of_views, EncoderHandle.of(encoder))
    return AdapterConfig(
        views=describer.view_fingerprint,
        encoder=public_encoder(encoder.id),
        rig=views.rig,
        styles=views.styles,
        size=views.size,
        n_views=views.mask.shape[1],
        dim=encoder.dim,
        network=config.network,
        text="frozen" if config.loss == "text" else "adapted",
        **shared,
    )
