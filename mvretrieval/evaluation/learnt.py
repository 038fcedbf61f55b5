"""What a collection's adapter and encoder have already met: whatever is measured on it is no open set."""

from __future__ import annotations

from mvretrieval.describe import Describer
from mvretrieval.encoders.registry import parse_encoder
from mvretrieval.encoders.tuned import TunedConfig, read_config
from mvretrieval.errors import WeightsError
from mvretrieval.evaluation.words import class_name


def learnt_names(describer: Describer) -> set[str]:
    """Names of the classes whose pictures the adapter was trained on, or the encoder tuned on."""
    adapter, tuned = describer.adapter, tuning_of(describer)
    classes = (*(() if adapter is None else adapter.config.classes), *(() if tuned is None else tuned.classes))
    return {class_name(label) for label in classes}


def tuning_of(describer: Describer) -> TunedConfig | None:
    """How the encoder was tuned, read without opening it; None if it was not, or its folder is gone."""
    name = parse_encoder(describer.config.encoder)
    if name.family != "tuned" or name.file is None:
        return None
    try:
        return read_config(name.file)
    except WeightsError:  # stored vectors are measured without it
        return None
