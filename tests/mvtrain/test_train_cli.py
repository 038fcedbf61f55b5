"""`mvr train`: exit codes, what it writes, and that it learns from what was asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_features import DIM, VIEWS, made_features, unit
from numpy.typing import NDArray

import mvretrieval.describe
from mvretrieval.api import Collection
from mvretrieval.cli.main import _run
from mvretrieval.describe import DescriberConfig
from mvretrieval.store.store import NewObject
from mvretrieval.weighting.adapter import Adapter
from mvtrain.config import TrainConfig
from mvtrain.features import from_collection
from mvtrain.train import train

FEW = ["--whiten", "0", "--max-steps", "4", "--folds", "0", "--device", "cpu"]


class Reader:
    """An encoder of made-up words; pictures are never shown to it here."""

    id, dim, image_size, fingerprint = "builtin:", DIM, 64, "a reader"
    precision, precision_reason = "float32", "made up"
    has_text = True

    def encode_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.stack([unit(np.random.default_rng(sum(text.encode())).standard_normal(DIM)) for text in texts])


@pytest.fixture(autouse=True)
def reader(monkeypatch: pytest.MonkeyPatch) -> Reader:
    made = Reader()
    monkeypatch.setattr(mvretrieval.describe, "open_encoder", lambda *_: made)
    return made


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Eight classes of five objects each, one more without a label; `split` is `train` in the first four classes."""
    features = made_features(8, 5)
    folder = tmp_path_factory.mktemp("somebody") / "things"
    patched = pytest.MonkeyPatch()
    patched.setattr(mvretrieval.describe, "open_encoder", lambda *_: Reader())
    with Collection.create(folder, DescriberConfig("builtin:", f"ring:{VIEWS}@30", size=64)) as collection:
        with collection.store.transaction():
            for i, object_id in enumerate([*features.ids, "nameless"]):
                row = i % len(features)
                views, mask = features.views[row], features.mask[row]
                vector = collection.describer.pool(views[None].astype(np.float32), mask[None])[0][0]
                facts = {"format": "ply", "faces": 1, "vertices": 3, "textured": False, "up": "+y"}
                new = NewObject(
                    object_id, f"/m/{object_id}", object_id, "[[1, 2]]", facts, (), vector, views, mask, b""
                )
                row_id = collection.store.put(new, 1)
                if i < len(features):
                    values = {"label": features.labels[i], "split": "train" if i < 20 else "test"}
                    collection.store.set_metadata(row_id, values)
    yield folder
    patched.undo()


def mvr(*arguments: object) -> int:
    try:
        return _run("train", [str(argument) for argument in arguments])
    except SystemExit as ended:
        return int(ended.code or 0)


def test_what_is_written_and_told(things: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "secret" / "adapter"
    validated = ["--whiten", 8, "--max-steps", 30, "--folds", 2, "--device", "cpu"]
    assert mvr(things, "--out", out, *validated, "--json", "--tensorboard") == 0
    stdout = capsys.readouterr().out
    told = json.loads(stdout)
    assert stdout.count("\n") == 1 and told["objects"] == 40 and told["classes"] == 8
    assert 0 < told["untrained_mAP"] <= told["held_out_mAP"] <= 1
    names = {"model.safetensors", "config.json", "README.md", "log.jsonl", "tensorboard"}
    assert {path.name for path in out.iterdir()} == names
    records = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert {r["stage"] for r in records} >= {"fold 1 of 2", "fold 2 of 2", "done"}
    assert all(r["mAP"] > 0 and r["loss"] > 0 for r in records if r["stage"].startswith("fold"))
    events = list((out / "tensorboard").glob("events.out.tfevents.*"))
    assert len(events) == 1 and b"fold 1 of 2/mAP" in events[0].read_bytes()
    config = json.loads((out / "config.json").read_text())
    assert config["classes"] == [f"class-{n:02d}" for n in range(8)]
    assert config["metrics"]["held_out_mAP"] == told["held_out_mAP"]
    assert config["training"]["options"]["whiten"] == 8 and config["training"]["versions"]["torch"]
    # An adapter is for others to use: where it was made is nobody's business.
    for path in out.rglob("*"):
        if path.is_file():
            assert b"secret" not in path.read_bytes() and b"somebody" not in path.read_bytes(), path


def test_it_is_the_training_of_the_views_that_the_collection_keeps(things: Path, tmp_path: Path) -> None:
    assert mvr(things, "--out", tmp_path / "a", *FEW, "--where", "split = 'train'", "--seed", 3) == 0
    with Collection.open(things) as collection:
        features = from_collection(collection, "label", "split = 'train'")
        assert len(features) == 20 and features.classes == [f"class-0{n}" for n in range(4)]
        everything = from_collection(collection, "label")
        assert len(everything) == 40 and "nameless" not in everything.ids
        assert len(from_collection(collection, None).classes) == 41
    made = made_features(8, 5)
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
        ["--unlabelled"],
        ["--shots", 2],
        ["--loss", "text"],
        ["--loss", "prototypes", "--pooling", "clip-adapter"],
        ["--pooling", "max", "--residual", 0.3],
        ["--dataset-scores", "slots", "--min-views", 0],
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_ways_to_train(things: Path, tmp_path: Path, options: list[object], capsys: pytest.CaptureFixture[str]) -> None:
    assert mvr(things, "--out", tmp_path / "a", *FEW, *options) == 0
    printed = capsys.readouterr()
    adapter = Adapter.load(tmp_path / "a")
    unlabelled, shots = "--unlabelled" in options, "--shots" in options
    count = "41 objects in 41" if unlabelled else "16 objects in 8" if shots else "40 objects in 8"
    assert f"adapter of {count} classes" in printed.out and f"mvr reindex {things} --adapter" in printed.out
    assert len(adapter.config.classes) == (0 if unlabelled else 8)
    assert adapter.config.text == ("frozen" if "text" in options else "adapted")
    again = tmp_path / "again"
    network = [str(o) for o in options if o not in ("--unlabelled", "--shots", 2)]
    assert mvr(things, "--out", again, *FEW, *network, "--start", tmp_path / "a") == 0
    assert Adapter.load(again).fingerprint != adapter.fingerprint


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--temperature", "0"], "temperature has to be above 0"),
        (["--loss", "supcn"], "supcn"),
        (["--pooling", "adm"], "adm"),
        (["--folds", "1"], "one fold"),
        (["--shots", "0"], "from 1, not 0"),
        (["--max-steps", "many"], "many"),
        (["--unlabelled", "--names", "x.npz"], "takes no labels"),
        (["--unlabelled", "--shots", "3"], "takes no labels"),
        (["--unlabelled", "--loss", "text"], "no class names"),
        (["--pooling", "clip-adapter", "--residual", "1"], "share in [0, 1)"),
        (["--teperature", "1"], "temperature"),
    ],
)
def test_wrong_use_is_2(
    things: Path, tmp_path: Path, options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mvr(things, "--out", tmp_path / "a", *options) == 2
    printed = capsys.readouterr()
    assert said in printed.err.replace("\n", " ") + printed.out and "Traceback" not in printed.err
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--by", "lable"], "no label 'lable': did you mean 'label'?"),
        (["--where", "splt = 'train'"], "did you mean 'split'"),
        (["--where", "split = 'nothing'"], "--where split = 'nothing' keeps no object of"),
        (["--unlabelled", "--where", "faces > 5"], "--where faces > 5 keeps no object of"),
        (["--names", "nowhere.npz"], "cannot read text embeddings from nowhere.npz"),
        (["--start", "nowhere"], "no adapter at nowhere"),
    ],
)
def test_what_cannot_be_learnt_from_is_1_and_leaves_nothing_behind(
    things: Path, tmp_path: Path, options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mvr(things, "--out", tmp_path / "a", *FEW, *options) == 1
    printed = capsys.readouterr()
    assert printed.out == "" and said in printed.err and "Traceback" not in printed.err
    assert not (tmp_path / "a").exists()


def test_more_that_fails_with_one_line(
    things: Path, tmp_path: Path, reader: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mvr(tmp_path / "nowhere", "--out", tmp_path / "a") == 1
    assert "is no collection" in capsys.readouterr().err and not (tmp_path / "a").exists()
    reader.has_text = False
    assert mvr(things, "--out", tmp_path / "a", *FEW, "--loss", "text") == 1
    assert "builtin: reads no words, which the text loss compares with" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()
    assert mvr(things, "--out", tmp_path / "a", *FEW, "--where", "label = 'class-01'") == 1
    assert "there is 1 class; 2 or more are needed" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert mvr(things, "--out", tmp_path / "a", *FEW, "--names", tmp_path / "file") == 1
    err = capsys.readouterr().err
    assert "not an .npz file" in err and "pickle" not in err
    assert mvr(things, "--out", tmp_path / "file" / "a", *FEW) == 1
    assert "cannot be written" in capsys.readouterr().err
    assert mvr(things, "--out", tmp_path / "m", *FEW, "--pooling", "max") == 0
    assert mvr(things, "--out", tmp_path / "n", *FEW, "--start", tmp_path / "m") == 1
    assert "the start has" in capsys.readouterr().err


def test_an_adapter_is_not_overwritten_unasked(
    things: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "a"
    assert mvr(things, "--out", out, *FEW) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert mvr(things, "--out", out, *FEW, "--seed", 1) == 1
    assert "give --overwrite" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert mvr(things, "--out", out, *FEW, "--seed", 1, "--overwrite") == 0
    assert (out / "model.safetensors").read_bytes() != before["model.safetensors"]
    # What was learnt is not lost where it cannot be uploaded.
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert mvr(things, "--out", tmp_path / "b", *FEW, "--push", "owner/name") == 1
    assert "was not uploaded to owner/name" in capsys.readouterr().err
    assert Adapter.load(tmp_path / "b").config.classes


def test_words_for_an_encoder_that_reads_none(
    things: Path, tmp_path: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    names = [f"class {n:02d}" for n in range(7)] + ["something else"]
    np.savez(tmp_path / "names.npz", names=np.array(names), vectors=rng.standard_normal((8, 5)))
    assert mvr(things, "--out", tmp_path / "a", *FEW, "--names", tmp_path / "names.npz") == 0
    assert "words: 7 classes have a known name" in capsys.readouterr().out
    adapter = Adapter.load(tmp_path / "a")
    assert adapter.config.text == "named" and adapter.text_embeddings is not None
    assert adapter.config.metrics["names_known"] == 7
    monkeypatch.setattr(Reader, "encode_text", lambda self, texts: pytest.fail("asked for words"))
    with Collection.open(things) as collection:
        describer = collection.describer.with_adapter(adapter)
        np.testing.assert_array_equal(
            describer.embed_text("a class 03"), adapter.text_embeddings.object_vector("Class-03")
        )
    np.savez(tmp_path / "other.npz", names=np.array(["x", "y"]), vectors=np.eye(2))
    assert mvr(things, "--out", tmp_path / "b", *FEW, "--names", tmp_path / "other.npz") == 1
    assert "knows 0 of the 8 class names" in capsys.readouterr().err
