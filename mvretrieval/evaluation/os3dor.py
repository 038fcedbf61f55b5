"""Metrics as implemented by the open-set 3D object retrieval benchmarks, for comparison with their tables.

The names are the textbook's, the values are not: mAP is interpolated, the ideal DCG is the same for every query, and ANMRR
differs from MPEG-7's. Published with OS-ESB, OS-NTU, OS-MN40 and OS-ABO (Feng et al., "Hypergraph-based multi-modal
representation for open-set 3D object retrieval", TPAMI 2023). Never mix them with the metrics of `metrics` in one table.
Their "recall@100" divides by the number of queries of the class, which is misleading; it is omitted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mvretrieval.evaluation.metrics import Measure, ranked_metrics

DEPTH = 100  # cut-off of NDCG, and relevant items of its ideal ranking


def os3dor_measure(n_relevant: NDArray[np.int64]) -> Measure:
    """Return the metric function of one benchmark.

    Args:
        n_relevant: (Q,) relevant items of all queries. ANMRR depends on the largest.
    """
    return partial(os3dor_metrics, max_relevant=int(n_relevant.max(initial=1)))


def os3dor_metrics(
    relevant: NDArray[np.bool_], n_relevant: NDArray[np.int64], max_relevant: int
) -> dict[str, NDArray[np.float64]]:
    """Compute mAP, NDCG@100 and ANMRR of full rankings that exclude the query itself.

    mAP: precision at each relevant item, interpolated as p[i] = max(p[i:]), mean over the relevant items.

    NDCG@100: sum over the first 100 of relevance / log2(rank + 1), divided by that of 100 relevant items. With few
    relevant items the maximum is far below 1.

    ANMRR, per query: NG relevant items, K = min(4 NG, 2 max NG). Each of the first NG ranks costs its rank if the item is
    relevant and K + 1 if not; ARR is the mean cost. (ARR - NG / 2 - 1 / 2) / (K - NG / 2 + 1 / 2): 0 is best, 1 is worst.

    Args:
        relevant: (Q, G) relevance by rank; False where nothing was ranked.
        n_relevant: (Q,) relevant items, at least 1.
        max_relevant: the largest NG of the benchmark.
    """
    g = relevant.shape[1]
    ranks = np.arange(1, g + 1)
    at_hits = np.where(relevant, relevant.cumsum(axis=1) / ranks, 0.0)
    interpolated = np.maximum.accumulate(at_hits[:, ::-1], axis=1)[:, ::-1]
    discount = 1 / np.log2(np.arange(2, DEPTH + 2))
    top = relevant[:, :DEPTH]
    limit = np.minimum(4 * n_relevant, 2 * max_relevant)
    counted = ranks <= n_relevant[:, None]
    unranked = np.maximum(n_relevant - g, 0) * (limit + 1)  # ranks beyond the end of a truncated ranking
    cost = np.where(relevant, ranks, limit[:, None] + 1)
    mean_rank = ((cost * counted).sum(axis=1) + unranked) / n_relevant
    return {
        "mAP": (interpolated * relevant).sum(axis=1) / n_relevant,
        "NDCG@100": (top * discount[: top.shape[1]]).sum(axis=1) / discount.sum(),
        "ANMRR": (mean_rank - n_relevant / 2 - 0.5) / (limit - n_relevant / 2 + 0.5),
    }


FamilyName = Literal["textbook", "os3dor"]
FAMILIES: Mapping[FamilyName, Callable[[NDArray[np.int64]], Measure]] = {
    "textbook": lambda n_relevant: ranked_metrics,
    "os3dor": os3dor_measure,
}
"""Families of metrics: (Q,) numbers of relevant items -> metric function."""
