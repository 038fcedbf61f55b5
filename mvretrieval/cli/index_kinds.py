"""What `mvr index --index help` prints: kinds of index, and what to choose for how many objects."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise


def wants_help_on_kinds(name: str, arguments: Sequence[str]) -> bool:
    """Whether these arguments of a command are `--index help`."""
    return name in ("index", "import", "reindex") and (
        ("--index", "help") in pairwise(arguments) or "--index=help" in arguments
    )


HELP = """Kinds of index (--index KIND). All but exact propose candidates, which are re-scored by their vectors.

Measured with 200,000 objects of 512 numbers on two cores (python -m benchmarks search-peers search-one); queries one at a time.

  kind     recall@10   queries/s   build   memory of an object beside its vector (2 KB)
  exact    1           97 *        -       none
  hnsw     0.99        3,800       26 s    0.4 KB
  ivf      0.99        1,300       7 s     0.09 KB
  * with 100,000 objects

  auto      exact up to 250,000 objects, then hnsw; ivf where the graph would take over a quarter of the memory
  cagra     a graph on the GPU, in builds of FAISS with cuVS; hnsw elsewhere (not measured)
  FACTORY   any FAISS factory string, such as IVF1024,PQ64 or HNSW32,SQfp16 (https://github.com/facebookresearch/faiss/wiki)

What to choose:
  up to 250,000 objects     auto (exact): nothing is missed
  up to some millions       auto (hnsw): the fastest
  memory is short           ivf: a fifth of the graph's memory, and a third of the time to build
  a GPU is there            auto, with --device cuda: exact while float16 vectors fit into its memory
  known from elsewhere      its factory string; below 39 objects per list it is exact

Filters that keep less than 15 % of the objects are exact with every kind. A search can be more thorough than the default:
mvr search --ef-search N (hnsw), --nprobe N (ivf).
Change the kind of a collection with: mvr reindex COLLECTION --index KIND
"""
