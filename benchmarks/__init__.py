"""Benchmarks: `python -m benchmarks GROUP|NAME...`."""

import mvretrieval  # noqa: F401 - before numpy: sets a limit on the spinning of its threads
