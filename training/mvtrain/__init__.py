"""Train adapters and tune encoders on the labels of a collection.

Example:
    from mvretrieval import Collection
    from mvtrain import TrainConfig, fit_adapter

    with Collection.open("things/", write=True) as things:
        adapter = fit_adapter(things, by="label", config=TrainConfig(seed=1))
        adapter.save("adapter/")
        things.reembed(things.describer.with_adapter(adapter).config, adapter=adapter)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mvtrain.config import TrainConfig as TrainConfig
    from mvtrain.fit import fit_adapter as fit_adapter
    from mvtrain.fit import fit_adapter_on_views as fit_adapter_on_views

_MODULES = {"TrainConfig": "config", "fit_adapter": "fit", "fit_adapter_on_views": "fit"}
__all__ = ["TrainConfig", "fit_adapter", "fit_adapter_on_views"]


def __getattr__(name: str) -> Any:
    """Import on first use, because torch takes seconds."""
    if name not in _MODULES:
        raise AttributeError(f"module 'mvtrain' has no attribute '{name}'")
    return getattr(importlib.import_module(f"mvtrain.{_MODULES[name]}"), name)
