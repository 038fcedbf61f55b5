"""Significance tests: paired comparison of two runs over the same queries."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mvretrieval.errors import EvaluationError
from mvretrieval.evaluation.metrics import Evaluation

DRAWS = 10_000
_MAX_CELLS = 1 << 22  # of a block of draws


@dataclass(frozen=True)
class Difference:
    """Difference of two runs by one metric, over their common queries.

    Attributes:
        queries: number of common queries.
        first: mean of the first run.
        second: mean of the second run.
        difference: first minus second.
        low: lower end of the difference's confidence interval.
        high: upper end.
        p: two-sided p-value of the null hypothesis that the runs are exchangeable.
    """

    queries: int
    first: float
    second: float
    difference: float
    low: float
    high: float
    p: float


def compare(
    first: Evaluation, second: Evaluation, seed: int = 0, draws: int = DRAWS, level: float = 0.95
) -> dict[str, Difference]:
    """Test two runs, matched by query id.

    Args:
        first: run with ids.
        second: run with ids.
        seed: seed of the draws.
        draws: draws of the test, and of the interval.
        level: confidence level of the interval.

    Returns:
        Metric -> difference, for the common metrics.

    Raises:
        EvaluationError: the runs have no query or no metric in common, or no ids.
    """
    if first.ids is None or second.ids is None:
        raise EvaluationError("runs are matched by query id: evaluate both runs with ids", code="no_ids")
    position = {query: i for i, query in enumerate(second.ids)}
    pairs = [(i, position[query]) for i, query in enumerate(first.ids) if query in position]
    names = [name for name in first.values if name in second.values]
    if not pairs or not names:
        raise EvaluationError(
            f"the runs have {len(pairs)} queries and {len(names)} metrics in common "
            f"(of {len(first.ids)} and {len(second.ids)} queries): evaluate the same objects with the same metrics",
            code="nothing_in_common",
        )
    mine, other = np.array(pairs).T
    one = np.stack([first.values[name][mine] for name in names], axis=1)
    two = np.stack([second.values[name][other] for name in names], axis=1)
    p = randomization_p(one - two, seed, draws)
    low, high = bootstrap_interval(one - two, seed, draws, level)
    return {
        name: Difference(
            len(pairs),
            float(one[:, m].mean()),
            float(two[:, m].mean()),
            float((one - two)[:, m].mean()),
            float(low[m]),
            float(high[m]),
            float(p[m]),
        )
        for m, name in enumerate(names)
    }


def randomization_p(differences: NDArray[np.float64], seed: int = 0, draws: int = DRAWS) -> NDArray[np.float64]:
    """Two-sided p-value of the paired randomization test (Fisher; for retrieval: Smucker, Allan and Carterette 2007).

    Under the null hypothesis the two values of a query are exchangeable: signs are flipped at random, and p is the fraction
    of draws whose mean is at least as far from zero. The observed signs count as one draw, so p is never 0 (Phipson and
    Smyth 2010).

    Args:
        differences: (n, M), n queries by M metrics. All metrics use the same draws.
        seed: seed of the draws.
        draws: number of draws.

    Returns:
        (M,) in 1 / (draws + 1) .. 1.
    """
    rng = np.random.default_rng(seed)
    n = len(differences)
    observed = np.abs(differences.sum(axis=0))
    # Tolerance: sums of the same numbers in another order differ in the last digits.
    enough = observed - 1e-9 * np.abs(differences).sum(axis=0)
    as_far = np.ones(differences.shape[1])
    for size in _blocks(draws, n):
        signs = rng.integers(0, 2, size=(size, n), dtype=np.int8) * 2.0 - 1
        as_far += (np.abs(signs @ differences) >= enough).sum(axis=0)
    return np.asarray(as_far / (draws + 1))


def bootstrap_interval(
    differences: NDArray[np.float64], seed: int = 0, draws: int = DRAWS, level: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Percentile bootstrap interval of the mean, queries drawn with replacement (Efron 1979).

    Args:
        differences: (n, M), n queries by M metrics.
        seed: seed of the draws.
        draws: number of draws.
        level: confidence level.

    Returns:
        Lower and upper ends, (M,) each.
    """
    rng = np.random.default_rng(seed)
    n = len(differences)
    means = []
    for size in _blocks(draws, n):
        drawn = rng.integers(0, n, size=(size, n)) + n * np.arange(size)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n)
        means.append(counts @ differences / n)
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def _blocks(draws: int, n: int) -> list[int]:
    size = max(1, _MAX_CELLS // n)
    return [min(size, draws - start) for start in range(0, draws, size)]
