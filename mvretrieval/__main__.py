"""`mvr`, or `python -m mvretrieval`: runs `cli.main` and exits without interpreter shutdown."""

from __future__ import annotations

import atexit
import os
import sys

from mvretrieval.cli.main import main


def command() -> None:
    """Run one command and end the process. Interpreter shutdown is skipped: it takes a second once torch is loaded."""
    codes: list[int] = []

    def end() -> None:
        if codes:  # without a code, Python prints the traceback
            os._exit(codes[0])

    atexit.register(end)  # handlers registered later run before this one, and so does waiting for threads
    try:
        try:
            main()
        finally:
            sys.stdout.flush()
    except SystemExit as ended:
        if isinstance(ended.code, int):
            codes.append(ended.code)
        raise
    except BrokenPipeError:  # the reader has closed the pipe: `mvr search ... | head`
        codes.append(0)


if __name__ == "__main__":
    command()
