"""Settings of the whole suite: threads, Hypothesis, and how long it took."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
from hypothesis import HealthCheck
from hypothesis.configuration import set_hypothesis_home_dir

if TYPE_CHECKING:
    from parked_workers import ParkedWorkers

# Two test processes share the cores: with one thread each they do not wait for each other's threads. Before numpy is imported.
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
set_hypothesis_home_dir(Path(tempfile.gettempdir()) / "mvretrieval-hypothesis")  # caches, outside of the checkout


@pytest.fixture(scope="session")
def parked_workers() -> Iterator[ParkedWorkers]:
    from parked_workers import ParkedWorkers

    parking = ParkedWorkers()
    parking.install()
    yield parking
    parking.uninstall()


@pytest.fixture(autouse=True)
def _park_render_workers(request: pytest.FixtureRequest, parked_workers: ParkedWorkers) -> None:
    """Tests marked `fresh_workers` start and end their own."""
    parked_workers.is_on = request.node.get_closest_marker("fresh_workers") is None
