"""Words as vectors among a collection's objects: by its CLIP encoder, or by the names that its adapter has learnt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mvretrieval.api import Collection
from mvretrieval.describe import IMAGE_STYLES, Describer
from mvretrieval.errors import NoTextError
from mvretrieval.normalize import l2_normalize
from mvretrieval.weighting.text_embeddings import TextEmbeddings

# Where CLIP's training stops: of an encoder that does not say how it was trained.
CLIP_TEMPERATURE = 0.01
# Cosines between objects and mapped names spread wider than CLIP's. Entropies of PSB's train views, in shares of the largest,
# have their first and last tenth at 0.07 and 0.83 with 0.07, and at 0.29 and 0.92 with 0.1; 0.02 makes most views sure and
# 0.2 none. Accuracy cannot choose it there: the classes are known by heart.
NAMES_TEMPERATURE = 0.08

_PROMPTS = 512  # encoded at once

Score = Callable[[NDArray[np.float32]], NDArray[np.float64]]
"""(n, D) object vectors, or vectors of views as objects -> (n, C), higher is better."""


@dataclass(frozen=True)
class Words:
    """Class names that can be compared with objects.

    Attributes:
        names: C, those that are known, in the order asked for.
        unknown: the others.
        score: how well each name fits; rounded, so that equal vectors have equal scores on any machine.
        temperature: what scores are divided by before a softmax over the classes, unless something else is asked for.
        source: who reads, for people.
    """

    names: tuple[str, ...]
    unknown: tuple[str, ...]
    score: Score
    temperature: float
    source: str


@dataclass(frozen=True)
class Directions:
    """Texts as object vectors.

    Attributes:
        kept: (Q',) places of the known ones among those asked for.
        vectors: (Q', D) unit norm.
        unknown: texts that are not known.
    """

    kept: NDArray[np.int64]
    vectors: NDArray[np.float32]
    unknown: tuple[str, ...]


def class_words(collection: Collection, names: Sequence[str], templates: Sequence[str]) -> Words:
    """Class names to be compared with a collection's objects.

    Args:
        collection: open.
        names: as `plain_name` gives them.
        templates: for an encoder that reads; a named text space knows the bare names.

    Raises:
        NoTextError: the collection knows no words.
    """
    space = text_embeddings(collection)
    if space is not None:
        known = tuple(name for name in names if space.direction_of(name) is not None)

        def by_names(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
            if not known:
                return np.zeros((len(vectors), 0))
            return np.asarray(space.name_scores(vectors, known).astype(np.float64).round(6))

        return Words(known, _others(names, known), by_names, NAMES_TEMPERATURE, f"the adapter's {len(space)} names")
    said = tuple(name for name in names if name)
    matrix = _matrix(collection, said, templates).astype(np.float64)

    def by_cosine(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
        return np.asarray((vectors.astype(np.float64) @ matrix.T).round(9))

    encoder = collection.describer.encoder
    temperature = encoder.temperature or CLIP_TEMPERATURE
    return Words(said, _others(names, said), by_cosine, temperature, encoder.id)


def directions(collection: Collection, texts: Sequence[str], templates: Sequence[str] = ("{}",)) -> Directions:
    """Texts as vectors that objects are searched with; those that are not known are left out.

    Raises:
        NoTextError: the collection knows no words.
    """
    space = text_embeddings(collection)
    if space is None:
        kept = np.array([i for i, text in enumerate(texts) if text.strip()], np.int64)
        vectors = _matrix(collection, [texts[i] for i in kept], templates)
    else:
        kept = np.array([i for i, text in enumerate(texts) if space.direction_of(text) is not None], np.int64)
        vectors = np.array([space.object_vector(texts[i]) for i in kept], np.float32).reshape(len(kept), collection.dim)
    there = set(kept.tolist())
    return Directions(kept, vectors, tuple(text for i, text in enumerate(texts) if i not in there))


def text_embeddings(collection: Collection) -> TextEmbeddings | None:
    """The names that a collection's adapter has learnt; None where its encoder reads words by itself.

    Raises:
        NoTextError: neither.
    """
    adapter = collection.describer.adapter
    if adapter is not None and adapter.text_embeddings is not None:
        return adapter.text_embeddings
    collection.check_encoder()
    if not collection.describer.encoder.has_text:
        name = collection.folder
        raise NoTextError(
            f"{collection.describer.encoder.id} reads no words, and {name} has learnt no names. Learn some with\n"
            f"  mvr train {name} --by label --text-embeddings NAMES.npz --out ADAPTER/\n  mvr reindex {name} --adapter ADAPTER/\n"
            "where NAMES.npz holds names (N,) and their vectors (N, E) of a text encoder; or index with an encoder that has a "
            "text tower, such as open_clip:ViT-B-32/laion2b_s34b_b79k"
        )
    return None


def text_matrix(describer: Describer, texts: Sequence[str], templates: Sequence[str]) -> NDArray[np.float32]:
    """(C, S * K) unit vectors of one or more texts by a CLIP encoder, each the mean over the templates.

    As in a search, words are compared with the styles that look like pictures, if the describer has any.
    """
    prompts = [template.format(text) for text in texts for template in templates]
    parts = [describer.encoder.encode_text(prompts[i : i + _PROMPTS]) for i in range(0, len(prompts), _PROMPTS)]
    raw = np.concatenate(parts).reshape(len(texts), len(templates), -1).mean(axis=1)
    vectors = describer.text_vectors(l2_normalize(raw).astype(np.float32)).reshape(len(texts), describer.n_styles, -1)
    kept = np.array([style in IMAGE_STYLES for style in describer.config.styles], np.float32)
    if kept.any():
        vectors = vectors * kept[:, None]
    return l2_normalize(vectors.reshape(len(texts), -1))


def _matrix(collection: Collection, texts: Sequence[str], templates: Sequence[str]) -> NDArray[np.float32]:
    if not texts:
        return np.zeros((0, collection.dim), np.float32)
    return text_matrix(collection.describer, texts, templates)


def _others(names: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    there = set(known)
    return tuple(name for name in names if name not in there)
