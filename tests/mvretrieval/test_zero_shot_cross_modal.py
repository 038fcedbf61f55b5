"""Queries from outside a collection: ranks by hand, ties, and unusable query files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from error_codes import raises_code

from mvretrieval.errors import EvaluationError, ShapeError
from mvretrieval.evaluation.zero_shot.cross_modal import (
    CrossModalQuery,
    check_targets,
    cross_modal_task,
    evaluate_cross_modal,
    read_queries,
    summary,
)

IDS = ("d", "c", "b", "a")


def _evaluate(
    queries: list[CrossModalQuery], targets: list[object], vectors: object, objects: object
) -> dict[str, float | None]:
    task, _ = cross_modal_task(queries, targets, IDS)
    return summary(evaluate_cross_modal(task, np.array(vectors, np.float32), np.array(objects, np.float32)))


def test_ranks_by_hand() -> None:
    objects = np.eye(4)
    vectors = [[0.9, 0.5, 0.1, 0.0], [0.1, 0.2, 0.3, 0.4]]  # d c b a; a b c d
    found = _evaluate([CrossModalQuery("x", "b"), CrossModalQuery("y", "a")], list(IDS), vectors, objects)
    assert (found["found@1"], found["found@5"], found["median_rank"]) == (0.5, 1.0, 2.0)
    assert found["mAP"] == pytest.approx((1 / 3 + 1) / 2)
    # By label: the two relevant objects of "x" among the first two ranks, at ranks 1 and 3.
    found = _evaluate([CrossModalQuery("x", "x")], ["x", "y", "x", None], vectors[:1], objects)
    assert (found["found@1"], found["recall@1"], found["recall@5"]) == (1.0, 0.5, 1.0)
    assert found["mAP"] == pytest.approx((1 + 2 / 3) / 2)


def test_equal_scores_are_ranked_by_id() -> None:
    for wanted, rank in (("a", 1), ("b", 2), ("d", 4)):
        assert _evaluate([CrossModalQuery("x", wanted)], list(IDS), [[1.0]], [[1.0]] * 4)["median_rank"] == rank


def test_queries_without_a_relevant_object_are_counted() -> None:
    queries = [CrossModalQuery("x", "nowhere"), CrossModalQuery("y", "c")]
    task, kept = cross_modal_task(queries, list(IDS), IDS)
    assert task.skipped == 1 and kept.tolist() == [1] and task.n_relevant.tolist() == [1]
    found = evaluate_cross_modal(task, np.array([[0, 0, 0, 1], [0, 1, 0, 0]], np.float32), np.eye(4, dtype=np.float32))
    assert found.values["first"].tolist() == [1]
    task, _ = cross_modal_task(queries[:1], list(IDS), IDS)
    assert set(
        summary(evaluate_cross_modal(task, np.ones((1, 4), np.float32), np.eye(4, dtype=np.float32))).values()
    ) == {None}
    with raises_code(EvaluationError, "unknown_target", "nowhere"):
        check_targets(task, queries[:1], list(IDS), "id")
    with pytest.raises(ShapeError):
        cross_modal_task(queries, ["a"], IDS)


def test_the_order_of_objects_and_queries_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    objects, vectors = rng.standard_normal((20, 4)).round(1), rng.standard_normal((6, 4)).round(1)
    ids = [f"id {i}" for i in range(20)]
    targets = [f"kind {i % 3}" for i in range(20)]
    queries = [CrossModalQuery(str(i), f"kind {i % 3}") for i in range(6)]

    def found(items: list[int], rows: list[int]) -> dict[str, float | None]:
        task, _ = cross_modal_task([queries[i] for i in rows], [targets[i] for i in items], [ids[i] for i in items])
        arrays = vectors[rows].astype(np.float32), objects[items].astype(np.float32)
        return summary(evaluate_cross_modal(task, *arrays))

    straight = found(list(range(20)), list(range(6)))
    assert found(rng.permutation(20).tolist(), rng.permutation(6).tolist()) == pytest.approx(straight)


@pytest.mark.parametrize(
    ("text", "code", "named"),
    [
        ("a,b\n1,2\n", "no_such_column", "a, b"),
        ("id,text\nx,\n", "empty_cell", "line 2: the cell 'text'"),
        ("id,text\n,x\n", "empty_cell", "line 2: the cell 'id'"),
        ("id,text\n", "no_queries", "q.csv"),
        ("", "no_such_column", "none"),
    ],
)
def test_files_without_queries(tmp_path: Path, text: str, code: str, named: str) -> None:
    file = tmp_path / "q.csv"
    file.write_text(text)
    with raises_code(EvaluationError, code, named):
        read_queries(file, "text", ["id"])
    with raises_code(EvaluationError, "csv_unreadable"):
        read_queries(tmp_path / "nowhere.csv", "text", ["id"])


def test_queries_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "q.csv"
    file.write_bytes('\ufeffid , text\r\nx,"a chair, red"\r\n'.encode())
    assert read_queries(file, "text", ["id"]) == ([CrossModalQuery("a chair, red", "x")], "id")
