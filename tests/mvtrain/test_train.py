"""Adapter training: it generalizes to unseen classes, and validation data does not leak."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from error_codes import raises_code
from numpy.typing import NDArray
from synthetic_features import (
    DIM,
    INFORMATIVE,
    VIEWS,
    adapter_of,
    plain_mean,
    pooled,
    synthetic_features,
    unit,
    with_noise,
)

from mvretrieval.errors import TrainingError
from mvretrieval.evaluation.metrics import leave_one_out
from mvretrieval.weighting.network import NetworkConfig
from mvretrieval.weighting.whitening import Whitening
from mvtrain.config import LossName, TrainConfig
from mvtrain.features import Features
from mvtrain.train import DEFAULT_PASSES, Trained, train

FEW = TrainConfig(
    whiten=0, folds=0, max_steps=30, evaluate_every=1, classes_per_batch=12, learning_rate=3e-3, min_views=2
)


def _losses(features: Features, config: TrainConfig, **more: Any) -> list[float]:
    records: list[dict[str, Any]] = []
    train(features, config, log=records.append, **more)
    return [record["loss"] for record in records]


def _mean_ap(vectors: NDArray[np.float32], features: Features) -> float:
    return leave_one_out(vectors, features.labels).means()["mAP"]


def _state(trained: Trained) -> dict[str, torch.Tensor]:
    return trained.network.state_dict()


# -- learning ----------------------------------------------------------------------------------------------------------


def test_training_improves_retrieval_of_unseen_classes() -> None:
    seen, unseen = synthetic_features(24), synthetic_features(10, seed=99)
    records: list[dict[str, Any]] = []
    config = replace(FEW, folds=2, max_steps=60, evaluate_every=20, learning_rate=1e-2)
    trained = train(seen, config, log=records.append)
    before = _mean_ap(plain_mean(unseen.views, unseen.mask, None), unseen)
    after = _mean_ap(pooled(unseen, adapter_of(unseen, trained)), unseen)
    assert after > before + 0.15, (before, after)
    metrics = trained.metrics
    assert metrics["held_out_mAP"] > metrics["untrained_mAP"] + 0.05
    # The last step within the tolerance of the best one. The final run has twice the objects, hence twice the steps.
    folds = [[r for r in records if r["stage"] == f"fold {n} of 2"] for n in (1, 2)]
    common = set.intersection(*({r["step"] for r in fold} for fold in folds))
    curve = {step: np.mean([r["mAP"] for fold in folds for r in fold if r["step"] == step]) for step in common}
    chosen = max(step for step, value in curve.items() if value >= max(curve.values()) - config.tolerance)
    assert trained.steps == 2 * chosen
    assert metrics["held_out_mAP"] == pytest.approx(curve[chosen])
    assert records[-1]["stage"] == "all seen classes" and records[-1]["step"] == trained.steps


@pytest.mark.parametrize("marked", [False, True], ids=["by-direction", "by-content"])
def test_view_weights_avoid_noise_views(marked: bool) -> None:
    """Noise from two of six cameras, or in a random half of the views of each object."""

    def add_noise(features: Features) -> tuple[Features, NDArray[np.bool_]]:
        noisy = np.zeros_like(features.mask)
        noisy[:, 1:3] = True
        if marked:
            noisy = np.random.default_rng(1).random(noisy.shape).argsort(axis=1) < VIEWS // 2
        return with_noise(features, noisy, marked), noisy

    seen, _ = add_noise(synthetic_features(24, nuisance=0.3))
    unseen, noisy = add_noise(synthetic_features(10, nuisance=0.3, seed=99))
    network = NetworkConfig(instance_scores=marked, dataset_scores="none" if marked else "directions", linear=False)
    config = replace(FEW, network=network, max_steps=100, learning_rate=0.03, weight_decay=0, temperature=0.3)
    adapter = adapter_of(unseen, train(seen, config), network)
    vectors, weights = adapter.pool(unseen.views.astype(np.float32), unseen.mask, unseen.directions)
    on_noise = (weights[:, 0] * noisy).sum(axis=1)
    assert on_noise.mean() < 0.08 and on_noise.max() < 0.25 < noisy.mean(), on_noise
    assert _mean_ap(vectors, unseen) > _mean_ap(plain_mean(unseen.views, unseen.mask, None), unseen) + 0.02
    if marked:  # permuted views: weights follow the content
        permuted = np.roll(unseen.views.astype(np.float32), 2, axis=2)
        again, moved = adapter.pool(permuted, unseen.mask, unseen.directions)
        np.testing.assert_allclose(again, vectors, atol=1e-5)
        np.testing.assert_allclose(moved, np.roll(weights, 2, axis=2), atol=1e-5)


def _texts(classes: list[str], whitening: Whitening | None) -> NDArray[np.float32]:
    codes = [int(name.split("-")[1]) for name in classes]
    return unit(np.random.default_rng(3).standard_normal((100, DIM if whitening is None else whitening.dim))[codes])


def _check_loss_decreases(features: Features, config: TrainConfig) -> None:
    """Compare with a network that does not learn, on the same batches."""
    config = replace(config, max_steps=15, learning_rate=0.02, weight_decay=0)
    falling = _losses(features, config, text_vectors=_texts)
    fixed = _losses(features, replace(config, learning_rate=1e-12), text_vectors=_texts)
    assert len(falling) == 15 and falling[0] == fixed[0] and np.isfinite(falling).all()
    assert np.mean(falling[-5:]) < 0.97 * np.mean(fixed[-5:]), (falling, fixed)


@pytest.mark.parametrize("loss", ["supcon", "multi-similarity", "prototypes", "text"])
def test_every_loss_decreases(loss: LossName) -> None:
    _check_loss_decreases(synthetic_features(), replace(FEW, loss=loss))


NETWORKS = [
    NetworkConfig(),
    NetworkConfig(dataset_scores="slots", average_softmaxes=True),
    NetworkConfig("mean"),
    NetworkConfig("max"),
    NetworkConfig("clip-adapter"),
    NetworkConfig("chunk"),
]


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: f"{network.kind}-{network.dataset_scores}")
@pytest.mark.parametrize("styles", [1, 2])
def test_every_pooling_learns_with_one_and_two_styles(network: NetworkConfig, styles: int) -> None:
    config = replace(FEW, network=network, whiten=16 if styles == 2 else 0)
    _check_loss_decreases(synthetic_features(styles=styles), config)


def test_pooling_without_parameters_is_unchanged() -> None:
    features, network = synthetic_features(), NetworkConfig("mean", linear=False)
    for folds in (0, 3):
        trained = train(features, replace(FEW, network=network, folds=folds))
        assert trained.steps == 0
        vectors = pooled(features, adapter_of(features, trained, network))
        np.testing.assert_allclose(vectors, plain_mean(features.views, features.mask, None), atol=1e-6)


def test_self_supervised_training_reduces_the_loss() -> None:
    """Variation by view can be suppressed without labels."""
    rng = np.random.default_rng(0)
    features = synthetic_features(20, 1, nuisance=0.3)
    views = features.views.astype(np.float32)
    views[..., INFORMATIVE:] += rng.standard_normal(views[..., INFORMATIVE:].shape)
    features = replace(features, labels=features.ids, views=unit(views).astype(np.float16))
    records: list[dict[str, Any]] = []
    trained = train(features, replace(FEW, folds=0, max_steps=40), log=records.append)
    assert trained.metrics == {} and trained.steps == 40
    assert np.mean([r["loss"] for r in records[-5:]]) < 0.8 * np.mean([r["loss"] for r in records[:5]])


# -- leakage -----------------------------------------------------------------------------------------------------------


def test_a_fold_uses_no_data_of_its_validation_classes() -> None:
    """The text loss requests text vectors for the classes and the whitening of each run, which this test records."""
    features = synthetic_features(9)
    runs: list[tuple[set[str], Whitening | None]] = []

    def texts(classes: list[str], whitening: Whitening | None) -> NDArray[np.float32]:
        runs.append((set(classes), whitening))
        return _texts(classes, whitening)

    records: list[dict[str, Any]] = []
    config = replace(FEW, loss="text", folds=3, max_steps=2, whiten=6)
    trained = train(features, config, text_vectors=texts, log=records.append)
    everything = set(features.classes)
    held_out = [everything - classes for classes, _ in runs]
    assert [len(part) for part in held_out] == [3, 3, 3, 0]
    assert set.union(*held_out) == everything, "each class is held out once"
    for classes, whitening in runs:
        expected = features.of_classes(sorted(classes)).whitening(6)
        assert whitening is not None and expected is not None
        np.testing.assert_array_equal(whitening.mean, expected.mean)
        np.testing.assert_array_equal(whitening.transform, expected.transform)
    validation = [(features.of_classes(sorted(out)), run[1]) for out, run in zip(held_out[:3], runs[:3], strict=True)]
    untrained = [_mean_ap(plain_mean(f.views, f.mask, whitening), f) for f, whitening in validation]
    assert trained.metrics["untrained_mAP"] == pytest.approx(np.mean(untrained), abs=5e-3)


def test_masked_views_have_no_effect() -> None:
    features = synthetic_features(8)
    mask = np.random.default_rng(0).random(features.mask.shape) < 0.6
    mask[:, 0] = True
    states = []
    for garbage in (0.0, math.nan, 60000.0):
        views = np.where(mask[:, None, :, None], features.views, np.float16(garbage))
        masked = replace(features, views=views, mask=mask)
        config = replace(FEW, whiten=8, folds=2, max_steps=6, evaluate_every=3)
        trained = train(masked, config)
        states.append((_state(trained), trained.metrics, trained.whitening))
    for state, metrics, whitening in states[1:]:
        assert metrics == states[0][1] and all(math.isfinite(value) for value in metrics.values())
        assert whitening is not None and states[0][2] is not None
        np.testing.assert_array_equal(whitening.transform, states[0][2].transform)
        assert all(torch.equal(state[name], states[0][0][name]) for name in state)


def test_training_is_deterministic_by_seed() -> None:
    features = synthetic_features(8)
    config = replace(FEW, max_steps=8, folds=2)
    first, again, other = (_state(train(features, replace(config, seed=seed))) for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_training_from_an_adapter_keeps_its_whitening() -> None:
    features, others = synthetic_features(8), synthetic_features(8, seed=5)
    config = replace(FEW, whiten=8, max_steps=10)
    start = adapter_of(features, train(features, config))
    before = start.to_bytes()
    # With a negligible learning rate the result is the initial adapter.
    trained = train(others, replace(config, max_steps=1, learning_rate=1e-9, weight_decay=0), init_from=start)
    assert trained.whitening is start.whitening and start.to_bytes() == before
    np.testing.assert_allclose(pooled(others, adapter_of(others, trained)), pooled(others, start), atol=1e-5)
    with raises_code(TrainingError, "other_network", "max"):
        train(others, replace(config, network=NetworkConfig("max")), init_from=start)


def test_classes_of_a_tuned_encoder_are_not_held_out() -> None:
    features = synthetic_features(8, 4)
    config = TrainConfig(whiten=0, folds=2, max_steps=4, evaluate_every=2, classes_per_batch=4)
    assert "held_out_mAP" in train(features, config).metrics
    assert "held_out_mAP" not in train(replace(features, encoder_classes=tuple(features.classes)), config).metrics


def test_divergence_is_an_error() -> None:
    features = synthetic_features(8, 4)
    with raises_code(TrainingError, "diverged", "--learning-rate"):
        train(features, replace(FEW, learning_rate=1e30))


def test_classes_of_the_initial_adapter_are_not_held_out() -> None:
    features = synthetic_features(8)
    config = replace(FEW, folds=2, max_steps=2)
    start = adapter_of(features)
    start.config = replace(start.config, classes=tuple(features.classes))
    assert train(features, config, init_from=start).metrics == {}
    records: list[dict[str, Any]] = []
    start.config = replace(start.config, classes=tuple(features.classes[:2]))
    assert "held_out_mAP" in train(features, config, init_from=start, log=records.append).metrics
    assert {record["stage"] for record in records} == {"fold 1 of 2", "fold 2 of 2", "all seen classes"}


# -- too little data ---------------------------------------------------------------------------------------------------


def test_too_few_classes_for_folds_are_trained_without_validation() -> None:
    trained = train(synthetic_features(3), replace(FEW, folds=3, max_steps=5))
    assert trained.steps == 5 and trained.metrics == {}
    # 3 classes with 1 object each, in batches of 12 classes with 4 objects: the default number of passes is few steps.
    assert train(synthetic_features(3, per_class=1), replace(FEW, folds=3, max_steps=300)).steps == -(
        -DEFAULT_PASSES * 3 // 48
    )


@pytest.mark.parametrize("classes", [0, 1])
def test_training_needs_two_classes(classes: int) -> None:
    features = synthetic_features(2)
    with raises_code(TrainingError, "too_few_classes", f"there are {classes}"):
        train(features.of_classes(features.classes[:classes]), FEW)


def test_every_fold_has_classes_with_several_objects() -> None:
    """Most classes have a single object, and a fold of such classes has no relevant items."""
    many = synthetic_features(60, 2)
    rows = [i for i in range(len(many)) if i < 12 or i % 2 == 0]  # six classes of two objects, 54 of one
    features = many.take(np.array(rows))
    for seed in range(4):
        trained_on: list[set[str]] = []

        def texts(
            classes: list[str], whitening: Whitening | None, trained_on: list[set[str]] = trained_on
        ) -> NDArray[np.float32]:
            trained_on.append(set(classes))
            return _texts(classes, whitening)

        trained = train(features, replace(FEW, loss="text", folds=3, max_steps=1, seed=seed), text_vectors=texts)
        for classes in trained_on[:3]:
            out = features.of_classes(sorted(set(features.classes) - classes))
            assert len(out.classes) == 20 and len([name for name in out.classes if out.labels.count(name) > 1]) == 2
        assert math.isfinite(trained.metrics["held_out_mAP"])


def test_text_loss_needs_a_text_tower() -> None:
    with raises_code(TrainingError, "no_text_tower"):
        train(synthetic_features(3), replace(FEW, loss="text"))


@pytest.mark.parametrize(
    "changes",
    [
        {"temperature": 0},
        {"temperature": math.nan},
        {"learning_rate": -1},
        {"whiten": -1},
        {"max_steps": 0},
        {"averaging": 1.0},
        {"loss": "supcn"},
        {"classes_per_batch": 1},
        {"objects_per_class": 1},
    ],
)
def test_invalid_values_are_refused_by_name(changes: dict[str, Any]) -> None:
    code = "unknown_choice" if "loss" in changes else "out_of_range"
    with raises_code(TrainingError, code, *map(str, next(iter(changes.items())))):
        replace(FEW, **changes)


def test_inconsistent_options_are_refused() -> None:
    with raises_code(TrainingError, "one_fold"):
        replace(FEW, folds=1)
    with raises_code(TrainingError, "unused_option", "temperature"):
        replace(FEW, loss="multi-similarity", temperature=0.1)


# -- features ----------------------------------------------------------------------------------------------------------


def test_shots_limits_objects_per_class_by_seed() -> None:
    features = synthetic_features(5, 6)
    few = features.take(np.arange(27))  # the last class has three
    some = few.shots(4, seed=1)
    assert [some.labels.count(name) for name in some.classes] == [4, 4, 4, 4, 3]
    assert some.ids == few.shots(4, seed=1).ids != few.shots(4, seed=2).ids
    for i, object_id in enumerate(some.ids):
        np.testing.assert_array_equal(some.views[i], few.views[few.ids.index(object_id)])


def test_whitening_dimensions_are_limited_by_the_number_of_views() -> None:
    features = synthetic_features(2, 1)
    assert features.whitening(0) is None
    for whiten, dim in ((4, 4), (512, 2 * VIEWS - 1)):
        whitening = features.whitening(whiten)
        assert whitening is not None and whitening.dim == dim
