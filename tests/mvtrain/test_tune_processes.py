"""Interrupted tuning and tuning in several processes give the weights of an undisturbed run in one process."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from error_codes import raises_code
from processes import run_mvr, run_tuning, start, weights_of, world_environment
from safetensors.torch import load_file
from synthetic_views import VIEWS, open_network, synthetic_views, write_clip
from torch import Tensor

from mvretrieval.errors import TrainingError
from mvretrieval.weighting.network import AdapterNetwork, NetworkConfig
from mvtrain.checkpoint import FILE
from mvtrain.tune import tune
from mvtrain.tune_config import TuneConfig

OPTIONS: dict[str, Any] = {
    "rank": 2, "classes_per_batch": 4, "objects_per_class": 2, "views_per_object": 3, "max_steps": 7, "save_every": 2,
    "evaluate_every": 3, "held_out": 0.3, "learning_rate": 3e-3, "loss": "prototypes", "bias": True,
}  # fmt: skip


def _largest_difference(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    assert set(a) == set(b)
    return max(float((a[name].float() - b[name].float()).abs().max()) for name in a)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("views")
    synthetic_views(folder, 4, 4)
    write_clip(folder)
    return folder


@pytest.fixture(scope="module")
def undisturbed(folder: Path) -> dict[str, Tensor]:
    encoder = open_network(write_clip(folder))
    return weights_of(encoder, tune(encoder, synthetic_views(folder), TuneConfig(**OPTIONS)))


def test_a_killed_run_resumes_to_the_same_weights(folder: Path, undisturbed: dict[str, Tensor], tmp_path: Path) -> None:
    out = tmp_path / "out"
    killed = start(run_tuning, folder, out, OPTIONS, 5)  # one step after the checkpoint of step 4
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    assert (out / FILE).exists() and not (out / "weights-0.safetensors").exists()
    # A kill during a write leaves the previous checkpoint.
    (out / f"{FILE}.part").write_bytes(b"half a checkpoint")
    steps: list[int] = []
    encoder = open_network(write_clip(folder))
    views, config = synthetic_views(folder), TuneConfig(**OPTIONS)
    resumed = weights_of(encoder, tune(encoder, views, config, out, log=lambda entry: steps.append(entry["step"])))
    assert steps == [5, 6, 7]
    assert _largest_difference(resumed, undisturbed) < 1e-5
    trained = [tensor.abs().max() for name, tensor in resumed.items() if name.endswith(".up")]
    assert len(trained) == 6 and min(trained) > 1e-3


def test_a_checkpoint_of_another_run_is_refused(folder: Path, tmp_path: Path) -> None:
    few = TuneConfig(**{**OPTIONS, "max_steps": 2})
    views = synthetic_views(folder)
    tune(open_network(write_clip(folder)), views, few, tmp_path)
    # A finished run is loaded, not repeated.
    again = tune(open_network(write_clip(folder)), views, few, tmp_path, log=lambda entry: pytest.fail("a step"))
    assert again.steps == 2
    with raises_code(TrainingError, "other_checkpoint", "options", "rank: 2", "3", "--overwrite"):
        tune(open_network(write_clip(folder)), views, TuneConfig(**{**OPTIONS, "max_steps": 2, "rank": 3}), tmp_path)
    with raises_code(TrainingError, "other_checkpoint", "objects"):
        tune(open_network(write_clip(folder)), views.take(range(1, 16)), few, tmp_path)
    other = open_network(write_clip(folder))
    other.fingerprint = "of-another"
    with raises_code(TrainingError, "other_checkpoint", "encoder", "of-another", "open_clip:"):
        tune(other, views, few, tmp_path)
    (tmp_path / FILE).write_bytes(b"noise")
    with raises_code(TrainingError, "checkpoint_damaged", FILE, "--overwrite"):
        tune(open_network(write_clip(folder)), views, few, tmp_path)


def test_two_processes_reach_the_weights_of_one(folder: Path, undisturbed: dict[str, Tensor], tmp_path: Path) -> None:
    both = [start(run_tuning, folder, tmp_path / "out", OPTIONS, **own) for own in world_environment()]
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    distributed = load_file(tmp_path / "out" / "weights-0.safetensors")  # of the first rank, which validates
    # Softmax is invariant to a constant added to all scores: the last bias, and elevation on a ring. Their gradients are
    # rounding errors, which AdamW scales up to full steps, so these two are compared by their effect.
    invariant = {"pooling.styles.0.instance.2.bias", "pooling.styles.0.dataset"}
    others = [{n: t for n, t in w.items() if n not in invariant} for w in (distributed, undisturbed)]
    assert _largest_difference(*others) < 1e-5
    generator = torch.Generator().manual_seed(0)
    views = torch.nn.functional.normalize(torch.randn(5, 1, VIEWS, 24, generator=generator), dim=3)
    directions = torch.from_numpy(synthetic_views(folder).directions).expand(5, -1, -1)
    pooled = []
    for weights in (distributed, undisturbed):
        network = AdapterNetwork(NetworkConfig(), 1, 24, VIEWS)
        network.load_state_dict({n.removeprefix("pooling."): t for n, t in weights.items() if n.startswith("pooling.")})
        pooled.append(network(views, torch.ones(5, VIEWS, dtype=torch.bool), directions)[0].detach())
    assert float((pooled[0] - pooled[1]).abs().max()) < 1e-5


def test_other_processes_stop_when_the_first_one_fails(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "config.json").write_text("{}")  # looks like a tuned encoder, which is not replaced
    arguments = ["tune", [str(tmp_path), "--out", str(out), "--device", "cpu"]]
    results = [tmp_path / "0.json", tmp_path / "1.json"]
    both = [start(run_mvr, *arguments, result, **own) for result, own in zip(results, world_environment(), strict=True)]
    for process in both:
        process.join()
    first, second = (json.loads(result.read_text()) for result in results)
    assert first["code"] == second["code"] == 1
    assert "--overwrite" in first["stderr"] and "process 2 of 2" in second["stderr"]
    assert "Traceback" not in first["stderr"] + second["stderr"]
