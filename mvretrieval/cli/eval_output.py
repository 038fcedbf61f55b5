"""Output shared by the evaluation commands: tables and lists of names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mvretrieval.console import counted, table

_MAX_SHOWN = 5


def some_of(names: Sequence[str], separator: str = ", ") -> str:
    """The first few names, with an ellipsis for the rest."""
    return separator.join(names[:_MAX_SHOWN]) + (f"{separator}..." if len(names) > _MAX_SHOWN else "")


def print_cross_modal(result: dict[str, Any]) -> None:
    """Print found@k, recall@k, mAP and the median rank as a table."""
    names = [name for name in result if "@" in name or name in ("mAP", "median_rank")]
    cells = [f"{result[name]:g}" if name == "median_rank" else f"{result[name]:.4f}" for name in names]
    print(f"{counted(result['queries'], 'query')}, {counted(result['objects'], 'object')}")
    print(table([cells], [name.replace("_", " ") for name in names]))
