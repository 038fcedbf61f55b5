"""`mvr tune`: from meshes to a tuned encoder that describes a collection."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from made_pictures import write_clip
from waiting import PATIENCE_S

from mvrender.cameras import parse_rig
from mvrender.pool import RenderSpec
from mvretrieval.api import Collection, OpenOptions
from mvretrieval.cli.main import _run
from mvretrieval.describe import DescriberConfig
from mvretrieval.evaluation.seen_classes import seen_names
from mvretrieval.ingest.indexing import IndexOptions
from mvretrieval.weighting.adapter import Adapter
from mvtrain.features import from_collection
from mvtrain.images import of_collection, of_folder, render

FEW: list[object] = [
    "--max-steps", 2, "--rank", 2, "--classes-per-batch", 2, "--objects-per-class", 2, "--views-per-object", 2, "--held-out", 0,
    "--device", "cpu",
]  # fmt: skip


def mvr(*arguments: object) -> int:
    try:
        command, *rest = arguments
        return _run(str(command), [str(argument) for argument in rest])
    except SystemExit as ended:
        return int(ended.code or 0)


@pytest.fixture(scope="module")
def meshes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five boxes and five balls, one box twice; `labels.csv` beside them."""
    folder = tmp_path_factory.mktemp("somebody") / "meshes"
    folder.mkdir()
    rows = ["file,kind,split"]
    for i in range(5):
        trimesh.creation.box((1, 1 + 0.3 * max(i, 1), 0.6)).export(folder / f"box-{i}.ply")
        trimesh.creation.icosphere(1, 1).apply_scale((1, 1 + 0.2 * i, 1)).export(folder / f"ball-{i}.ply")
        rows += [f"box-{i}.ply,box,{'train' if i < 4 else 'test'}", f"ball-{i}.ply,ball,{'train' if i < 4 else 'test'}"]
    (folder / "labels.csv").write_text("\n".join(rows))
    return folder


@pytest.fixture(scope="module")
def things(meshes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("somebody") / "things"
    config = DescriberConfig("builtin:", "ring:4@30", size=64)
    with Collection.create(folder, config, OpenOptions(workers=1)) as collection:
        report = collection.add_folder(meshes, options=IndexOptions(labels=meshes / "labels.csv"))
        assert report.added == 10 and report.identical == 1
    return folder


def test_from_a_collection_to_a_tuned_one(things: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    encoder, out = write_clip(tmp_path), tmp_path / "secret" / "t"
    options = ["--by", "kind", "--where", "split = 'train'", "--encoder", encoder, "--views", tmp_path / "views", *FEW]
    assert mvr("tune", things, "--out", out, *options) == 0
    printed = capsys.readouterr()
    assert "8 objects in 2 classes" in printed.out
    assert f"next: mvr reindex {things} --encoder tuned:{out}" in printed.out and "mvr train COLLECTION" in printed.out
    assert {path.name for path in out.iterdir()} == {
        "model.safetensors", "lora.safetensors", "config.json", "log.jsonl", "adapter", "objects.json"
    }  # fmt: skip
    config = json.loads((out / "config.json").read_text())
    assert config["classes"] == ["ball", "box"] and config["training"]["options"]["rank"] == 2
    for name in ("config.json", "adapter/config.json", "adapter/model.safetensors"):
        assert b"secret" not in (out / name).read_bytes() and b"somebody" not in (out / name).read_bytes()
    # Seven of the eight look different: views are kept by what they show.
    assert len(list((tmp_path / "views").rglob("*.mask.npy"))) == 7
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "views").rglob("*.npy")}
    assert mvr("tune", things, "--out", out, *options) == 1
    assert "has a tuned encoder: name another folder, or give --overwrite" in capsys.readouterr().err
    assert mvr("tune", things, "--out", out, *options, "--overwrite", "--json") == 0
    assert json.loads(capsys.readouterr().out)["objects"] == 8
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "views").rglob("*.npy")} == before
    assert len({(out / name).stat().st_mode for name in ("model.safetensors", "lora.safetensors", "config.json")}) == 1
    assert mvr("reindex", things, "--adapter", out) == 1
    assert f"a tuned encoder: give it as --encoder tuned:{out}" in capsys.readouterr().err
    # What comes next, as it was printed.
    assert mvr("reindex", things, "--encoder", f"tuned:{out}", "--device", "cpu") == 0
    with Collection.open(things) as collection:
        assert collection.describer.encoder.id == f"tuned:{out}" and len(collection) == 10
        assert seen_names(collection.describer) == {"ball", "box"}
        assert from_collection(collection, "kind").met == ("ball", "box")
    capsys.readouterr()
    assert mvr("eval", things, "--by", "kind", "--json", "--report", tmp_path / "report") == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["classes_learnt_from"] == ["ball", "box"]
    assert "trained on objects of 2 classes asked for here (ball, box)" in printed.err
    assert '"seen": true' in (tmp_path / "report" / "report.json").read_text()
    assert mvr("reindex", things, "--adapter", out / "adapter", "--device", "cpu") == 0
    with Collection.open(things) as collection:
        assert collection.describer.config.adapter == Adapter.load(out / "adapter").fingerprint
    adapter = tmp_path / "adapter"
    assert mvr("reindex", things, "--encoder", "builtin:") == 1
    err = capsys.readouterr().err
    assert "other views (tuned:t)\n  encoder: " in err and "styles:" not in err and "add --raw" in err
    assert mvr("reindex", things, "--raw") == 0
    assert mvr("train", things, "--by", "kind", "--out", adapter, "--folds", 0, "--max-steps", 2, "--whiten", 0) == 0
    assert Adapter.load(adapter).config.encoder == "tuned:t"


def test_a_stopped_command_goes_on(
    things: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import mvtrain.tune_output

    encoder, views = write_clip(tmp_path), tmp_path / "views"
    options = ["--by", "kind", "--encoder", encoder, "--views", views, *FEW, "--max-steps", 3, "--save-every", 1]
    assert mvr("tune", things, "--out", tmp_path / "whole", *options) == 0

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(
            mvtrain.tune_output, "save_tuned", stop
        )  # at the worst moment: when all is done but for the encoder
        assert mvr("tune", things, "--out", tmp_path / "t", *options) == 130
    assert "run the same command again to go on" in capsys.readouterr().err
    assert not (tmp_path / "t" / "config.json").exists()
    assert mvr("tune", things, "--out", tmp_path / "t", *options, "--rank", 3) == 1
    assert "rank: 2 there, 3 here" in capsys.readouterr().err
    assert mvr("tune", things, "--out", tmp_path / "t", *options) == 0
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("t", "whole")]
    assert weights[0] == weights[1]
    records = [json.loads(line) for line in (tmp_path / "t" / "log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records if record["stage"] == "tune"] == [1, 2, 3]


def test_what_is_there_is_replaced_at_the_end_alone(
    things: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import mvtrain.tune

    encoder, out = write_clip(tmp_path), tmp_path / "t"
    options = ["--by", "kind", "--views", tmp_path / "views", *FEW]
    assert mvr("tune", things, "--out", out, "--encoder", encoder, *options) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    assert mvr("tune", things, "--out", out, "--encoder", f"tuned:{out}", *options, "--overwrite") == 1
    assert "is the encoder that is tuned further: name another --out" in capsys.readouterr().err
    assert mvr("tune", things, "--out", out, "--encoder", encoder, *options, "--overwrite", "--cross-view", 9) == 1
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == before
    # Stopped and run again, as the message says: it goes on, and the folder is what it was until the end.
    anew = [
        "--encoder",
        encoder,
        *options,
        "--method",
        "last-blocks",
        "--max-steps",
        4,
        "--save-every",
        1,
        "--overwrite",
    ]
    take = mvtrain.tune._Run._take

    def stop(run: mvtrain.tune._Run, *more: Any) -> float:
        if run.step == 2:
            raise KeyboardInterrupt
        return take(run, *more)

    with monkeypatch.context() as patched:
        patched.setattr(mvtrain.tune._Run, "_take", stop)
        assert mvr("tune", things, "--out", out, *anew) == 130
    assert "run the same command again to go on" in capsys.readouterr().err
    assert (out / "config.json").read_bytes() == before["config.json"]
    assert mvr("tune", things, "--out", out, *anew) == 0
    steps = [json.loads(line)["step"] for line in (out / "log.jsonl").read_text().splitlines() if '"tune"' in line]
    assert steps == [1, 2, 3, 4] and not (out / "lora.safetensors").exists()
    assert json.loads((out / "config.json").read_text())["method"] == "last-blocks"


def test_a_damaged_picture_is_rendered_again(things: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--by", "kind", "--views", tmp_path / "views", "--encoder", write_clip(tmp_path), *FEW, "--overwrite"]
    assert mvr("tune", things, "--out", tmp_path / "t", *options) == 0
    files = sorted(path for path in (tmp_path / "views").rglob("*.npy") if "mask" not in path.name)
    whole = {path: path.read_bytes() for path in files}
    files[0].write_bytes(whole[files[0]][:-5])
    files[1].write_bytes(b"")
    files[2].with_suffix(".mask.npy").unlink()
    assert mvr("tune", things, "--out", tmp_path / "t", *options) == 0
    assert {path: path.read_bytes() for path in files} == whole and files[2].with_suffix(".mask.npy").exists()


def test_processes_that_follow_end_with_the_first(things: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    (tmp_path / "config.json").write_text("{}")
    main = [sys.executable, "-m", "mvretrieval", "tune", things, "--out", tmp_path]
    pipe = subprocess.PIPE
    both = [
        subprocess.Popen(
            [*map(str, main), "--device", "cpu"], env=os.environ | shared | ranks, stdout=pipe, stderr=pipe, text=True
        )
        for ranks in ({"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in (0, 1))
    ]
    said = [process.communicate(timeout=PATIENCE_S)[1] for process in both]
    assert [process.returncode for process in both] == [1, 1]
    assert "has a tuned encoder" in said[0] and "process 2 of 2 ends with the first one, which says why" in said[1]
    assert not any("Traceback" in text for text in said)


def test_from_a_folder_of_meshes(meshes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, views = tmp_path / "t", ["--rig", "ring:3@30", "--size", 64]
    labels = ["--labels", meshes / "labels.csv", "--by", "kind", "--encoder", write_clip(tmp_path)]
    other = [
        "--method",
        "last-blocks",
        "--last-blocks",
        1,
        "--styles",
        "texture,clay",
        "--loss",
        "text",
        "--cross-view",
        1,
    ]
    assert mvr("tune", meshes, "--out", out, *labels, *views, *other, *FEW, "--held-out", 0.2) == 0
    printed = capsys.readouterr().out
    assert f"next: mvr index things/ {meshes} --encoder tuned:{out}" in printed
    assert "no validation: too few classes" in printed and "2 steps taken. Give --held-out 0" in printed
    assert f"views are kept in {out / 'views'}" in printed
    assert not (out / "lora.safetensors").exists() and len(list((out / "views").rglob("*.mask.npy"))) == 9
    adapter = Adapter.load(out / "adapter")
    assert adapter.config.text == "frozen" and adapter.config.styles == ("texture", "clay")
    # Zero-shot with what it was tuned on, by single views that never were by themselves: measured, and said.
    described = ["--encoder", f"tuned:{out}", "--styles", "texture,clay", *views, "--labels", meshes / "labels.csv"]
    assert mvr("index", tmp_path / "things", meshes, *described, "--workers", 1) == 0
    capsys.readouterr()
    assert mvr("eval zero-shot", tmp_path / "things", "--by", "kind", "--views", "after", "--json") == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["classes_learnt_from"] == ["ball", "box"]
    assert (
        "views of an object attend to one another" in printed.err
        and "2 classes asked for here (ball, box)" in printed.err
    )
    assert mvr("eval zero-shot", tmp_path / "things", "--by", "kind", "--seen", "kind = 'ball'") == 0
    printed = capsys.readouterr()
    assert "attend to one another" not in printed.err and "1 class asked for here (box)" in printed.err


def test_the_same_meshes_are_found_either_way(things: Path, meshes: Path, tmp_path: Path) -> None:
    """By their content, which a collection knows before a file is read; one that cannot be rendered is left out."""
    spec, said = RenderSpec(parse_rig("ring:3@30"), ("texture",), 64), []
    with Collection.open(things) as collection:
        known = of_collection(collection, "kind", None)
    first = render(known, spec, tmp_path, 1)
    second = render(of_folder(meshes, "kind", meshes / "labels.csv"), spec, tmp_path, 1)
    assert dict(zip(first.ids, first.keys, strict=True)) == dict(zip(second.ids, second.keys, strict=True))
    assert first.of(0).shape == (1, 3, 64, 64, 3) and first.mask.shape == (10, 3) and len(set(first.keys)) == 9
    np.testing.assert_array_equal(first.of(0)[:, [2, 0]], first.of(0, np.array([2, 0])))
    broken = tmp_path / "broken.ply"
    broken.write_text("no mesh")
    from dataclasses import replace

    third = render([replace(known[0], path=broken, content=""), *known[1:]], spec, tmp_path, 1, said.append)
    assert len(third) == 9 and "left out" in said[0] and "broken.ply" in said[0]


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--rank", "0"], 2, "rank has to be at least 1, not 0"),
        (["--seed", "-1"], 2, "seed is a number from 0 to 4294967295, not -1"),
        (["--device", "foo"], 1, "no device 'foo': it is cpu, cuda, cuda:1 and so on, or auto"),
        (["--device", "cuda:99"], 1, "GPUs here; give --device cpu, or auto"),
        (["--out", "/dev/null"], 1, "/dev/null cannot be written"),
        (["--encoder", "builtin:"], 1, "has no weights that could be tuned: name another with --encoder"),
        (["--encoder", "tuned:nowhere"], 1, "no tuned encoder at"),
        (["--encoder", "tuned:"], 1, "'tuned:' names no folder"),
        (["--by", "kin"], 1, "did you mean 'kind'?"),
        (["--where", "split = 'nothing'"], 1, "--where split = 'nothing' keeps no object"),
        (["--method", "last-blocks", "--last-blocks", "9"], 1, "has 3 blocks; --last-blocks 9 is more"),
        (["--labels", "labels.csv"], 1, "is a collection, with labels of its own"),
    ],
)
def test_what_cannot_be_tuned(
    things: Path, tmp_path: Path, options: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    defaults = {"--by": "kind", "--encoder": write_clip(tmp_path)}
    defaults |= dict(zip(options[::2], options[1::2], strict=True))
    flat = [item for pair in defaults.items() for item in pair]
    assert mvr("tune", things, "--out", tmp_path / "t", *flat) == code
    printed = capsys.readouterr()
    assert said in printed.err and printed.out == "" and not (tmp_path / "t" / "config.json").exists()
    assert not (tmp_path / "t" / "views").exists()  # nothing is rendered for what cannot be tuned


def test_a_folder_needs_labels_and_an_encoder(meshes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert mvr("tune", meshes, "--out", tmp_path / "t", "--labels", meshes / "labels.csv") == 1
    assert "say with --encoder what should be tuned" in capsys.readouterr().err
    assert mvr("tune", meshes, "--out", tmp_path / "t", "--encoder", write_clip(tmp_path)) == 1
    assert "give classes of its meshes with --labels labels.csv" in capsys.readouterr().err
