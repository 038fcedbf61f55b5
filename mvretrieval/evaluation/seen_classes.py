"""Classes that a collection's adapter or encoder was trained on. An evaluation on them is not open-set."""

from __future__ import annotations

from collections.abc import Callable

from mvretrieval.describe import Describer
from mvretrieval.encoders.registry import tuning_of
from mvretrieval.weighting.text_embeddings import class_name


def seen_classes(describer: Describer) -> set[str]:
    """Labels of the classes that the adapter was trained on, or the encoder was tuned on (if its folder exists)."""
    adapter, tuned = describer.adapter, tuning_of(describer.config.encoder)
    return {*(() if adapter is None else adapter.config.classes), *(() if tuned is None else tuned.classes)}


def seen_names(describer: Describer, name_of: Callable[[object], str] = class_name) -> set[str]:
    """Names of the seen classes, and the nearest names in an adapter's text embeddings: `knife` for a butcher knife."""
    classes = seen_classes(describer)
    embeddings = None if describer.adapter is None else describer.adapter.text_embeddings
    nearest = {embeddings.nearest_name(label) for label in classes} - {None} if embeddings is not None else set()
    return {name_of(label) for label in classes} | {str(name) for name in nearest}
