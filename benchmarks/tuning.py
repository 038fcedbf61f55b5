"""Benchmarks of encoder tuning (`mvr tune`), group `zero-shot`.

The last blocks of MobileNetV2 are tuned on PSB's train split, with held-out classes to choose the number of steps. Then an
adapter is trained on the tuned view vectors, and compared with one trained on the frozen vectors.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from benchmarks import data
from benchmarks.benchmark import Benchmark
from benchmarks.commands import MVR
from benchmarks.learning import TRAIN, adapters, chosen
from benchmarks.psb import SEEDS, Psb, folder, psb, spread
from mvrender.backends.selection import choose_backend
from mvrender.cameras import parse_rig
from mvrender.jobs import RenderSpec
from mvretrieval.api import Collection
from mvretrieval.encoders.network import Architecture, NetworkEncoder, Preprocessing
from mvretrieval.encoders.open_clip import untrained_model
from mvretrieval.encoders.registry import open_encoder
from mvretrieval.encoders.tuned import build
from mvretrieval.weighting.adapter import Adapter
from mvtrain.checkpoint import FILE as CHECKPOINT
from mvtrain.config import TrainConfig
from mvtrain.features import Features
from mvtrain.lora import LowRank, attach, merge
from mvtrain.render_views import meshes_of_collection, render_views
from mvtrain.tune_output import ADAPTER
from mvtrain.validation import view_vectors
from mvtrain.view_dataset import ViewDataset

OPTIONS = ("--method", "last-blocks", "--last-blocks", "2", "--views-per-object", "2", "--max-steps", "200")


def views_folder() -> Path:
    """Folder of the rendered views, shared by all benchmarks."""
    return data.WORK / "tune-views"


def tuned_folder(seed: int = 0) -> Path:
    """MobileNetV2, its last blocks tuned on the train split. An interrupted run resumes."""
    out = data.WORK / f"tuned-last-blocks-{seed}"
    if not (out / "config.json").exists():
        _tune(out, *OPTIONS, "--where", TRAIN, "--seed", seed)
    return out


def _tune(out: Path, *options: Any) -> None:
    subprocess.run(_command(out, *options), check=True, stdout=sys.stderr)


def _command(out: Path, *options: Any) -> list[str]:
    fixed = ["tune", folder(), "--by", "label", "--out", out, "--view-cache", views_folder()]
    return [*MVR, *map(str, [*fixed, *options])]


@cache
def all_views() -> ViewDataset:
    """Views of all of PSB, with rig and styles of its collection."""
    with Collection.open(folder()) as collection:
        config = collection.describer.config
        objects = meshes_of_collection(collection.session, "label", None)
    spec = RenderSpec(parse_rig(config.rig), config.styles, config.size, choose_backend()[0])
    return render_views(objects, spec, views_folder())


def with_encoder(encoder: NetworkEncoder) -> Psb:
    """PSB with the view vectors of another encoder."""
    p, dataset = psb(), all_views()
    rows = {object_id: row for row, object_id in enumerate(dataset.ids)}
    order = np.array([rows[object_id] for object_id in p.features.ids])
    views = view_vectors(encoder, dataset.take(order)).astype(np.float16)
    return replace(p, features=replace(p.features, views=views))


def finetuned_unseen() -> dict[str, float]:
    """Unseen mAP with tuned encoders, mean over seeds of both trainings.

    `mean` and `frozen_mean`: mean of the view vectors, without whitening, of the tuned and of the frozen encoder. `joint` and
    `frozen_joint`: AdaM trained jointly with the encoder, and AdaM trained on the frozen vectors, both without whitening.
    `unseen` and `frozen_adam`: whitened, with AdaM trained on the vectors of each; `gain`: their difference.
    """
    frozen = psb()
    before = frozen.mean_ap(mean_of_views(frozen.features))["unseen"]
    steps = chosen().steps  # as chosen for the frozen encoder, so that the tuned one has no advantage
    rows = []
    for seed, whitened in zip(SEEDS, adapters(), strict=True):
        encoder = open_encoder(f"tuned:{tuned_folder(seed)}", precision="float32")
        assert isinstance(encoder, NetworkEncoder)
        tuned = with_encoder(encoder)
        vectors = {
            "unseen": tuned.vectors(tuned.learn(TrainConfig(folds=0, max_steps=steps, seed=seed))),
            "frozen_adam": frozen.vectors(whitened),
            "joint": tuned.vectors(Adapter.load(tuned_folder(seed) / ADAPTER)),
            "frozen_joint": frozen.vectors(frozen.learn(TrainConfig(whiten=0, folds=3, seed=seed))),
            "mean": mean_of_views(tuned.features),
        }
        found = {name: tuned.mean_ap(own)["unseen"] for name, own in vectors.items()}
        rows.append(found | {"gain": found["unseen"] - found["frozen_adam"]})
    return spread(rows) | {"frozen_mean": before}


def mean_of_views(features: Features) -> NDArray[np.float32]:
    """(N, D) mean view vectors, unit norm."""
    shown = features.mask[:, None, :, None]
    mean = (features.views.astype(np.float32) * shown).sum(axis=2)[:, 0]
    return np.asarray(mean / np.linalg.norm(mean, axis=1, keepdims=True), np.float32)


def lora_equal() -> dict[str, float]:
    """ViT-B-32 with random weights and random low-rank parts: minimum cosine of merged and unmerged view vectors.

    `untrained`: the same before and after attaching untrained parts.
    """
    torch.manual_seed(0)
    architecture = Architecture("open_clip", "ViT-B-32")
    preprocessing = Preprocessing(224, (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
    weights = untrained_model(architecture).state_dict()
    encoder = build(architecture, preprocessing, "cpu", "float32", weights, "ViT-B-32")
    images = np.concatenate([all_views().images(row)[0] for row in range(0, 40, 10)])
    before = encoder.encode_views(images)
    attach(encoder.network, 8, 16.0)
    untrained = encoder.encode_views(images)
    for module in encoder.network.modules():
        if isinstance(module, LowRank):
            module.up.data.normal_(0, 0.02)
    unmerged = encoder.encode_views(images)
    merge(encoder.network)
    merged = encoder.encode_views(images)
    if (unmerged * before).sum(axis=1).min() > 0.999:
        raise RuntimeError("the low-rank parts have no effect, so the comparison is empty")
    return {
        "merged": float((merged * unmerged).sum(axis=1).min()), "untrained": float((untrained * before).sum(axis=1).min())
    }  # fmt: skip


def resume_equal() -> dict[str, float]:
    """Largest difference of weights between a killed and resumed run, and an undisturbed one."""
    few = ("--method", "last-blocks", "--last-blocks", 1, "--classes-per-batch", 4, "--views-per-object", 1)
    short = (*few, "--max-steps", 12, "--save-every", 2, "--held-out", 0, "--where", f"{TRAIN} and label < 'b'")
    with tempfile.TemporaryDirectory() as place:
        whole, killed = Path(place) / "whole", Path(place) / "killed"
        _tune(whole, *short)
        process = subprocess.Popen(_command(killed, *short), stdout=sys.stderr)
        while not (killed / CHECKPOINT).exists():
            if process.poll() is not None:
                raise RuntimeError("the tuning ended before it could be killed")
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        if (killed / "config.json").exists():
            raise RuntimeError("the tuning ended before it was killed")
        _tune(killed, *short)
        first, second = (load_file(out / "model.safetensors") for out in (whole, killed))
    return {"difference": max(float((first[name] - second[name]).abs().max()) for name in first)}


def _benchmark(name: str, what: str, measure: Any, at_most: bool = False, **targets: float) -> Benchmark:
    return Benchmark(name, "zero-shot", what, targets, measure, at_most)


BENCHMARKS: Sequence[Benchmark] = (
    _benchmark(
        "finetuned-unseen",
        "last blocks of MobileNetV2 tuned on PSB's train split, then AdaM: unseen mAP",
        finetuned_unseen,
    ),
    _benchmark(
        "lora-equal", "ViT-B-32: minimum cosine of merged and unmerged low-rank tuning", lora_equal, merged=0.9999
    ),
    _benchmark(
        "resume-equal",
        "killed and resumed against undisturbed tuning: weights",
        resume_equal,
        at_most=True,
        difference=1e-5,
    ),
)
