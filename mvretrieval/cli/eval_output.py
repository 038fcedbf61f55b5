"""Output shared by the evaluation commands: tables, notices, and the record of a run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mvretrieval.console import counted, run_record, table
from mvretrieval.errors import EvaluationError

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


def write_run_record(command: str, options: Any, result: dict[str, Any], path: Path) -> None:
    """Write options, versions and result of a run as JSON.

    Raises:
        EvaluationError: the file cannot be written.
    """
    record = run_record(command, options) | {"result": result}
    try:
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise EvaluationError(
            f"{path} cannot be written: {error.strerror}; choose another path", code="not_writable"
        ) from error
