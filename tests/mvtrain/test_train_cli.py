"""`mvr train` and `fit_adapter`: exit codes, written files, and the choice of training data."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from error_codes import raises_code
from numpy.typing import NDArray
from synthetic_features import DIM, VIEWS, synthetic_features, unit

import mvretrieval.encoders.handle
from mvretrieval.api import Collection
from mvretrieval.cli.main import run_command
from mvretrieval.describe import DescriberConfig
from mvretrieval.errors import TrainingError
from mvretrieval.store.store import NewObject
from mvretrieval.weighting.adapter import Adapter
from mvtrain import TrainConfig, fit_adapter
from mvtrain.cli import Options
from mvtrain.features import from_collection
from mvtrain.train import train
from mvtrain.train_output import with_progress

FEW = ["--whiten", "0", "--max-steps", "4", "--folds", "0", "--device", "cpu"]


class TextEncoder:
    """A fake encoder with a text tower. These tests encode no images."""

    id, dim, image_size, fingerprint = "builtin:", DIM, 64, "fake"
    precision, precision_reason = "float32", "fake"
    has_text = True

    def encode_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.stack([unit(np.random.default_rng(sum(text.encode())).standard_normal(DIM)) for text in texts])


@pytest.fixture(autouse=True)
def encoder(monkeypatch: pytest.MonkeyPatch) -> TextEncoder:
    made = TextEncoder()
    monkeypatch.setattr(mvretrieval.encoders.handle, "open_encoder", lambda *_: made)
    return made


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Eight classes with five objects each, and an unlabeled object; `split` is `train` in the first four classes."""
    features = synthetic_features(8, 5)
    folder = tmp_path_factory.mktemp("unpublished") / "things"
    patched = pytest.MonkeyPatch()
    patched.setattr(mvretrieval.encoders.handle, "open_encoder", lambda *_: TextEncoder())
    with Collection.create(folder, DescriberConfig("builtin:", f"ring:{VIEWS}@30", size=64)) as collection:
        with collection.session.store.transaction():
            for i, object_id in enumerate([*features.ids, "unlabeled"]):
                row = i % len(features)
                views, mask = features.views[row], features.mask[row]
                vector = collection.describer.pool(views[None].astype(np.float32), mask[None])[0][0]
                facts = {"format": "ply", "faces": 1, "vertices": 3, "textured": False, "up": "+y"}
                new = NewObject(
                    object_id, f"/m/{object_id}", object_id, "[[1, 2]]", facts, (), vector, views, mask, b""
                )
                row_id = collection.session.store.put(new, 1)
                if i < len(features):
                    values = {"label": features.labels[i], "split": "train" if i < 20 else "test"}
                    collection.session.store.set_metadata(row_id, values)
    yield folder
    patched.undo()


def mvr(*arguments: object) -> int:
    try:
        return run_command("train", [str(argument) for argument in arguments])
    except SystemExit as ended:
        return int(ended.code or 0)


def test_too_few_views_for_the_whitening_are_noted(
    things: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = ["--max-steps", "2", "--folds", "0", "--device", "cpu", "--shots", "1", "--where", "split = 'train'"]
    assert mvr(things, "--out", tmp_path / "reduced", *short) == 0
    config = json.loads((tmp_path / "reduced" / "config.json").read_text())
    n_views = 4 * VIEWS
    assert n_views <= DIM and f"to {n_views - 1} dimensions instead of {DIM}" in capsys.readouterr().err
    assert config["dim"] == n_views - 1
    assert mvr(things, "--out", tmp_path / "fits", *short, "--whiten", n_views - 1) == 0
    assert "instead of" not in capsys.readouterr().err


def test_written_files_and_printed_metrics(things: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "secret" / "adapter"
    validated = ["--whiten", 8, "--max-steps", 30, "--folds", 2, "--device", "cpu"]
    assert mvr(things, "--out", out, *validated, "--json", "--tensorboard") == 0
    stdout = capsys.readouterr().out
    metrics = json.loads(stdout)
    assert stdout.count("\n") == 1 and metrics["schema"] == 1 and metrics["objects"] == 40 and metrics["classes"] == 8
    assert 0 < metrics["untrained_mAP"] <= metrics["held_out_mAP"] <= 1
    names = {"model.safetensors", "config.json", "README.md", "log.jsonl", "tensorboard"}
    assert {path.name for path in out.iterdir()} == names
    records = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert {r["stage"] for r in records} >= {"fold 1 of 2", "fold 2 of 2", "done"}
    assert all(r["mAP"] > 0 and r["loss"] > 0 for r in records if r["stage"].startswith("fold"))
    events = list((out / "tensorboard").glob("events.out.tfevents.*"))
    assert len(events) == 1 and b"fold 1 of 2/mAP" in events[0].read_bytes()
    config = json.loads((out / "config.json").read_text())
    assert config["classes"] == [f"class-{n:02d}" for n in range(8)]
    assert config["metrics"]["held_out_mAP"] == metrics["held_out_mAP"]
    assert config["training"]["options"]["whiten"] == 8 and config["training"]["versions"]["torch"]
    # An adapter may be published: its files contain no paths.
    for path in out.rglob("*"):
        if path.is_file():
            assert b"secret" not in path.read_bytes() and b"unpublished" not in path.read_bytes(), path


def test_training_data_are_the_stored_views(things: Path, tmp_path: Path) -> None:
    assert mvr(things, "--out", tmp_path / "a", *FEW, "--where", "split = 'train'", "--seed", 3) == 0
    with Collection.open(things) as collection:
        features = from_collection(collection.session, "label", "split = 'train'")
        assert len(features) == 20 and features.classes == [f"class-0{n}" for n in range(4)]
        everything = from_collection(collection.session, "label")
        assert len(everything) == 40 and "unlabeled" not in everything.ids
        assert len(from_collection(collection.session, None).classes) == 41
    made = synthetic_features(8, 5)
    np.testing.assert_array_equal(everything.views, made.views)
    np.testing.assert_allclose(everything.directions, made.directions, atol=1e-6)
    trained = train(features, TrainConfig(whiten=0, max_steps=4, folds=0, seed=3))
    adapter = Adapter.load(tmp_path / "a")
    for name, value in adapter.network.state_dict().items():
        assert np.array_equal(value.numpy(), trained.network.state_dict()[name].numpy()), name
    assert mvr(things, "--out", tmp_path / "b", *FEW, "--where", "split = 'train'", "--seed", 3) == 0
    assert Adapter.load(tmp_path / "b").fingerprint == adapter.fingerprint


@pytest.mark.parametrize(
    "options",
    [
        ["--self-supervised"],
        ["--shots", 2],
        ["--loss", "text"],
        ["--loss", "prototypes", "--pooling", "clip-adapter"],
        ["--pooling", "max", "--residual", 0.3],
        ["--dataset-scores", "slots", "--min-views", 0],
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_training_options(
    things: Path, tmp_path: Path, options: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    assert mvr(things, "--out", tmp_path / "a", *FEW, *options) == 0
    printed = capsys.readouterr()
    adapter = Adapter.load(tmp_path / "a")
    self_supervised, shots = "--self-supervised" in options, "--shots" in options
    count = "41 objects, 41" if self_supervised else "16 objects, 8" if shots else "40 objects, 8"
    assert f"adapter trained on {count} classes" in printed.out and f"mvr reindex {things} --adapter" in printed.out
    assert len(adapter.config.classes) == (0 if self_supervised else 8)
    assert adapter.config.text == ("frozen" if "text" in options else "adapted")
    again = tmp_path / "again"
    network = [str(o) for o in options if o not in ("--self-supervised", "--shots", 2)]
    assert mvr(things, "--out", again, *FEW, *network, "--init-from", tmp_path / "a") == 0
    assert Adapter.load(again).fingerprint != adapter.fingerprint


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--temperature", "0"], "temperature"),
        (["--loss", "supcn"], "supcn"),
        (["--pooling", "adm"], "adm"),
        (["--folds", "1"], "folds"),
        (["--shots", "0"], "shots"),
        (["--max-steps", "many"], "many"),
        (["--self-supervised", "--text-embeddings", "x.npz"], "--self-supervised"),
        (["--self-supervised", "--shots", "3"], "--self-supervised"),
        (["--self-supervised", "--loss", "text"], "--loss"),
        (["--pooling", "clip-adapter", "--residual", "1"], "residual"),
        (["--teperature", "1"], "temperature"),
    ],
)
def test_wrong_use_exits_with_2(
    things: Path, tmp_path: Path, options: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mvr(things, "--out", tmp_path / "a", *options) == 2
    printed = capsys.readouterr()
    assert named in printed.err.replace("\n", " ") + printed.out and "Traceback" not in printed.err
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("options", "code", "named"),
    [
        (["--by", "lable"], None, "'label'"),
        (["--where", "splt = 'train'"], None, "'split'"),
        (["--where", "split = 'nothing'"], "no_match", "--where split = 'nothing'"),
        (["--self-supervised", "--where", "faces > 5"], "no_match", "--where faces > 5"),
        (["--text-embeddings", "missing.npz"], None, "missing.npz"),
        (["--init-from", "missing"], None, "missing"),
        (["--where", "label = 'class-01'"], "too_few_classes", "there are 1"),
    ],
)
def test_failures_exit_with_1_and_write_nothing(
    things: Path, tmp_path: Path, options: list[str], code: str | None, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mvr(things, "--out", tmp_path / "a", *FEW, *options) == 1
    printed = capsys.readouterr()
    assert printed.out == "" and named in printed.err and "Traceback" not in printed.err
    assert mvr(things, "--out", tmp_path / "a", *FEW, *options, "--json") == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert named in error["message"] and error["code"] == (code or error["code"])
    assert not (tmp_path / "a").exists()


def test_more_failures(things: Path, tmp_path: Path, encoder: TextEncoder, capsys: pytest.CaptureFixture[str]) -> None:
    assert mvr(tmp_path / "missing", "--out", tmp_path / "a") == 1
    assert "missing" in capsys.readouterr().err and not (tmp_path / "a").exists()
    encoder.has_text = False
    assert mvr(things, "--out", tmp_path / "a", *FEW, "--loss", "text") == 1
    assert "builtin:" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()
    assert mvr(things, "--out", tmp_path / "a", *FEW, "--where", "label = 'class-01'") == 1
    assert "2 classes" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert mvr(things, "--out", tmp_path / "a", *FEW, "--text-embeddings", tmp_path / "file") == 1
    err = capsys.readouterr().err
    assert ".npz" in err and "pickle" not in err
    assert mvr(things, "--out", tmp_path / "file" / "a", *FEW) == 1
    assert "cannot write" in capsys.readouterr().err
    assert mvr(things, "--out", tmp_path / "m", *FEW, "--pooling", "max") == 0
    assert mvr(things, "--out", tmp_path / "n", *FEW, "--init-from", tmp_path / "m") == 1
    assert "max" in capsys.readouterr().err


def test_an_adapter_is_overwritten_only_with_the_option(
    things: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "a"
    assert mvr(things, "--out", out, *FEW) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert mvr(things, "--out", out, *FEW, "--seed", 1) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert mvr(things, "--out", things, *FEW, "--overwrite") == 1
    assert "is a collection: choose another --out" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert mvr(things, "--out", out, *FEW, "--seed", 1, "--overwrite") == 0
    assert (out / "model.safetensors").read_bytes() != before["model.safetensors"]
    # A failed upload does not lose the adapter.
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert mvr(things, "--out", tmp_path / "b", *FEW, "--push", "owner/name") == 1
    assert "owner/name" in capsys.readouterr().err
    assert Adapter.load(tmp_path / "b").config.classes


def test_text_embeddings_add_text_queries(
    things: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    names = [f"class {n:02d}" for n in range(7)] + ["something else"]
    np.savez(tmp_path / "names.npz", names=np.array(names), vectors=rng.standard_normal((8, 5)))
    assert mvr(things, "--out", tmp_path / "a", *FEW, "--text-embeddings", tmp_path / "names.npz") == 0
    assert "text: 7 classes" in capsys.readouterr().out
    adapter = Adapter.load(tmp_path / "a")
    assert adapter.config.text == "named" and adapter.text_embeddings is not None
    assert adapter.config.metrics["names_known"] == 7
    monkeypatch.setattr(TextEncoder, "encode_text", lambda self, texts: pytest.fail("the text tower was used"))
    with Collection.open(things) as collection:
        describer = collection.describer.with_adapter(adapter)
        np.testing.assert_array_equal(
            describer.embed_text("a class 03"), adapter.text_embeddings.object_vector("Class-03")
        )
    np.savez(tmp_path / "other.npz", names=np.array(["x", "y"]), vectors=np.eye(2))
    assert mvr(things, "--out", tmp_path / "b", *FEW, "--text-embeddings", tmp_path / "other.npz") == 1
    assert "0 of the 8 class names" in capsys.readouterr().err


def test_fit_adapter_is_what_the_command_does(things: Path, tmp_path: Path) -> None:
    options = ["--whiten", 8, "--max-steps", 6, "--folds", 2, "--device", "cpu", "--where", "split = 'train'"]
    assert mvr(things, "--out", tmp_path / "a", *options, "--shots", 4) == 0
    by_command = Adapter.load(tmp_path / "a")
    config = TrainConfig(whiten=8, max_steps=6, folds=2)
    records: list[dict[str, Any]] = []
    with Collection.open(things) as collection:
        adapter = fit_adapter(
            collection, by="label", config=config, where="split = 'train'", shots=4, device="cpu", log=records.append
        )
        assert adapter.fingerprint == by_command.fingerprint
        assert (
            adapter.config.metrics == by_command.config.metrics and adapter.config.classes == by_command.config.classes
        )
        assert {record["stage"] for record in records} >= {"fold 1 of 2", "fold 2 of 2"}
        assert adapter.config.training["options"]["where"] == "split = 'train'"
        further = fit_adapter(collection, None, TrainConfig(whiten=8, max_steps=2, folds=0), init_from=adapter)
        assert further.config.classes == adapter.config.classes and further.fingerprint != adapter.fingerprint
        with raises_code(TrainingError, "nothing_labeled", "label"):
            fit_adapter(collection, where="split is null")
        with raises_code(TrainingError, "no_match", "faces > 5"):
            fit_adapter(collection, where="faces > 5")
        with raises_code(TrainingError, "needs_labels"):
            fit_adapter(collection, None, TrainConfig(loss="text"))
    with Collection.open(shutil.copytree(things, tmp_path / "copy"), write=True) as collection:
        collection.reembed(collection.describer.with_adapter(adapter).config, adapter=adapter)
        assert collection.describer.config.adapter == adapter.fingerprint


def test_checks_of_the_options_have_codes(things: Path) -> None:
    for code, options in {
        "out_of_range": {"shots": 0},
        "unused_option": {"self_supervised": True, "shots": 3},
        "needs_labels": {"self_supervised": True, "loss": "text"},
    }.items():
        with raises_code(TrainingError, code):
            Options(things, Path("a"), **options)  # type: ignore[arg-type]


def test_progress_counts_the_steps_of_all_stages() -> None:
    """The total is an upper bound until the final stage, whose length the folds choose."""
    seen: list[tuple[int, int]] = []
    log = with_progress(
        lambda entry: None, lambda done, total: seen.append((done, total)), TrainConfig(folds=2, max_steps=10)
    )
    for stage, of in (("fold 1 of 2", 10), ("fold 2 of 2", 10), ("all seen classes", 6)):
        for step in (of // 2, of):
            log({"stage": stage, "step": step, "of": of})
    assert seen == [(5, 30), (10, 30), (15, 30), (20, 30), (23, 26), (26, 26)]
