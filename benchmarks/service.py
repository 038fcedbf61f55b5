"""Benchmarks of the group `service`: load, memory, the page, and the API schema."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks import data
from benchmarks.benchmark import Benchmark, Skipped
from benchmarks.commands import MVR, fresh, script
from benchmarks.copies import collection_of
from mvretrieval.api import Collection
from mvretrieval.describe import DescriberConfig
from mvretrieval.search.thumbnails import view_thumbnail

HERE = Path(__file__).parent
_TOKEN = "a token"
_OBJECTS = 10_000
_SECONDS = 60
_VECTORS_SECONDS = 10
_CLIENTS, _MESH_SHARE, _RAMP_SECONDS = 32, 0.25, 3
_CHROMIUM = Path("/usr/bin/chromium")
_ALL_DRAWN = """() => {
    const seen = [...document.querySelectorAll("#grid img")].filter((image) => image.getBoundingClientRect().top < innerHeight);
    return seen.length > 0 && seen.every((image) => image.complete && image.naturalWidth > 0);
}"""
_SETTLED = 10  # seconds after which memory should be constant


@contextmanager
def running(folder: Path, *options: str, files: int | None = None) -> Iterator[tuple[str, int]]:
    """Run a service that may open so many files; yields its URL and process id when it is ready."""
    import httpx

    command = [*MVR, "serve", str(folder), "--port", "0", *options]
    limited = ["bash", "-c", f'ulimit -n {files}; exec "$@"', "-"] if files else []
    process = subprocess.Popen(
        [*limited, *command], stderr=subprocess.PIPE, text=True, env=os.environ | {"MVR_TOKEN": _TOKEN}
    )
    assert process.stderr is not None
    try:
        found = re.search(r" at (http://\S+)", process.stderr.readline())
        if found is None:
            raise RuntimeError(f"the service did not start: {process.stderr.read()}")
        while httpx.get(f"{found[1]}/ready").status_code != 200:
            time.sleep(0.1)
        yield found[1], process.pid
    finally:
        process.terminate()
        process.wait(60)


@cache
def _served_collection() -> Path:
    return collection_of(_OBJECTS, "service-of-10k", data.mobilenet())


@cache
def _loaded() -> dict[str, Any]:
    """Times, errors and memory under load and with one client; measured once for all benchmarks that need it."""
    folder = _served_collection()
    queries = folder.parent / "service-queries.npy"
    with Collection.open(folder) as collection:
        np.save(queries, collection.session.index.sample(500))
    meshes = data.fixed_psb(50)
    with running(folder) as (url, pid):
        script("load", url, meshes, queries, 3, 2, 0.5, 0)  # warm-up
        alone = script("load", url, meshes, queries, 5, 1, 0, 0)
        mesh_alone = script("load", url, meshes, queries, 5, 1, 1, 0)
        vectors_only = script("load", url, meshes, queries, _VECTORS_SECONDS, _CLIENTS, 0, 0)
        with _memory(pid) as memory:
            load = script("load", url, meshes, queries, _SECONDS, _CLIENTS, _MESH_SHARE, _RAMP_SECONDS)
    print(*load["vectors"]["errors"][:3], *load["meshes"]["errors"][:3], sep="\n", file=sys.stderr)
    return {
        "alone": alone["vectors"]["ms"],
        "mesh alone": mesh_alone["meshes"]["ms"],
        "vectors only": vectors_only["vectors"]["ms"],
        "vectors": load["vectors"]["ms"],
        "meshes": load["meshes"]["ms"],
        "errors": len(load["vectors"]["errors"]) + len(load["meshes"]["errors"]),
        "memory": list(memory),
    }


@contextmanager
def _memory(pid: int) -> Iterator[list[float]]:
    """Sample the resident memory of a process and its children in MB, once per second."""
    root, samples, done = psutil.Process(pid), list[float](), threading.Event()

    def watch() -> None:
        while not done.wait(1):
            samples.append(sum(process.memory_info().rss for process in [root, *root.children(recursive=True)]) / 1e6)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield samples
    finally:
        done.set()
        thread.join()


def load_errors() -> dict[str, float]:
    """Failed requests of 32 clients in one minute."""
    loaded = _loaded()
    n_responses = len(loaded["vectors"]) + len(loaded["meshes"])
    return {
        "errors": loaded["errors"],
        "responses": n_responses,
        "vector responses/s": len(loaded["vectors"]) / _SECONDS,
        "mesh responses/s": len(loaded["meshes"]) / _SECONDS,
        "vectors alone, responses/s": len(loaded["vectors only"]) / _VECTORS_SECONDS,
        "meshes alone, one client, responses/s": 1000 / np.mean(loaded["mesh alone"]),
    }


def load_p99() -> dict[str, float]:
    """99th percentile of the time of vector queries with 32 clients, over that with one client.

    Clients with only vector queries are reported too: they saturate the cores without meshes.
    """
    loaded = _loaded()
    alone, load = np.percentile(loaded["alone"], 99), np.percentile(loaded["vectors"], 99)
    return {
        "ratio": load / alone,
        "p99 over the median alone": load / np.median(loaded["alone"]),
        "p99 ms": load,
        "median ms": np.median(loaded["vectors"]),
        "alone p99 ms": alone,
        "alone median ms": np.median(loaded["alone"]),
        "vectors alone, 32 clients: p99 ms": np.percentile(loaded["vectors only"], 99),
        "mesh p99 ms": np.percentile(loaded["meshes"], 99),
        "mesh alone ms": np.median(loaded["mesh alone"]),
    }


def load_memory() -> dict[str, float]:
    """Memory in the last ten seconds over that in seconds 10 to 20."""
    memory = _loaded()["memory"]
    settled, end = np.mean(memory[_SETTLED : 2 * _SETTLED]), np.mean(memory[-_SETTLED:])
    return {"growth": end / settled - 1, "after 10 s MB": settled, "end MB": end}


def page_first() -> dict[str, float]:
    """Seconds until all visible thumbnails are drawn, in Chromium on the same machine, warm: median of five.

    Measured from opening the page, from a query by object, and from uploading an image.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        raise Skipped("playwright is missing: make setup") from None
    if not _CHROMIUM.exists():
        raise Skipped(f"no browser at {_CHROMIUM}: apt-get install chromium")
    image = data.WORK / "service-image.png"
    with Collection.open(_served_collection()) as collection:
        view = view_thumbnail(collection.session, int(collection.session.store.select(None)[7]), 1)
        assert view is not None
        view.save(image)
    with running(_served_collection()) as (url, _), sync_playwright() as started:
        browser = started.chromium.launch(executable_path=_CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 800}, bypass_csp=True)

        def seconds_to(act: Callable[[], object], status: str) -> float:
            begun = time.perf_counter()
            act()
            page.locator("#status").filter(has_text=re.compile(status)).wait_for()
            page.wait_for_function(_ALL_DRAWN)
            return time.perf_counter() - begun

        taken: dict[str, list[float]] = {"open s": [], "by object s": [], "image s": []}
        for _ in range(6):
            taken["open s"].append(seconds_to(lambda: page.goto(url), "^$"))
            similar = page.get_by_role("button", name=re.compile("^More like")).first
            taken["by object s"].append(
                seconds_to(functools.partial(similar.dispatch_event, "click"), "10,000 objects")
            )
            page.goto(url)
            drop = functools.partial(page.locator("#files").set_input_files, image)
            taken["image s"].append(seconds_to(drop, "10,000 objects"))
        browser.close()
    values = {name: float(np.median(seconds[1:])) for name, seconds in taken.items()}
    return {"slowest s": max(values.values()), **values}


def schema() -> dict[str, float]:
    """Failures found by schemathesis in all operations: parameter limits, random requests, and sequences of requests."""
    folder = fresh("service-schema")
    with Collection.create(folder, DescriberConfig("builtin:", rig="ring:3@30", size=64)) as collection:
        collection.add_folder(data.fixed_psb(20))
    meshes = fresh("service-schema-meshes")
    meshes.mkdir()
    with running(folder, "--folder", f"some={meshes}") as (url, _):
        command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(HERE / "schemathesis.toml"), "run"]
        options = ["-H", f"Authorization: Bearer {_TOKEN}", "--max-examples", "80", "--continue-on-failure"]
        done = subprocess.run(
            [*command, f"{url}/openapi.json", *options], capture_output=True, text=True, check=False, cwd=folder.parent
        )
    found = re.search(r"(\d+) generated", done.stdout)
    if found is None:
        raise Skipped(f"unexpected output of schemathesis: {(done.stdout + done.stderr)[-300:]}")
    failures = re.search(r"generated, (\d+) found (\d+) unique", done.stdout)
    if failures:
        print(done.stdout, file=sys.stderr)
    return {"failures": float(failures[2]) if failures else 0.0, "cases": float(found[1])}


BENCHMARKS = (
    Benchmark(
        "load-errors", "service", "32 clients for 60 s on 10k objects, one query in four a mesh, else a vector: failures",
        {"errors": 0}, load_errors, at_most=True,
    ),
    Benchmark(
        "load-p99", "service", "p99 of vector queries under load, over that of one client",
        {"ratio": 10}, load_p99, at_most=True,
    ),
    Benchmark("load-memory", "service", "growth of memory under load after 10 s", {"growth": 0.05}, load_memory, at_most=True),
    Benchmark(
        "page-first", "service", "first results on the page, 10k objects, MobileNetV2, warm: opened, query by object, by image",
        {"slowest s": 1}, page_first, at_most=True,
    ),
    Benchmark("schema", "service", "failures found by schemathesis in 2,000 cases", {"failures": 0}, schema, at_most=True),
)  # fmt: skip
