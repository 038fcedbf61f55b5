"""Run the rows of a reproduction table whose collections exist."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mvretrieval.encoders.registry import public_encoder
from mvretrieval.errors import EvaluationError, MvrError
from mvretrieval.evaluation.feature_file import measure_features
from mvretrieval.evaluation.reproduce.table import Table, TableRow
from mvretrieval.session.session import Session
from mvretrieval.store.augmented import augmentation_of

_MVR = [sys.executable, "-m", "mvretrieval"]


class TableRun:
    """One run over a table's rows; rows with the same command run it once."""

    def __init__(self, folder: Path | None, notify: Callable[[str], None]) -> None:
        """Prepare a run.

        Args:
            folder: folder of collections; None runs nothing.
            notify: called with progress and failures.
        """
        self.folder = folder
        self.folder_text = "COLLECTIONS" if folder is None else str(folder)
        self._notify = notify
        self._results: dict[str, dict[str, Any]] = {}

    def result(self, row: TableRow) -> dict[str, Any]:
        """Run a row if its collection and files exist.

        Returns:
            The row with its command, value and verdict: `reproduced`, `close`, `not reproduced`, `missing` (collection or
            file) or `failed`; None if nothing is run.
        """
        command = shlex.join(self._arguments(row))
        found: dict[str, Any] = {**asdict(row), "command": command, "value": None, "verdict": None}
        if self.folder is None:
            return found
        if self.missing([row]):
            return found | {"verdict": "missing"}
        try:
            if row.task != "features":
                check_collection(row, self.folder / row.collection)
            if command not in self._results:
                self._notify(f"{row.name}: {command}")
                self._results[command] = self._run(row, self.folder)
            row.check_objects(self._results[command])
            value = row.value_of(self._results[command])
        except MvrError as error:
            self._notify(f"{row.name} failed: {error}")
            return found | {"verdict": "failed"}
        return found | {"value": value, "verdict": row.judge(value)}

    def missing(self, rows: Sequence[TableRow]) -> dict[str, list[str]]:
        """Return collection -> missing paths, of the collection and of the files of its rows."""
        missing: dict[str, list[str]] = {}
        if self.folder is None:
            return missing
        for row in sorted(rows, key=lambda row: row.collection):
            for path in (row.collection, *row.files):
                if not (self.folder / path).exists():
                    missing.setdefault(row.collection, []).append(path)
        return missing

    def commands(self, table: Table, collection: str) -> list[str]:
        """Return the remaining commands that make a collection."""
        folder = self.folder
        commands = table.commands(collection, lambda path: folder is not None and (folder / path).exists())
        return [command.replace("{dir}", shlex.quote(self.folder_text)) for command in commands]

    def _arguments(self, row: TableRow) -> list[str]:
        return [argument.replace("{dir}", self.folder_text) for argument in row.command(self.folder_text)]

    def _run(self, row: TableRow, folder: Path) -> dict[str, Any]:
        """Run a row's command and return its JSON result.

        Raises:
            EvaluationError: its exit code is not 0.
        """
        if row.task == "features":
            return dict(measure_features(folder / row.collection, row.options[0]))
        done = subprocess.run([*_MVR, *self._arguments(row)[1:]], capture_output=True, text=True, check=False)
        if done.returncode:
            raise EvaluationError(_failure(done), code="command_failed")
        result: dict[str, Any] = json.loads(done.stdout)
        return result


def _failure(done: subprocess.CompletedProcess[str]) -> str:
    """Message of a failed command: from its JSON, or the last line of stderr if it crashed."""
    try:
        return str(json.loads(done.stdout)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        lines = done.stderr.strip().splitlines()
        return lines[-1] if lines else f"exit code {done.returncode}"


def check_collection(row: TableRow, folder: Path) -> None:
    """Refuse a collection made with another encoder or other post-processing than the row's.

    Raises:
        MvrError: it differs, or cannot be opened.
    """
    with Session.open(folder) as session:
        describer, augmentation = session.describer, augmentation_of(session.store)
    encoder = public_encoder(describer.config.encoder)
    extras = []
    if describer.adapter is not None:
        extras.append("an adapter")
    elif describer.whitening is not None:
        extras.append("whitening or centring")
    if augmentation is not None:
        extras.append("DBA")
    if encoder.partition("@")[0] != row.encoder or bool(extras) != bool(row.adapter):
        raise EvaluationError(
            f"{folder} was made with {encoder} and {' and '.join(extras) or 'no adapter'}, the row needs {row.encoder} and "
            f"{row.adapter or 'no adapter'}: move the folder away and run this command again for the commands that make it",
            code="other_collection",
        )
