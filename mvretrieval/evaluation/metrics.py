"""Textbook retrieval metrics. Each is per query; a query that is in the gallery is excluded from its own ranking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvretrieval.errors import ShapeError

METRICS = ("NN", "FT", "ST", "DCG", "mAP")


@dataclass(frozen=True)
class Evaluation:
    """Per-query results and their means.

    Attributes:
        queries: (Q,) index of each query among the objects.
        values: metric -> (Q,) in 0..1.
        skipped: queries without a relevant item.
    """

    queries: NDArray[np.int64]
    values: dict[str, NDArray[np.float64]]
    skipped: int

    def means(self) -> dict[str, float]:
        """Metric -> mean over the queries; NaN where there is no query."""
        return {name: float(values.mean()) if len(values) else float("nan") for name, values in self.values.items()}


def leave_one_out(vectors: NDArray[np.float32], labels: Sequence[Any], block: int = 512) -> Evaluation:
    """Every object asks for its like among all others.

    Args:
        vectors: (N, D), unit norm.
        labels: N; an object without one (None) is neither asked nor relevant, but stays in the gallery.
        block: queries ranked at once.

    Returns:
        Metrics for the queries that have a relevant item. Equal scores are ranked by position.

    Raises:
        ShapeError: there are not as many labels as vectors.
    """
    if len(vectors) != len(labels):
        raise ShapeError(f"{len(vectors)} vectors have {len(labels)} labels")
    names: dict[Any, int] = {}
    codes = np.array([-1 if label is None else names.setdefault(label, len(names)) for label in labels], np.int64)
    counts = np.bincount(codes[codes >= 0], minlength=len(names))
    n_relevant = np.where(codes >= 0, counts[codes] - 1, 0) if len(names) else np.zeros(len(codes), np.int64)
    asked = np.flatnonzero(n_relevant > 0)
    results: dict[str, list[NDArray[np.float64]]] = {name: [] for name in METRICS}
    for start in range(0, len(asked), block):
        queries = asked[start : start + block]
        scores = vectors[queries] @ vectors.T
        scores[np.arange(len(queries)), queries] = -np.inf
        ranking = np.argsort(-scores, axis=1, kind="stable")[:, :-1]
        relevant = codes[ranking] == codes[queries, None]
        for name, values in ranked_metrics(relevant, n_relevant[queries]).items():
            results[name].append(values)
    joined = {name: np.concatenate(parts) if parts else np.empty(0) for name, parts in results.items()}
    return Evaluation(asked, joined, int((codes >= 0).sum() - len(asked)))


def ranked_metrics(relevant: NDArray[np.bool_], n_relevant: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """Metrics of full rankings.

    NN: the first is relevant. FT, ST: recall among the first R and 2R, R being the number of relevant items. DCG:
    discounted by log2(rank) from rank 2, divided by the query's own ideal (Shilane et al. 2004). mAP: mean of the
    precision at each relevant item, not interpolated.

    Args:
        relevant: (Q, N) in order of rank.
        n_relevant: (Q,) at least 1.
    """
    n = relevant.shape[1]
    ranks = np.arange(1, n + 1)
    hits = relevant.cumsum(axis=1)
    rows = np.arange(len(relevant))
    discount = 1 / np.maximum(1.0, np.log2(ranks))
    ideal = discount.cumsum()[n_relevant - 1]
    return {
        "NN": relevant[:, 0].astype(float),
        "FT": hits[rows, np.minimum(n_relevant, n) - 1] / n_relevant,
        "ST": hits[rows, np.minimum(2 * n_relevant, n) - 1] / n_relevant,
        "DCG": (relevant * discount).sum(axis=1) / ideal,
        "mAP": (relevant * hits / ranks).sum(axis=1) / n_relevant,
    }


def ndcg_at(k: int, relevant: NDArray[np.bool_], n_relevant: NDArray[np.int64]) -> NDArray[np.float64]:
    """NDCG@k with binary gain, discount 1/log2(rank + 1) and the query's own ideal."""
    discount = 1 / np.log2(np.arange(2, k + 2))
    top = relevant[:, :k]
    ideal = discount.cumsum()[np.minimum(n_relevant, k) - 1]
    return np.asarray((top * discount[: top.shape[1]]).sum(axis=1) / ideal)


def recall_at(k: int, relevant: NDArray[np.bool_], n_relevant: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share of the relevant items among the first k."""
    return np.asarray(relevant[:, :k].sum(axis=1) / n_relevant)
