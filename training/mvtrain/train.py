"""The training loop: frozen view vectors in, an adapter out.

The seen classes are split into folds. Each fold is held out once while the rest is trained on, and the mean of the folds'
curves of held-out mAP says when to stop. Then all seen classes are trained on for as many passes over their objects, which
are more steps, since a fold's rest has fewer objects. Test classes are never looked at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mvretrieval.errors import TrainingError
from mvretrieval.evaluation.metrics import leave_one_out
from mvretrieval.weighting.adapter import Adapter
from mvretrieval.weighting.network import AdapterNetwork
from mvretrieval.weighting.whitening import Whitening, whiten_and_normalize
from mvtrain.config import TrainConfig
from mvtrain.features import Features
from mvtrain.losses import make_loss
from mvtrain.sampling import balanced_batches, some_views

# What held-out classes chose on PSB, in batches of 96 from 904 objects.
PASSES = 25
Log = Callable[[dict[str, Any]], None]
# Names of classes and the statistics of their views -> (C, S * K) text vectors.
TextVectors = Callable[[list[str], Whitening | None], "np.ndarray[Any, np.dtype[np.float32]]"]


@dataclass(frozen=True)
class Trained:
    """What a training gives.

    Attributes:
        network: on the CPU.
        whitening: of the views, before the network.
        steps: that the held-out classes chose, or `max_steps` without validation; 0 where there is nothing to learn.
        metrics: mAP on held-out classes, of the trained network and of the untrained one, means over the folds.
    """

    network: AdapterNetwork
    whitening: Whitening | None
    steps: int
    metrics: dict[str, float] = field(default_factory=dict)


def train(
    features: Features,
    config: TrainConfig,
    device: str = "cpu",
    text_vectors: TextVectors | None = None,
    log: Log | None = None,
    start: Adapter | None = None,
) -> Trained:
    """Train an adapter.

    Args:
        features: of the seen classes alone.
        config: see there.
        device: where to train.
        text_vectors: gives the class names' vectors, for the text loss.
        log: gets a record of every look.
        start: adapter to go on from, instead of an untrained one; its statistics are kept.

    Raises:
        TrainingError: too few classes or objects, or another kind of network than the start's.
    """
    if start is not None and start.config.network != config.network:
        raise TrainingError(f"the start has {start.config.network}, and {config.network} is asked for")
    log = log or (lambda record: None)
    classes = features.classes
    if len(classes) < 2:
        there = "is 1 class" if classes else "is no class"
        raise TrainingError(f"there {there}; 2 or more are needed to learn what sets them apart")
    metrics: dict[str, float] = {}
    # Few objects are learnt by heart in few steps: where nothing can be held out, passes over them count.
    size = config.classes_per_batch * config.objects_per_class
    steps = config.max_steps if config.folds == 0 else min(config.max_steps, -(-PASSES * len(features) // size))
    folds = _folds(features, config, (*features.met, *(() if start is None else start.config.classes)))
    if folds:
        steps, metrics = _best_number_of_steps(features, folds, config, device, text_vectors, log, start)
    run = _Run(features, config, device, text_vectors, start)
    done = 0
    for done, loss in run.steps(steps):
        if done % config.evaluate_every == 0 or done == steps:
            log({"stage": "all seen classes", "step": done, "of": steps, "loss": loss})
    return Trained(run.averaged.cpu().eval(), run.whitening, done, metrics)


class _Run:
    """One optimisation over the objects of some classes."""

    def __init__(
        self,
        features: Features,
        config: TrainConfig,
        device: str,
        text_vectors: TextVectors | None,
        start: Adapter | None = None,
    ) -> None:
        self.config, self.device = config, device
        self.whitening = features.whitening(config.whiten) if start is None else start.whitening
        self.classes = features.classes
        code = {name: i for i, name in enumerate(self.classes)}
        self.codes = torch.tensor([code[label] for label in features.labels])
        self.views, self.mask = self.tensors(features)
        self.directions = torch.from_numpy(features.directions).to(device)
        _, s, v, k = self.views.shape
        torch.manual_seed(config.seed)
        np.random.seed(config.seed)  # noqa: NPY002  (pytorch-metric-learning's sampler draws from it)
        network = AdapterNetwork(config.network, s, k, v) if start is None else deepcopy(start.network)
        self.network = network.to(device).train()
        texts = None
        if text_vectors is not None and config.loss == "text":
            texts = torch.from_numpy(text_vectors(self.classes, self.whitening)).reshape(-1, s, k)
        # Each style learns by itself: a photo is compared with the styles that look like photos, and with these alone.
        self.losses = nn.ModuleList(
            make_loss(config, len(self.classes), k, None if texts is None else texts[:, i]) for i in range(s)
        ).to(device)
        self.averaged = deepcopy(self.network)

    def tensors(self, features: Features) -> tuple[Tensor, Tensor]:
        """Prepared views (N, S, V, K) in half precision, and the mask."""
        # Half precision holds twice as many objects; a unit vector loses three digits of seven.
        parts = [
            torch.from_numpy(whiten_and_normalize(views.astype(np.float32), self.whitening)).half()
            for views in np.array_split(features.views, max(1, len(features) // 512))
        ]
        return torch.cat(parts).to(self.device), torch.from_numpy(features.mask).to(self.device)

    def steps(self, count: int) -> Any:
        """Yield (step, loss) after each of `count` steps."""
        config = self.config
        parameters = [*self.network.parameters(), *self.losses.parameters()]
        if not parameters:  # mean or max pooling without a linear layer: there is nothing to learn
            return
        optimiser = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)
        generator = torch.Generator().manual_seed(config.seed)
        batches = balanced_batches(self.codes, config.classes_per_batch, config.objects_per_class)
        for step, rows in enumerate(islice(batches, count), start=1):
            mask = self.mask[rows]
            if config.min_views:
                hidden = some_views(mask.cpu(), config.min_views, not config.network.by_slot, generator)
                mask = hidden.to(self.device)
            directions = self.directions.expand(len(rows), -1, -1)
            vectors, _ = self.network(self.views[rows].float(), mask, directions)
            codes = self.codes[rows].to(self.device)
            by_style = nn.functional.normalize(vectors.unflatten(1, (len(self.losses), -1)), dim=2)
            loss = torch.stack([loss(by_style[:, i], codes) for i, loss in enumerate(self.losses)]).mean()
            if not bool(torch.isfinite(loss)):
                raise TrainingError(
                    f"the training has diverged after {step} steps (its loss is no number any more): give a lower --learning-rate"
                )
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            # A running mean of young weights would remember the start for too long.
            decay = min(config.averaging, step / (step + 10))
            with torch.no_grad():
                for mean, now in zip(self.averaged.parameters(), self.network.parameters(), strict=True):
                    mean.lerp_(now, 1 - decay)
            yield step, float(loss.detach())

    @torch.inference_mode()
    def vectors(self, views: Tensor, mask: Tensor) -> np.ndarray[Any, np.dtype[np.float32]]:
        """(N, S * K) object vectors by the running mean of the weights."""
        self.averaged.eval()
        parts = []
        for some, kept in zip(torch.split(views, 1024), torch.split(mask, 1024), strict=True):
            parts.append(self.averaged(some.float(), kept, self.directions.expand(len(some), -1, -1))[0])
        return torch.cat(parts).cpu().numpy()


def _folds(features: Features, config: TrainConfig, known: Sequence[str] = ()) -> list[list[str]]:
    """Classes that are held out together; none where there are too few to hold out.

    What the encoder was tuned on, or a start trained on (`known`), cannot be held out any more.
    """
    counts = Counter(features.labels)
    classes = np.array(sorted(set(counts) - set(known)))
    # Every fold needs two classes to rank and two to learn from, with objects to find.
    if config.folds == 0 or len([name for name in classes if counts[name] > 1]) < 2 * max(config.folds, 2):
        return []
    order = np.random.default_rng(config.seed).permutation(classes)
    # Dealt out first, so that no fold is without classes of several objects, which alone can be ranked.
    order = np.array(sorted(order, key=lambda name: counts[name] == 1))
    return [sorted(map(str, order[i :: config.folds])) for i in range(config.folds)]


def _best_number_of_steps(
    features: Features,
    folds: list[list[str]],
    config: TrainConfig,
    device: str,
    text_vectors: TextVectors | None,
    log: Log,
    start: Adapter | None,
) -> tuple[int, dict[str, float]]:
    curves: list[dict[int, float]] = []
    sizes: list[int] = []
    for number, held_out in enumerate(folds, start=1):
        rest = [name for name in features.classes if name not in set(held_out)]
        learnt_from = features.of_classes(rest)
        sizes.append(len(learnt_from))
        run = _Run(learnt_from, config, device, text_vectors, start)
        judged = features.of_classes(held_out)
        tensors = run.tensors(judged)

        def look(run: _Run = run, judged: Features = judged, tensors: tuple[Tensor, Tensor] = tensors) -> float:
            return leave_one_out(run.vectors(*tensors), judged.labels).means()["mAP"]

        curve = {0: look()}
        for step, loss in run.steps(config.max_steps):
            if step % config.evaluate_every and step != config.max_steps:
                continue
            curve[step] = look()
            log(
                {
                    "stage": f"fold {number} of {len(folds)}",
                    "step": step,
                    "of": config.max_steps,
                    "loss": loss,
                    "mAP": curve[step],
                }
            )
        curves.append(curve)
    mean = {step: float(np.mean([curve[step] for curve in curves])) for step in curves[0]}
    # Never so long that classes which were not seen are found less well than without training.
    enough = max(max(mean.values()) - config.tolerance, mean[0])
    chosen = max(step for step, value in mean.items() if value >= enough and (step == 0 or value > mean[0]))
    passes = chosen / float(np.mean(sizes))
    return round(passes * len(features)), {"held_out_mAP": mean[chosen], "untrained_mAP": mean[0]}
