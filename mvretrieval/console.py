"""Output that all command lines share: verbosity, notices, progress, tables, JSON, and the record of a run."""

from __future__ import annotations

import json
import logging
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timezone
from enum import IntEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mvrender.plain_text import printable, printable_lines
from mvretrieval.errors import EvaluationError

JSON_SCHEMA = 1
"""Version of the `--json` outputs. It grows when a key is renamed or removed, or its meaning changes."""

_LOGGERS = ("mvrender", "mvretrieval", "mvtrain")
_LINE_SECONDS = 10.0  # shortest time between two progress lines where stderr is no terminal
_SLOW_SECONDS = 60.0  # longest, where a tenth of the work takes longer


class Verbosity(IntEnum):
    """What a command prints besides results and errors."""

    QUIET = 0
    NORMAL = 1
    VERBOSE = 2


_verbosity = Verbosity.NORMAL


class _StderrHandler(logging.Handler):
    """Writes to the current `sys.stderr`, above a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


_handler = _StderrHandler()
_handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))


def set_verbosity(verbosity: Verbosity) -> None:
    """Decide for this process whether notices, progress and the libraries' log messages are printed."""
    global _verbosity
    _verbosity = verbosity
    level = (logging.ERROR, logging.WARNING, logging.DEBUG)[verbosity]
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.setLevel(level)
        logger.addHandler(_handler)  # no effect if it is there already


def say(text: str) -> None:
    """Print a notice on stderr, unless quiet; stdout is for results."""
    if _verbosity > Verbosity.QUIET:
        tqdm.write(printable_lines(text), file=sys.stderr)


def say_error(text: str) -> None:
    """Print an error on stderr, also if quiet; such as a file that failed while the command goes on."""
    tqdm.write(printable_lines(text), file=sys.stderr)


def print_json(value: Mapping[str, Any]) -> None:
    """Print one JSON object on one line, with the version of the schema."""
    print(json.dumps({"schema": JSON_SCHEMA, **value}))


def counted(n: int, noun: str) -> str:
    """`1 object`, `2 objects`, `2 classes`, `2 queries`."""
    if n == 1:
        return f"1 {noun}"
    return f"{n} {noun[:-1]}ies" if noun.endswith("ry") else f"{n} {noun}{'es' if noun.endswith('s') else 's'}"


def warn_seen_classes(classes: Sequence[str], consequence: str) -> None:
    """Warn that the adapter or the encoder was trained on some of the evaluated classes."""
    if classes:
        some = ", ".join(classes[:5]) + (", ..." if len(classes) > 5 else "")
        say(
            f"note: {counted(len(classes), 'class')} used here ({some}) are in the training data of the adapter or the encoder: "
            f"{consequence}"
        )


@contextmanager
def progress(unit: str) -> Iterator[Callable[[int, int], None]]:
    """Show progress on stderr: a bar on a terminal, else a line now and then; nothing if quiet.

    Yields:
        A callback of (done, total).
    """
    if _verbosity == Verbosity.QUIET:
        yield lambda done, total: None
    elif sys.stderr.isatty():
        with _bar(unit) as step:
            yield step
    else:
        yield _ProgressLines(unit)


@contextmanager
def _bar(unit: str) -> Iterator[Callable[[int, int], None]]:
    bar: tqdm[Any] | None = None

    def step(done: int, total: int) -> None:
        nonlocal bar
        if bar is None:
            bar = tqdm(total=total, unit=unit, file=sys.stderr, smoothing=0.05, mininterval=0.5)
        bar.total = total
        bar.update(done - bar.n)

    try:
        yield step
    finally:
        if bar is not None:
            bar.close()


class _ProgressLines:
    """Prints a line at every tenth of the work, but at most every 10 s; each minute where a tenth takes longer."""

    def __init__(self, unit: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._unit = unit
        self._clock = clock
        self._printed = clock()
        self._first: tuple[float, int] | None = None
        self._tenths = 0

    def __call__(self, done: int, total: int) -> None:
        now = self._clock()
        # The first item waits for the encoder and the workers to start; the rate is that of the others.
        self._first = self._first or (now, done)
        waited = now - self._printed
        tenths = 10 * done // total if total else 0
        if waited < _LINE_SECONDS or (tenths == self._tenths and waited < _SLOW_SECONDS):
            return
        self._printed, self._tenths = now, tenths
        rate = (done - self._first[1]) / max(now - self._first[0], 1e-9)
        left = f", {_duration((total - done) / rate)} left" if rate and done < total else ""
        share = f" ({done / total:.0%})" if total else ""
        say(f"{self._unit} {done} of {total}{share}, {rate:.3g}/s{left}")


def _duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3.5 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def run_record(command: str, options: Any) -> dict[str, Any]:
    """Record the resolved options, versions and revision of a run; written beside its output."""
    return {
        "command": command,
        "options": {key: str(value) if isinstance(value, Path) else value for key, value in asdict(options).items()},
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in ("mvretrieval", "torch", "open_clip_torch", "trimesh", "numpy")},
        "revision": _revision(),
    }


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


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _revision() -> str | None:
    """Git revision of the checkout that this package runs from; None if it is installed."""
    here = Path(__file__).parent
    if not (here.parent / ".git").exists():  # installed: a repository further up belongs to the user
        return None
    try:
        found = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None


def table(rows: list[list[str]], head: list[str]) -> str:
    """Align columns; control characters in names are escaped, so that they do not reach the terminal."""
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in [head, *rows]
    )
