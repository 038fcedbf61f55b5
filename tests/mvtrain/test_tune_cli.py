"""`mvr tune`: from meshes to a tuned encoder that embeds a collection."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from error_codes import raises_code
from synthetic_views import write_clip

import mvtrain.tune_loop
import mvtrain.tune_output
from mvrender.cameras import parse_rig
from mvrender.jobs import RenderSpec
from mvretrieval.api import Collection, OpenOptions
from mvretrieval.cli.main import run_command
from mvretrieval.describe import DescriberConfig
from mvretrieval.errors import TrainingError
from mvretrieval.evaluation.seen_classes import seen_names
from mvretrieval.ingest.index_report import IndexOptions
from mvretrieval.weighting.adapter import Adapter
from mvtrain.distributed import World
from mvtrain.features import from_collection
from mvtrain.render_views import meshes_of_collection, meshes_of_folder, render_views
from mvtrain.tune_options import Options
from mvtrain.tune_run import check_out, tune_and_save

FEW: list[object] = [
    "--max-steps", 2, "--rank", 2, "--classes-per-batch", 2, "--objects-per-class", 2, "--views-per-object", 2, "--held-out", 0,
    "--device", "cpu", "--workers", 1,
]  # fmt: skip


def mvr(*arguments: object) -> int:
    try:
        command, *rest = arguments
        return run_command(str(command), [str(argument) for argument in rest])
    except SystemExit as ended:
        return int(ended.code or 0)


@pytest.fixture(scope="module")
def meshes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five boxes, two of them identical, and five balls; `labels.csv` beside them."""
    folder = tmp_path_factory.mktemp("unpublished") / "meshes"
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
    """A collection of the meshes, which no test changes."""
    folder = tmp_path_factory.mktemp("unpublished") / "things"
    config = DescriberConfig("builtin:", "ring:4@30", size=64)
    with Collection.create(folder, config, OpenOptions(workers=1)) as collection:
        report = collection.add_folder(meshes, options=IndexOptions(labels=meshes / "labels.csv"))
        assert report.added == 10 and report.identical == 1
    return folder


@pytest.fixture(scope="module")
def clip_id(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_clip(tmp_path_factory.mktemp("unpublished"))


@pytest.fixture(scope="module")
def view_cache(things: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Views of all meshes, rendered once for all tests of this module."""
    folder = tmp_path_factory.mktemp("unpublished") / "views"
    with Collection.open(things) as collection:
        objects = meshes_of_collection(collection.session, "kind", None)
    views = render_views(objects, RenderSpec(parse_rig("ring:4@30"), ("texture",), 64), folder, 1)
    assert len(views) == 10 and len(set(views.keys)) == 9  # keyed by content
    return folder


def test_from_a_collection_to_a_tuned_one(
    things: Path, clip_id: str, view_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    things = Path(shutil.copytree(things, tmp_path / "things"))
    out = tmp_path / "secret" / "t"
    before = {path: path.stat().st_mtime_ns for path in view_cache.rglob("*.npy")}
    options = ["--by", "kind", "--where", "split = 'train'", "--encoder", clip_id, "--view-cache", view_cache, *FEW]
    assert mvr("tune", things, "--out", out, *options) == 0
    printed = capsys.readouterr()
    assert "8 objects, 2 classes" in printed.out
    assert (
        f"next: mvr reindex {things} --encoder tuned:{out}" in printed.out and f"mvr train {things} --by" in printed.out
    )
    assert {path.name for path in out.iterdir()} == {
        "model.safetensors", "lora.safetensors", "config.json", "log.jsonl", "adapter", "objects.json"
    }  # fmt: skip
    config = json.loads((out / "config.json").read_text())
    assert config["classes"] == ["ball", "box"] and config["training"]["options"]["rank"] == 2
    for name in ("config.json", "adapter/config.json", "adapter/model.safetensors"):
        assert b"secret" not in (out / name).read_bytes() and b"unpublished" not in (out / name).read_bytes()
    assert mvr("tune", things, "--out", out, *options) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert mvr("tune", things, "--out", out, *options, "--overwrite", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["schema"] == 1 and result["objects"] == 8
    assert {path: path.stat().st_mtime_ns for path in view_cache.rglob("*.npy")} == before  # nothing rendered again
    assert len({(out / name).stat().st_mode for name in ("model.safetensors", "lora.safetensors", "config.json")}) == 1
    assert mvr("reindex", things, "--adapter", out) == 1
    assert f"--encoder tuned:{out}" in capsys.readouterr().err
    _check_reindexed(things, out, tmp_path, capsys)


def _check_reindexed(things: Path, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Run the commands that `mvr tune` prints."""
    assert mvr("reindex", things, "--encoder", f"tuned:{out}", "--device", "cpu") == 0
    with Collection.open(things) as collection:
        assert collection.describer.encoder.id == f"tuned:{out}" and len(collection) == 10
        assert seen_names(collection.describer) == {"ball", "box"}
        assert from_collection(collection.session, "kind").encoder_classes == ("ball", "box")
    capsys.readouterr()
    assert mvr("eval", things, "--by", "kind", "--json", "--report", tmp_path / "report") == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["seen_classes"] == ["ball", "box"]
    assert "2 classes" in printed.err and "(ball, box)" in printed.err
    assert '"seen": true' in (tmp_path / "report" / "report.json").read_text()
    assert mvr("reindex", things, "--adapter", out / "adapter", "--device", "cpu") == 0
    with Collection.open(things) as collection:
        assert collection.describer.config.adapter == Adapter.load(out / "adapter").fingerprint
    adapter = tmp_path / "adapter"
    assert mvr("reindex", things, "--encoder", "builtin:") == 1
    err = capsys.readouterr().err
    assert "tuned:t" in err and "encoder: " in err and "styles:" not in err and "--no-adapter" in err
    assert mvr("reindex", things, "--no-adapter") == 0
    assert mvr("train", things, "--by", "kind", "--out", adapter, "--folds", 0, "--max-steps", 2, "--whiten", 0) == 0
    assert Adapter.load(adapter).config.encoder == "tuned:t"


def test_an_interrupted_command_resumes(
    things: Path, clip_id: str, view_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    options = [
        "--by",
        "kind",
        "--encoder",
        clip_id,
        "--view-cache",
        view_cache,
        *FEW,
        "--max-steps",
        3,
        "--save-every",
        1,
    ]
    assert mvr("tune", things, "--out", tmp_path / "whole", *options) == 0

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(mvtrain.tune_output, "save_tuned", stop)  # all is done except writing the encoder
        assert mvr("tune", things, "--out", tmp_path / "t", *options) == 130
    assert "same command" in capsys.readouterr().err
    assert not (tmp_path / "t" / "config.json").exists()
    assert mvr("tune", things, "--out", tmp_path / "t", *options, "--rank", 3) == 1
    assert "rank: 2" in capsys.readouterr().err
    assert mvr("tune", things, "--out", tmp_path / "t", *options) == 0
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("t", "whole")]
    assert weights[0] == weights[1]
    records = [json.loads(line) for line in (tmp_path / "t" / "log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records if record["stage"] == "tune"] == [1, 2, 3]


def test_an_existing_encoder_is_replaced_at_the_end(
    things: Path, clip_id: str, view_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "t"
    options = ["--by", "kind", "--view-cache", view_cache, *FEW]
    assert mvr("tune", things, "--out", out, "--encoder", clip_id, *options) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    with raises_code(TrainingError, "out_is_encoder", str(out)):
        check_out(Options(things, out, encoder=f"tuned:{out}", overwrite=True))
    with raises_code(TrainingError, "encoder_exists", "--overwrite"):
        check_out(Options(things, out, encoder=clip_id))
    assert mvr("tune", things, "--out", out, "--encoder", clip_id, *options, "--overwrite", "--cross-view", 9) == 1
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == before
    # Interrupted and run again: the run resumes, and the old encoder stays until the end.
    further = [
        "--encoder",
        clip_id,
        *options,
        "--method",
        "last-blocks",
        "--max-steps",
        4,
        "--save-every",
        1,
        "--overwrite",
    ]
    take_step = mvtrain.tune_loop.TuningRun._take_step

    def stop(run: mvtrain.tune_loop.TuningRun, *more: Any) -> float:
        if run.step == 2:
            raise KeyboardInterrupt
        return take_step(run, *more)

    with monkeypatch.context() as patched:
        patched.setattr(mvtrain.tune_loop.TuningRun, "_take_step", stop)
        assert mvr("tune", things, "--out", out, *further) == 130
    assert (out / "config.json").read_bytes() == before["config.json"]
    assert mvr("tune", things, "--out", out, *further) == 0
    steps = [json.loads(line)["step"] for line in (out / "log.jsonl").read_text().splitlines() if '"tune"' in line]
    assert steps == [1, 2, 3, 4] and not (out / "lora.safetensors").exists()
    assert json.loads((out / "config.json").read_text())["method"] == "last-blocks"


def test_damaged_cached_views_are_rendered_again(things: Path, view_cache: Path, tmp_path: Path) -> None:
    cache = Path(shutil.copytree(view_cache, tmp_path / "views"))
    files = sorted(path for path in cache.rglob("*.npy") if "mask" not in path.name)
    whole = {path: path.read_bytes() for path in files}
    files[0].write_bytes(whole[files[0]][:-5])
    files[1].write_bytes(b"")
    files[2].with_suffix(".mask.npy").unlink()
    with Collection.open(things) as collection:
        objects = meshes_of_collection(collection.session, "kind", None)
    render_views(objects, RenderSpec(parse_rig("ring:4@30"), ("texture",), 64), cache, 1)
    assert {path: path.read_bytes() for path in files} == whole and files[2].with_suffix(".mask.npy").exists()


def test_from_a_folder_of_meshes(
    meshes: Path, clip_id: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, views = tmp_path / "t", ["--rig", "ring:3@30", "--size", 64]
    labels = ["--labels", meshes / "labels.csv", "--by", "kind", "--encoder", clip_id]
    other: list[object] = ["--method", "last-blocks", "--last-blocks", 1, "--styles", "texture,clay"]
    other += ["--loss", "text", "--cross-view", 1]
    assert mvr("tune", meshes, "--out", out, *labels, *views, *other, *FEW, "--held-out", 0.2) == 0
    summary = capsys.readouterr().out
    assert f"next: mvr index things/ {meshes} --encoder tuned:{out}" in summary
    assert "no validation: too few classes" in summary and "2 steps" in summary and "--held-out 0" in summary
    assert str(out / "views") in summary
    assert not (out / "lora.safetensors").exists() and len(list((out / "views").rglob("*.mask.npy"))) == 9
    adapter = Adapter.load(out / "adapter")
    assert adapter.config.text == "frozen" and adapter.config.styles == ("texture", "clay")
    # Zero-shot classification by single views with an encoder that was tuned on groups of views: measured, with a notice.
    described = ["--encoder", f"tuned:{out}", "--styles", "texture,clay", *views, "--labels", meshes / "labels.csv"]
    assert mvr("index", tmp_path / "things", meshes, *described, "--workers", 1) == 0
    capsys.readouterr()
    assert mvr("eval zero-shot", tmp_path / "things", "--by", "kind", "--view-fusion", "probabilities", "--json") == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["seen_classes"] == ["ball", "box"]
    assert "attend to" in printed.err and "(ball, box)" in printed.err
    assert mvr("eval zero-shot", tmp_path / "things", "--by", "kind", "--seen", "kind = 'ball'") == 0
    printed = capsys.readouterr()
    assert "attend to" not in printed.err and "(box)" in printed.err


def test_views_are_keyed_by_content(things: Path, meshes: Path, view_cache: Path, tmp_path: Path) -> None:
    """A collection knows the content before a file is read. A mesh that cannot be rendered is left out."""
    spec, notices = RenderSpec(parse_rig("ring:4@30"), ("texture",), 64), list[str]()
    with Collection.open(things) as collection:
        objects = meshes_of_collection(collection.session, "kind", None)
    first = render_views(objects, spec, view_cache, 1)
    second = render_views(meshes_of_folder(meshes, "kind", meshes / "labels.csv"), spec, view_cache, 1)
    assert dict(zip(first.ids, first.keys, strict=True)) == dict(zip(second.ids, second.keys, strict=True))
    assert first.images(0).shape == (1, 4, 64, 64, 3) and first.mask.shape == (10, 4)
    np.testing.assert_array_equal(first.images(0)[:, [2, 0]], first.images(0, np.array([2, 0])))
    broken = tmp_path / "broken.ply"
    broken.write_text("no mesh")
    objects = [replace(objects[0], path=broken, content=""), *objects[1:]]
    third = render_views(objects, spec, view_cache, 1, notices.append)
    assert len(third) == 9 and "left out" in notices[0] and "broken.ply" in notices[0]
    with raises_code(TrainingError, "nothing_rendered"):
        render_views(objects[:1], spec, view_cache, 1)


@pytest.mark.parametrize(
    ("options", "exit_code", "named"),
    [
        (["--rank", "0"], 2, "rank"),
        (["--seed", "-1"], 2, "seed"),
        (["--device", "foo"], 1, "'foo'"),
        (["--device", "cuda:99"], 1, "cpu"),
        (["--out", "/dev/null"], 1, "/dev/null"),
        (["--encoder", "builtin:"], 1, "builtin:"),
        (["--encoder", "tuned:missing"], 1, "missing"),
        (["--encoder", "tuned:"], 1, "'tuned:'"),
        (["--by", "kin"], 1, "'kind'"),
        (["--where", "split = 'nothing'"], 1, "--where split = 'nothing'"),
        (["--method", "last-blocks", "--last-blocks", "9"], 1, "--last-blocks 9"),
        (["--labels", "labels.csv"], 1, "--labels"),
    ],
)
def test_failures_render_nothing(
    things: Path, clip_id: str, tmp_path: Path, options: list[str], exit_code: int, named: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    defaults = {"--by": "kind", "--encoder": clip_id}
    defaults |= dict(zip(options[::2], options[1::2], strict=True))
    flat = [item for pair in defaults.items() for item in pair]
    assert mvr("tune", things, "--out", tmp_path / "t", *flat) == exit_code
    printed = capsys.readouterr()
    assert named in printed.err and printed.out == "" and not (tmp_path / "t" / "config.json").exists()
    assert not (tmp_path / "t" / "views").exists()


def test_failures_have_codes(things: Path, meshes: Path, clip_id: str, tmp_path: Path) -> None:
    world, out, labels = World(0, 1, "cpu"), tmp_path / "t", meshes / "labels.csv"
    for code, options in {
        "no_encoder": Options(meshes, out, labels=labels),
        "no_weights": Options(things, out, encoder="builtin:"),
        "no_labels": Options(meshes, out, encoder=clip_id),
        "no_such_label": Options(meshes, out, encoder=clip_id, labels=labels, by="kin"),
        "no_match": Options(things, out, encoder=clip_id, by="kind", where="split = 'nothing'"),
        "unused_option": Options(things, out, encoder=clip_id, labels=labels),
    }.items():
        with raises_code(TrainingError, code):
            tune_and_save(options, world)
    with raises_code(TrainingError, "not_writable", "/dev/null"):
        check_out(Options(things, Path("/dev/null")))
    with raises_code(TrainingError, "uneven_batch", "3 processes"):
        World(0, 3, "cpu").shard(np.zeros(4))  # type: ignore[arg-type]
