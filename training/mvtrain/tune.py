"""The tuning loop: pictures of labelled objects in, an encoder that sees what sets their classes apart out.

Some classes are held out; what is found best among these, by the mean of their view vectors, is kept. Test classes are
never looked at. A tuning that was stopped goes on to the weights that it would have reached.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
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
from mvtrain.checkpoint import load_checkpoint, optimiser_tensors, read_record, restore_optimiser, save_checkpoint
from mvtrain.distributed import Ranks
from mvtrain.images import Pictures
from mvtrain.losses import make_loss
from mvtrain.sampling import balanced_batches
from mvtrain.tunable import TuningModule, checkpoint_activations, make_tunable
from mvtrain.tune_config import TuneConfig
from mvtrain.validation import held_out, mean_view_ap, view_vectors

Log = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Tuned:
    """What a tuning gives. The encoder that was handed in holds the weights that were kept, low-rank parts not merged yet.

    Attributes:
        pooling: the view weighting that was trained with it, on the CPU.
        steps: after which the kept weights were found.
        metrics: mAP on held-out classes, of these weights and before tuning.
    """

    pooling: AdapterNetwork
    steps: int
    metrics: dict[str, float] = field(default_factory=dict)


def tune(
    encoder: NetworkEncoder,
    pictures: Pictures,
    config: TuneConfig,
    folder: Path | None = None,
    texts: NDArray[np.float32] | None = None,
    log: Log | None = None,
    ranks: Ranks | None = None,
    known: Sequence[str] = (),
) -> Tuned:
    """Tune an encoder in place.

    Args:
        encoder: opened in float32.
        pictures: of the seen classes alone.
        config: see there.
        folder: of checkpoints; what is found there is gone on from. None keeps none.
        texts: (C, K) vectors of the class names, for the text loss.
        log: gets a record of every look.
        ranks: the processes that share the work.
        known: classes that the encoder was tuned on before, none of which can be held out any more.

    Raises:
        TrainingError: too few classes, a network that cannot be tuned like that, or a checkpoint of another tuning.
    """
    if len(pictures.classes) < 2:
        raise TrainingError(
            f"{len(pictures.classes)} class cannot be told from others: label objects of 2 classes or more"
        )
    run = _Run(encoder, pictures, config, folder, texts, ranks or Ranks(0, 1, str(encoder.device)), known)
    for record in run.steps():
        (log or (lambda entry: None))(record)
    return run.result()


def identity_of(encoder: NetworkEncoder, pictures: Pictures, config: TuneConfig) -> dict[str, Any]:
    """What decides the weights that a tuning comes to; the encoder is the one before."""
    found = {"base": encoder.fingerprint, "pictures": pictures.fingerprint, "config": asdict(config), "format": 1}
    plain: dict[str, Any] = json.loads(json.dumps(found))
    return plain


def check_checkpoint(folder: Path | None, identity: dict[str, Any]) -> bool:
    """Whether a checkpoint of this very tuning is there.

    Raises:
        TrainingError: there is one of another tuning, or a damaged one.
    """
    record = None if folder is None else read_record(folder)
    if record is None:
        return False
    before = record["identity"]
    for name, what in (("base", "encoder"), ("pictures", "set of objects"), ("config", "set of options")):
        if before.get(name) != identity[name]:
            how = _difference(before.get(name), identity[name])
            raise TrainingError(
                f"{folder} holds the checkpoint of a tuning with another {what}\n  {how}\n"
                "Name another --out, or give --overwrite to begin anew"
            )
    return True


class _Run:
    def __init__(
        self,
        encoder: NetworkEncoder,
        pictures: Pictures,
        config: TuneConfig,
        folder: Path | None,
        texts: NDArray[np.float32] | None,
        ranks: Ranks,
        known: Sequence[str],
    ) -> None:
        self.encoder, self.config, self.folder, self.ranks = encoder, config, folder, ranks
        self.judged, self.pictures = held_out(pictures, config.held_out, config.seed, known)
        self.identity = identity_of(encoder, pictures, config)
        self.curve: dict[int, float] = {}
        goes_on = check_checkpoint(folder, self.identity)
        if self.judged is not None and ranks.first and not goes_on:
            self.curve[0] = mean_view_ap(encoder, self.judged)  # as it comes, before anything is added to it
        torch.manual_seed(config.seed)
        make_tunable(encoder, config)
        if config.checkpointing:
            checkpoint_activations(encoder.network)
        n_styles, n_views = len(pictures.styles), pictures.mask.shape[1]
        pooling = AdapterNetwork(config.network, n_styles, encoder.dim, n_views).to(encoder.device)
        self.pupil = TuningModule(encoder.network, pooling, config.precision)
        classes = self.pictures.classes
        self.codes = torch.tensor([classes.index(label) for label in self.pictures.labels])
        own = None if texts is None else torch.from_numpy(texts[[pictures.classes.index(name) for name in classes]])
        self.losses = nn.ModuleList(
            make_loss(config.of_loss(), len(classes), encoder.dim, own) for _ in range(n_styles)
        )
        self.losses.to(encoder.device)
        self.learnt = self.pupil.learnt()
        self.mean = {name: parameter.detach().clone() for name, parameter in self.learnt.items()}
        weights = [p for name, p in self.learnt.items() if name.startswith("network.")]
        others = [p for name, p in self.learnt.items() if not name.startswith("network.")] + list(
            self.losses.parameters()
        )
        self.rates = [config.learning_rate, config.pooling_rate] if others else [config.learning_rate]
        groups = [{"params": group} for group in (weights, others) if group]
        self.optimiser = torch.optim.AdamW(groups, weight_decay=config.weight_decay)
        self.directions = torch.from_numpy(pictures.directions).to(encoder.device)
        # All at once, so that nothing else that draws random numbers has a say in what a later step shows.
        np.random.seed(config.seed)  # noqa: NPY002  (pytorch-metric-learning's sampler draws from it)
        batches = balanced_batches(self.codes, config.classes_per_batch, config.objects_per_class)
        self.batches = list(islice(batches, config.max_steps))
        ranks.part(self.batches[0])
        self.step = 0
        self.best: dict[str, Tensor] = {}
        self._resume()

    # -- steps --------------------------------------------------------------------------------------------------------

    def steps(self) -> Iterator[dict[str, Any]]:
        """Take the steps that are left; yields what is worth logging."""
        config = self.config
        model: nn.Module = self.pupil
        if self.ranks.count > 1:
            model = DistributedDataParallel(self.pupil)
        with ThreadPoolExecutor(1) as reader:
            ahead = reader.submit(self._read, self.step)
            while self.step < config.max_steps:
                shown = ahead.result()
                if self.step + 1 < config.max_steps:
                    ahead = reader.submit(self._read, self.step + 1)
                loss = self._take(model, shown)
                self.step += 1
                last = self.step == config.max_steps
                if last or self.step % config.evaluate_every == 0:
                    self._look()
                if last or self.step % config.save_every == 0:
                    self._save()
                record = {"stage": "tune", "step": self.step, "of": config.max_steps, "loss": loss}
                yield record | ({"mAP": self.curve[self.step]} if self.step in self.curve else {})

    def _take(self, model: nn.Module, shown: _Shown) -> float:
        rows = self.batches[self.step]
        for group, rate in zip(self.optimiser.param_groups, self.rates, strict=True):
            group["lr"] = rate * _schedule(self.step, self.config.max_steps)
        device = self.encoder.device
        vectors = model(
            self.encoder.pixels(shown.images), shown.mask.to(device), self.directions[shown.views.to(device)]
        )
        by_style = self.ranks.gather(vectors).reshape(len(rows), len(self.losses), -1)
        by_style = nn.functional.normalize(by_style, dim=2)
        codes = self.codes[rows].to(device)
        loss = torch.stack([loss(by_style[:, i], codes) for i, loss in enumerate(self.losses)]).mean()
        self._check_finite(loss)
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        # A running mean of young weights would remember the start for too long.
        decay = min(self.config.averaging, (self.step + 1) / (self.step + 11))
        with torch.no_grad():
            for name, now in self.learnt.items():
                self.mean[name].lerp_(now, 1 - decay)
        return float(loss.detach())

    def _check_finite(self, *tensors: Tensor) -> None:
        if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors):
            raise self._diverged()

    def _diverged(self) -> TrainingError:
        return TrainingError(
            f"the training has diverged after {self.step} steps (what it computes is no number any more): give a lower "
            "--learning-rate, and --overwrite"
        )

    def _read(self, step: int) -> _Shown:
        """This process's pictures of a step: other views of each object each time, those that show something first."""
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + step)
        rows = self.batches[step]
        mask = torch.from_numpy(self.pictures.mask)[rows]
        order = (torch.rand(mask.shape, generator=generator) - mask.float()).argsort(dim=1)
        views = self.ranks.part(order[:, : self.config.views_per_object])
        own = self.ranks.part(rows)
        images = [self.pictures.of(int(row), some.numpy()) for row, some in zip(own, views, strict=True)]
        flat = np.concatenate([image.reshape(-1, *image.shape[2:]) for image in images])
        return _Shown(flat, self.ranks.part(mask).gather(1, views), views)

    # -- held-out classes ---------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Measure the running mean of the weights on the held-out classes, and keep the best."""
        if self.judged is None or not self.ranks.first:
            return
        try:
            with self._averaged():
                found = mean_view_ap(self.encoder, self.judged)
        except EvaluationError:
            raise self._diverged() from None
        if self.step and found > max((value for step, value in self.curve.items() if step), default=-1.0):
            self.best = {name: tensor.clone() for name, tensor in self.mean.items()}
        self.curve[self.step] = found

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        now = {name: parameter.detach().clone() for name, parameter in self.learnt.items()}
        self._put(self.mean)
        try:
            yield
        finally:
            self._put(now)

    def _put(self, weights: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self.learnt.items():
                parameter.copy_(weights[name])

    def result(self) -> Tuned:
        """Put the weights that are kept into the encoder."""
        looked = {step: value for step, value in self.curve.items() if step}
        best = max(looked, key=lambda step: looked[step]) if looked else self.config.max_steps
        self._put(self.best or self.mean)
        self._check_finite(torch.from_numpy(view_vectors(self.encoder, self.pictures.take([0]))))
        metrics = {} if not looked else {"held_out_mAP": looked[best], "untrained_mAP": self.curve[0]}
        self.encoder.network.requires_grad_(False)
        return Tuned(self.pupil.pooling.cpu().eval(), best, metrics)

    # -- checkpoints --------------------------------------------------------------------------------------------------

    def _save(self) -> None:
        self._check_finite(*self.mean.values())
        if self.folder is None or not self.ranks.first:
            return
        tensors: dict[str, Tensor] = {f"now.{name}": parameter for name, parameter in self.learnt.items()}
        tensors |= {f"mean.{name}": tensor for name, tensor in self.mean.items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self.best.items()}
        tensors |= {f"losses.{name}": parameter for name, parameter in self.losses.named_parameters()}
        tensors |= optimiser_tensors(self.optimiser)
        record = {"step": self.step, "curve": {str(k): v for k, v in self.curve.items()}, "identity": self.identity}
        save_checkpoint(self.folder, tensors, record)

    def _resume(self) -> None:
        found = None if self.folder is None else load_checkpoint(self.folder)
        if found is None:
            return
        tensors, record = found
        device = self.encoder.device
        self._put(_under(tensors, "now.", device))
        self.mean = _under(tensors, "mean.", device)
        self.best = _under(tensors, "best.", device)
        for name, parameter in self.losses.named_parameters():
            parameter.data.copy_(tensors[f"losses.{name}"])
        restore_optimiser(self.optimiser, tensors)
        self.step = int(record["step"])
        self.curve = {int(step): value for step, value in record["curve"].items()}


@dataclass(frozen=True)
class _Shown:
    images: NDArray[np.uint8]  # (B * S * V, H, W, 3)
    mask: Tensor  # (B, V)
    views: Tensor  # (B, V)


def _schedule(step: int, of: int) -> float:
    """Up for a tenth of the steps, then down as a cosine does."""
    rise = max(1, of // 10)
    return (step + 1) / rise if step < rise else 0.5 * (1 + cos(pi * (step - rise) / max(1, of - rise)))


def _under(tensors: dict[str, Tensor], prefix: str, device: torch.device) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t.to(device) for name, t in tensors.items() if name.startswith(prefix)}


def _difference(before: Any, now: Any) -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        changed = [name for name in now if before.get(name) != now[name]]
        return ", ".join(f"{name}: {before.get(name)} there, {now[name]} here" for name in changed)
    return f"{before} there\n  {now} here"
