"""Projection from text embeddings of class names to object vectors."""

from __future__ import annotations

import numpy as np
import pytest
from error_codes import raises_code

from mvretrieval.errors import EncoderError, TrainingError
from mvretrieval.weighting.text_embeddings import TextEmbeddings
from mvtrain.class_names import fit_text_projection

NAMES = [f"thing {chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(80)]


def _data(noise: float, seed: int = 0, dim: int = 6) -> tuple[TextEmbeddings, np.ndarray, list[str]]:
    """Object vectors (N, 12), unit norm: a true linear projection of the text vectors of 80 names, plus noise."""
    rng = np.random.default_rng(seed)
    text_embeddings = TextEmbeddings(
        tuple(NAMES), (rng.standard_normal((80, dim)) + 3).astype(np.float32)
    )  # in a cone, as text vectors of CLIP are
    true_map = rng.standard_normal((dim, 12))
    labels = [name for i, name in enumerate(NAMES) for _ in range(2 + i % 5)]
    projected = np.stack([text_embeddings.direction_of(name) for name in labels]) @ true_map  # type: ignore[misc]
    vectors = projected + noise * rng.standard_normal(projected.shape) + 5
    return text_embeddings, (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), labels


def test_a_linear_projection_generalizes_to_unseen_names() -> None:
    text_embeddings, vectors, labels = _data(noise=0.05)
    seen = np.array([NAMES.index(label) < 60 for label in labels])
    fit = fit_text_projection(
        text_embeddings, vectors[seen], [label for label, s in zip(labels, seen, strict=True) if s]
    )
    assert fit.n_classes == 60 and fit.top1 > 0.9 and fit.top5 >= fit.top1
    # Retrieval by the 20 unseen names, and classification of their objects.
    unseen, names = vectors[~seen], np.array([label for label, s in zip(labels, seen, strict=True) if not s])
    queries = np.stack([fit.text_embeddings.object_vector(name) for name in NAMES[60:]])
    assert np.mean(names[(unseen @ queries.T).argmax(axis=0)] == np.array(NAMES[60:])) > 0.7
    assert (
        np.mean(np.array(NAMES[60:])[fit.text_embeddings.name_scores(unseen, NAMES[60:]).argmax(axis=1)] == names) > 0.9
    )
    with pytest.raises(EncoderError, match=r"'thing'.*80"):
        fit.text_embeddings.name_scores(unseen, ["thing"])
    np.testing.assert_allclose(np.linalg.norm(queries, axis=1), 1, atol=1e-5)


def test_accuracy_on_held_out_names_is_at_chance_for_random_names() -> None:
    """Names unrelated to the objects are memorized, and held-out names are classified at chance level."""
    text_embeddings, _, labels = _data(noise=0, dim=200)
    rng = np.random.default_rng(1)
    places = rng.standard_normal((80, 200))  # enough dimensions to memorize every class
    vectors = np.stack([places[NAMES.index(label)] for label in labels]).astype(np.float32)
    fit = fit_text_projection(text_embeddings, vectors, labels)
    memorized = np.array(NAMES)[fit.text_embeddings.name_scores(vectors, NAMES).argmax(axis=1)] == labels
    assert memorized.mean() > 0.9, memorized.mean()
    assert fit.top1 < 0.08 and fit.top5 < 0.25, (fit.top1, fit.top5)  # of forty names: chance is 0.025 and 0.125


def test_the_projection_does_not_depend_on_class_sizes() -> None:
    text_embeddings, vectors, labels = _data(noise=0.2)
    once = fit_text_projection(text_embeddings, vectors, labels)
    rows = [i for i, label in enumerate(labels) for _ in range(1 + 4 * (label < NAMES[40]))]
    again = fit_text_projection(text_embeddings, vectors[rows], [labels[i] for i in rows])
    assert again.penalty == once.penalty
    np.testing.assert_allclose(again.text_embeddings.projection, once.text_embeddings.projection, atol=1e-4)  # type: ignore[arg-type]
    np.testing.assert_allclose(again.text_embeddings.mean, once.text_embeddings.mean, atol=1e-4)  # type: ignore[arg-type]


def test_classes_without_a_known_name_are_left_out() -> None:
    text_embeddings, vectors, labels = _data(noise=0.1)
    mixed = [
        f"un{label.replace(' ', '')}" if i % 3 == 0 else f"Shelf/{label.title()}" for i, label in enumerate(labels)
    ]
    kept = [i for i, label in enumerate(mixed) if label.startswith("Shelf")]
    fit = fit_text_projection(text_embeddings, vectors, mixed)
    expected = fit_text_projection(text_embeddings, vectors[kept], [mixed[i] for i in kept])
    np.testing.assert_array_equal(fit.text_embeddings.projection, expected.text_embeddings.projection)


def test_two_known_names_are_needed() -> None:
    text_embeddings, vectors, _ = _data(noise=0.1)
    with raises_code(TrainingError, "too_few_names", "1 of the 2"):
        fit_text_projection(text_embeddings, vectors[:2], [NAMES[0], "unheard of"])
    fit = fit_text_projection(
        text_embeddings, vectors[:2], NAMES[:2]
    )  # one object each: held-out folds have a single class
    assert fit.n_classes == 2 and np.isfinite(fit.text_embeddings.projection).all()  # type: ignore[arg-type]
