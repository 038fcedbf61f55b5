"""2-D embedding of a collection: similar objects are near each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# t-SNE of 2,000 objects takes ten seconds on one core; time grows slightly faster than linearly.
MAP_LIMIT = 2000
N_GROUPS = 12
_PCA_DIMENSIONS = 50
_PERPLEXITY = 30.0


def evenly(class_ids: NDArray[np.int64], limit: int = MAP_LIMIT) -> NDArray[np.int64]:
    """Sample at most `limit` indices of (N,) class ids, in ascending order and in proportion to class size."""
    by_class = np.argsort(class_ids, kind="stable")
    picked = np.linspace(0, len(class_ids) - 1, min(limit, len(class_ids))).astype(np.int64)
    return np.sort(by_class[picked])


def place(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Compute positions (N, 2) around the origin by PCA and then t-SNE (van der Maaten & Hinton 2008), deterministically.

    Fewer than six objects are placed by PCA alone; equal objects are placed at the origin.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    n = len(vectors)
    if n < 2 or float(np.ptp(vectors, axis=0).max(initial=0)) < 1e-6:
        return np.zeros((n, 2))
    dim = min(_PCA_DIMENSIONS, *vectors.shape)
    solver = "full" if n <= 500 else "randomized"
    reduced = PCA(dim, svd_solver=solver, random_state=0).fit_transform(vectors.astype(float))
    plane = np.zeros((n, 2))
    plane[:, : min(2, dim)] = reduced[:, :2]
    if n < 6:
        return plane
    # Initialized by PCA, so that the global structure does not depend on the seed; at the scale of scikit-learn's own init.
    start = plane / plane[:, 0].std() * 1e-4
    tsne = TSNE(perplexity=min(_PERPLEXITY, (n - 1) / 3), init=start, random_state=0)
    placed = np.asarray(tsne.fit_transform(reduced), float)
    return np.asarray(placed - (placed.min(axis=0) + placed.max(axis=0)) / 2)


def groups_of(names: Sequence[str], counts: Sequence[int]) -> tuple[list[int], list[str]]:
    """Group classes for colours by the first part of names such as `vehicle/car`; the largest `N_GROUPS` groups.

    If all names have the same first part, by the first parts that differ.

    Args:
        names: names of the classes.
        counts: number of objects of each class.

    Returns:
        Group of each class, -1 for the small remaining ones, and the names of the groups, largest first.
    """
    parts = [name.split("/") for name in names]
    depth, deepest = 1, max(map(len, parts), default=1)
    while depth < deepest and len({tuple(p[:depth]) for p in parts}) == 1:
        depth += 1
    heads = ["/".join(p[:depth]) for p in parts]
    sizes: Counter[str] = Counter()
    for head, count in zip(heads, counts, strict=True):
        sizes[head] += count
    largest = [head for head, _ in sorted(sizes.items(), key=lambda item: (-item[1], item[0]))[:N_GROUPS]]
    return [largest.index(head) if head in largest else -1 for head in heads], largest
