"""Tunings that are killed, and tunings that several processes share: the weights are those of one that ran undisturbed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from made_pictures import VIEWS, made_pictures, opened, write_clip
from safetensors.torch import load_file
from torch import Tensor
from waiting import PATIENCE_S

from mvretrieval.errors import TrainingError
from mvretrieval.weighting.network import AdapterNetwork, NetworkConfig
from mvtrain.checkpoint import FILE
from mvtrain.tune import tune
from mvtrain.tune_config import TuneConfig

DRIVER = Path(__file__).parent / "tune_driver.py"
CONFIG: dict[str, Any] = {
    "rank": 2, "classes_per_batch": 4, "objects_per_class": 2, "views_per_object": 3, "max_steps": 9, "save_every": 2,
    "evaluate_every": 3, "held_out": 0.3, "learning_rate": 3e-3, "loss": "prototypes", "bias": True,
}  # fmt: skip


def _start(folder: Path, out: Path, *more: object, **environment: str) -> subprocess.Popen[str]:
    out.mkdir(exist_ok=True)
    arguments = [sys.executable, DRIVER, folder, out, json.dumps(CONFIG), *more]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        list(map(str, arguments)), env=os.environ | environment, stdout=pipe, stderr=pipe, text=True
    )


def _weights(folder: Path, out: Path, rank: int = 0) -> dict[str, Tensor]:
    return load_file(out / f"weights-{rank}.safetensors")


def _largest_difference(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    assert set(a) == set(b)
    return max(float((a[name].float() - b[name].float()).abs().max()) for name in a)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    made_pictures(folder, 4, 4)
    write_clip(folder)
    return folder


@pytest.fixture(scope="module")
def undisturbed(folder: Path) -> dict[str, Tensor]:
    encoder = opened(write_clip(folder))
    tuned = tune(encoder, made_pictures(folder), TuneConfig(**CONFIG))
    pooling = {f"pooling.{name}": tensor for name, tensor in tuned.pooling.state_dict().items()}
    return dict(encoder.network.state_dict()) | pooling


def test_a_killed_tuning_goes_on_to_the_same_weights(
    folder: Path, undisturbed: dict[str, Tensor], tmp_path: Path
) -> None:
    killed = _start(folder, tmp_path / "out", 5)  # one step after the checkpoint of step 4
    _, errors = killed.communicate(timeout=PATIENCE_S)
    assert killed.returncode == -signal.SIGKILL, errors
    assert (tmp_path / "out" / FILE).exists() and not (tmp_path / "out" / "weights-0.safetensors").exists()
    # A kill while a checkpoint is written leaves the one before.
    (tmp_path / "out" / f"{FILE}.part").write_bytes(b"half a checkpoint")
    steps: list[int] = []
    encoder = opened(write_clip(folder))
    config = TuneConfig(**CONFIG)
    tuned = tune(
        encoder, made_pictures(folder), config, tmp_path / "out", log=lambda entry: steps.append(entry["step"])
    )
    assert steps == [5, 6, 7, 8, 9]
    resumed = dict(encoder.network.state_dict()) | {f"pooling.{n}": t for n, t in tuned.pooling.state_dict().items()}
    assert _largest_difference(resumed, undisturbed) < 1e-5
    learnt = [tensor.abs().max() for name, tensor in resumed.items() if name.endswith(".up")]
    assert len(learnt) == 6 and min(learnt) > 1e-3


def test_a_checkpoint_of_another_tuning_is_refused(folder: Path, tmp_path: Path) -> None:
    few = TuneConfig(**{**CONFIG, "max_steps": 2})
    pictures = made_pictures(folder)
    tune(opened(write_clip(folder)), pictures, few, tmp_path)
    # What is finished is read, not done again.
    assert tune(opened(write_clip(folder)), pictures, few, tmp_path, log=lambda entry: pytest.fail("a step")).steps == 2
    with pytest.raises(TrainingError, match=r"another set of options\n  rank: 2 there, 3 here\nName another --out"):
        tune(opened(write_clip(folder)), pictures, TuneConfig(**{**CONFIG, "max_steps": 2, "rank": 3}), tmp_path)
    with pytest.raises(TrainingError, match="another set of objects"):
        tune(opened(write_clip(folder)), pictures.take(range(1, 16)), few, tmp_path)
    other = opened(write_clip(folder))
    other.fingerprint = "another's"
    with pytest.raises(TrainingError, match=r"another encoder\n  open_clip:.* there\n  another's here"):
        tune(other, pictures, few, tmp_path)
    (tmp_path / FILE).write_bytes(b"noise")
    with pytest.raises(TrainingError, match=r"is damaged .*give --overwrite, to begin anew"):
        tune(opened(write_clip(folder)), pictures, few, tmp_path)


def test_two_processes_learn_what_one_learns(folder: Path, undisturbed: dict[str, Tensor], tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    both = [_start(folder, tmp_path / "out", RANK=str(rank), LOCAL_RANK=str(rank), **shared) for rank in (0, 1)]
    for process in both:
        _, errors = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, errors
    shared_out = _weights(folder, tmp_path / "out")  # of the first, which keeps the best of its looks
    # A softmax does not see what all scores have in common: the last bias, and height on a ring. Their gradients are
    # rounding errors, which AdamW makes steps of; they are compared by what they do.
    unseen = {"pooling.styles.0.instance.2.bias", "pooling.styles.0.dataset"}
    seen = [{n: t for n, t in w.items() if n not in unseen} for w in (shared_out, undisturbed)]
    assert _largest_difference(*seen) < 1e-5
    generator = torch.Generator().manual_seed(0)
    views = torch.nn.functional.normalize(torch.randn(5, 1, VIEWS, 24, generator=generator), dim=3)
    directions = torch.from_numpy(made_pictures(folder).directions).expand(5, -1, -1)
    pooled = []
    for weights in (shared_out, undisturbed):
        network = AdapterNetwork(NetworkConfig(), 1, 24, VIEWS)
        network.load_state_dict({n.removeprefix("pooling."): t for n, t in weights.items() if n.startswith("pooling.")})
        pooled.append(network(views, torch.ones(5, VIEWS, dtype=torch.bool), directions)[0].detach())
    assert float((pooled[0] - pooled[1]).abs().max()) < 1e-5
