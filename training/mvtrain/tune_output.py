"""What a tuning leaves behind: the encoder, its low-rank parts, and the adapter that was trained with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvretrieval.describe import Describer, DescriberConfig
from mvretrieval.encoders.network import NetworkEncoder
from mvretrieval.encoders.registry import public_encoder
from mvretrieval.encoders.tuned import TunedConfig, save_tuned, tuned_fingerprint, weights_of
from mvretrieval.weighting.adapter import Adapter
from mvretrieval.weighting.config import AdapterConfig
from mvtrain.checkpoint import FILE as CHECKPOINT
from mvtrain.images import Pictures
from mvtrain.lora import low_rank_tensors, merge
from mvtrain.tune_config import TuneConfig

if TYPE_CHECKING:
    from mvtrain.tune import Tuned

ADAPTER = "adapter"


def write_tuned(
    folder: Path,
    config: TuneConfig,
    encoder: NetworkEncoder,
    base: str,
    pictures: Pictures,
    tuned: Tuned,
    training: dict[str, Any],
    known: Sequence[str] = (),
) -> None:
    """Merge the low-rank parts and write everything; a folder whose encoder has a configuration is whole.

    Args:
        folder: of the tuned encoder.
        config: of the tuning.
        encoder: that was tuned.
        base: its fingerprint before.
        pictures: that it was tuned on.
        tuned: what the tuning gave.
        training: record of the run.
        known: classes that the encoder was tuned on before.

    Raises:
        EncoderError: the folder cannot be written.
    """
    low_rank = low_rank_tensors(encoder.network)
    merge(encoder.network)
    weights = weights_of(encoder)
    assert encoder.architecture is not None
    shared: dict[str, Any] = {
        "classes": tuple(sorted({*known, *pictures.classes})),
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
    describer = Describer(DescriberConfig(encoder.id, pictures.rig, pictures.styles, pictures.size))
    describer.__dict__["encoder"] = encoder  # it is not in the folder yet
    adapter = AdapterConfig(
        views=describer.view_fingerprint,
        encoder=public_encoder(encoder.id),
        rig=pictures.rig,
        styles=pictures.styles,
        size=pictures.size,
        n_views=pictures.mask.shape[1],
        dim=encoder.dim,
        network=config.network,
        text="frozen" if config.loss == "text" else "adapted",
        **shared,
    )
    Adapter(adapter, None, tuned.pooling).save(folder / ADAPTER)
    save_tuned(folder, about, weights, low_rank)
    (folder / CHECKPOINT).unlink(missing_ok=True)
