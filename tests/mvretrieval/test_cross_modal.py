"""Questions from outside of a collection: ranks by hand, ties, and files that hold no questions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mvretrieval.errors import EvaluationError, ShapeError
from mvretrieval.evaluation.zero_shot.cross_modal import (
    Question,
    check_known,
    cross_modal_task,
    measure_found,
    read_questions,
    summary,
)

IDS = ("d", "c", "b", "a")


def _measured(
    questions: list[Question], keys: list[object], asking: object, objects: object
) -> dict[str, float | None]:
    task, _ = cross_modal_task(questions, keys, IDS)
    return summary(measure_found(task, np.array(asking, np.float32), np.array(objects, np.float32)))


def test_ranks_by_hand() -> None:
    objects = np.eye(4)
    asking = [[0.9, 0.5, 0.1, 0.0], [0.1, 0.2, 0.3, 0.4]]  # d c b a; a b c d
    found = _measured([Question("x", "b"), Question("y", "a")], list(IDS), asking, objects)
    assert (found["found@1"], found["found@5"], found["median_rank"]) == (0.5, 1.0, 2.0)
    assert found["mAP"] == pytest.approx((1 / 3 + 1) / 2)
    # By label: both of "x" among the first two ranks, at ranks 1 and 3.
    found = _measured([Question("x", "x")], ["x", "y", "x", None], asking[:1], objects)
    assert (found["found@1"], found["recall@1"], found["recall@5"]) == (1.0, 0.5, 1.0)
    assert found["mAP"] == pytest.approx((1 + 2 / 3) / 2)


def test_equal_scores_are_ranked_by_id() -> None:
    for wanted, rank in (("a", 1), ("b", 2), ("d", 4)):
        assert _measured([Question("x", wanted)], list(IDS), [[1.0]], [[1.0]] * 4)["median_rank"] == rank


def test_questions_without_a_right_object_are_counted() -> None:
    questions = [Question("x", "nowhere"), Question("y", "c")]
    task, asking = cross_modal_task(questions, list(IDS), IDS)
    assert task.skipped == 1 and asking.tolist() == [1] and task.n_relevant.tolist() == [1]
    found = measure_found(task, np.array([[0, 0, 0, 1], [0, 1, 0, 0]], np.float32), np.eye(4, dtype=np.float32))
    assert found.values["first"].tolist() == [1]
    task, _ = cross_modal_task(questions[:1], list(IDS), IDS)
    assert set(summary(measure_found(task, np.ones((1, 4), np.float32), np.eye(4, dtype=np.float32))).values()) == {
        None
    }
    with pytest.raises(EvaluationError, match="the first is 'nowhere'"):
        check_known(task, questions[:1], list(IDS), "id")
    with pytest.raises(ShapeError):
        cross_modal_task(questions, ["a"], IDS)


def test_the_order_of_objects_and_questions_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    objects, asking = rng.standard_normal((20, 4)).round(1), rng.standard_normal((6, 4)).round(1)
    ids = [f"id {i}" for i in range(20)]
    keys = [f"kind {i % 3}" for i in range(20)]
    questions = [Question(str(i), f"kind {i % 3}") for i in range(6)]

    def found(items: list[int], asks: list[int]) -> dict[str, float | None]:
        task, _ = cross_modal_task([questions[i] for i in asks], [keys[i] for i in items], [ids[i] for i in items])
        vectors = asking[asks].astype(np.float32), objects[items].astype(np.float32)
        return summary(measure_found(task, *vectors))

    straight = found(list(range(20)), list(range(6)))
    assert found(rng.permutation(20).tolist(), rng.permutation(6).tolist()) == pytest.approx(straight)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n1,2\n", "has the columns a, b; 'text' and 'id' are needed"),
        ("id,text\nx,\n", "line 2: the cell 'text' is empty"),
        ("id,text\n,x\n", "line 2: the cell 'id' is empty"),
        ("id,text\n", "has no rows"),
        ("", "has the columns none"),
    ],
)
def test_files_without_questions(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "q.csv"
    file.write_text(text)
    with pytest.raises(EvaluationError, match=said):
        read_questions(file, "text", ["id"])
    with pytest.raises(EvaluationError, match="cannot be read"):
        read_questions(tmp_path / "nowhere.csv", "text", ["id"])


def test_questions_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "q.csv"
    file.write_bytes('\ufeffid , text\r\nx,"a chair, red"\r\n'.encode())
    assert read_questions(file, "text", ["id"]) == ([Question("a chair, red", "x")], "id")
