"""What a collection's adapter and encoder have already met: whatever is measured on it is no open set."""

from __future__ import annotations

from mvretrieval.describe import Describer
from mvretrieval.encoders.tuned import tuning_of
from mvretrieval.weighting.text_embeddings import class_name


def seen_classes(describer: Describer) -> set[str]:
    """Labels of the classes whose pictures the adapter was trained on, or the encoder tuned on (if its folder is there)."""
    adapter, tuned = describer.adapter, tuning_of(describer.config.encoder)
    return {*(() if adapter is None else adapter.config.classes), *(() if tuned is None else tuned.classes)}


def seen_names(describer: Describer) -> set[str]:
    """Their names, and those by which an adapter's map to words has met them: a butcher knife is a `knife`."""
    classes = seen_classes(describer)
    space = None if describer.adapter is None else describer.adapter.text_embeddings
    met = {space.nearest_name(label) for label in classes} - {None} if space is not None else set()
    return {class_name(label) for label in classes} | {str(name) for name in met}
