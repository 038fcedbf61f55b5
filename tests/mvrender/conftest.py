"""The renderers, once for each module."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator

import pytest

from mvrender.backends.raster import RasterRenderer
from mvrender.backends.selection import open_renderer
from mvrender.errors import BackendError
from mvrender.renderer import BackendName, Renderer


@pytest.fixture(scope="module")
def raster() -> RasterRenderer:
    return RasterRenderer()


@pytest.fixture(scope="module")
def gl() -> Iterator[Renderer]:
    yield from _opened("gl")


@pytest.fixture(scope="module")
def pyrender() -> Iterator[Renderer]:
    yield from _opened("pyrender")


def _opened(backend: BackendName) -> Iterator[Renderer]:
    # Importing triton after Mesa crashes the process (two versions of LLVM), and torch imports it in later tests.
    with contextlib.suppress(ImportError):
        importlib.import_module("triton")
    try:
        renderer = open_renderer(backend)
    except BackendError as error:
        pytest.skip(str(error))
    yield renderer
    renderer.close()
