"""`mvr eval` on a collection with known vectors."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Mvr, as_json, runner
from made_meshes import SMALL, new_object, unit

from mvretrieval.api import Collection
from mvretrieval.augmentation import scores_without_query
from mvretrieval.evaluation.evaluation_set import Selection, load_evaluation_set
from mvretrieval.evaluation.metrics import evaluate, leave_one_out
from mvretrieval.evaluation.os3dor import os3dor_measure
from mvretrieval.evaluation.protocols import draw_queries, leave_one_out_task, open_set_task
from mvretrieval.evaluation.ranking import cosines, precomputed
from mvretrieval.evaluation.trec import evaluate_run, read_qrels, read_run

N = 40
IDS = [f"thing {i * 13 % N:02d}.ply" for i in range(N)]
LABELS = [None if i == 0 else "alone" if i == 1 else f"kind {i % 4}" for i in range(N)]


def _vectors(noise: float) -> Any:
    rng = np.random.default_rng(0)
    classes = rng.standard_normal((4, 6))
    return unit(classes[np.arange(N) % 4] + noise * rng.standard_normal((N, 6)))


def _make(folder: Path, vectors: Any) -> Path:
    with Collection.create(folder, SMALL) as collection, collection.session.store.transaction():
        padding = int(collection.session.store.get_meta("view_dim")) - vectors.shape[1]
        padded = np.pad(vectors, ((0, 0), (0, padding)))
        for i in range(N):
            _put(collection, IDS[i], padded[i], {"label": LABELS[i], "size": i} if LABELS[i] else {"size": i})
    return folder


def _put(collection: Collection, object_id: str, vector: Any, labels: dict[str, Any]) -> None:
    row_id = collection.session.store.put(new_object(object_id, vector), collection.session.store.next_sequence())
    collection.session.store.set_metadata(row_id, labels)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _make(tmp_path_factory.mktemp("good") / "good", _vectors(0.9))


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _make(tmp_path_factory.mktemp("bad") / "bad", _vectors(3.0))


@pytest.fixture
def mvr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Mvr:
    return runner(monkeypatch, capsys, "eval")


def test_leave_one_out(mvr: Mvr, good: Path) -> None:
    result = as_json(mvr(good, "--json"))
    expected = leave_one_out(_vectors(0.9), LABELS)
    assert (result["queries"], result["protocol"], result["metrics"]) == (38, "leave-one-out", "textbook")
    assert {name: result[name] for name in expected.values} == pytest.approx(expected.means())
    code, out, err = mvr(good)
    assert code == 0 and out.splitlines()[0].split()[:6] == ["queries", "NN", "FT", "ST", "DCG", "mAP"]
    assert "skipped: 1 object without another object of the same class" in err
    assert "1 object of 40 without a 'label'" in err and "--where 'label is not null'" in err
    assert (result["objects"], result["unlabeled"]) == (40, 1)
    result = as_json(mvr(good, "--json", "--where", "label is not null"))
    assert (result["objects"], result["unlabeled"], result["queries"]) == (39, 0, 38)
    assert as_json(mvr(good, "--json", "--where", "size < 12"))["queries"] == 10


def test_no_queries(mvr: Mvr, good: Path, tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("alone\n")
    code, out, err = mvr(good, "--json", "--classes", tmp_path / "classes.txt")
    assert code == 1 and json.loads(out)["mAP"] is None and "no queries" in err and "--by" in err
    assert mvr(good, "--where", "size = 99", "--transductive", "propagation")[1].count("-") > 8


def test_classes_without_objects_are_reported(mvr: Mvr, good: Path, tmp_path: Path) -> None:
    file = tmp_path / "classes.txt"
    file.write_text("\ufeffkind 0\nkind 1\nknd 2\nzzz\n", encoding="utf-8")
    with Collection.open(good) as collection:
        evaluation_set = load_evaluation_set(collection.session, Selection("label", None, file))
        assert set(evaluation_set.labels) == {"kind 0", "kind 1"} and evaluation_set.unknown_classes == ("knd 2", "zzz")
        assert (
            "no object has the 'label' 'knd 2' (did you mean 'kind 2'?), 'zzz' of"
            in evaluation_set.unknown_classes_note
        )
        few = load_evaluation_set(collection.session, Selection("label", "size = 4", file))  # of kind 0
        assert (
            few.unknown_classes[0] == "kind 1"
            and "no object selected by --where size = 4 has" in few.unknown_classes_note
        )
        assert load_evaluation_set(collection.session, Selection()).unknown_classes_note == ""
    file.write_text("knd 2\n")
    code, out, err = mvr(good, "--classes", file)
    assert code == 1 and out == "" and "did you mean 'kind 2'?" in err
    file.write_text("\n")
    code, _, err = mvr(good, "--classes", file)
    assert code == 1 and "has no classes; write one value of 'label' per line" in err
    file.write_bytes("Käfig\n".encode("latin-1"))
    code, _, err = mvr(good, "--classes", file)
    assert code == 1 and "save the file as UTF-8" in err


def test_the_query_split_is_written_once_and_reused(mvr: Mvr, good: Path, bad: Path, tmp_path: Path) -> None:
    file = tmp_path / "queries.json"
    arguments = ["--protocol", "open-set", "--metrics", "os3dor", "--query-split", file, "--json"]
    result = as_json(mvr(good, *arguments, "--queries-per-class", "3", "--seed", "4"))
    queries = draw_queries(LABELS, IDS, 3, 4)
    assert json.loads(file.read_text())["queries"] == list(queries.ids)
    task = open_set_task(LABELS, IDS, queries)
    expected = evaluate(task, cosines(_vectors(0.9)), os3dor_measure(task.n_relevant)).means()
    assert {name: result[name] for name in expected} == pytest.approx(expected)
    assert (result["queries"], result["metrics"], "NN" in result) == (12, "os3dor", False)
    again = mvr(good, *arguments)
    assert as_json(again) == result and "3 per class, seed 4" in again[2]
    assert as_json(mvr(bad, *arguments))["mAP"] < result["mAP"]
    code, out, _ = mvr(good, *arguments, "--where", "size < 20")
    assert code == 1 and json.loads(out)["error"]["code"] == "unknown_query"


def test_small_classes_are_reported(mvr: Mvr, good: Path) -> None:
    code, _, err = mvr(good, "--protocol", "open-set")
    assert code == 0 and "1 class with at most 5 objects" in err


def test_families_of_metrics_have_separate_tables(mvr: Mvr, good: Path) -> None:
    code, out, _ = mvr(good, "--protocol", "open-set", "--metrics", "os3dor", "--transductive", "k-reciprocal")
    assert code == 0 and "FT" not in out
    inductive, reranked = out.split("\n\n")
    assert "metrics of the open-set benchmarks" in inductive and "transductive" not in inductive
    assert reranked.startswith("transductive (k-reciprocal)") and "ANMRR" in reranked
    result = as_json(mvr(good, "--json", "--transductive", "propagation"))
    assert result["transductive"]["method"] == "propagation" and 0 < result["transductive"]["mAP"] < 1


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--metrics", "os3dor"], "add --protocol open-set"),
        (["--query-split", "q.json"], "add --protocol open-set"),
        (["--protocol", "open-set", "--queries-per-class", "0"], "--queries-per-class must be"),
        (["--protocol", "open-set", "--seed=-1"], "--seed >="),
        (["--transductive", "magic"], "k-reciprocal"),
    ],
)
def test_wrong_use_is_2(mvr: Mvr, good: Path, arguments: list[str], named: str) -> None:
    code, out, err = mvr(good, *arguments)
    assert code == 2 and out == "" and named in " ".join(err.replace("│", " ").split())
    assert not Path("q.json").exists()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--by", "lable"], "did you mean 'label'"),
        (["--compare", "nowhere"], "nowhere"),
        (["--trec", "/dev/null/x"], "cannot be written"),
        (["--per-query", "/dev/null/x.csv"], "cannot be written"),
        (["--protocol", "open-set", "--query-split", "/dev/null/q.json"], "query split /dev/null/q.json cannot be"),
        (["--compare", __file__], "TREC has 6"),
    ],
)
def test_failures_are_1_with_one_line(mvr: Mvr, good: Path, arguments: list[str], named: str) -> None:
    code, out, err = mvr(good, *arguments)
    assert code == 1 and out == "" and named in err and "Traceback" not in err


def test_files(mvr: Mvr, good: Path, tmp_path: Path) -> None:
    table = tmp_path / "new" / "values.csv"
    result = as_json(mvr(good, "--json", "--trec", tmp_path / "trec", "--per-query", table))
    alone = evaluate_run(read_qrels(tmp_path / "trec" / "qrels.txt"), read_run(tmp_path / "trec" / "run.txt"))
    assert alone.means() == pytest.approx({name: result[name] for name in alone.values})
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [IDS[i] for i in range(2, N)]
    assert [row["label"] for row in rows] == LABELS[2:]
    assert np.mean([float(row["mAP"]) for row in rows]) == pytest.approx(result["mAP"])
    for record in (tmp_path / "trec" / "eval.json", tmp_path / "new" / "values.csv.json"):
        content = json.loads(record.read_text())
        assert content["result"] == result and content["options"]["collection"] == str(good)


def test_augmented_scores_are_those_of_a_strict_leave_one_out(mvr: Mvr, good: Path, tmp_path: Path) -> None:
    copy = tmp_path / "augmented"
    shutil.copytree(good, copy)
    with Collection.open(copy, write=True) as collection:
        collection.augment(3, 2.0)
        row_ids = [int(n) for n in collection.session.store.select(None)]
        vectors = np.stack([collection.session.store.vector_of(n) for n in row_ids])
        labels = collection.session.store.column_values("label", row_ids)
    strict = scores_without_query(vectors, 3, 2.0)
    expected = evaluate(leave_one_out_task(labels), precomputed(strict.round(6))).means()["mAP"]
    dba = ["--dba", 3, "--dba-alpha", 2]
    assert as_json(mvr(copy, "--json"))["mAP"] == pytest.approx(expected, abs=1e-6)
    assert as_json(mvr(good, "--json", *dba))["mAP"] == pytest.approx(expected, abs=1e-6)
    assert (
        as_json(mvr(copy, "--json", "--dba", 0))["mAP"]
        == as_json(mvr(good, "--json"))["mAP"]
        != pytest.approx(expected)
    )
    itself = as_json(mvr(copy, "--json", "--expand", 2, "--compare", copy))["compare"]["mAP"]
    assert itself["difference"] == 0 and itself["p"] == 1
    open_set = ["--protocol", "open-set", "--metrics", "os3dor", "--json"]
    assert as_json(mvr(good, *open_set, "--expand", 1))["mAP"] != as_json(mvr(good, *open_set))["mAP"]


@pytest.mark.parametrize(
    "options", [["--dba-alpha", 2], ["--expand-alpha", 2], ["--rerank-weight", 1.5], ["--dba", -1]]
)
def test_invalid_scoring_options(mvr: Mvr, good: Path, options: list[object]) -> None:
    assert mvr(good, *options)[0] == 2


def test_compare(mvr: Mvr, good: Path, bad: Path, tmp_path: Path) -> None:
    base = ["--protocol", "open-set", "--json"]
    other = as_json(mvr(bad, *base, "--trec", tmp_path))
    with_collection = as_json(mvr(good, *base, "--compare", bad))["compare"]
    with_run = as_json(mvr(good, *base, "--compare", tmp_path / "run.txt"))["compare"]
    assert with_run == with_collection
    found = with_collection["mAP"]
    assert found["second"] == pytest.approx(other["mAP"]) and found["queries"] == other["queries"]
    assert found["p"] < 0.01 and 0 < found["low"] < found["difference"] < found["high"]
    code, out, _ = mvr(good, "--compare", good)
    assert code == 0 and "38 queries" in out and "+0.0000 .. +0.0000  1.0000" in out


def test_another_collection_is_evaluated_with_its_own_gallery(mvr: Mvr, good: Path, tmp_path: Path) -> None:
    larger, file = tmp_path / "larger", tmp_path / "queries.json"
    shutil.copytree(good, larger)
    with Collection.open(larger) as collection, collection.session.store.transaction():
        for i in range(20):  # ANMRR depends on the largest class
            vector = collection.session.store.vector_of(collection.session.row_id_of(IDS[3 + i]))
            _put(collection, f"more {i}", vector, {"label": "kind 3", "size": i})
    arguments = ["--protocol", "open-set", "--metrics", "os3dor", "--query-split", file, "--json"]
    as_json(mvr(good, *arguments))
    alone = as_json(mvr(larger, *arguments))
    code, out, err = mvr(good, *arguments, "--compare", larger)
    assert code == 0 and "20 of the ids are in only one of the collections" in err
    compared = json.loads(out)["compare"]
    assert {name: compared[name]["second"] for name in compared} == pytest.approx(
        {name: alone[name] for name in compared}
    )


def test_differences_between_runs_are_reported(mvr: Mvr, good: Path, tmp_path: Path) -> None:
    mvr(good, "--trec", tmp_path)
    lines = (tmp_path / "run.txt").read_text().splitlines()
    first = lines[0].split()[0]
    kept = [line for line in lines if not line.startswith(f"{first} ")]
    kept += [f"{kept[0].split()[0]} Q0 {item} 0 9.0 other" for item in ("strange", kept[0].split()[0])]
    (tmp_path / "run.txt").write_text("\n".join(kept))
    code, out, err = mvr(good, "--compare", tmp_path / "run.txt", "--json")
    assert code == 0 and json.loads(out)["compare"]["mAP"]["difference"] > 0
    assert "2 items" in err and "1 of 38 queries are missing" in err


def test_the_report_gets_this_evaluation(mvr: Mvr, good: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    passed: dict[str, Any] = {}

    def write_report(*arguments: Any, **more: Any) -> Path:
        passed.update(arguments=arguments, more=more)
        return tmp_path / "index.html"

    monkeypatch.setattr("mvretrieval.evaluation.report.write.check_extra", lambda: None)
    monkeypatch.setattr("mvretrieval.evaluation.report.write.write_report", write_report)
    code, out, err = mvr(good, "--report", tmp_path, "--where", "size < 12", "--protocol", "open-set", "--json")
    _, objects, evaluation, folder = passed["arguments"]
    assert code == 0 and str(tmp_path / "index.html") in err and folder == tmp_path
    assert len(objects.row_ids) == len(objects.labels) == len(objects.vectors) == 12
    assert evaluation.values["mAP"].mean() == pytest.approx(json.loads(out)["mAP"])
    assert np.array_equal(passed["more"]["task"].queries, evaluation.queries)
    assert (objects.scope, objects.by) == ("size < 12", "label")
