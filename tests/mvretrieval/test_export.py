"""`mvr export --faiss`: plain FAISS opens the index, and finds what the collection finds."""

from __future__ import annotations

import json
from pathlib import Path

import faiss
import numpy as np
import pytest
from commands import Mvr, runner
from error_codes import raises_code

from mvretrieval.api import Collection
from mvretrieval.errors import CollectionError, FilterError
from mvretrieval.ingest.export_faiss import export_faiss
from mvretrieval.search.query import Query


@pytest.fixture
def mvr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Mvr:
    return runner(monkeypatch, capsys, "export")


def _opened(path: Path) -> tuple[faiss.Index, list[str]]:
    about = json.loads(path.with_name(f"{path.name}.json").read_text())
    index = faiss.read_index(str(path))
    assert about["metric"] == "inner product" and about["dim"] == index.d and len(about["ids"]) == index.ntotal
    return index, about["ids"]


def test_plain_faiss_finds_what_the_collection_finds(mvr: Mvr, things: Collection, tmp_path: Path) -> None:
    code, out, _ = mvr(things.folder, "--faiss", tmp_path / "out" / "things.faiss")
    assert code == 0 and f"{len(things)} vectors; ids in things.faiss.json" in out
    index, ids = _opened(tmp_path / "out" / "things.faiss")
    assert ids == list(things.ids())
    query = things.session.store.vector_of(things.session.row_id_of(ids[4]))
    scores, places = index.search(query[None], 5)
    hits = things.search(Query(vector=query), k=5)
    assert [ids[place] for place in places[0]] == [hit.id for hit in hits]
    np.testing.assert_allclose(scores[0], [hit.score for hit in hits], atol=1e-5)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["things.faiss", "things.faiss.json"]


def test_other_kinds_and_filters(mvr: Mvr, things: Collection, tmp_path: Path) -> None:
    file = tmp_path / "few.faiss"
    assert mvr(things.folder, "--faiss", file, "--index", "HNSW8", "--where", "id != 'shape-000.ply'")[0] == 0
    index, ids = _opened(file)
    assert isinstance(index, faiss.IndexHNSWFlat) and ids == [name for name in things.ids() if name != "shape-000.ply"]


def test_what_cannot_be_exported_is_said_and_leaves_nothing(things: Collection, tmp_path: Path) -> None:
    file = tmp_path / "x.faiss"
    with raises_code(CollectionError, "bad_index_kind", "Nope"):
        export_faiss(things.session, file, "Nope")
    with raises_code(CollectionError, "export_failed", "x.faiss", "--index"):
        export_faiss(things.session, file, "IVF4096,Flat")  # more lists than objects
    with raises_code(CollectionError, "nothing_to_export", "label = 'none'"):
        export_faiss(things.session, file, where="label = 'none'")
    with pytest.raises(FilterError):
        export_faiss(things.session, file, where="no_such_label = 1")
    (tmp_path / "file").touch()
    with raises_code(CollectionError, "export_failed", "file"):
        export_faiss(things.session, tmp_path / "file" / "x.faiss")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
