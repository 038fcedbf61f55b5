"""Error codes of the REST API."""

from __future__ import annotations

import inspect

import pytest

pytest.importorskip("fastapi", reason="the service is not installed: pip install 'mvretrieval[serve]'")

import mvretrieval.errors
from mvrender.errors import BackendError, MeshError
from mvretrieval.errors import CollectionError, FilterError, MvrError, QueryError, UnknownObjectError
from mvretrieval.service.codes import LIBRARY_CODES, SERVICE_CODES, codes_as_markdown, status_of

CLASSES = [kind for _, kind in inspect.getmembers(mvretrieval.errors, inspect.isclass) if issubclass(kind, MvrError)]


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_class_has_an_error_status(kind: type[MvrError]) -> None:
    assert 400 <= status_of(kind("message")) < 600


def test_status_by_code_and_otherwise_by_class() -> None:
    assert status_of(UnknownObjectError("x")) == 404
    assert status_of(QueryError("x", code="a_code_of_its_own")) == 422
    assert status_of(FilterError("x", code="a_code_of_its_own")) == 422
    assert status_of(CollectionError("x", code="a_code_of_its_own")) == 503
    assert status_of(CollectionError("x", code="id_taken")) == 409
    assert status_of(QueryError("x", code="unknown_format")) == 415
    assert status_of(MeshError("too_large", "x")) == 413
    assert status_of(MeshError("no_faces", "x")) == 422
    assert status_of(BackendError("x")) == 503


def test_the_description_lists_every_code_once() -> None:
    assert not set(SERVICE_CODES) & set(LIBRARY_CODES)
    rows = codes_as_markdown().splitlines()[2:]
    assert [row.split("`")[1] for row in rows] == sorted([*SERVICE_CODES, *LIBRARY_CODES])
