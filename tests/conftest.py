"""Settings of the whole suite: threads, Hypothesis, and how long it took."""

from __future__ import annotations

import os

import hypothesis
from hypothesis import HealthCheck

# Two test processes share the cores: with one thread each they do not wait for each other's threads.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

# No test depends on the speed of the machine. In the gate the examples are the same each time; elsewhere they are random.
hypothesis.settings.register_profile(
    "suite",
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
    derandomize=bool(os.environ.get("CI")),
    print_blob=True,
)
hypothesis.settings.load_profile("suite")
