"""Tune an encoder on the views of labeled objects.

Some classes are held out; the weights with the best validation mAP of the mean view vectors are kept. Test classes are
never used. An interrupted run resumes to the same weights.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvretrieval.encoders.network import NetworkEncoder
from mvretrieval.errors import TrainingError
from mvretrieval.weighting.network import AdapterNetwork
from mvtrain.distributed import World
from mvtrain.tune_config import TuneConfig
from mvtrain.tune_loop import TuningRun
from mvtrain.view_dataset import ViewDataset

Log = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Tuned:
    """Result of a tuning run. The encoder that was passed in has the kept weights, low-rank parts not yet merged.

    Attributes:
        pooling: the jointly trained view weighting, on the CPU.
        steps: step of the kept weights.
        metrics: validation mAP of these weights and of the encoder before tuning; empty without validation classes.
    """

    pooling: AdapterNetwork
    steps: int
    metrics: dict[str, float] = field(default_factory=dict)


def tune(
    encoder: NetworkEncoder,
    views: ViewDataset,
    config: TuneConfig,
    folder: Path | None = None,
    texts: NDArray[np.float32] | None = None,
    log: Log | None = None,
    world: World | None = None,
    seen: Sequence[str] = (),
) -> Tuned:
    """Tune an encoder in place.

    Args:
        encoder: opened in float32.
        views: of objects of the seen classes only.
        config: see `TuneConfig`.
        folder: of checkpoints; a run found there is resumed. None writes none.
        texts: (C, D) text vectors of the class names, for the text loss.
        log: receives a record per step.
        world: the processes that share the work; by default this one alone.
        seen: classes the encoder was tuned on before; these cannot serve as validation classes.

    Raises:
        TrainingError: too few classes, an encoder that does not support the options, a checkpoint of another run, or
            the training diverged.
    """
    if len(views.classes) < 2:
        raise TrainingError(
            f"tuning needs objects of 2 classes or more, and there are {len(views.classes)}: label more objects",
            code="too_few_classes",
        )
    world = world or World(0, 1, str(encoder.device))
    run = TuningRun(encoder, views, config, identity_of(encoder, views, config), folder, texts, world, seen)
    for record in run.steps():
        if log is not None:
            log(record)
    pooling, steps, metrics = run.finish()
    return Tuned(pooling, steps, metrics)


def identity_of(encoder: NetworkEncoder, views: ViewDataset, config: TuneConfig) -> dict[str, Any]:
    """All that decides the final weights: the untuned encoder, the objects and the options; as JSON values."""
    found = {"base": encoder.fingerprint, "pictures": views.fingerprint, "config": asdict(config), "format": 1}
    plain: dict[str, Any] = json.loads(json.dumps(found))
    return plain
