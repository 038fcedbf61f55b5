"""Train an adapter on frozen view vectors.

The seen classes are divided into folds. Each fold is held out once, and the mean validation mAP over folds chooses the
number of steps. The final run uses all seen classes and makes the same number of passes over their objects. Test classes
are never used.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mvretrieval.errors import TrainingError
from mvretrieval.evaluation.metrics import leave_one_out
from mvretrieval.weighting.adapter import Adapter
from mvretrieval.weighting.network import AdapterNetwork
from mvretrieval.weighting.whitening import Whitening, whiten_and_normalize
from mvtrain.config import TrainConfig
from mvtrain.features import Features
from mvtrain.losses import make_loss
from mvtrain.sampling import balanced_batches, drop_views

# Chosen on held-out classes of PSB, with batches of 96 from 904 objects.
DEFAULT_PASSES = 25
Log = Callable[[dict[str, Any]], None]
# Class names and the whitening of their views -> (C, S * D) text vectors.
TextVectors = Callable[[list[str], Whitening | None], "NDArray[np.float32]"]


@dataclass(frozen=True)
class Trained:
    """Result of adapter training.

    Attributes:
        network: on the CPU.
        whitening: of the views, before the network.
        steps: of the final run; 0 if the network has no parameters.
        metrics: validation mAP of the trained and of the untrained network, means over the folds; empty without folds.
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
    init_from: Adapter | None = None,
) -> Trained:
    """Train an adapter.

    Args:
        features: of the seen classes only.
        config: see `TrainConfig`.
        device: torch device.
        text_vectors: computes text vectors of class names, for the text loss.
        log: receives a record per validation.
        init_from: adapter to start from; its whitening is kept.

    Raises:
        TrainingError: too few classes or objects, `init_from` has another architecture, or the training diverged.
    """
    check_trainable(features, config, init_from)
    log = log or (lambda record: None)
    metrics: dict[str, float] = {}
    # Few objects are overfitted in few steps: without validation the number of passes is fixed.
    batch_size = config.classes_per_batch * config.objects_per_class
    default_steps = min(config.max_steps, -(-DEFAULT_PASSES * len(features) // batch_size))
    steps = config.max_steps if config.folds == 0 else default_steps
    seen = (*features.encoder_classes, *(() if init_from is None else init_from.config.classes))
    folds = _make_folds(features, config, seen)
    if folds:
        steps, metrics = _choose_steps(features, folds, config, device, text_vectors, log, init_from)
    run = _Run(features, config, device, text_vectors, init_from)
    done = 0
    for done, loss in run.steps(steps):
        if done % config.evaluate_every == 0 or done == steps:
            log({"stage": "all seen classes", "step": done, "of": steps, "loss": loss})
    return Trained(run.averaged.cpu().eval(), run.whitening, done, metrics)


def check_trainable(features: Features, config: TrainConfig, init_from: Adapter | None = None) -> None:
    """Check the arguments of `train` before anything is written.

    Raises:
        TrainingError: too few classes, or `init_from` has another architecture.
    """
    if init_from is not None and init_from.config.network != config.network:
        raise TrainingError(
            f"the adapter to start from has another network ({init_from.config.network}) than the options "
            f"({config.network}): use the options it was trained with",
            code="other_network",
        )
    if len(features.classes) < 2:
        raise TrainingError(
            f"training needs 2 classes or more, and there are {len(features.classes)}: label more objects",
            code="too_few_classes",
        )


class _Run:
    """One optimization on the objects of some classes."""

    def __init__(
        self,
        features: Features,
        config: TrainConfig,
        device: str,
        text_vectors: TextVectors | None,
        init_from: Adapter | None = None,
    ) -> None:
        self.config, self.device = config, device
        self.whitening = features.whitening(config.whiten) if init_from is None else init_from.whitening
        self.classes = features.classes
        ids = {name: i for i, name in enumerate(self.classes)}
        self.class_ids = torch.tensor([ids[label] for label in features.labels])
        self.views, self.mask = self.tensors(features)
        self.directions = torch.from_numpy(features.directions).to(device)
        _, s, v, d = self.views.shape
        torch.manual_seed(config.seed)
        np.random.seed(config.seed)  # noqa: NPY002  (pytorch-metric-learning's sampler draws from it)
        network = AdapterNetwork(config.network, s, d, v) if init_from is None else deepcopy(init_from.network)
        self.network = network.to(device).train()
        texts = None
        if text_vectors is not None and config.loss == "text":
            texts = torch.from_numpy(text_vectors(self.classes, self.whitening)).reshape(-1, s, d)
        # One loss per style: a photo query is compared with the photo-like styles only.
        self.losses = nn.ModuleList(
            make_loss(config, len(self.classes), d, None if texts is None else texts[:, i]) for i in range(s)
        ).to(device)
        self.averaged = deepcopy(self.network)

    def tensors(self, features: Features) -> tuple[Tensor, Tensor]:
        """Whitened views (N, S, V, D) in half precision, and the mask."""
        # Half precision holds twice as many objects; unit vectors keep about three decimal digits.
        parts = [
            torch.from_numpy(whiten_and_normalize(views.astype(np.float32), self.whitening)).half()
            for views in np.array_split(features.views, max(1, len(features) // 512))
        ]
        return torch.cat(parts).to(self.device), torch.from_numpy(features.mask).to(self.device)

    def steps(self, count: int) -> Iterator[tuple[int, float]]:
        """Yield (step, loss) after each of `count` steps."""
        config = self.config
        parameters = [*self.network.parameters(), *self.losses.parameters()]
        if not parameters:  # mean or max pooling without a linear layer
            return
        optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)
        generator = torch.Generator().manual_seed(config.seed)
        batches = balanced_batches(self.class_ids, config.classes_per_batch, config.objects_per_class)
        for step, rows in enumerate(islice(batches, count), start=1):
            loss = self._loss(rows, generator)
            if not bool(torch.isfinite(loss)):
                raise TrainingError(
                    f"training diverged after {step} steps (infinite or NaN loss): use a lower --learning-rate",
                    code="diverged",
                )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            # Warm-up of the moving average: at the full decay it would keep the initial weights for too long.
            decay = min(config.averaging, step / (step + 10))
            with torch.no_grad():
                for mean, now in zip(self.averaged.parameters(), self.network.parameters(), strict=True):
                    mean.lerp_(now, 1 - decay)
            yield step, float(loss.detach())

    def _loss(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Mean loss over styles of a batch, with view dropout."""
        mask = self.mask[rows]
        if self.config.min_views:
            kept = drop_views(mask.cpu(), self.config.min_views, not self.config.network.by_slot, generator)
            mask = kept.to(self.device)
        directions = self.directions.expand(len(rows), -1, -1)
        vectors, _ = self.network(self.views[rows].float(), mask, directions)
        class_ids = self.class_ids[rows].to(self.device)
        by_style = nn.functional.normalize(vectors.unflatten(1, (len(self.losses), -1)), dim=2)
        return torch.stack([loss(by_style[:, i], class_ids) for i, loss in enumerate(self.losses)]).mean()

    @torch.inference_mode()
    def vectors(self, views: Tensor, mask: Tensor) -> NDArray[np.float32]:
        """(N, S * D) object vectors of the averaged weights."""
        self.averaged.eval()
        parts = []
        for some, kept in zip(torch.split(views, 1024), torch.split(mask, 1024), strict=True):
            parts.append(self.averaged(some.float(), kept, self.directions.expand(len(some), -1, -1))[0])
        return np.asarray(torch.cat(parts).cpu().numpy())


def _make_folds(features: Features, config: TrainConfig, seen: Sequence[str] = ()) -> list[list[str]]:
    """Divide the classes into folds; no folds if there are too few eligible classes.

    Args:
        features: of all classes.
        config: number of folds and seed.
        seen: classes that the encoder or the initial adapter was trained on; these cannot serve as validation classes.
    """
    counts = Counter(features.labels)
    classes = np.array(sorted(set(counts) - set(seen)))
    # Each fold needs two classes with relevant items to rank, and two to train on.
    if config.folds == 0 or len([name for name in classes if counts[name] > 1]) < 2 * max(config.folds, 2):
        return []
    order = np.random.default_rng(config.seed).permutation(classes)
    # Classes with several objects are dealt out first: only these have relevant items, and every fold needs some.
    order = np.array(sorted(order, key=lambda name: counts[name] == 1))
    return [sorted(map(str, order[i :: config.folds])) for i in range(config.folds)]


def _choose_steps(
    features: Features,
    folds: list[list[str]],
    config: TrainConfig,
    device: str,
    text_vectors: TextVectors | None,
    log: Log,
    init_from: Adapter | None,
) -> tuple[int, dict[str, float]]:
    """Number of steps on all classes, chosen by cross-validation, and the validation metrics."""
    curves: list[dict[int, float]] = []
    sizes: list[int] = []
    for number, held_out in enumerate(folds, start=1):
        training = features.of_classes([name for name in features.classes if name not in set(held_out)])
        sizes.append(len(training))
        run = _Run(training, config, device, text_vectors, init_from)
        stage = f"fold {number} of {len(folds)}"
        curves.append(_validation_curve(run, features.of_classes(held_out), stage, log))
    mean = {step: float(np.mean([curve[step] for curve in curves])) for step in curves[0]}
    # Only steps that do not reduce the mAP on unseen classes below that of the untrained network.
    enough = max(max(mean.values()) - config.tolerance, mean[0])
    chosen = max(step for step, value in mean.items() if value >= enough and (step == 0 or value > mean[0]))
    passes = chosen / float(np.mean(sizes))
    metrics = {"held_out_mAP": mean[chosen], "untrained_mAP": mean[0], "held_out_steps": float(chosen)}
    return round(passes * len(features)), metrics


def _validation_curve(run: _Run, validation: Features, stage: str, log: Log) -> dict[int, float]:
    """Train for `max_steps`, and measure the mAP on the held-out objects at regular steps and at step 0."""
    config, tensors = run.config, run.tensors(validation)

    def measure() -> float:
        return leave_one_out(run.vectors(*tensors), validation.labels).means()["mAP"]

    curve = {0: measure()}
    for step, loss in run.steps(config.max_steps):
        if step % config.evaluate_every == 0 or step == config.max_steps:
            curve[step] = measure()
            log({"stage": stage, "step": step, "of": config.max_steps, "loss": loss, "mAP": curve[step]})
    return curve
