"""What is measured: `python -m benchmarks GROUP|NAME...`."""

import mvretrieval  # noqa: F401 - before numpy, whose threads it keeps from spinning
