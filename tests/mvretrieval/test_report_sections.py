"""Sections of a report: curve, view weights, map and choice of queries, against naive implementations."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st
from made_meshes import SMALL, new_object, unit
from markupsafe import Markup
from numpy.typing import NDArray

from mvrender.cameras import parse_rig
from mvretrieval.api import Collection, OpenOptions
from mvretrieval.describe import PoolingChoice
from mvretrieval.evaluation.protocols import leave_one_out_task
from mvretrieval.evaluation.ranking import cosines
from mvretrieval.evaluation.report import view_weights
from mvretrieval.evaluation.report.charts import is_ring, map_chart, on_map, plane_chart, rim, ring_chart
from mvretrieval.evaluation.report.map2d import N_GROUPS, evenly, groups_of, place
from mvretrieval.evaluation.report.results import (
    RECALL_LEVELS,
    best_and_worst,
    classes_of,
    collect_results,
    confusions,
    interpolated_precision,
    precision_recall_curve,
)

# -- curve -------------------------------------------------------------------------------------------------------------


def _naive(relevant: list[bool]) -> list[float]:
    """Maximum precision at any rank with at least that recall."""
    total = sum(relevant)
    ranks = range(1, len(relevant) + 1)
    points = [(sum(relevant[:rank]), sum(relevant[:rank]) / rank) for rank in ranks]
    # In integers: 20 steps of 5 percent.
    return [max(precision for found, precision in points if 20 * found >= level * total) for level in range(21)]


@settings(max_examples=200)
@given(st.lists(st.booleans(), min_size=1, max_size=60).filter(any))
def test_the_curve_matches_its_definition(ranking: list[bool]) -> None:
    relevant = np.array([ranking])
    found = interpolated_precision(relevant, relevant.sum(axis=1))[0]
    np.testing.assert_allclose(found, _naive(ranking), atol=1e-12)


def test_the_curve_agrees_with_trec_eval() -> None:
    rng = np.random.default_rng(3)
    vectors = unit(rng.standard_normal((70, 8)))
    labels = rng.integers(4, size=70).tolist()
    task = leave_one_out_task(labels)
    results = collect_results(task, cosines(vectors), block=16)
    qrel, run = {}, {}
    for q in task.queries:
        others = [i for i in range(70) if i != q]
        scores = {i: round(float(vectors[q].astype(float) @ vectors[i].astype(float)), 9) for i in others}
        order = sorted(others, key=lambda i, scores=scores: (-scores[i], i))  # type: ignore[misc]
        qrel[f"{q}"] = {f"{i}": int(labels[i] == labels[q]) for i in others}
        run[f"{q}"] = {f"{i}": float(len(order) - rank) for rank, i in enumerate(order)}
        assert results.first[q].tolist() == order[:8]
    oracle = pytrec_eval.RelevanceEvaluator(qrel, {"iprec_at_recall"}).evaluate(run)
    compared = 0
    for row, q in enumerate(task.queries):
        r = int(results.n_relevant[row])
        for tenth in range(11):
            # trec_eval needs int(0.7 * 23 + 0.9) items, which is 16 and not 17 in floating point: skipped where that differs.
            if int(tenth / 10 * r + 0.9) == -(-tenth * r // 10):
                expected = oracle[f"{q}"][f"iprec_at_recall_{RECALL_LEVELS[2 * tenth]:.2f}"]
                assert results.precision[row, 2 * tenth] == pytest.approx(expected, abs=1e-9)
                compared += 1
    assert compared > 700


def test_the_spread_weights_classes_equally() -> None:
    rng = np.random.default_rng(0)
    codes = np.repeat(np.arange(5), [2, 3, 5, 8, 20])
    vectors = unit(rng.standard_normal((38, 6)) + 2 * rng.standard_normal((5, 6))[codes])
    task = leave_one_out_task(codes.tolist())
    results = collect_results(task, cosines(vectors))
    curve = precision_recall_curve(results, task.class_ids[task.queries])
    by_class = np.stack([results.precision[codes == c].mean(axis=0) for c in range(5)])
    np.testing.assert_allclose(curve.class_mean, by_class.mean(axis=0))
    assert curve.lower is not None and curve.upper is not None
    np.testing.assert_allclose(curve.upper, np.quantile(by_class, 0.75, axis=0))
    np.testing.assert_allclose(curve.mean, results.precision.mean(axis=0))
    assert curve.chance == pytest.approx(np.mean([(codes == c).sum() - 1 for c in codes]) / 37)


def test_confusions_count_first_hits() -> None:
    rng = np.random.default_rng(5)
    labels = [None if i == 3 else f"{rng.integers(4)}" for i in range(50)]
    vectors = unit(rng.standard_normal((50, 5)))
    task = leave_one_out_task(labels)
    codes, names = classes_of(labels)
    np.testing.assert_array_equal(codes, task.class_ids)
    found = confusions(collect_results(task, cosines(vectors)), codes, task.queries, names)
    scores = vectors.astype(float) @ vectors.T
    np.fill_diagonal(scores, -2)
    expected: dict[tuple[str | None, str | None], int] = {}
    for q in task.queries:
        pair = labels[q], labels[int(scores[q].argmax())]
        if pair[0] != pair[1]:
            expected[pair] = expected.get(pair, 0) + 1
    assert {(c.query_class, c.hit_class): c.count for c in found} == expected
    for c in found:
        assert (labels[c.query], labels[c.hit]) == (c.query_class, c.hit_class)
        assert c.score == pytest.approx(scores[c.query].max(), abs=1e-6)


# -- choice of queries -------------------------------------------------------------------------------------------------


@settings(max_examples=100)
@given(st.lists(st.tuples(st.sampled_from([0.0, 0.2, 0.5, 1.0]), st.integers(0, 3)), min_size=1, max_size=30))
def test_best_and_worst_are_disjoint_and_diverse(pairs: list[tuple[float, int]]) -> None:
    values, codes = np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs])
    best, worst = best_and_worst(values, codes, np.ones(len(pairs), np.int64), 4, 6)
    assert not set(best) & set(worst)
    assert len(best) == min(4, (len(pairs) + 1) // 2) and len(worst) == min(6, len(pairs) // 2)
    assert values[best].tolist() == sorted(values[best], reverse=True) and values[worst].tolist() == sorted(
        values[worst]
    )
    if worst:
        assert values[best].min() >= values[worst].max() and values[best[0]] == values.max()
        assert values[worst[0]] == values.min()
    for chosen, pool in ((best, len(set(codes[np.argsort(-values, kind="stable")][: (len(pairs) + 1) // 2]))),):
        assert len(set(codes[chosen])) == min(4, pool)


# -- view weights ------------------------------------------------------------------------------------------------------


@contextmanager
def _with_views(
    folder: Path, views: NDArray[np.float32], masks: NDArray[np.bool_], pooling: PoolingChoice
) -> Iterator[Collection]:
    collection = Collection.create(folder, replace(SMALL, pooling=pooling), OpenOptions(workers=1))
    with collection.session.store.transaction():
        for i, (own, mask) in enumerate(zip(views, masks, strict=True)):
            new = replace(new_object(f"{i}"), view_vectors=own.astype(np.float16), view_mask=mask)
            collection.session.store.put(new, 1)
    yield collection
    collection.session.release()


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_weights_are_relative_to_the_unmasked_views(
    tmp_path: Path, pooling: PoolingChoice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view_weights, "_BATCH", 7)
    rng = np.random.default_rng(0)
    masks = rng.random((20, 3)) < 0.6
    masks[:, 0] |= ~masks.any(axis=1)
    views = rng.standard_normal((20, 1, 3, 50)).astype(np.float16).astype(np.float32)
    with _with_views(tmp_path / "c", views, masks, pooling) as collection:
        found = view_weights.measure_view_weights(collection.session, collection.session.store.select(None))
    assert found is not None and found.uniform == (pooling == "mean")
    shares = np.full((20, 3), np.nan)
    for i in range(20):
        kept = np.flatnonzero(masks[i])
        winners = kept[views[i, 0, kept].argmax(axis=0)]
        for v in kept:
            shares[i, v] = 1.0 if pooling == "mean" else (winners == v).mean() * len(kept)
    np.testing.assert_allclose(found.mean[0], np.nanmean(shares, axis=0), atol=1e-5)
    np.testing.assert_allclose(found.upper[0], np.nanquantile(shares, 0.9, axis=0), atol=1e-5)


def test_a_view_without_objects_has_weight_zero(tmp_path: Path) -> None:
    views = np.ones((4, 1, 3, 5), np.float32)
    masks = np.array([[True, True, False]] * 4)
    with _with_views(tmp_path / "c", views, masks, "mean") as collection:
        found = view_weights.measure_view_weights(collection.session, collection.session.store.select(None))
        assert view_weights.measure_view_weights(collection.session, np.empty(0, np.int64)) is None
    assert found is not None and found.mean.tolist() == [[1, 1, 0]] and found.uniform


@pytest.mark.parametrize(
    ("rig", "ring"),
    [("ring:12@30", True), ("ring:1@0", True), ("os3dor", True), ("dodecahedron", False), ("cube", False), ("ring:4@90", False),
     ("sphere:200", False), ("sphere:1", True)],
)  # fmt: skip
def test_every_rig_has_a_chart(rig: str, ring: bool) -> None:
    parsed = parse_rig(rig)
    assert is_ring(parsed) == ring
    mean = np.linspace(0, 2, parsed.n_views)
    if ring:
        svg = ring_chart(parsed, mean, mean * 0.5, mean * 1.5, 3.0, Markup(""))
        assert svg.count('class="sector"') == parsed.n_views
    else:
        svg = plane_chart(parsed, mean, mean * 0.5, mean * 1.5)
        assert svg.count('class="disc"') == parsed.n_views
    assert svg.count("<title>") == parsed.n_views and "nan" not in svg


def test_a_ring_chart_points_where_the_cameras_are() -> None:
    rig = parse_rig("ring:4@30")
    mean = np.array([1.0, 2.0, 0.5, 0.5])
    svg = ring_chart(rig, mean, mean, mean, 2.0, rim(rig, [f"data:{v}" for v in range(4)]))
    places = {
        m[0]: (float(m[1]), float(m[2]))
        for m in re.findall(r'<image href="data:(\d)" x="([-\d.]+)" y="([-\d.]+)"', svg)
    }
    # Front at the bottom (y down), +X on the right.
    assert places["0"][1] > 100 and places["1"][0] > 100 and places["2"][1] < -100 and places["3"][0] < -100
    reaches = [
        max(np.hypot(float(x), float(y)) for x, y in re.findall(r"L([-\d.]+) ([-\d.]+)", path))
        for path in re.findall(r'class="sector" d="([^"]+)"', svg)
    ]
    np.testing.assert_allclose(np.array(reaches) / max(reaches), mean / 2, atol=0.01)
    assert rim(rig, []) == "" and rim(parse_rig("ring:36@0"), ["data:"] * 36) == ""


# -- map ---------------------------------------------------------------------------------------------------------------


def test_the_map_keeps_neighbours_and_is_deterministic() -> None:
    rng = np.random.default_rng(0)
    codes = np.arange(60) % 4
    vectors = unit(rng.standard_normal((4, 10))[codes] + 0.05 * rng.standard_normal((60, 10)))
    positions = place(vectors)
    np.testing.assert_array_equal(positions, place(vectors))
    distances = np.linalg.norm(positions[:, None] - positions[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    assert (codes[distances.argmin(axis=1)] == codes).all()


@pytest.mark.parametrize("n", [0, 1, 2, 3, 5, 6, 7])
@pytest.mark.parametrize("same", [False, True])
def test_small_and_equal_collections_have_a_map(n: int, same: bool) -> None:
    vectors = np.ones((n, 3), np.float32) if same else unit(np.random.default_rng(n).standard_normal((n, 3)))
    positions = place(vectors)
    assert positions.shape == (n, 2) and np.isfinite(positions).all()
    pixels = on_map(positions)
    assert np.isfinite(pixels).all() and (pixels >= 0).all() and (pixels <= 960).all()
    assert map_chart(pixels, [0] * n, 1).count("<use ") == n


def test_one_dimension_is_enough() -> None:
    assert np.isfinite(on_map(place(np.array([[1], [-1], [1]] * 4, np.float32)))).all()


def test_samples_are_proportional_to_class_size() -> None:
    rng = np.random.default_rng(0)
    codes = rng.choice([-1, 0, 1, 2], p=[0.1, 0.2, 0.3, 0.4], size=5000)
    chosen = evenly(codes, 500)
    assert len(chosen) == len(set(chosen.tolist())) == 500 and (np.diff(chosen) > 0).all()
    for code in (-1, 0, 1, 2):
        assert abs((codes[chosen] == code).mean() - (codes == code).mean()) < 0.005
    np.testing.assert_array_equal(evenly(codes[:40], 500), np.arange(40))


def test_groups_are_the_first_parts_that_differ() -> None:
    assert groups_of(["a/x", "a/y", "b/x", "c"], [1, 1, 5, 1]) == ([1, 1, 0, 2], ["b", "a", "c"])
    assert groups_of(["a/x/1", "a/x/2", "a/y"], [1, 1, 1]) == ([0, 0, 1], ["a/x", "a/y"])
    assert groups_of(["a"], [3]) == ([0], ["a"]) and groups_of([], []) == ([], [])
    groups, names = groups_of([f"{i}" for i in range(40)], list(range(40)))
    assert len(names) == N_GROUPS and groups.count(-1) == 40 - N_GROUPS and names[0] == "39"


def test_levels_are_twenty_steps() -> None:
    assert len(RECALL_LEVELS) == 21 and RECALL_LEVELS[[0, -1]].tolist() == [0, 1]
