"""What happened in a training: always as JSON lines, in TensorBoard if asked."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from mvretrieval.errors import TrainingError


class TrainingLog:
    """Writes records beside the adapter."""

    def __init__(self, folder: Path, tensorboard: bool = False, go_on: bool = False) -> None:
        """Begin a log.

        Args:
            folder: of the adapter.
            tensorboard: also write event files.
            go_on: keep what a training that was stopped has written.

        Raises:
            TrainingError: TensorBoard is not installed, or the folder cannot be written.
        """
        self._started = time.monotonic()
        self._writer: Any = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # Beside the log of an adapter that may be there, until this training has come to its end.
            self._path = folder / "log.jsonl"
            self._part = folder / "log.jsonl.part"
            self._file = self._part.open("a" if go_on else "w", encoding="utf-8")
        except OSError as error:
            raise TrainingError(f"{folder} cannot be written: {error}") from error
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise TrainingError("TensorBoard is not installed: pip install 'mvretrieval[train]'") from error
            self._writer = SummaryWriter(str(folder / "tensorboard"))

    def __call__(self, record: dict[str, Any]) -> None:
        """Add one record."""
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
