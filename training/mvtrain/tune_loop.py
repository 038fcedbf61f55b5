"""The optimization loop of encoder tuning, with validation and checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from math import cos, pi
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mvretrieval.encoders.network import NetworkEncoder
from mvretrieval.errors import EvaluationError, TrainingError
from mvretrieval.weighting.network import AdapterNetwork
from mvtrain.checkpoint import check_identity, load_checkpoint, optimizer_tensors, restore_optimizer, save_checkpoint
from mvtrain.distributed import World
from mvtrain.losses import make_loss
from mvtrain.sampling import balanced_batches
from mvtrain.tunable import TuningModule, checkpoint_activations, make_tunable
from mvtrain.tune_config import TuneConfig
from mvtrain.validation import mean_view_ap, split_held_out, view_vectors
from mvtrain.view_dataset import ViewDataset


class TuningRun:
    """State of one tuning run.

    Attributes:
        step: number of finished steps.
        curve: validation mAP by step; step 0 is the encoder before tuning.
    """

    def __init__(
        self,
        encoder: NetworkEncoder,
        views: ViewDataset,
        config: TuneConfig,
        identity: dict[str, Any],
        folder: Path | None,
        texts: NDArray[np.float32] | None,
        world: World,
        seen: Sequence[str],
    ) -> None:
        """Prepare the encoder, and restore the checkpoint in `folder`; see `mvtrain.tune.tune` for the arguments."""
        self.encoder, self.config, self.folder, self.world = encoder, config, folder, world
        self.validation, self.views = split_held_out(views, config.held_out, config.seed, seen)
        self.identity = identity
        self.curve: dict[int, float] = {}
        resumes = check_identity(folder, identity)
        if self.validation is not None and world.is_first and not resumes:
            self.curve[0] = mean_view_ap(encoder, self.validation)  # before layers are added
        torch.manual_seed(config.seed)
        make_tunable(encoder, config)
        if config.checkpointing:
            checkpoint_activations(encoder.network)
        n_styles, n_views = len(views.styles), views.mask.shape[1]
        pooling = AdapterNetwork(config.network, n_styles, encoder.dim, n_views).to(encoder.device)
        self.module = TuningModule(encoder.network, pooling, config.precision)
        classes = self.views.classes
        self.class_ids = torch.tensor([classes.index(label) for label in self.views.labels])
        own = None if texts is None else torch.from_numpy(texts[[views.classes.index(name) for name in classes]])
        self.losses = nn.ModuleList(
            make_loss(config.loss_config(), len(classes), encoder.dim, own) for _ in range(n_styles)
        )
        self.losses.to(encoder.device)
        self.trainable = self.module.trainable()
        self.mean = {name: parameter.detach().clone() for name, parameter in self.trainable.items()}
        self.optimizer, self.rates = self._make_optimizer()
        self.directions = torch.from_numpy(views.directions).to(encoder.device)
        # All batches are drawn now, so that no other use of random numbers changes those of later steps.
        np.random.seed(config.seed)  # noqa: NPY002  (pytorch-metric-learning's sampler draws from it)
        batches = balanced_batches(self.class_ids, config.classes_per_batch, config.objects_per_class)
        self.batches = list(islice(batches, config.max_steps))
        world.shard(self.batches[0])
        self.step = 0
        self.best: dict[str, Tensor] = {}
        self._resume()

    def _make_optimizer(self) -> tuple[torch.optim.AdamW, list[float]]:
        """AdamW with one parameter group for the encoder and one for the rest, and their peak learning rates."""
        config = self.config
        encoder = [p for name, p in self.trainable.items() if name.startswith("network.")]
        rest = [p for name, p in self.trainable.items() if not name.startswith("network.")]
        rest += list(self.losses.parameters())
        groups = [{"params": group} for group in (encoder, rest) if group]
        rates = [config.learning_rate, config.pooling_rate] if rest else [config.learning_rate]
        return torch.optim.AdamW(groups, weight_decay=config.weight_decay), rates

    # -- steps --------------------------------------------------------------------------------------------------------

    def steps(self) -> Iterator[dict[str, Any]]:
        """Take the remaining steps; yields a log record after each."""
        config = self.config
        model: nn.Module = self.module
        if self.world.size > 1:
            model = DistributedDataParallel(self.module)
        with ThreadPoolExecutor(1) as reader:
            ahead = reader.submit(self._read, self.step)
            while self.step < config.max_steps:
                batch = ahead.result()
                if self.step + 1 < config.max_steps:
                    ahead = reader.submit(self._read, self.step + 1)
                loss = self._take_step(model, batch)
                self.step += 1
                last = self.step == config.max_steps
                if last or self.step % config.evaluate_every == 0:
                    self._validate()
                if last or self.step % config.save_every == 0:
                    self._save()
                record = {"stage": "tune", "step": self.step, "of": config.max_steps, "loss": loss}
                yield record | ({"mAP": self.curve[self.step]} if self.step in self.curve else {})

    def _take_step(self, model: nn.Module, batch: _Batch) -> float:
        rows = self.batches[self.step]
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * _schedule(self.step, self.config.max_steps)
        device = self.encoder.device
        vectors = model(
            self.encoder.pixels(batch.images), batch.mask.to(device), self.directions[batch.views.to(device)]
        )
        by_style = self.world.gather(vectors).reshape(len(rows), len(self.losses), -1)
        by_style = nn.functional.normalize(by_style, dim=2)
        class_ids = self.class_ids[rows].to(device)
        loss = torch.stack([loss(by_style[:, i], class_ids) for i, loss in enumerate(self.losses)]).mean()
        self._check_finite(loss)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        # Warm-up of the moving average: at the full decay it would keep the initial weights for too long.
        decay = min(self.config.averaging, (self.step + 1) / (self.step + 11))
        with torch.no_grad():
            for name, now in self.trainable.items():
                self.mean[name].lerp_(now, 1 - decay)
        return float(loss.detach())

    def _check_finite(self, *tensors: Tensor) -> None:
        if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors):
            raise self._diverged()

    def _diverged(self) -> TrainingError:
        return TrainingError(
            f"training diverged after {self.step} steps (infinite or NaN values): use a lower --learning-rate, with "
            "--overwrite",
            code="diverged",
        )

    def _read(self, step: int) -> _Batch:
        """This process's shard of a batch: random views of each object, rendered views first."""
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + step)
        rows = self.batches[step]
        mask = torch.from_numpy(self.views.mask)[rows]
        order = (torch.rand(mask.shape, generator=generator) - mask.float()).argsort(dim=1)
        views = self.world.shard(order[:, : self.config.views_per_object])
        own = self.world.shard(rows)
        images = [self.views.images(int(row), some.numpy()) for row, some in zip(own, views, strict=True)]
        flat = np.concatenate([image.reshape(-1, *image.shape[2:]) for image in images])
        return _Batch(flat, self.world.shard(mask).gather(1, views), views)

    # -- validation ---------------------------------------------------------------------------------------------------

    def _validate(self) -> None:
        """Measure the averaged weights on the validation classes, and keep the best."""
        if self.validation is None or not self.world.is_first:
            return
        try:
            with self._averaged():
                found = mean_view_ap(self.encoder, self.validation)
        except EvaluationError:
            raise self._diverged() from None
        if self.step and found > max((value for step, value in self.curve.items() if step), default=-1.0):
            self.best = {name: tensor.clone() for name, tensor in self.mean.items()}
        self.curve[self.step] = found

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """Use the averaged weights within the context."""
        now = {name: parameter.detach().clone() for name, parameter in self.trainable.items()}
        self._set_weights(self.mean)
        try:
            yield
        finally:
            self._set_weights(now)

    def _set_weights(self, weights: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self.trainable.items():
                parameter.copy_(weights[name])

    def finish(self) -> tuple[AdapterNetwork, int, dict[str, float]]:
        """Load the kept weights into the encoder; returns the view weighting, the step and the metrics."""
        measured = {step: value for step, value in self.curve.items() if step}
        best = max(measured, key=lambda step: measured[step]) if measured else self.config.max_steps
        self._set_weights(self.best or self.mean)
        self._check_finite(torch.from_numpy(view_vectors(self.encoder, self.views.take([0]))))
        metrics = {} if not measured else {"held_out_mAP": measured[best], "untrained_mAP": self.curve[0]}
        self.encoder.network.requires_grad_(False)
        return self.module.pooling.cpu().eval(), best, metrics

    # -- checkpoints --------------------------------------------------------------------------------------------------

    def _save(self) -> None:
        self._check_finite(*self.mean.values())
        if self.folder is None or not self.world.is_first:
            return
        tensors: dict[str, Tensor] = {f"now.{name}": parameter for name, parameter in self.trainable.items()}
        tensors |= {f"mean.{name}": tensor for name, tensor in self.mean.items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self.best.items()}
        tensors |= {f"losses.{name}": parameter for name, parameter in self.losses.named_parameters()}
        tensors |= optimizer_tensors(self.optimizer)
        record = {"step": self.step, "curve": {str(k): v for k, v in self.curve.items()}, "identity": self.identity}
        save_checkpoint(self.folder, tensors, record)

    def _resume(self) -> None:
        found = None if self.folder is None else load_checkpoint(self.folder)
        if found is None:
            return
        tensors, record = found
        device = self.encoder.device
        self._set_weights(_with_prefix(tensors, "now.", device))
        self.mean = _with_prefix(tensors, "mean.", device)
        self.best = _with_prefix(tensors, "best.", device)
        for name, parameter in self.losses.named_parameters():
            parameter.data.copy_(tensors[f"losses.{name}"])
        restore_optimizer(self.optimizer, tensors)
        self.step = int(record["step"])
        self.curve = {int(step): value for step, value in record["curve"].items()}


@dataclass(frozen=True)
class _Batch:
    images: NDArray[np.uint8]  # (B * S * V, H, W, 3)
    mask: Tensor  # (B, V)
    views: Tensor  # (B, V) view indices


def _schedule(step: int, of: int) -> float:
    """Factor of the learning rate: linear warm-up over a tenth of the steps, then cosine decay."""
    rise = max(1, of // 10)
    return (step + 1) / rise if step < rise else 0.5 * (1 + cos(pi * (step - rise) / max(1, of - rise)))


def _with_prefix(tensors: dict[str, Tensor], prefix: str, device: torch.device) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t.to(device) for name, t in tensors.items() if name.startswith(prefix)}
