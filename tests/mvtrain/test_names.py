"""Learning what names point to."""

from __future__ import annotations

import numpy as np
import pytest
from error_codes import raises_code

from mvretrieval.errors import NoTextError, TrainingError
from mvretrieval.weighting.text_embeddings import TextEmbeddings
from mvtrain.names import fit_names

WORDS = [f"thing {chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(80)]


def _world(noise: float, seed: int = 0, dim: int = 6) -> tuple[TextEmbeddings, np.ndarray, list[str]]:
    """Objects (N, 12) whose place says, through a true linear map and noise, what they are called: 80 names, unit norm."""
    rng = np.random.default_rng(seed)
    space = TextEmbeddings(
        tuple(WORDS), (rng.standard_normal((80, dim)) + 3).astype(np.float32)
    )  # a cone, as texts lie in
    true_map = rng.standard_normal((dim, 12))
    labels = [name for i, name in enumerate(WORDS) for _ in range(2 + i % 5)]
    there = np.stack([space.direction_of(name) for name in labels]) @ true_map  # type: ignore[arg-type]
    vectors = there + noise * rng.standard_normal(there.shape) + 5
    return space, (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), labels


def test_a_true_linear_map_is_recovered_for_names_that_were_not_seen() -> None:
    space, vectors, labels = _world(noise=0.05)
    seen = np.array([WORDS.index(label) < 60 for label in labels])
    fit = fit_names(space, vectors[seen], [label for label, s in zip(labels, seen, strict=True) if s])
    assert fit.classes == 60 and fit.top1 > 0.9 and fit.top5 >= fit.top1
    # Of the twenty names that were left out, most find an object of their own first, and objects their own name.
    unseen, names = vectors[~seen], np.array([label for label, s in zip(labels, seen, strict=True) if not s])
    asked = np.stack([fit.space.object_vector(name) for name in WORDS[60:]])
    assert np.mean(names[(unseen @ asked.T).argmax(axis=0)] == np.array(WORDS[60:])) > 0.7
    assert np.mean(np.array(WORDS[60:])[fit.space.name_scores(unseen, WORDS[60:]).argmax(axis=1)] == names) > 0.9
    with raises_code(NoTextError, "unknown_name", "'thing'", "80 names"):
        fit.space.name_scores(unseen, ["thing"])
    np.testing.assert_allclose(np.linalg.norm(asked, axis=1), 1, atol=1e-5)


def test_what_is_told_of_held_out_classes_is_not_what_was_learnt_by_heart() -> None:
    """Names that have nothing to do with the objects: known by heart, and held out no better than chance."""
    space, _, labels = _world(noise=0, dim=200)
    rng = np.random.default_rng(1)
    places = rng.standard_normal((80, 200))  # so many dimensions that every class can be learnt by heart
    vectors = np.stack([places[WORDS.index(label)] for label in labels]).astype(np.float32)
    fit = fit_names(space, vectors, labels)
    by_heart = np.array(WORDS)[fit.space.name_scores(vectors, WORDS).argmax(axis=1)] == labels
    assert by_heart.mean() > 0.9, by_heart.mean()
    assert fit.top1 < 0.08 and fit.top5 < 0.25, (fit.top1, fit.top5)  # of forty names: chance is 0.025 and 0.125


def test_the_map_does_not_depend_on_how_often_a_class_is_there() -> None:
    space, vectors, labels = _world(noise=0.2)
    once = fit_names(space, vectors, labels)
    rows = [i for i, label in enumerate(labels) for _ in range(1 + 4 * (label < WORDS[40]))]
    again = fit_names(space, vectors[rows], [labels[i] for i in rows])
    assert again.penalty == once.penalty
    np.testing.assert_allclose(again.space.projection, once.space.projection, atol=1e-4)  # type: ignore[arg-type]
    np.testing.assert_allclose(again.space.mean, once.space.mean, atol=1e-4)  # type: ignore[arg-type]


def test_labels_without_a_known_name_are_left_out() -> None:
    space, vectors, labels = _world(noise=0.1)
    spoilt = [
        f"un{label.replace(' ', '')}" if i % 3 == 0 else f"Shelf/{label.title()}" for i, label in enumerate(labels)
    ]
    kept = [i for i, label in enumerate(spoilt) if label.startswith("Shelf")]
    fit = fit_names(space, vectors, spoilt)
    wanted = fit_names(space, vectors[kept], [spoilt[i] for i in kept])
    np.testing.assert_array_equal(fit.space.projection, wanted.space.projection)  # type: ignore[arg-type]


def test_too_few_names_are_refused_and_two_are_enough() -> None:
    space, vectors, _ = _world(noise=0.1)
    with pytest.raises(TrainingError, match="knows 1 of the 2 class names; 2 or more"):
        fit_names(space, vectors[:2], [WORDS[0], "unheard of"])
    fit = fit_names(space, vectors[:2], WORDS[:2])  # one object each: held out, nothing is left that varies
    assert fit.classes == 2 and np.isfinite(fit.space.projection).all()  # type: ignore[union-attr]
