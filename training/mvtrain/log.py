"""Training log: JSON lines, and TensorBoard event files on request."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from mvretrieval.errors import TrainingError


class TrainingLog:
    """Writes records beside the adapter or the tuned encoder."""

    def __init__(self, folder: Path, tensorboard: bool = False, append: bool = False) -> None:
        """Open the log.

        Args:
            folder: of the adapter or encoder; created if missing.
            tensorboard: also write event files.
            append: keep the records of an interrupted run.

        Raises:
            TrainingError: TensorBoard is not installed, or the folder is not writable.
        """
        self._started = time.monotonic()
        self._writer: Any = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # The log of an existing adapter stays until this run has finished.
            self._path = folder / "log.jsonl"
            self._part = folder / "log.jsonl.part"
            self._file = self._part.open("a" if append else "w", encoding="utf-8")
        except OSError as error:
            raise TrainingError(
                f"cannot write to {folder}: {error}; choose another --out", code="not_writable"
            ) from error
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise TrainingError(
                    "TensorBoard is not installed: pip install 'mvretrieval[train]'", code="not_installed"
                ) from error
            self._writer = SummaryWriter(str(folder / "tensorboard"))

    def __call__(self, record: dict[str, Any]) -> None:
        """Append a record."""
        seconds = round(time.monotonic() - self._started, 3)
        self._file.write(json.dumps({"seconds": seconds, **record}) + "\n")
        self._file.flush()
        if self._writer is not None and "step" in record:
            for name in ("loss", "mAP"):
                if name in record:
                    self._writer.add_scalar(f"{record['stage']}/{name}", record[name], record["step"])

    def __enter__(self) -> TrainingLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if error is None:
            self._part.replace(self._path)
        if self._writer is not None:
            self._writer.close()
