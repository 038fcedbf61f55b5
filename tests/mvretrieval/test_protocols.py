"""Protocols, and the file of drawn queries."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from error_codes import raises_code
from hypothesis import given, settings
from hypothesis import strategies as st

from mvretrieval.errors import EvaluationError, ShapeError
from mvretrieval.evaluation.protocols import OpenSetQueries, Task, draw_queries, leave_one_out_task, open_set_task

_LABELS = st.lists(st.sampled_from([None, "chair", "cup", "lamp"]), min_size=1, max_size=40)


def _ids(labels: list[Any]) -> list[str]:
    return [f"{i * 37 % 101}.glb" for i in range(len(labels))]


@settings(max_examples=100)
@given(_LABELS, st.integers(1, 8), st.integers(0, 3))
def test_the_draw_leaves_an_object_of_every_class_in_the_gallery(labels: list[Any], per_class: int, seed: int) -> None:
    ids = _ids(labels)
    queries = draw_queries(labels, ids, per_class, seed)
    label_of = dict(zip(ids, labels, strict=True))
    sizes = Counter(label for label in labels if label is not None)
    drawn = Counter(label_of[query] for query in queries.ids)
    assert drawn == +Counter({label: min(per_class, size - 1) for label, size in sizes.items()})
    assert queries.short_classes == sum(size <= per_class for size in sizes.values())

    task = open_set_task(labels, ids, queries)
    assert task.skipped == 0 and [ids[q] for q in task.queries] == list(queries.ids)
    assert sorted([*task.queries, *task.gallery]) == list(range(len(labels)))
    assert task.n_relevant.tolist() == [sizes[labels[q]] - drawn[labels[q]] for q in task.queries]
    assert (task.n_relevant > 0).all()

    moved = np.random.default_rng(seed).permutation(len(labels))
    assert draw_queries([labels[i] for i in moved], [ids[i] for i in moved], per_class, seed) == queries


def test_seeds_differ_and_every_object_can_be_drawn() -> None:
    labels = ["a"] * 10
    draws = [draw_queries(labels, _ids(labels), 3, seed).ids for seed in range(40)]
    assert {query for draw in draws for query in draw} == set(_ids(labels))


@settings(max_examples=100)
@given(_LABELS)
def test_leave_one_out_agrees_with_a_loop(labels: list[Any]) -> None:
    task = leave_one_out_task(labels)
    others = {i: [j for j in range(len(labels)) if j != i and labels[j] == labels[i]] for i in range(len(labels))}
    expected = [i for i, label in enumerate(labels) if label is not None and others[i]]
    assert task.queries.tolist() == expected
    assert task.n_relevant.tolist() == [len(others[i]) for i in expected]
    assert task.skipped == sum(label is not None for label in labels) - len(expected)
    assert task.gallery.tolist() == list(range(len(labels)))


def test_galleries_are_in_order_of_id() -> None:
    ids = ["b", "a", "ä", "B", "a b"]
    assert [ids[i] for i in leave_one_out_task("xxxxx", ids).gallery] == ["B", "a", "a b", "b", "ä"]
    assert [ids[i] for i in open_set_task("xxxxx", ids, OpenSetQueries(("a",))).gallery] == ["B", "a b", "b", "ä"]


def test_a_query_without_a_relevant_item_is_skipped_and_counted() -> None:
    task = open_set_task(["a", "a", "b", None], ["1", "2", "3", "4"], OpenSetQueries(("3", "1", "4")))
    assert task.queries.tolist() == [0] and task.skipped == 2


# -- the file ----------------------------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(st.lists(st.text(), unique=True, max_size=5), st.integers(1, 9), st.integers(0, 2**40), st.integers(0, 9))
def test_the_file_round_trips(
    tmp_path_factory: pytest.TempPathFactory, ids: list[str], n: int, seed: int, m: int
) -> None:
    path = tmp_path_factory.mktemp("queries") / "new folder" / "queries.json"
    queries = OpenSetQueries(tuple(ids), n, seed, m)
    queries.write(path)
    assert OpenSetQueries.read(path) == queries


@pytest.mark.parametrize(
    ("content", "code", "named"),
    [
        ("{", "unreadable", ""),
        ("[]", "bad_query_split", ""),
        ('{"protocol": "leave-one-out", "queries": []}', "bad_query_split", ""),
        ('{"protocol": "open-set", "queries": "a"}', "bad_query_split", "'queries'"),
        ('{"protocol": "open-set", "queries": ["a", "a"]}', "bad_query_split", "'queries'"),
        ('{"protocol": "open-set", "queries": ["a"], "seed": "0"}', "bad_query_split", "'seed'"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: str, code: str, named: str) -> None:
    path = tmp_path / "queries.json"
    path.write_text(content)
    with raises_code(EvaluationError, code, named):
        OpenSetQueries.read(path)


def test_a_missing_file_and_a_file_that_cannot_be_written() -> None:
    with raises_code(EvaluationError, "unreadable"):
        OpenSetQueries.read(Path("nowhere.json"))
    with raises_code(EvaluationError, "not_writable"):
        OpenSetQueries(()).write(Path("/dev/null/queries.json"))


def test_the_file_records_the_draw(tmp_path: Path) -> None:
    draw_queries("aab", ["1", "2", "3"], 4, 7).write(tmp_path / "q.json")
    record = json.loads((tmp_path / "q.json").read_text())
    assert (record["protocol"], record["seed"], record["queries_per_class"], record["short_classes"]) == (
        "open-set",
        7,
        4,
        2,
    )


# -- wrong use ---------------------------------------------------------------------------------------------------------


def test_wrong_use() -> None:
    with raises_code(EvaluationError, "unknown_query", "1 of 2", "'z'"):
        open_set_task(["a", "a"], ["x", "y"], OpenSetQueries(("x", "z")))
    with raises_code(EvaluationError, "bad_options"):
        draw_queries(["a", "a"], ["x", "y"], per_class=0)
    with raises_code(ShapeError, "bad_ids"):
        leave_one_out_task(["a", "a"], ["x", "x"])
    with raises_code(EvaluationError, "mixed_gallery", "1 of 2"):
        Task(np.array([0, 1]), np.array([1, 2]), np.zeros(3, np.int64))
