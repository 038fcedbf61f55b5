"""Reproduction tables: their content is valid, and rows are run and judged."""

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
from error_codes import raises_code

from mvretrieval.api import Collection
from mvretrieval.cli import reproduce
from mvretrieval.errors import EvaluationError
from mvretrieval.evaluation.feature_file import measure_features
from mvretrieval.evaluation.reproduce.table import TableRow, parse_table, read_table, table_names
from mvretrieval.ingest.reembed import reembed

ROW = TableRow("r", "d", "c", "eval", "e", "mAP", 50.0, 1.0, "s", False, factor=100)


@pytest.fixture
def mvr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Mvr:
    return runner(monkeypatch, capsys, "reproduce")


@pytest.mark.parametrize("name", table_names())
def test_every_table_is_valid(name: str) -> None:
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
        if row.task in modules:  # the command accepts the options
            arguments = row.command("x")
            rest = arguments[2 if row.task == "eval" else 3 :]
            options = tyro.cli(modules[row.task].Options, args=rest, config=(tyro.conf.FlagCreatePairsOff,))
            assert options.json and str(options.collection) == f"x/{row.collection}"
    assert set(table.make) == {row.collection for row in table.rows}


@pytest.mark.parametrize("name", table_names())
def test_the_commands_of_a_table_exist(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Parsed as by a shell."""
    import tyro

    modules = {"index": "mvretrieval.cli.index", "reindex": "mvretrieval.cli.reindex", "train": "mvtrain.cli"}
    table = read_table(name)
    used = set()
    for collection in table.make:
        for command in table.commands(collection):
            arguments = shlex.split(command.replace("{dir}", "x"), comments=True)
            used |= {one.split("/")[2] for one in arguments if one.startswith("x/data/")}
            if arguments[:1] == ["mvr"]:
                options = import_module(modules[arguments[1]]).Options
                tyro.cli(options, args=arguments[2:], config=(tyro.conf.FlagCreatePairsOff,))
            elif arguments[:2] == ["python", "-m"]:
                assert import_module(arguments[2]).main([one for one in arguments[3:] if one != "--download"]) == 1
                assert "DOWNLOADS" in capsys.readouterr().err  # parsed, but the download is missing
            else:
                assert arguments[:1] in (["cp"], [])
    assert used == set(table.data)
    for row in table.rows:
        files = [option.removeprefix("{dir}/data/") for option in row.options if option.startswith("{dir}/data/")]
        assert all(
            file.split("/")[0] in table.data and file.endswith(("/queries.json", "/unseen-classes.txt"))
            for file in files
        )


@pytest.mark.parametrize(
    ("value", "verdict"),
    [
        (50, "reproduced"),
        (51, "reproduced"),
        (48.9, "close"),
        (53, "close"),
        (53.1, "not reproduced"),
        (0, "not reproduced"),
    ],
)
def test_verdicts(value: float, verdict: str) -> None:
    assert ROW.judge(value) == verdict


def test_values_are_looked_up_and_scaled() -> None:
    assert ROW.value_of({"mAP": 0.5}) == 50
    assert replace(ROW, metric="a.b", factor=1).value_of({"a": {"b": 2}}) == 2
    for found in ({}, {"mAP": None}, {"mAP": {"x": 1}}):
        with raises_code(EvaluationError, "no_metric", "mAP"):
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
    with raises_code(EvaluationError, "bad_table"):
        parse_table("bad", _GOOD.replace(old, new))


_PUBLISHED = """
published:
  - {method: m, encoder: e, trained: adapter, setting: inductive, llm_text: "no", values: {d: 1}, source: s, rows: [r]}
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("inductive", "both"),
        ('"no"', "no"),  # YAML's false
        ("{d: 1}", "{d: .nan}"),
        ("{d: 1}", "{}"),
        ("{d: 1}", "{d: 2}"),  # the row expects 1
        ("source: s", "source: ''"),
        ("rows: [r]", "rows: [x]"),
        (", rows: [r]", ""),
        ("rows: [r]", "rows: [r], not_run: no weights"),
        ("trained: adapter", "trained: ''"),
        ("trained: adapter, ", ""),
        ("source: s", "source: s, colour: red"),
    ],
)
def test_damaged_published_results(old: str, new: str) -> None:
    assert parse_table("good", _GOOD + _PUBLISHED).published[0].rows == ("r",)
    assert not parse_table("good", _GOOD).published
    with raises_code(EvaluationError, "bad_table"):
        parse_table("bad", _GOOD + _PUBLISHED.replace(old, new))


def test_published_results_are_printed(mvr: Mvr) -> None:
    out = mvr("open-set")[1]
    inductive, _, transductive = out.partition("published, transductive")
    assert re.search(
        r"^DEC +DINOv3 ViT-L/16 +adapter +no +62\.75 +67\.75 +72\.15 +70\.96 +cannot be run here$", inductive, re.M
    )
    assert re.search(r"^DAC +CLIP ViT-L/14 +low-rank weights +yes +57\.80 +65\.83 +68\.98 +70\.74 ", inductive, re.M)
    assert re.search(r"^CLIP-AdaM +CLIP ViT-L/14 +adapter .* 54\.69 +57\.28 +55\.01 +57\.29 ", inductive, re.M)
    assert re.search(r"^HGM2R ", transductive, re.M) and "arXiv 2604.19432" in out
    assert "DEC (DINOv3 ViT-L/16): cannot be run here: no public code" in out
    assert "published" not in mvr("open-set", "--row", "esb-clip-l14")[1]
    listed = json.loads(mvr("open-set", "--json")[1])["published"]
    assert {one["method"] for one in listed} >= {"CLIP-AdaM", "DAC", "DEC", "HGM2R"}


def test_printing_and_listing_tables(mvr: Mvr) -> None:
    code, out, _ = mvr("--list")
    assert code == 0 and all(name in out for name in table_names())
    listed = json.loads(mvr("--list", "--json")[1])["tables"]
    assert {table["name"]: table["run"] for table in listed} == {
        n: sum(r.run for r in read_table(n).rows) for n in table_names()
    }
    code, out, _ = mvr("open-set")
    assert code == 0 and "not run here" in out and "reproduced here" in out
    for arguments, exit_code, named in (
        (["opn-set"], 1, "did you mean 'open-set'?"),
        (["open-set", "--row", "x"], 1, "has no row 'x'"),
        (["open-set", "--collections", "/nowhere"], 1, "no folder /nowhere"),
        ([], 2, "give its name"),
    ):
        code, out, err = mvr(*arguments)
        assert (code, out) == (exit_code, "") and named in err


def test_rows_are_run_if_their_collection_exists(
    mvr: Mvr, things: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(things.folder, tmp_path / "shapes")
    row = TableRow("here", "d", "shapes", "eval", "builtin:", "queries", 12, 0.5, "s", True, ("--by", "label"))
    others: tuple[dict[str, Any], ...] = (
        {"name": "fewer", "objects": 13},
        {"name": "missing", "collection": "gone"},
        {"name": "failed", "options": ("--by", "lable")},
    )
    rows = (row, *(replace(row, **other) for other in others))
    table = replace(read_table("psb"), make={"shapes": ("-",), "gone": ("mvr index {dir}/gone meshes/",)}, rows=rows)
    monkeypatch.setattr(reproduce, "read_table", lambda name: table)
    code, out, err = mvr("any", "--collections", tmp_path, "--json")
    result = json.loads(out)
    assert code == 1 and "did you mean 'label'" in err
    assert [(r["verdict"], r["value"]) for r in result["rows"]] == [
        ("reproduced", 12), ("failed", None), ("missing", None), ("failed", None)
    ]  # fmt: skip
    assert "fewer failed: 12 objects were evaluated, the row has 13" in err
    assert result["commands"] == {"gone": [f"mvr index {tmp_path}/gone meshes/"]}
    code, out, _ = mvr("any", "--collections", tmp_path, "--row", "missing")
    assert code == 0 and f"missing: {tmp_path}/gone;" in out


def test_a_collection_with_another_configuration_is_refused(
    mvr: Mvr, things: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("plain", "whitened", "augmented"):
        shutil.copytree(things.folder, tmp_path / name)
    with Collection.open(tmp_path / "whitened", write=True) as whitened:
        reembed(whitened.session, replace(whitened.describer.config, whiten=4))
    with Collection.open(tmp_path / "augmented", write=True) as augmented:
        augmented.augment(3)
    row = TableRow("plain", "d", "plain", "eval", "builtin:", "queries", 12, 0.5, "s", True, ("--by", "label"))
    rows = (
        row,
        replace(row, name="other encoder", encoder="image_only:mobilenet_v2"),
        replace(row, name="no adapter", adapter="CLIP-AdaM"),
        replace(row, name="whitened", collection="whitened", adapter="whitened to 4"),
        replace(row, name="unexpected whitening", collection="whitened"),
        replace(row, name="unexpected DBA", collection="augmented"),
    )
    table = replace(read_table("psb"), rows=rows)
    monkeypatch.setattr(reproduce, "read_table", lambda name: table)
    code, out, err = mvr("any", "--collections", tmp_path, "--json")
    verdicts = {found["name"]: found["verdict"] for found in json.loads(out)["rows"]}
    assert code == 1 and verdicts == {
        "plain": "reproduced",
        "other encoder": "failed",
        "no adapter": "failed",
        "whitened": "reproduced",
        "unexpected whitening": "failed",
        "unexpected DBA": "failed",
    }
    for message in (
        "plain was made with builtin: and no adapter, the row needs image_only:mobilenet_v2 and no adapter",
        "plain was made with builtin: and no adapter, the row needs builtin: and CLIP-AdaM",
        "whitened was made with builtin: and whitening or centring, the row needs builtin: and no adapter",
        "augmented was made with builtin: and DBA, the row needs builtin: and no adapter",
    ):
        assert message in err


def test_remaining_commands_are_complete_and_in_order(mvr: Mvr, tmp_path: Path) -> None:
    def make(name: str, *more: str) -> list[str]:
        result = json.loads(mvr("psb", "--collections", tmp_path, "--json", *more)[1])
        assert {row["collection"] for row in result["rows"] if row["verdict"] == "missing"} == set(result["commands"])
        return [command.split(" --")[0] for command in result["commands"][name] if not command.startswith("#")]

    script = f"python -m data_scripts.psb DOWNLOADS/psb_v1.zip {tmp_path}/data/psb"
    index = f"mvr index {tmp_path}/psb-mobilenet {tmp_path}/data/psb"
    copy = f"cp -r {tmp_path}/psb-mobilenet {tmp_path}/psb-mobilenet-whitened"
    whiten = f"mvr reindex {tmp_path}/psb-mobilenet-whitened"
    assert make("psb-mobilenet-whitened") == [script, index, copy, whiten]
    assert make("psb-mobilenet-whitened", "--row", "psb-whitened") == [script, index, copy, whiten]
    output = mvr("psb", "--collections", tmp_path, "--row", "psb-mobilenet-nn")[1]
    assert (
        f"missing: {tmp_path}/psb-mobilenet; to make it:\n  {script}\n  # mobilenet_v2_imagenet.safetensors" in output
    )
    (tmp_path / "data/psb").mkdir(parents=True)
    assert make("psb-mobilenet") == [script, index]  # an incomplete data set
    (tmp_path / "data/psb/labels.csv").touch()
    assert make("psb-mobilenet") == [index]
    (tmp_path / "psb-mobilenet").mkdir()
    assert make("psb-mobilenet-whitened") == [script, copy, whiten]  # which creates the row's list of classes
    (tmp_path / "psb-mobilenet-whitened").mkdir()
    assert make("psb-mobilenet-whitened", "--row", "psb-whitened") == [script]
    code, out, err = mvr("psb", "--collections", tmp_path, "--row", "psb-whitened")
    assert code == 0 and f"missing: {tmp_path}/data/psb/unseen-classes.txt; to make it:\n  {script}\n" in out
    (tmp_path / "data/psb/unseen-classes.txt").touch()
    assert make("psb-mobilenet-adam")[0].startswith("mvr train")
    code, out, err = mvr("psb", "--collections", tmp_path, "--row", "psb-whitened", "--json")
    assert code == 1 and json.loads(out)["commands"] == {} and "psb-mobilenet-whitened" in err


def test_extra_files_of_commands_are_explained() -> None:
    for name in table_names():
        table = read_table(name)
        for collection in table.make:
            commands = table.commands(collection)
            notes = " ".join(command for command in commands if command.startswith("#"))
            for file in ("mobilenet_v2_imagenet.safetensors", "clip_vit_b32_names.npz"):
                used = any(file in command for command in commands if not command.startswith("#"))
                assert not used or file in notes, (name, collection, file)
            assert len(set(commands)) == len(commands)


@pytest.mark.shared_data
def test_the_benchmarks_own_features_are_reproduced(mvr: Mvr, shared_data: Path) -> None:
    result = json.loads(mvr("open-set", "--collections", shared_data, "--json")[1])
    verdicts = [row["verdict"] for row in result["rows"] if row["task"] == "features"]
    assert verdicts == ["reproduced"] * 6


def test_feature_files(tmp_path: Path) -> None:
    file = tmp_path / "f.npz"
    arrays: dict[str, Any] = {
        "names": np.array(list("abcd")),
        "label": np.array([0, 0, 1, 1]),
        "x": np.eye(4)[[0, 0, 1, 1]],
    }
    np.savez(file, query=np.array([True, False, True, False]), target=np.array([False, True, False, True]), **arrays)
    assert measure_features(file, "x")["mAP"] == 1
    with raises_code(EvaluationError, "bad_feature_file", "'y'"):
        measure_features(file, "y")
    with raises_code(EvaluationError, "bad_feature_file", "No such file"):
        measure_features(tmp_path / "nowhere.npz", "x")
    good = dict(np.load(file))
    for damage, problem in (
        ({"names": np.array(list("abcd"), object)}, "array 'names' contains neither text nor numbers"),
        ({"query": np.array([1, 0, 1, 0])}, "its query and target are int64 and bool"),
        ({"label": np.zeros(3)}, "its arrays have shapes (4,), (3,)"),
        ({"x": np.eye(4)[:3]}, "its arrays have shapes"),
        ({"x": np.full((4, 2), np.nan)}, "its 'x' is float64 (4, 2), not finite numbers (N, D)"),
        ({"x": np.array([["a"]] * 4)}, "its 'x' is <U1 (4, 1), not finite numbers (N, D)"),
    ):
        np.savez(file, **(good | damage))
        with raises_code(EvaluationError, "bad_feature_file", f"{file} cannot be read: {problem}"):
            measure_features(file, "x")
    file.write_bytes(b"noise")
    with raises_code(EvaluationError, "bad_feature_file", ".npz"):
        measure_features(file, "x")
