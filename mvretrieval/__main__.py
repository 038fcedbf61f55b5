"""`mvr`, or `python -m mvretrieval`: a process of its own around `cli.main`, that ends as soon as it is done."""

from __future__ import annotations

import atexit
import os
import sys

from mvretrieval.cli.main import main


def command() -> None:
    """Run one command, and end the process without taking the interpreter apart, which takes a second where torch was loaded."""
    codes: list[int] = []

    def end() -> None:
        if codes:  # otherwise something went wrong that Python is to tell of
            os._exit(codes[0])

    atexit.register(end)  # what is registered later, and first of all waiting for threads, is done earlier
    try:
        try:
            main()
        finally:
            sys.stdout.flush()
    except SystemExit as ended:
        if isinstance(ended.code, int):
            codes.append(ended.code)
        raise
    except BrokenPipeError:  # `mvr search ... | head` has had enough
        codes.append(0)


if __name__ == "__main__":
    command()
