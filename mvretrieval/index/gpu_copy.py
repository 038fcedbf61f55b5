"""A copy of a vector index in GPU memory, which proposes candidates for exact scoring.

    flat     the vectors in float16: for `auto` and `exact`
    lists    inverted lists: those of a FAISS factory string that FAISS can move; for `ivf`, its lists with 8-bit codes, since
             FAISS has no one-bit codes on the GPU
    graph    CAGRA (Ootomo et al. 2023), in builds of FAISS with cuVS: for `cagra`

Slots only become more, so a copy is brought up to date by adding the later ones. GPU indexes cannot remove, and those of the usual
builds ignore an `IDSelector` without an error: callers skip what should not be found.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Protocol

import faiss as _faiss
import numpy as np
from numpy.typing import NDArray

from mvretrieval.index.faiss_candidates import FaissCandidates, layers_of
from mvretrieval.index.kinds import IndexKind, IndexParameters
from mvretrieval.index.vector_index import VectorIndex

faiss: Any = _faiss  # its type stubs are incomplete

MOST_CANDIDATES = 2047
"""FAISS selects fewer than 2048 of the scores of a query on a GPU, and searches no more lists."""

_TEMPORARY_BYTES = 512 << 20
_ADDED_AT_ONCE = 1 << 16
_FROM_FLAT = (4, 64)  # candidates per hit, and at least
_BEAM = 128  # length of CAGRA's candidate list, at least
_GRAPH_DEGREE = 64
_SAMPLE = 1 << 16  # vectors to train 8-bit codes on
# Memory is allocated again when vectors are added, while the old one is still there. CAGRA builds a larger graph first.
_ROOM = {"flat": 2.0, "lists": 2.0, "graph": 3.0}

Form = Literal["flat", "lists", "graph"]


class Place(Protocol):
    """Where FAISS indexes are put: a GPU, or main memory in tests."""

    def move(self, index: Any) -> Any:
        """A copy there of a FAISS index in main memory."""

    def graph(self, dim: int) -> Any:
        """An untrained graph there, which compares by L2."""


class GpuPlace:
    """The memory of one GPU.

    Attributes:
        number: of the GPU.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self._resources = faiss.StandardGpuResources()
        self._resources.setTempMemory(_TEMPORARY_BYTES)

    def move(self, index: Any) -> Any:
        """A copy of a FAISS index on the GPU; flat ones in float16.

        Raises:
            RuntimeError: FAISS cannot move such an index, or memory is short.
        """
        options = faiss.GpuClonerOptions()
        options.useFloat16 = True
        options.use_cuvs = False  # it has fewer kinds of codes
        return faiss.index_cpu_to_gpu(self._resources, self.number, index, options)

    def graph(self, dim: int) -> Any:
        """An untrained CAGRA graph."""
        config = faiss.GpuIndexCagraConfig()
        config.device = self.number
        config.graph_degree = _GRAPH_DEGREE
        # Vectors of unit length rank by L2 as by their inner products, which CAGRA does not have with every way to build it.
        return faiss.GpuIndexCagra(self._resources, dim, faiss.METRIC_L2, config)


def form_of(index: VectorIndex, kind: IndexKind) -> tuple[Form | None, str]:
    """The form of the copy of an index, or None and the reason.

    Args:
        index: in main memory.
        kind: that the collection wants.
    """
    if kind == "auto" or index.candidates is None:
        return "flat", ""
    if kind == "cagra":
        return "graph", ""
    if kind == "hnsw":
        return None, "FAISS has no graph of kind 'hnsw' for the GPU (kinds auto and exact are searched on it)"
    if kind == "ivf" or _can_be_moved(index.candidates.faiss_index):
        return "lists", ""
    return (
        None,
        f"FAISS cannot move an index of kind '{kind}' to the GPU (kinds auto, exact and ivf are searched on it)",
    )


def bytes_needed(index: VectorIndex, form: Form) -> int:
    """GPU memory that a copy needs at most, in bytes."""
    per_slot = {"flat": 2 * index.dim + 4, "graph": 4 * index.dim + 4 * _GRAPH_DEGREE}.get(form)
    if per_slot is None:
        assert index.candidates is not None
        lists = layers_of(index.candidates.faiss_index)[-1]
        per_slot = 8 + (index.dim if index.candidates.kind == "ivf" else int(lists.code_size))
    return _TEMPORARY_BYTES + round(_ROOM[form] * per_slot * index.n_slots)


class GpuCopy:
    """A FAISS index in GPU memory over the slots of a vector index.

    Attributes:
        form: see the module.
        n_slots: number of slots that it covers; those that were dead when it was made may be missing.
    """

    def __init__(self, index: VectorIndex, form: Form, place: Place) -> None:
        """Copy an index.

        Raises:
            RuntimeError, MemoryError: FAISS cannot make it.
        """
        self.form = form
        self.n_slots = 0
        self._kept: Any = None
        make: dict[Form, Callable[[VectorIndex, Place], Any]] = {
            "flat": self._flat,
            "lists": self._lists,
            "graph": self._graph,
        }
        self._index = make[form](index, place)
        # pytorch-metric-learning imports faiss.contrib.torch_utils, whose `search` for tensors takes no parameters.
        self._search = getattr(self._index, "search_numpy", self._index.search)
        self.catch_up(index)

    def _flat(self, index: VectorIndex, place: Place) -> Any:
        return place.move(faiss.IndexFlatIP(index.dim))

    def _lists(self, index: VectorIndex, place: Place) -> Any:
        assert index.candidates is not None
        self.n_slots = index.n_slots
        if index.candidates.kind != "ivf":
            return place.move(index.candidates.faiss_index)
        moved = place.move(_with_8_bit_codes(index.candidates, index.sample(_SAMPLE)))
        slots = index.live_slots()
        for start in range(0, len(slots), _ADDED_AT_ONCE):
            some = slots[start : start + _ADDED_AT_ONCE]
            moved.add_with_ids(index.rows.take(some), some)
        return moved

    def _graph(self, index: VectorIndex, place: Place) -> Any:
        self.n_slots = index.n_slots
        self._kept = np.concatenate([vectors for _, vectors in index.rows.blocks(self.n_slots) if len(vectors)])
        graph = place.graph(index.dim)
        graph.train(self._kept)  # builds the graph; some versions read the vectors later, too
        return graph

    def catch_up(self, index: VectorIndex) -> None:
        """Add the later slots. A graph cannot: callers score these slots themselves.

        Raises:
            RuntimeError, MemoryError: memory is short.
        """
        if self.form == "graph" or self.n_slots == index.n_slots:
            return
        for start, vectors in index.rows.blocks(index.n_slots):
            end = start + len(vectors)
            if end > self.n_slots:
                some = np.ascontiguousarray(vectors[max(0, self.n_slots - start) :])
                if self.form == "flat":
                    self._index.add(some)
                else:
                    self._index.add_with_ids(some, np.arange(end - len(some), end))
                self.n_slots = end

    def n_candidates(self, k: int, candidates: FaissCandidates | None, parameters: IndexParameters | None) -> int:
        """Number of candidates among which the k nearest are found.

        Args:
            k: number of hits.
            candidates: the index in main memory.
            parameters: of this search.
        """
        if self.form == "flat" or candidates is None:
            per_hit, at_least = _FROM_FLAT
            return max(at_least, per_hit * k)
        return candidates.n_candidates(k, parameters)

    def candidates(
        self, queries: NDArray[np.float32], n: int, parameters: IndexParameters | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Scores and slots (Q, n) of candidates for the nearest vectors, the best first; slot -1 where fewer were found.

        Args:
            queries: (Q, D).
            n: number of candidates, at most `MOST_CANDIDATES`.
            parameters: of this search.

        Raises:
            RuntimeError, MemoryError: an error of the GPU.
        """
        scores, slots = self._search(queries, n, params=self._parameters(n, parameters or IndexParameters()))
        return np.asarray(scores, np.float32), np.asarray(slots, np.int64)

    def _parameters(self, n: int, wanted: IndexParameters) -> Any | None:
        if self.form == "lists" and wanted.nprobe is not None:
            *outer, lists = layers_of(self._index)
            found = faiss.SearchParametersIVF(nprobe=min(wanted.nprobe, int(lists.nlist), MOST_CANDIDATES))
            for _ in outer:
                found = faiss.SearchParametersPreTransform(index_params=found)
            return found
        if self.form == "graph" and hasattr(faiss, "SearchParametersCagra"):
            found = faiss.SearchParametersCagra()
            found.itopk_size = -(-max(n, _BEAM, wanted.ef_search or 0) // 32) * 32
            return found
        return None


def _can_be_moved(index: Any) -> bool:
    """Whether FAISS has this index for the GPU."""
    # By type, since some versions copy others within main memory without an error.
    *outer, lists = layers_of(index)
    return (
        all(isinstance(layer, faiss.IndexPreTransform) for layer in outer)
        and type(lists) in (faiss.IndexIVFFlat, faiss.IndexIVFScalarQuantizer, faiss.IndexIVFPQ)
        and isinstance(faiss.downcast_index(lists.quantizer), faiss.IndexFlat)
    )


def _with_8_bit_codes(candidates: FaissCandidates, sample: NDArray[np.float32]) -> Any:
    """Empty lists with the centroids of `candidates`, and codes that the GPU has."""
    lists = layers_of(candidates.faiss_index)[-1]
    centroids = faiss.downcast_index(lists.quantizer)
    quantizer = faiss.IndexFlat(lists.d, lists.metric_type)
    n, dim = int(centroids.ntotal), int(lists.d)
    quantizer.add(centroids.reconstruct_n(0, n, np.empty((n, dim), np.float32)))
    made = faiss.IndexIVFScalarQuantizer(
        quantizer, lists.d, lists.nlist, faiss.ScalarQuantizer.QT_8bit, lists.metric_type
    )
    made.train(np.ascontiguousarray(sample))  # the centroids are there: only the range of the codes
    made.nprobe = min(lists.nprobe, MOST_CANDIDATES)
    return made
