"""A FAISS index that proposes candidates for exact re-scoring, made from a factory string."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import faiss as _faiss
import numpy as np
from numpy.typing import NDArray

from mvretrieval.errors import CollectionError
from mvretrieval.index.kinds import FEWEST_WITH_CODES, IndexKind, IndexParameters, factory_of, is_named, n_lists_for

faiss: Any = _faiss  # its type stubs are incomplete

_SAMPLE_PER_LIST = 64
_FEWEST_SAMPLES = 1 << 16
_ITERATIONS = 8
_POINTS_PER_CENTROID = 39  # FAISS's own limit, below which it warns
# Share of the lists. 1/60 is enough for a million vectors but not for 100,000, and 1/16 is hardly slower.
_SEARCHED_SHARE = 1 / 16
_FEWEST_SEARCHED = 32
_EF_CONSTRUCTION = 128
# Length of the candidate list: at least, and per root of the number of vectors. Recall@10 is 0.99 at 200,000 and at a million.
_EF_SEARCH = (96, 0.26)
# A graph is searched on the principal axes that hold this share of the variance, if they are at most half of all: with fewer
# axes a comparison costs less, and the candidates are re-scored anyway. Axes of whitened vectors are all alike.
_VARIANCE_KEPT = 0.9
_MOST_AXES = 0.5
_SAMPLE_FOR_AXES = 20_000
# Candidates of lists, whose codes are coarse: per hit, and at least.
_FROM_LISTS = (10, 500)
# Candidates of graphs: per hit, and as many as this unless a quarter of the candidate list is more.
_FROM_GRAPHS = (2, 40)
_MOST_PARAMETERS = 100  # kept, since every request of a service may name others


def check_factory(factory: str, dim: int) -> None:
    """Raise if FAISS cannot make an index of this factory string for vectors of `dim` numbers.

    Raises:
        CollectionError: code `bad_index_kind`.
    """
    _make(factory, dim)


def reason_of(error: Exception | None) -> str:
    """What an error of FAISS says, without the place in its source."""
    return re.sub(r"^Error in .* at \S+:\d+: (Error: )?", "", str(error), flags=re.DOTALL).strip()


def _make(factory: str, dim: int) -> Any:
    failure = None
    # Vectors of unit length rank by L2 as by their inner products. Some kinds have only L2; and FAISS's PCA subtracts the mean,
    # which changes inner products but no distances.
    metrics = [faiss.METRIC_INNER_PRODUCT, faiss.METRIC_L2]
    for metric in metrics[::-1] if "PCA" in factory else metrics:
        try:
            index = faiss.index_factory(dim, factory, metric)
            if not isinstance(index, faiss.IndexIDMap):
                return index
            failure = RuntimeError("objects have numbers already: leave IDMap out")
        except RuntimeError as error:
            failure = failure or error
    raise CollectionError(
        f"'{factory}' is neither auto, exact, hnsw, ivf or cagra nor an index that FAISS can make for {dim} dimensions "
        f"({reason_of(failure)}): see 'mvr index --index help'",
        code="bad_index_kind",
    ) from failure


def _trained(kind: IndexKind, sample: NDArray[np.float32], count: int) -> Any:
    """An empty FAISS index of a kind for `count` vectors, trained on a sample (n, D)."""
    n_axes = _n_axes(sample) if kind in ("hnsw", "cagra") else 0
    index = _make((f"PCA{n_axes}," if n_axes else "") + factory_of(kind, count), sample.shape[1])
    lists, graph = _lists_of(index), _graph_of(index)
    if lists is not None:
        clustering = lists.cp
        clustering.niter, clustering.spherical = _ITERATIONS, True
        clustering.min_points_per_centroid, clustering.max_points_per_centroid = 1, _SAMPLE_PER_LIST
    if graph is not None:
        graph.hnsw.efConstruction = _EF_CONSTRUCTION
    index.train(np.ascontiguousarray(sample, np.float32))
    return index


def _n_axes(sample: NDArray[np.float32]) -> int:
    """Number of principal axes to search a graph on, a multiple of 32; 0 for all dimensions."""
    some = sample[:: max(1, len(sample) // _SAMPLE_FOR_AXES)]
    variances = np.linalg.eigvalsh(np.cov(some, rowvar=False))[::-1].cumsum()
    n_axes = int(np.searchsorted(variances, _VARIANCE_KEPT * variances[-1])) + 1
    rounded = -(-n_axes // 32) * 32
    return rounded if rounded <= _MOST_AXES * sample.shape[1] else 0


def index_of_vectors(kind: IndexKind, vectors: NDArray[np.float32]) -> Any:
    """A FAISS index of vectors (n, D) in their order.

    Raises:
        CollectionError: FAISS cannot make such an index.
        RuntimeError: it cannot be trained on these vectors.
    """
    n, dim = vectors.shape
    if kind in ("auto", "exact"):
        index = faiss.IndexFlatIP(dim)
    else:
        size = FaissCandidates.sample_size(kind, dim, n)
        index = _trained(kind, vectors[np.linspace(0, n - 1, size).astype(np.int64)], n)
    index.add(vectors)
    return index


def metric_of(index: Any) -> str:
    """`inner product` or `L2`."""
    return "inner product" if index.metric_type == faiss.METRIC_INNER_PRODUCT else "L2"


def write_index(index: Any, path: Path) -> None:
    """Write a FAISS index.

    Raises:
        RuntimeError: the disk is full or read-only.
    """
    faiss.write_index(index, str(path))


class FaissCandidates:
    """A FAISS index by slot.

    Attributes:
        kind: `hnsw`, `ivf`, `cagra` or the factory string.
    """

    def __init__(self, index: Any, kind: IndexKind) -> None:
        """Use `FaissCandidates.trained` or `FaissCandidates.open`."""
        self.kind = kind
        self._index = index
        self._rotation, self._searched = _split_rotation(index)
        # pytorch-metric-learning imports faiss.contrib.torch_utils, whose `search` for tensors takes no parameters.
        self._search = getattr(self._searched, "search_numpy", self._searched.search)
        self._made_parameters: dict[IndexParameters, Any] = {}
        self._lists = _lists_of(index)
        self._graph = _graph_of(index)
        # FAISS 1.15 packs the codes of fast-scan lists in blocks, and does not clear what it removes from the last block: codes
        # that are added there later are wrong.
        is_plain = not any(isinstance(layer, faiss.IndexRefine) for layer in layers_of(index))
        self._deletes = self._lists is not None and is_plain and not isinstance(self._lists, faiss.IndexIVFFastScan)
        if self._lists is not None:
            n_lists = int(self._lists.nlist)
            self._lists.nprobe = min(n_lists, max(_FEWEST_SEARCHED, round(n_lists * _SEARCHED_SHARE)))
        self._set_ef_search()

    def _set_ef_search(self) -> None:
        if self._graph is not None:
            at_least, per_root = _EF_SEARCH
            self._graph.hnsw.efSearch = max(at_least, round(per_root * len(self) ** 0.5))

    @classmethod
    def fewest(cls, kind: IndexKind, dim: int, count: int) -> int:
        """Number of vectors below which `kind` cannot be trained well."""
        if is_named(kind):
            return FEWEST_WITH_CODES
        innermost = layers_of(_make(kind, dim))[-1]
        centroids = max(getattr(innermost, "nlist", 0), getattr(getattr(innermost, "pq", None), "ksub", 0))
        return max(FEWEST_WITH_CODES, _POINTS_PER_CENTROID * centroids)

    @classmethod
    def sample_size(cls, kind: IndexKind, dim: int, count: int) -> int:
        """Number of vectors to train on, of `count` vectors."""
        if kind == "ivf":
            return min(count, _SAMPLE_PER_LIST * n_lists_for(count))
        lists = _lists_of(_make(factory_of(kind, count), dim))
        return min(count, max(_FEWEST_SAMPLES, 0 if lists is None else _SAMPLE_PER_LIST * int(lists.nlist)))

    @classmethod
    def trained(cls, kind: IndexKind, sample: NDArray[np.float32], count: int) -> FaissCandidates:
        """An empty index for `count` vectors, trained on a sample (n, D).

        Raises:
            RuntimeError: the sample is too small.
        """
        return cls(_trained(kind, sample, count), kind)

    @classmethod
    def open(cls, path: Path, kind: IndexKind) -> FaissCandidates:
        """Read an index from a file.

        Raises:
            RuntimeError, MemoryError: the file is missing or damaged.
        """
        return cls(faiss.read_index(str(path)), kind)

    def write(self, path: Path) -> None:
        """Write the index to a file.

        Raises:
            RuntimeError: the disk is full or read-only.
        """
        write_index(self._index, path)

    @property
    def faiss_index(self) -> Any:
        """The FAISS index itself; not to be changed."""
        return self._index

    @property
    def dim(self) -> int:
        """D."""
        return int(self._index.d)

    @property
    def deletes(self) -> bool:
        """Whether slots can be removed. If not, callers skip removed slots among the candidates."""
        return self._deletes

    def __len__(self) -> int:
        """Number of slots; with those removed from a kind that does not delete."""
        return int(self._index.ntotal)

    def outgrown_by(self, count: int) -> bool:
        """Whether `count` vectors need more than twice as many lists, so that training them again pays."""
        return self.kind == "ivf" and self._lists is not None and n_lists_for(count) > 2 * int(self._lists.nlist)

    def add(self, slots: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        """Add vectors (n, D). An index that does not delete takes all slots, in order."""
        if len(slots) == 0:
            return
        vectors = np.ascontiguousarray(vectors, np.float32)
        if self.deletes:
            self._index.add_with_ids(vectors, np.ascontiguousarray(slots, np.int64))
        else:
            assert slots[0] == len(self)
            self._index.add(vectors)
        self._set_ef_search()

    def remove(self, slots: NDArray[np.int64]) -> None:
        """Remove slots, if this index can."""
        if len(slots) and self.deletes:
            self._index.remove_ids(np.ascontiguousarray(slots, np.int64))

    def n_candidates(self, k: int, parameters: IndexParameters | None = None) -> int:
        """Number of candidates among which the k nearest are found."""
        if self._graph is None:
            per_hit, at_least = _FROM_LISTS
            return max(at_least, per_hit * k)
        per_hit, at_most = _FROM_GRAPHS
        ef_search = (
            parameters.ef_search if parameters is not None and parameters.ef_search else self._graph.hnsw.efSearch
        )
        return max(min(ef_search, at_most), ef_search // 4, per_hit * k)

    def candidates(
        self,
        queries: NDArray[np.float32],
        n: int,
        parameters: IndexParameters | None = None,
        selected: NDArray[np.bool_] | None = None,
    ) -> NDArray[np.int64]:
        """(Q, n) slots of candidates for the nearest vectors; -1 where the index found fewer.

        Args:
            queries: (Q, D).
            n: number of candidates.
            parameters: of this search.
            selected: by slot, which may be found; all if None.

        Raises:
            RuntimeError: this index cannot select.
        """
        if self._rotation is not None:
            matrix, offset = self._rotation
            queries = queries @ matrix + offset
        queries = np.ascontiguousarray(queries, np.float32)
        if selected is None:
            _, slots = self._search(queries, n, params=self._parameters_of(parameters))
        else:
            # The selector keeps no copy of its bits: they live as long as this call.
            bits = np.packbits(selected, bitorder="little")
            selector = faiss.IDSelectorBitmap(bits)
            _, slots = self._search(queries, n, params=self._parameters(parameters or IndexParameters(), selector))
        return np.asarray(slots, np.int64)

    def _parameters_of(self, wanted: IndexParameters | None) -> Any | None:
        """Parameters without a selector, made once: making them takes as long as some searches."""
        if wanted is None or wanted == IndexParameters():
            return None
        if wanted not in self._made_parameters:
            if len(self._made_parameters) >= _MOST_PARAMETERS:
                self._made_parameters.clear()
            self._made_parameters[wanted] = self._parameters(wanted, None)
        return self._made_parameters[wanted]

    def _parameters(self, wanted: IndexParameters, selector: Any) -> Any:
        given: dict[str, Any] = {} if selector is None else {"sel": selector}
        if self._lists is not None:
            found = faiss.SearchParametersIVF(nprobe=wanted.nprobe or self._lists.nprobe, **given)
        elif self._graph is not None:
            found = faiss.SearchParametersHNSW(efSearch=wanted.ef_search or self._graph.hnsw.efSearch, **given)
        else:
            found = faiss.SearchParameters(**given)
        for layer in reversed(layers_of(self._searched)[:-1]):
            if isinstance(layer, faiss.IndexPreTransform):
                found = faiss.SearchParametersPreTransform(index_params=found)
            else:
                found = faiss.IndexRefineSearchParameters(k_factor=layer.k_factor, base_index_params=found)
        return found


def layers_of(index: Any) -> list[Any]:
    """The index, and the ones that it transforms vectors for or refines; the last one holds lists, a graph or codes."""
    if isinstance(index, faiss.IndexPreTransform):
        return [index, *layers_of(faiss.downcast_index(index.index))]
    if isinstance(index, faiss.IndexRefine):
        return [index, *layers_of(faiss.downcast_index(index.base_index))]
    return [index]


def _split_rotation(index: Any) -> tuple[tuple[NDArray[np.float32], NDArray[np.float32]] | None, Any]:
    """The matrix (D, d) and offset (d,) that an index applies first, and the index behind them; None if there is no matrix.

    FAISS takes 20 microseconds longer than numpy to apply them to a query, a quarter of the search of a graph.
    """
    if not isinstance(index, faiss.IndexPreTransform) or index.chain.size() != 1:
        return None, index
    rotation = faiss.downcast_VectorTransform(index.chain.at(0))
    if not isinstance(rotation, faiss.LinearTransform) or not rotation.is_trained:
        return None, index
    matrix = faiss.vector_to_array(rotation.A).reshape(rotation.d_out, rotation.d_in)
    offset = faiss.vector_to_array(rotation.b) if rotation.have_bias else np.zeros(rotation.d_out, np.float32)
    return (np.ascontiguousarray(matrix.T), offset), faiss.downcast_index(index.index)


def _lists_of(index: Any) -> Any | None:
    innermost = layers_of(index)[-1]
    return innermost if isinstance(innermost, faiss.IndexIVF) else None


def _graph_of(index: Any) -> Any | None:
    innermost = layers_of(index)[-1]
    return innermost if isinstance(innermost, faiss.IndexHNSW) else None
