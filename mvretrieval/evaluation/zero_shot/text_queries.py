"""Text as queries for a collection's objects: by its CLIP encoder, or by the text embeddings of its adapter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mvretrieval.describe import IMAGE_STYLES, Describer
from mvretrieval.errors import NoTextError
from mvretrieval.normalize import l2_normalize
from mvretrieval.session.session import Session
from mvretrieval.weighting.text_embeddings import TextEmbeddings

# The value that CLIP's training converges to, for an encoder without a known temperature.
CLIP_TEMPERATURE = 0.01
# Cosines between objects and mapped names have a wider spread than CLIP's. Normalized entropies of PSB's train views have
# their first and last decile at 0.07 and 0.83 with 0.07, and at 0.29 and 0.92 with 0.1; with 0.02 most views are near 0, with
# 0.2 none. Accuracy cannot choose it there: the classes are training classes.
NAMES_TEMPERATURE = 0.08

_MAX_PROMPTS = 512  # encoded at once

Score = Callable[[NDArray[np.float32]], NDArray[np.float64]]
"""(n, D) object vectors, or view vectors in the same space -> (n, C), higher is better."""


@dataclass(frozen=True)
class ClassNameClassifier:
    """Class names that objects are scored against.

    Attributes:
        names: C known names, in the given order.
        unknown: the other names.
        score: similarity of vectors to each name; rounded, so that equal vectors have equal scores on any machine.
        temperature: default temperature of a softmax over the classes.
        source: text encoder, for messages.
    """

    names: tuple[str, ...]
    unknown: tuple[str, ...]
    score: Score
    temperature: float
    source: str


@dataclass(frozen=True)
class TextQueries:
    """Texts as vectors in the space of the objects.

    Attributes:
        kept: (Q,) positions of the known texts.
        vectors: (Q, D), unit norm.
        unknown: the other texts.
    """

    kept: NDArray[np.int64]
    vectors: NDArray[np.float32]
    unknown: tuple[str, ...]


def class_name_classifier(session: Session, names: Sequence[str], templates: Sequence[str]) -> ClassNameClassifier:
    """Make a classifier from class names.

    Args:
        session: open collection.
        names: names as `plain_name` returns them.
        templates: prompt templates for a CLIP encoder; an adapter's text embeddings use the bare names.

    Raises:
        NoTextError: the collection has neither a text tower nor text embeddings.
    """
    embeddings = text_embeddings_of(session)
    if embeddings is not None:
        known = tuple(name for name in names if embeddings.direction_of(name) is not None)

        def by_embeddings(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
            if not known:
                return np.zeros((len(vectors), 0))
            return np.asarray(embeddings.name_scores(vectors, known).astype(np.float64).round(6))

        source = f"the adapter's {len(embeddings)} names"
        return ClassNameClassifier(known, _others(names, known), by_embeddings, NAMES_TEMPERATURE, source)
    known = tuple(name for name in names if name)
    matrix = _text_matrix(session, known, templates).astype(np.float64)

    def by_cosine(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
        return np.asarray((vectors.astype(np.float64) @ matrix.T).round(9))

    encoder = session.describer.encoder
    temperature = encoder.temperature or CLIP_TEMPERATURE
    return ClassNameClassifier(known, _others(names, known), by_cosine, temperature, encoder.id)


def encode_text_queries(session: Session, texts: Sequence[str], templates: Sequence[str] = ("{}",)) -> TextQueries:
    """Encode texts as query vectors; unknown texts are left out.

    Raises:
        NoTextError: the collection has neither a text tower nor text embeddings.
    """
    embeddings = text_embeddings_of(session)
    if embeddings is None:
        kept = np.array([i for i, text in enumerate(texts) if text.strip()], np.int64)
        vectors = _text_matrix(session, [texts[i] for i in kept], templates)
    else:
        kept = np.array([i for i, text in enumerate(texts) if embeddings.direction_of(text) is not None], np.int64)
        mapped = [embeddings.object_vector(texts[i]) for i in kept]
        vectors = np.array(mapped, np.float32).reshape(len(kept), session.dim)
    known = set(kept.tolist())
    return TextQueries(kept, vectors, tuple(text for i, text in enumerate(texts) if i not in known))


def text_embeddings_of(session: Session) -> TextEmbeddings | None:
    """Return the text embeddings of a collection's adapter; None where its encoder has a text tower.

    Raises:
        NoTextError: the collection has neither.
    """
    adapter = session.describer.adapter
    if adapter is not None and adapter.text_embeddings is not None:
        return adapter.text_embeddings
    session.check_encoder()
    if not session.describer.encoder.has_text:
        folder = session.folder
        raise NoTextError(
            f"{session.describer.encoder.id} has no text tower, and {folder} has no text embeddings. Train a map to them with\n"
            f"  mvr train {folder} --by label --text-embeddings NAMES.npz --out ADAPTER/\n"
            f"  mvr reindex {folder} --adapter ADAPTER/\n"
            "where NAMES.npz holds names (N,) and their vectors (N, E) of a text encoder; or index with an encoder that has a "
            "text tower, such as open_clip:ViT-B-32/laion2b_s34b_b79k"
        )
    return None


def text_matrix(describer: Describer, texts: Sequence[str], templates: Sequence[str]) -> NDArray[np.float32]:
    """Encode texts with a CLIP encoder: (C, S * K), unit norm, each the mean over the templates.

    As in a search, text is compared with the photo-like styles only, if the describer has any.
    """
    prompts = [template.format(text) for text in texts for template in templates]
    parts = [describer.encoder.encode_text(prompts[i : i + _MAX_PROMPTS]) for i in range(0, len(prompts), _MAX_PROMPTS)]
    raw = np.concatenate(parts).reshape(len(texts), len(templates), -1).mean(axis=1)
    vectors = describer.text_vectors(l2_normalize(raw).astype(np.float32)).reshape(len(texts), describer.n_styles, -1)
    kept = np.array([style in IMAGE_STYLES for style in describer.config.styles], np.float32)
    if kept.any():
        vectors = vectors * kept[:, None]
    return l2_normalize(vectors.reshape(len(texts), -1))


def _text_matrix(session: Session, texts: Sequence[str], templates: Sequence[str]) -> NDArray[np.float32]:
    if not texts:
        return np.zeros((0, session.dim), np.float32)
    return text_matrix(session.describer, texts, templates)


def _others(names: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    known_names = set(known)
    return tuple(name for name in names if name not in known_names)
