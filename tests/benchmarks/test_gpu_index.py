"""The benchmark of search on a GPU, in a small size and in main memory."""

from __future__ import annotations

import pytest
from main_memory import MainMemory

from benchmarks.__main__ import BENCHMARKS
from benchmarks.benchmark import Skipped
from benchmarks.gpu_index import Case, compare, gpu_index
from mvretrieval.index.gpu import why_no_gpu
from mvretrieval.index.gpu_search import GpuSearch


def test_all_values_are_measured() -> None:
    values = compare(
        Case(3000, 64, 10), ("exact", "ivf", "cagra"), lambda kind: GpuSearch("cuda", lambda: kind, MainMemory())
    )
    assert values["exact, recall@10"] == 1 and min(values.values()) > 0
    for kind in ("ivf", "cagra"):
        assert values[f"{kind}, recall@10"] > 0.8
    units = {name.rsplit(" ", 1)[-1] for name in values}
    assert units == {"recall@10", "s", "queries/s", "ms"} and len(values) == 3 * 6 + 2


@pytest.mark.skipif(not why_no_gpu(), reason="there is a GPU")
def test_without_a_gpu_it_says_why() -> None:
    with pytest.raises(Skipped, match=r"FAISS finds no GPU|without GPU support"):
        gpu_index()


def test_one_command_runs_the_benchmarks_of_a_gpu() -> None:
    chosen = [benchmark.name for benchmark in BENCHMARKS if benchmark.device == "cuda"]
    assert sorted(chosen) == ["encode-gpu", "gpu-index", "pipeline-gpu", "render-gpu"]
    assert {(f.group, f.full) for f in BENCHMARKS if f.device == "cuda"} == {("fidelity", False)}
