"""Tables: what they hold is sound, and rows are run and judged."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Mvr, runner

from mvretrieval.api import Collection
from mvretrieval.cli import eval_table
from mvretrieval.errors import EvaluationError
from mvretrieval.evaluation.feature_file import measure_features
from mvretrieval.evaluation.reproduce.reproduce import Row, parse_table, read_table, table_names
from mvretrieval.ingest.reembed import reembed

ROW = Row("r", "d", "c", "eval", "e", "mAP", 50.0, 1.0, "s", False, factor=100)


@pytest.fixture
def mvr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Mvr:
    return runner(monkeypatch, capsys, "eval", "table")


@pytest.mark.parametrize("name", table_names())
def test_every_table_is_sound(name: str) -> None:
    import tyro

    from mvretrieval.cli import eval as plain
    from mvretrieval.cli import eval_image_to_3d, eval_text_to_3d, eval_zero_shot

    modules: dict[str, Any] = {
        "eval": plain, "zero-shot": eval_zero_shot, "text-to-3d": eval_text_to_3d, "image-to-3d": eval_image_to_3d
    }  # fmt: skip
    table = read_table(name)
    assert table.rows and table.title
    for row in table.rows:
        assert row.expected > 0 and row.source and table.make[row.collection]
        if row.task in modules:  # the options are ones that the command takes
            words = row.command("x")
            rest = words[2 if row.task == "eval" else 3 :]
            options = tyro.cli(modules[row.task].Options, args=rest, config=(tyro.conf.FlagCreatePairsOff,))
            assert options.json and str(options.collection) == f"x/{row.collection}"
    assert set(table.make) == {row.collection for row in table.rows}


@pytest.mark.parametrize("name", table_names())
def test_the_commands_of_a_table_are_ones_that_there_are(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """As a shell would take them."""
    import tyro

    modules = {"index": "mvretrieval.cli.index", "reindex": "mvretrieval.cli.reindex", "train": "mvtrain.cli"}
    table = read_table(name)
    used = set()
    for collection in table.make:
        for command in table.commands(collection):
            words = shlex.split(command.replace("{dir}", "x"), comments=True)
            used |= {word.split("/")[2] for word in words if word.startswith("x/data/")}
            if words[:1] == ["mvr"]:
                options = import_module(modules[words[1]]).Options
                tyro.cli(options, args=words[2:], config=(tyro.conf.FlagCreatePairsOff,))
            elif words[:2] == ["python", "-m"]:
                assert import_module(words[2]).main([word for word in words[3:] if word != "--download"]) == 1
                assert "DOWNLOADS" in capsys.readouterr().err  # understood, and not there
            else:
                assert words[:1] in (["cp"], [])
    assert used == set(table.data)
    for row in table.rows:
        files = [option.removeprefix("{dir}/data/") for option in row.options if option.startswith("{dir}/data/")]
        assert all(
            file.split("/")[0] in table.data and file.endswith(("/queries.json", "/unseen-classes.txt"))
            for file in files
        )


@pytest.mark.parametrize(
    ("value", "verdict"),
    [(50, "reproduced"), (51, "reproduced"), (48.9, "close"), (53, "close"), (53.1, "not"), (0, "not")],
)
def test_verdicts(value: float, verdict: str) -> None:
    assert ROW.judge(value) == verdict


def test_values_are_looked_up_and_scaled() -> None:
    assert ROW.value_of({"mAP": 0.5}) == 50
    assert replace(ROW, metric="a.b", factor=1).value_of({"a": {"b": 2}}) == 2
    for found in ({}, {"mAP": None}, {"mAP": {"x": 1}}):
        with pytest.raises(EvaluationError, match="nothing was measured as mAP"):
            ROW.value_of(found)


_GOOD = """
title: t
collections: {c: [make it]}
rows:
  - {name: r, data: d, collection: c, task: eval, encoder: e, metric: mAP, expected: 1, tolerance: 1, source: s, run: false}
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("title: t", "titel: t"),
        ("task: eval", "task: evil"),
        ("run: false", "run: maybe"),
        ("expected: 1", "expected: .nan"),
        ("tolerance: 1", "tolerance: 0"),
        ("source: s", "source: ''"),
        ("collection: c,", "collection: d,"),
        ("metric: mAP,", "metric: mAP, colour: red,"),
        ("task: eval", "task: features"),
        ("rows:", "rows: ["),
    ],
)
def test_damaged_tables(old: str, new: str) -> None:
    assert parse_table("good", _GOOD).rows[0].name == "r"
    with pytest.raises(EvaluationError):
        parse_table("bad", _GOOD.replace(old, new))


def test_a_table_as_it_stands(mvr: Mvr) -> None:
    code, out, _ = mvr("--list")
    assert code == 0 and all(name in out for name in table_names())
    listed = json.loads(mvr("--list", "--json")[1])["tables"]
    assert {table["name"]: table["run"] for table in listed} == {
        n: sum(r.run for r in read_table(n).rows) for n in table_names()
    }
    code, out, _ = mvr("open-set")
    assert code == 0 and "never run here" in out and "was run here" in out
    for arguments, ended, said in (
        (["opn-set"], 1, "did you mean 'open-set'?"),
        (["open-set", "--row", "x"], 1, "has no row 'x'"),
        (["open-set", "--collections", "/nowhere"], 1, "no folder /nowhere"),
        ([], 2, "name a table"),
    ):
        code, out, err = mvr(*arguments)
        assert (code, out) == (ended, "") and said in err


def test_rows_are_run_where_their_collection_is_there(
    mvr: Mvr, things: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(things.folder, tmp_path / "shapes")
    row = Row("here", "d", "shapes", "eval", "builtin:", "queries", 12, 0.5, "s", True, ("--by", "label"))
    others: tuple[dict[str, Any], ...] = (
        {"name": "fewer", "objects": 13}, {"name": "absent", "collection": "gone"}, {"name": "failed", "options": ("--by", "lable")}
    )  # fmt: skip
    rows = (row, *(replace(row, **other) for other in others))
    table = replace(read_table("psb"), make={"shapes": ("-",), "gone": ("mvr index {dir}/gone meshes/",)}, rows=rows)
    monkeypatch.setattr(eval_table, "read_table", lambda name: table)
    code, out, err = mvr("any", "--collections", tmp_path, "--json")
    result = json.loads(out)
    assert code == 1 and "did you mean 'label'" in err
    assert [(r["verdict"], r["value"]) for r in result["rows"]] == [
        ("reproduced", 12), ("failed", None), ("absent", None), ("failed", None)
    ]  # fmt: skip
    assert "fewer failed: 12 objects were measured, the row's set has 13" in err
    assert result["make"] == {"gone": [f"mvr index {tmp_path}/gone meshes/"]}
    code, out, _ = mvr("any", "--collections", tmp_path, "--row", "absent")
    assert code == 0 and f"{tmp_path}/gone is not there" in out


def test_a_collection_that_was_made_otherwise_is_not_measured(
    mvr: Mvr, things: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("plain", "whitened", "smoothed"):
        shutil.copytree(things.folder, tmp_path / name)
    with Collection.open(tmp_path / "whitened", write=True) as whitened:
        reembed(whitened, replace(whitened.describer.config, whiten=4))
    with Collection.open(tmp_path / "smoothed", write=True) as smoothed:
        smoothed.smooth(3)
    row = Row("plain", "d", "plain", "eval", "builtin:", "queries", 12, 0.5, "s", True, ("--by", "label"))
    rows = (
        row,
        replace(row, name="other encoder", encoder="image_only:mobilenet_v2"),
        replace(row, name="nothing learnt", adapter="CLIP-AdaM"),
        replace(row, name="whitened", collection="whitened", adapter="whitened to 4"),
        replace(row, name="too much", collection="whitened"),
        replace(row, name="neighbours too", collection="smoothed"),
    )
    table = replace(read_table("psb"), rows=rows)
    monkeypatch.setattr(eval_table, "read_table", lambda name: table)
    code, out, err = mvr("any", "--collections", tmp_path, "--json")
    verdicts = {found["name"]: found["verdict"] for found in json.loads(out)["rows"]}
    assert code == 1 and verdicts == {
        "plain": "reproduced",
        "other encoder": "failed",
        "nothing learnt": "failed",
        "whitened": "reproduced",
        "too much": "failed",
        "neighbours too": "failed",
    }
    for said in (
        "plain was made with builtin: and nothing on top, the row wants image_only:mobilenet_v2 and nothing on top",
        "plain was made with builtin: and nothing on top, the row wants builtin: and CLIP-AdaM",
        "whitened was made with builtin: and whitening or centring, the row wants builtin: and nothing on top",
        "smoothed was made with builtin: and smoothing, the row wants builtin: and nothing on top",
    ):
        assert said in err


def test_what_is_left_to_do_is_all_that_is_missing_in_order(mvr: Mvr, tmp_path: Path) -> None:
    def make(name: str, *more: str) -> list[str]:
        result = json.loads(mvr("psb", "--collections", tmp_path, "--json", *more)[1])
        assert {row["collection"] for row in result["rows"] if row["verdict"] == "absent"} == set(result["make"])
        return [command.split(" --")[0] for command in result["make"][name] if not command.startswith("#")]

    script = f"python -m data_scripts.psb DOWNLOADS/psb_v1.zip {tmp_path}/data/psb"
    index = f"mvr index {tmp_path}/psb-mobilenet {tmp_path}/data/psb"
    copy = f"cp -r {tmp_path}/psb-mobilenet {tmp_path}/psb-mobilenet-whitened"
    whiten = f"mvr reindex {tmp_path}/psb-mobilenet-whitened"
    assert make("psb-mobilenet-whitened") == [script, index, copy, whiten]
    assert make("psb-mobilenet-whitened", "--row", "psb-whitened") == [script, index, copy, whiten]
    said = mvr("psb", "--collections", tmp_path, "--row", "psb-mobilenet-nn")[1]
    assert (
        f"{tmp_path}/psb-mobilenet is not there; it is made by\n  {script}\n  # mobilenet_v2_imagenet.safetensors"
        in said
    )
    (tmp_path / "data/psb").mkdir(parents=True)
    assert make("psb-mobilenet") == [script, index]  # the script was stopped
    (tmp_path / "data/psb/labels.csv").touch()
    assert make("psb-mobilenet") == [index]
    (tmp_path / "psb-mobilenet").mkdir()
    assert make("psb-mobilenet-whitened") == [script, copy, whiten]  # which lays out the classes that the row names
    (tmp_path / "psb-mobilenet-whitened").mkdir()
    assert make("psb-mobilenet-whitened", "--row", "psb-whitened") == [script]
    said = mvr("psb", "--collections", tmp_path, "--row", "psb-whitened")
    assert (
        said[0] == 0 and f"{tmp_path}/data/psb/unseen-classes.txt is not there; it is made by\n  {script}\n" in said[1]
    )
    (tmp_path / "data/psb/unseen-classes.txt").touch()
    assert make("psb-mobilenet-adam")[0].startswith("mvr train")
    code, out, err = mvr("psb", "--collections", tmp_path, "--row", "psb-whitened", "--json")
    assert code == 1 and json.loads(out)["make"] == {} and "is no collection" in err


def test_weights_and_names_that_commands_take_are_explained() -> None:
    for name in table_names():
        table = read_table(name)
        for collection in table.make:
            commands = table.commands(collection)
            said = " ".join(command for command in commands if command.startswith("#"))
            for file in ("mobilenet_v2_imagenet.safetensors", "clip_vit_b32_names.npz"):
                used = any(file in command for command in commands if not command.startswith("#"))
                assert not used or file in said, (name, collection, file)
            assert len(set(commands)) == len(commands)


@pytest.mark.shared_data
def test_the_benchmarks_own_features_are_reproduced(mvr: Mvr, shared_data: Path) -> None:
    result = json.loads(mvr("open-set", "--collections", shared_data, "--json")[1])
    verdicts = [row["verdict"] for row in result["rows"] if row["task"] == "features"]
    assert verdicts == ["reproduced"] * 6


def test_feature_files(tmp_path: Path) -> None:
    file = tmp_path / "f.npz"
    arrays = {"names": np.array(list("abcd")), "label": np.array([0, 0, 1, 1]), "x": np.eye(4)[[0, 0, 1, 1]]}
    np.savez(file, query=np.array([True, False, True, False]), target=np.array([False, True, False, True]), **arrays)
    assert measure_features(file, "x")["mAP"] == 1
    with pytest.raises(EvaluationError, match="has no 'y'"):
        measure_features(file, "y")
    with pytest.raises(EvaluationError, match="cannot be read: No such file"):
        measure_features(tmp_path / "nowhere.npz", "x")
    good = dict(np.load(file))
    for damage, said in (
        ({"names": np.array(list("abcd"), object)}, "its 'names' holds neither text nor numbers"),
        ({"query": np.array([1, 0, 1, 0])}, "its query and target are int64 and bool"),
        ({"label": np.zeros(3)}, "its arrays are of (4,), (3,)"),
        ({"x": np.eye(4)[:3]}, "its arrays are of"),
        ({"x": np.full((4, 2), np.nan)}, "its 'x' is float64 (4, 2), not finite numbers (N, D)"),
        ({"x": np.array([["a"]] * 4)}, "its 'x' is <U1 (4, 1), not finite numbers (N, D)"),
    ):
        np.savez(file, **(good | damage))
        with pytest.raises(EvaluationError, match=re.escape(f"{file} cannot be read: {said}")):
            measure_features(file, "x")
    file.write_bytes(b"noise")
    with pytest.raises(EvaluationError, match=r"it is no \.npz file"):
        measure_features(file, "x")
