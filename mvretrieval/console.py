"""What several commands share: progress, notices and the record of what was run."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tqdm import tqdm


def say(text: str) -> None:
    """A notice on stderr; results alone go to stdout."""
    print(text, file=sys.stderr)


def counted(n: int, noun: str) -> str:
    """`1 object`, `2 objects`, `2 classes`, `2 queries`."""
    if n == 1:
        return f"1 {noun}"
    return f"{n} {noun[:-1]}ies" if noun.endswith("ry") else f"{n} {noun}{'es' if noun.endswith('s') else 's'}"


def warn_seen_classes(classes: Sequence[str], way_out: str) -> None:
    """Say which classes an evaluation asks for that are not new to what it measures."""
    if classes:
        some = ", ".join(classes[:5]) + (", ..." if len(classes) > 5 else "")
        say(
            f"note: the adapter or the encoder was trained on objects of {counted(len(classes), 'class')} asked for here ({some}): "
            f"{way_out}"
        )


@contextmanager
def progress(unit: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar with rate and time left, as a callback of (done, total)."""
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


def run_record(command: str, options: Any) -> dict[str, Any]:
    """The resolved options, versions and revision of a run, to be written beside what it makes."""
    return {
        "command": command,
        "options": {key: str(value) if isinstance(value, Path) else value for key, value in asdict(options).items()},
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in ("mvretrieval", "torch", "open_clip_torch", "trimesh", "numpy")},
        "revision": _revision(),
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _revision() -> str | None:
    """Git revision of the checkout that this package runs from, if it is one."""
    here = Path(__file__).parent
    if not (here.parent / ".git").exists():  # installed: a repository further up is the user's
        return None
    try:
        found = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None


def printable(text: str) -> str:
    """The same with control characters, line ends among them, spelt out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def table(rows: list[list[str]], head: list[str]) -> str:
    """Columns for people; what a name holds that would steer the terminal is spelt out."""
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in [head, *rows]
    )
