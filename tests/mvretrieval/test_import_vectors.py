"""`mvr import` and `import_vectors`: collections of vectors that were computed elsewhere."""

from __future__ import annotations

import builtins
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Mvr, as_json, runner
from error_codes import raises_code
from numpy.typing import NDArray
from waiting import wait_for

from mvretrieval import import_vectors
from mvretrieval.api import Collection
from mvretrieval.describe import DescriberConfig
from mvretrieval.encoders.registry import open_encoder
from mvretrieval.errors import (
    CalibrationError,
    CollectionError,
    DescriberError,
    EncoderError,
    LabelsError,
    QueryError,
    TrainingError,
    VectorsError,
)
from mvretrieval.images import load_image
from mvretrieval.ingest import import_run
from mvretrieval.ingest.export_faiss import export_faiss
from mvretrieval.ingest.import_run import unit_rows
from mvretrieval.ingest.vector_file import read_vector_file
from mvretrieval.search.options import RerankOptions
from mvretrieval.search.query import Query, Term
from mvretrieval.store.schema import FILE
from mvretrieval.store.store import Store

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install 'mvretrieval[parquet]'")
pq = pytest.importorskip("pyarrow.parquet")

N, D, CLASSES = 120, 16, 6
_RNG = np.random.default_rng(0)
CLASS_OF = np.arange(N) % CLASSES
VECTORS = (3 * _RNG.normal(size=(CLASSES, D))[CLASS_OF] + 2.5 * _RNG.normal(size=(N, D))).astype(np.float32)
UNITS = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)
IDS = [f"part {i:03d}/käse" for i in range(N)]
LABELS: dict[str, list[Any]] = {"label": [f"class {c}" for c in CLASS_OF], "price": [float(i) / 7 for i in range(N)]}


def write_npz(file: Path, ids: Any = IDS, vectors: Any = VECTORS, **arrays: Any) -> Path:
    np.savez(file, ids=np.array(ids), vectors=vectors, **{k: np.asarray(v) for k, v in arrays.items()})  # type: ignore[arg-type]
    return file


def write_parquet(file: Path, ids: Any = IDS, vectors: Any = VECTORS, **columns: Any) -> Path:
    table = pa.table({"id": ids, "vector": list(vectors), **columns})
    # Row groups that batches do not coincide with, and checksums, which reveal damaged bytes.
    pq.write_table(table, file, row_group_size=50, write_page_checksum=True)
    return file


WRITERS = {"v.npz": write_npz, "v.parquet": write_parquet}


@pytest.fixture
def mvr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Mvr:
    return runner(monkeypatch, capsys)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collection]:
    """The vectors, labeled; not to be changed."""
    folder = tmp_path_factory.mktemp("parts") / "c"
    import_vectors(folder, IDS, VECTORS, LABELS)
    with Collection.open(folder) as opened:
        yield opened


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Collection]:
    """The same, to be changed."""
    import_vectors(tmp_path / "own", IDS, VECTORS, LABELS)
    with Collection.open(tmp_path / "own", write=True) as opened:
        yield opened


def stored(folder: Path) -> dict[str, NDArray[np.float32]]:
    with Collection.open(folder) as opened:
        store = opened.session.store
        return {name: store.vector_of(opened.session.row_id_of(name)) for name in opened.ids()}


# -- files -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("rows", [7, 1024])
def test_vectors_ids_labels_and_ranking_survive(
    mvr: Mvr, tmp_path: Path, name: str, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_run, "_MAX_ROWS", rows)
    file = WRITERS[name](tmp_path / name, vectors=17 * VECTORS, **LABELS)
    report = as_json(mvr("import", tmp_path / "c", file, "--json"))
    assert {k: report[k] for k in ("objects", "found", "added", "labeled")} == {
        "objects": N, "found": N, "added": N, "labeled": N,
    }  # fmt: skip
    found = stored(tmp_path / "c")
    assert list(found) == IDS
    np.testing.assert_allclose(np.stack(list(found.values())), UNITS, atol=1e-6)
    with Collection.open(tmp_path / "c") as things:
        assert things.get(IDS[9]).metadata == {"label": "class 3", "price": 9 / 7}
        query = _RNG.normal(size=D).astype(np.float32)
        cosines = UNITS @ (query / np.linalg.norm(query))
        hits = things.search(Query(vector=query), k=N)
        assert [hit.id for hit in hits] == [IDS[i] for i in np.argsort(-cosines)]
        np.testing.assert_allclose([hit.score for hit in hits], np.sort(cosines)[::-1], atol=1e-6)
    again = as_json(mvr("import", tmp_path / "c", file, "--json"))
    assert (again["unchanged"], again["added"], again["replaced"], again["labeled"]) == (N, 0, 0, 0)


def _column(kind: Any, values: NDArray[Any] = VECTORS) -> Any:
    return pa.array(values.tolist(), kind)


@pytest.mark.parametrize(
    "column",
    [
        lambda: _column(pa.list_(pa.float32())),
        lambda: _column(pa.large_list(pa.float64())),
        lambda: _column(pa.list_(pa.float32(), D)),
        lambda: pa.FixedSizeListArray.from_arrays(VECTORS.ravel(), D),
        lambda: pa.FixedShapeTensorArray.from_numpy_ndarray(VECTORS),
        lambda: pa.array(list(VECTORS.astype(np.float16)), pa.list_(pa.float16())),
    ],
    ids=["list", "large_list", "fixed_size_list", "flat", "tensor", "half"],
)
def test_types_of_parquet_vectors(tmp_path: Path, column: Callable[[], Any]) -> None:
    file = tmp_path / "v.parquet"
    pq.write_table(pa.table({"id": pa.array(IDS).dictionary_encode(), "vector": column()}), file)
    batches = list(read_vector_file(file).batches(50))
    assert [len(batch.ids) for batch in batches] == [50, 50, 20] and batches[0].ids == IDS[:50]
    np.testing.assert_allclose(np.concatenate([batch.vectors for batch in batches]), VECTORS, rtol=1e-3)


@pytest.mark.parametrize("kind", [np.float16, np.float64, np.int8, ">f4"])
def test_types_of_npz_vectors(tmp_path: Path, kind: Any) -> None:
    file = write_npz(tmp_path / "v.npz", ids=np.arange(N), vectors=np.asfortranarray((10 * VECTORS).astype(kind)))
    table = read_vector_file(file)
    assert table.ids[:3] == ["0", "1", "2"] and table.dim == D
    found = np.concatenate([batch.vectors for batch in table.batches(50)])
    assert np.array_equal(found, (10 * VECTORS).astype(kind))


def test_values_of_labels(tmp_path: Path) -> None:
    days = np.array(["2024-01-02", "NaT"], "datetime64[D]")
    expected: dict[str, dict[str, Any]] = {
        "a": {"text": "x", "whole": 1, "real": 0.5, "flag": 1, "day": "2024-01-02"},
        "b": {"text": None, "whole": 2, "real": None, "flag": 0, "day": None},
    }
    npz = write_npz(
        tmp_path / "v.npz", ["a", "b"], np.eye(2), text=["x", ""], whole=[1, 2], real=[0.5, np.nan], flag=[True, False],
        day=days, pairs=np.eye(2), z=np.array([1j, 2]), version=3,
    )  # fmt: skip
    parquet = write_parquet(
        tmp_path / "v.parquet", ["a", "b"], np.eye(2), text=pa.array(["x", None]).dictionary_encode(), whole=[1, 2],
        real=[0.5, None], flag=[True, False], day=pa.array(days), pairs=[[1.0], [2.0]], __index_level_0__=[0, 1],
    )  # fmt: skip
    for file, ignored in ((npz, {"pairs", "z", "version"}), (parquet, {"pairs", "__index_level_0__"})):
        table = read_vector_file(file)
        assert {name for name, _ in table.ignored} == ignored
        (batch,) = table.batches(10)
        assert {name: {k: v[i] for k, v in batch.labels.items()} for i, name in enumerate(batch.ids)} == expected
    ids = ["a", "b"]
    import_vectors(
        tmp_path / "c", ids, np.eye(2), {"n": [1, np.inf], "m": np.array(["", "y"]), "b": np.array([b"q", b""])}
    )
    with Collection.open(tmp_path / "c") as things:
        assert [things.get(one).metadata for one in ids] == [{"n": 1, "b": "q"}, {"m": "y"}]


def test_a_missing_number_or_list_is_a_failure_of_its_row(tmp_path: Path) -> None:
    from mvretrieval.ingest.parquet_vectors import _vectors

    rows: list[list[float | None] | None] = [[1, 2], None, [None, 1], [3, 4], [0, 0]]
    for kind in (pa.list_(pa.float32()), pa.list_(pa.int16()), pa.list_(pa.float32(), 2)):
        column = pa.array(rows, kind)
        vectors, missing = _vectors(column, 2)
        if kind != pa.list_(pa.float32(), 2):  # pyarrow 18 does not write them with missing lists
            pq.write_table(pa.table({"id": list("abcde"), "vector": column}), tmp_path / "v.parquet")
            (batch,) = read_vector_file(tmp_path / "v.parquet").batches(10)
            np.testing.assert_array_equal(batch.vectors, vectors)
        units, problems = unit_rows(vectors, missing)
        assert {row: code for row, (code, _) in problems.items()} == {1: "no_vector", 2: "not_finite", 4: "zero_vector"}
        np.testing.assert_allclose(units[[0, 3]], [[5**-0.5, 2 * 5**-0.5], [0.6, 0.8]], atol=1e-6)


def test_large_and_small_vectors_have_a_direction() -> None:
    wide = np.array([[3e300, 4e300], [3e-300, 4e-300], [3e-320, 4e-320]])
    units, problems = unit_rows(wide, np.zeros(3, bool))
    assert not problems
    np.testing.assert_allclose(units, [[0.6, 0.8]] * 3, atol=1e-3)


# -- unusable files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", WRITERS.values())
@pytest.mark.parametrize(
    ("code", "contains", "change"),
    [
        ("duplicate_ids", "'a', 'b'", {"ids": ["a", "b", "a", "b"]}),
        ("bad_ids", "row 2", {"ids": ["a", "b", " ", "d"]}),
        ("bad_ids", "the type", {"ids": [0.5, 1.5, 2.5, 3.5]}),
        ("bad_ids", "4097", {"ids": ["a", "b", "c", "d" * 4097]}),
        ("duplicate_label", "Name", {"name": list("wxyz"), "Name": list("wxyz")}),
    ],
)
def test_unusable_ids_and_labels(
    tmp_path: Path, write: Callable[..., Path], code: str, contains: str, change: dict[str, Any]
) -> None:
    file = write(tmp_path / "file", **{"ids": list("abcd"), "vectors": np.eye(4), **change})
    file = file if file.exists() else file.with_name(f"{file.name}.npz")
    kind = LabelsError if code == "duplicate_label" else VectorsError
    with raises_code(kind, code, contains):
        from mvretrieval.ingest.import_vectors import open_for_import

        open_for_import(tmp_path / "c", read_vector_file(file))
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("code", "contains", "arrays"),
    [
        ("no_such_column", "'vector'", {"ids": list("ab"), "vector": np.eye(2)}),
        ("no_such_column", "no arrays", {}),
        ("bad_vectors_shape", "(2, D)", {"ids": list("ab"), "vectors": np.eye(3)}),
        ("bad_vectors_shape", "(2,)", {"ids": list("ab"), "vectors": np.ones(2)}),
        ("bad_vectors_shape", "0 numbers", {"ids": list("ab"), "vectors": np.ones((2, 0))}),
        ("bad_vectors_type", "complex", {"ids": list("ab"), "vectors": np.eye(2) * 1j}),
        ("bad_ids", "(1, 2)", {"ids": [list("ab")], "vectors": np.eye(2)}),
        ("no_vectors", "nothing to import", {"ids": np.empty(0, "U1"), "vectors": np.empty((0, 3))}),
        ("pickled_array", "'ids'", {"ids": np.array(["a", 2], object), "vectors": np.eye(2)}),
        ("pickled_array", "'note'", {"ids": list("ab"), "vectors": np.eye(2), "note": np.array([None, {}])}),
    ],
)
def test_unusable_npz(mvr: Mvr, tmp_path: Path, code: str, contains: str, arrays: dict[str, Any]) -> None:
    np.savez(tmp_path / "v.npz", **arrays)
    with raises_code(VectorsError, code, contains, str(tmp_path / "v.npz")):
        read_vector_file(tmp_path / "v.npz")
    exit_code, out, _ = mvr("import", tmp_path / "c", tmp_path / "v.npz", "--json")
    assert exit_code == 1 and json.loads(out)["error"]["code"] == code and not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("code", "contains", "columns"),
    [
        ("no_such_column", "'ids'", {"ids": list("ab"), "vector": [[1.0], [2.0]]}),
        ("no_such_column", "'vector'", {"id": list("ab")}),
        ("bad_vectors_shape", "1, 2", {"id": list("ab"), "vector": [[1.0], [2.0, 3.0]]}),
        ("bad_vectors_shape", "0 numbers", {"id": list("ab"), "vector": pa.array([None, None], pa.list_(pa.float32()))}),
        ("bad_vectors_type", "string", {"id": list("ab"), "vector": [["x"], ["y"]]}),
        ("bad_vectors_type", "double", {"id": list("ab"), "vector": [1.0, 2.0]}),
        ("bad_ids", "1 empty", {"id": ["a", None], "vector": [[1.0], [2.0]]}),
        ("no_vectors", "nothing to import", {"id": pa.array([], pa.string()), "vector": pa.array([], pa.list_(pa.float32()))}),
    ],
)  # fmt: skip
def test_unusable_parquet(tmp_path: Path, code: str, contains: str, columns: dict[str, Any]) -> None:
    pq.write_table(pa.table(columns), tmp_path / "v.parquet")
    with raises_code(VectorsError, code, contains, str(tmp_path / "v.parquet")):
        read_vector_file(tmp_path / "v.parquet")


def test_other_and_damaged_files(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", VECTORS)
    (tmp_path / "v.csv").write_text("id,vector\n")
    for name, contains in (("v.npy", "without ids"), ("v.csv", "neither .npz nor Parquet")):
        with raises_code(VectorsError, "unknown_vectors_format", name, contains):
            read_vector_file(tmp_path / name)
    for path in (tmp_path, tmp_path / "nowhere.npz"):
        with raises_code(VectorsError, "vectors_unreadable", str(path)):
            read_vector_file(path)
    for name, write in WRITERS.items():
        whole = write(tmp_path / name).read_bytes()
        # At the start, in the vectors, and at the end, where the directory of the archive or of the columns is.
        for changed in (whole[:50], whole[: len(whole) // 2], whole[:-30], whole[:2000] + b"?" * 40 + whole[2040:]):
            (tmp_path / name).write_bytes(changed)
            with raises_code(VectorsError, "vectors_unreadable", name):
                for _ in read_vector_file(tmp_path / name).batches(10):
                    pass


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_parquet(tmp_path / "v.parquet")
    original = builtins.__import__

    def without_pyarrow(name: str, *arguments: Any, **options: Any) -> Any:
        if name.split(".")[0] == "pyarrow":
            raise ModuleNotFoundError(f"No module named '{name}'", name="pyarrow")
        return original(name, *arguments, **options)

    monkeypatch.delitem(sys.modules, "mvretrieval.ingest.parquet_vectors", raising=False)
    monkeypatch.setattr(builtins, "__import__", without_pyarrow)
    with raises_code(VectorsError, "needs_extra", "pyarrow", "mvretrieval[parquet]", ".npz"):
        read_vector_file(file)


def test_unusable_arrays(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    for code, arguments in (
        ("bad_vectors_shape", (["a", "b"], [[1.0], [1.0, 2.0]])),
        ("bad_vectors_shape", (["a"], np.eye(2))),
        ("bad_vectors_type", (["a", "b"], np.eye(2).astype(str))),
        ("bad_ids", (["a", None], np.eye(2))),
        ("bad_ids", (["a", "b\0c"], np.eye(2))),
        ("bad_label_count", (["a", "b"], np.eye(2), {"label": ["x"]})),
    ):
        with raises_code(VectorsError, code):
            import_vectors(folder, *arguments)
    with raises_code(LabelsError, "too_many_labels", "1001"):
        import_vectors(folder, ["a"], [[1.0]], {f"l{i}": [1] for i in range(1001)})
    assert not folder.exists()
    with raises_code(LabelsError, "bad_label_value"):
        import_vectors(folder, ["a"], [[1.0]], {"n": [2**64]})
    with Collection.open(folder) as things:
        assert len(things) == 0


# -- an existing collection --------------------------------------------------------------------------------------------


def test_adding_replacing_and_failing(mvr: Mvr, tmp_path: Path) -> None:
    folder = tmp_path / "c"
    file = write_npz(tmp_path / "v.npz", IDS[:100], VECTORS[:100], label=LABELS["label"][:100])
    assert mvr("import", folder, file)[0] == 0
    vectors = VECTORS.copy()
    vectors[3], vectors[101], vectors[5] = np.nan, 0, -vectors[5]
    vectors[7] *= 4  # the same direction
    write_npz(file, vectors=vectors, price=LABELS["price"])
    code, out, _ = mvr("import", folder, file)
    assert code == 0
    assert "19 added, 1 replaced, 98 unchanged" in out and "2 failed: 1 not_finite, 1 zero_vector" in out
    assert IDS[3] in out and "keeps its earlier vector" in out and "labels of 118 objects changed" in out
    with Collection.open(folder) as things:
        assert [(path, c) for path, c, _ in things.failures()] == [
            (f"vector:{IDS[3]}", "not_finite"),
            (f"vector:{IDS[101]}", "zero_vector"),
        ]
        record = things.get(IDS[5])
        assert record.path == f"vector:{IDS[5]}" and record.facts["format"] == "vectors"
        assert record.metadata == {"label": "class 5", "price": 5 / 7}
        assert len(things) == 119
    np.testing.assert_allclose(stored(folder)[IDS[5]], -UNITS[5], atol=1e-6)
    assert IDS[3] in mvr("info", folder, "--failures")[1]
    report = as_json(mvr("import", folder, write_npz(file), "--json"))
    assert (report["added"], report["replaced"], report["unchanged"], report["failed"]) == (1, 1, 118, {})
    with Collection.open(folder) as things:
        assert things.failures() == []
    np.testing.assert_allclose(np.stack([stored(folder)[name] for name in IDS]), UNITS, atol=1e-6)


def test_a_failure_that_left_the_file_is_forgotten(tmp_path: Path, mvr: Mvr) -> None:
    vectors = np.eye(3)
    vectors[2] = 0
    for ids in ("abc", "abd"):
        mvr("import", tmp_path / "c", write_npz(tmp_path / "v.npz", list(ids), vectors))
        with Collection.open(tmp_path / "c") as things:
            assert [path for path, _, _ in things.failures()] == [f"vector:{ids[2]}"]
    code, out, _ = mvr("import", tmp_path / "d", write_npz(tmp_path / "v.npz", list("abc"), np.zeros((3, 3))))
    assert code == 1 and "0 added" in out and "3 zero_vector" in out


def test_what_does_not_fit_is_refused(own: Collection, things: Collection, tmp_path: Path) -> None:
    session = own.session
    with raises_code(VectorsError, "other_dimension", "dimension 3", f"have {D}"):
        import_vectors(session, ["a"], [[1.0, 2.0, 3.0]])
    with raises_code(CollectionError, "other_index_kind", "auto", "hnsw", "mvr reindex"):
        import_vectors(session, IDS, VECTORS, index="hnsw")
    with raises_code(DescriberError, "other_config", "--encoder"):
        import_vectors(session, IDS, VECTORS, encoder="builtin:")
    with raises_code(CollectionError, "not_imported", "mvr import"):
        import_vectors(things.session, ["a"], np.ones((1, things.session.dim)))
    with raises_code(CollectionError, "collection_locked"):
        import_vectors(own.folder, IDS, VECTORS)
    with raises_code(CollectionError, "bad_index_kind"):
        import_vectors(tmp_path / "new", IDS, VECTORS, index="Nope")
    assert not (tmp_path / "new").exists()
    assert import_vectors(session, IDS, VECTORS).unchanged == N


def test_kinds_of_index(tmp_path: Path) -> None:
    import_vectors(tmp_path / "c", IDS, VECTORS, index="HNSW8")
    with Collection.open(tmp_path / "c") as things:
        assert things.session.store.get_meta("index") == "HNSW8"
        assert things.search(Query(vector=VECTORS[4]), k=1)[0].id == IDS[4]


def test_a_killed_import_resumes(tmp_path: Path) -> None:
    folder, n = tmp_path / "c", 30_000
    rng = np.random.default_rng(1)
    ids, vectors = [f"v{i}" for i in range(n)], rng.normal(size=(n, 8)).astype(np.float32)
    file = write_npz(tmp_path / "v.npz", ids, vectors)

    def count() -> int:
        store = Store.open(folder)
        try:
            return store.count()
        finally:
            store.close()

    process = subprocess.Popen([sys.executable, "-m", "mvretrieval", "import", str(folder), str(file)])
    try:
        wait_for(lambda: process.poll() is not None or ((folder / FILE).exists() and count() > 0))
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    survived = count()
    assert 0 < survived < n and survived % import_run._MAX_ROWS == 0
    report = import_vectors(folder, ids, vectors)
    assert (report.unchanged, report.added) == (survived, n - survived)
    with Collection.open(folder) as things:
        assert list(things.ids()) == ids
        units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        best = np.argsort(-(units @ units[3]))[:6]
        assert [hit.id for hit in things.search(Query(vector=vectors[3]), k=6)] == [ids[i] for i in best]


def test_an_interrupted_batch_is_not_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_run, "_MAX_ROWS", 50)

    def stop(done: int, total: int) -> None:
        assert total == N
        if done == 100:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_vectors(tmp_path / "c", IDS, VECTORS, LABELS, progress=stop)
    report = import_vectors(tmp_path / "c", IDS, VECTORS, LABELS)
    assert (report.unchanged, report.added, report.labeled) == (100, 20, 20)


# -- what works over it ------------------------------------------------------------------------------------------------


def test_searches_by_id_mixtures_filters_and_reranking(parts: Collection) -> None:
    cosines = UNITS @ UNITS[2]
    order = [i for i in np.argsort(-cosines) if i != 2]
    hits = parts.search(Query(id=IDS[2]), k=10)
    assert [hit.id for hit in hits] == [IDS[i] for i in order[:10]]
    assert hits[0].path == f"vector:{hits[0].id}" and "azimuth_deg" not in hits[0].best_view
    kept = [i for i in order if i % CLASSES == 2 and i / 7 < 8]
    found = parts.search(Query(id=IDS[2]), k=N, where="label = 'class 2' and price < 8")
    assert [hit.id for hit in found] == [IDS[i] for i in kept]
    reranked = parts.search(Query(id=IDS[2]), k=10, rerank=RerankOptions(rerank_views=20, expand=3))
    assert len(reranked) == 10 and all(match is not None for hit in reranked for match in hit.matches)
    terms = [Term("id", IDS[2]), Term("id", IDS[8], 0.5), Term("id", IDS[3], -0.5), Term("vector", VECTORS[14])]
    mixed = parts.search(Query(terms=terms), k=5)
    assert {hit.metadata["label"] for hit in mixed} == {"class 2"} and len(mixed[0].parts) == 4
    assert len(parts.search(Query(id=IDS[0]), where="format = 'vectors'", k=N)) == N - 1


def test_commands_over_it(mvr: Mvr, own: Collection, tmp_path: Path) -> None:
    folder = own.folder
    export_faiss(own.session, tmp_path / "own.faiss")
    assert json.loads((tmp_path / "own.faiss.json").read_text())["ids"] == IDS
    own.close()
    info = as_json(mvr("info", folder, "--json"))
    assert info["encoder"]["id"] == f"vectors:{D}" and info["views"]["imported"] == N
    assert "all vectors were imported" in mvr("info", folder)[1]
    code, out, _ = mvr("search", folder, "--id", IDS[0], "-k", 3, "--html", tmp_path / "hits.html")
    assert code == 0 and "  -  " in out and "vector:" not in out
    html = (tmp_path / "hits.html").read_text()
    assert "<img" not in html and "vector:" not in html
    scores = as_json(mvr("eval", folder, "--by", "label", "--json"))
    assert scores["queries"] == N and 0.5 < scores["mAP"] < 1
    assert mvr("eval", folder, "--by", "label", "--report", tmp_path / "report")[0] == 0
    assert "vector:" not in (tmp_path / "report" / "index.html").read_text()
    code, _, err = mvr("calibrate", folder, "--by", "label")
    assert code == 0, err
    hit = json.loads(mvr("search", folder, "--id", IDS[0], "--json")[1].splitlines()[0])
    assert 0 < hit["confidence"] <= 1
    assert mvr("remove", folder, IDS[0], "--where", "label = 'class 1'")[1].startswith("removed 21,")
    report = as_json(mvr("import", folder, write_npz(tmp_path / "v.npz"), "--json"))
    assert (report["added"], report["unchanged"]) == (21, N - 21)


def test_whitening_augmentation_and_an_adapter(mvr: Mvr, own: Collection, tmp_path: Path) -> None:
    from mvtrain import TrainConfig, fit_adapter

    session = own.session
    own.reembed(DescriberConfig(encoder=f"vectors:{D}", rig="views:1", whiten=8))
    assert session.dim == 8
    own.augment(3)
    # Added later, a vector is whitened and augmented like the others.
    report = import_vectors(session, ["new"], VECTORS[5:6], {"label": ["class 5"]})
    assert report.added == 1
    new, old = (session.store.vector_of(session.row_id_of(name)) for name in ("new", IDS[5]))
    np.testing.assert_allclose(new, old, atol=1e-5)
    assert own.search(Query(id="new"), k=1)[0].id == IDS[5]
    own.augment(0)
    own.reembed(DescriberConfig(encoder=f"vectors:{D}", rig="views:1"))
    np.testing.assert_allclose(session.store.vector_of(session.row_id_of(IDS[9])), UNITS[9], atol=1e-3)
    adapter = fit_adapter(own, config=TrainConfig(max_steps=4, whiten=8, evaluate_every=2))
    own.reembed(DescriberConfig(encoder=f"vectors:{D}", rig="views:1", adapter=adapter.fingerprint), adapter=adapter)
    assert import_vectors(session, ["newer"], VECTORS[5:6]).added == 1
    new, old = (session.store.vector_of(session.row_id_of(name)) for name in ("newer", IDS[5]))
    np.testing.assert_allclose(new, old, atol=1e-5)


# -- what does not -----------------------------------------------------------------------------------------------------


def test_what_needs_meshes_images_or_an_encoder_is_refused(mvr: Mvr, own: Collection, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"")
    for query in (Query(mesh="x.ply"), Query(images="x.png"), Query(text="chair"), Query(id=IDS[0], text="chair")):
        with raises_code(QueryError, "imported_vectors", "Query(vector=...)"):
            own.search(query)
    for add in (lambda: own.add_folder(tmp_path), lambda: own.add(tmp_path / "x.ply")):
        with raises_code(DescriberError, "imported_vectors", "mvr import"):
            add()
    (tmp_path / "views.csv").write_text("id,file\na,x.png\n")
    with raises_code(DescriberError, "imported_vectors"):
        own.add_views(tmp_path / "views.csv")
    for config in (
        DescriberConfig(encoder="builtin:"),
        DescriberConfig(encoder=f"vectors:{D}", rig="views:1", size=64),
    ):
        with raises_code(DescriberError, "imported_vectors", "--whiten"):
            own.reembed(config)
    with raises_code(CalibrationError, "needs_labels", "--by"):
        own.calibrate()
    with raises_code(EncoderError, "imported_vectors"):
        own.describer.encode_images(np.zeros((1, 8, 8, 3), np.uint8))
    with raises_code(EncoderError, "imported_vectors"):
        own.describer.embed_text("chair")
    own.close()
    code, out, _ = mvr("eval", "zero-shot", own.folder, "--by", "label", "--json")
    assert code == 1 and json.loads(out)["error"]["code"] == "no_text_tower"
    with raises_code(TrainingError, "views_not_tunable", "vectors"):
        from mvtrain.render_views import meshes_of_collection

        with Collection.open(own.folder) as things:
            meshes_of_collection(things.session, "label", None)


def test_prune_keeps_imported_vectors(mvr: Mvr, own: Collection, shapes: Path) -> None:
    own.close()
    code, out, _ = mvr("index", own.folder, shapes, "--prune", "--json")
    assert code == 1 and json.loads(out)["error"]["code"] == "imported_vectors"
    assert len(stored(own.folder)) == N


@pytest.mark.parametrize("text", ["vectors:", "vectors:0", "vectors:x", "vectors:65537", "vectors:-3", "vectors:016"])
def test_ids_of_encoders_that_are_none(text: str) -> None:
    with raises_code(EncoderError, "bad_encoder_id", text, "65536"):
        DescriberConfig(encoder=text, rig="views:1")


def test_no_meshes_are_indexed_with_imported_vectors_as_encoder(mvr: Mvr, tmp_path: Path, shapes: Path) -> None:
    with raises_code(DescriberError, "imported_vectors", "mvr import"):
        DescriberConfig(encoder="vectors:16")
    (tmp_path / "views.csv").write_text("id,file\na,x.png\n")
    for what in ((shapes,), ("--view-manifest", tmp_path / "views.csv"), (shapes, "--rig", "views:1")):
        code, out, _ = mvr("index", tmp_path / "c", *what, "--encoder", "vectors:16", "--json")
        assert code == 1 and json.loads(out)["error"]["code"] == "imported_vectors"
        assert not (tmp_path / "c").exists()


# -- with the encoder that made them -----------------------------------------------------------------------------------


def test_with_its_encoder_images_are_queries(mvr: Mvr, tmp_path: Path) -> None:
    """Vectors of images; each image finds its own."""
    from PIL import Image

    rng = np.random.default_rng(0)
    encoder = open_encoder("builtin:")
    images = [tmp_path / f"{name}.png" for name in "abcd"]
    for path in images:
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).resize((224, 224)).save(path)
    loaded = np.stack([load_image(path, encoder.image_size) for path in images])
    file = write_npz(tmp_path / "v.npz", list("abcd"), encoder.encode_views(loaded))
    code, out, _ = mvr("import", tmp_path / "c", file, "--encoder", "builtin:")
    assert code == 0 and "4 added" in out
    with Collection.open(tmp_path / "c") as made:
        for path in images:
            hit = made.search(Query(images=path), k=1)[0]
            assert hit.id == path.stem and hit.score > 0.99
        with raises_code(DescriberError, "unknown_directions"):
            made.search(Query(mesh="x.ply"))
        with raises_code(DescriberError, "imported_vectors"):
            made.reembed(DescriberConfig(encoder="vectors:1024", rig="views:1"))
        (tmp_path / "views.csv").write_text("id,file\na,a.png\n")
        with raises_code(DescriberError, "imported_vectors"):
            made.add_views(tmp_path / "views.csv")
    assert as_json(mvr("import", tmp_path / "c", file, "--encoder", "builtin:", "--json"))["unchanged"] == 4
    code, out, _ = mvr("import", tmp_path / "d", write_npz(file), "--encoder", "builtin:", "--json")
    assert code == 1 and json.loads(out)["error"]["code"] == "other_dimension" and not (tmp_path / "d").exists()


# -- over HTTP ---------------------------------------------------------------------------------------------------------


def test_the_service(own: Collection) -> None:
    pytest.importorskip("fastapi", reason="the service is not installed: pip install 'mvretrieval[serve]'")
    import httpx
    from serving import served

    from mvretrieval.service.settings import ServiceSettings

    bad = np.vstack([VECTORS[:1] * 0, VECTORS[1:2]])
    import_vectors(own.session, ["folder/zero", "fine"], bad)
    with served(own, ServiceSettings(token="secret")) as address, httpx.Client(base_url=f"{address}/api") as client:
        about = client.get("/collection").json()
        assert (about["has_encoder"], about["has_images"], about["has_text"]) == (False, False, False)
        assert "computed elsewhere" in about["text_hint"] and "mvr reindex" not in about["text_hint"]
        body = {"terms": [{"id": IDS[2]}, {"vector": VECTORS[8].tolist()}], "k": 3, "where": "price > 1"}
        hits = client.post("/search", json=body).json()["hits"]
        assert len(hits) == 3 and hits[0]["metadata"]["label"] == "class 2"
        assert client.get("/objects", params={"limit": 2}).json()["objects"][0]["id"] == IDS[0]
        assert client.get("/failures").json()[0]["file"] == "vector:folder/zero"
        refused = client.post("/search", json={"terms": [{"text": "chair"}]})
        assert (refused.status_code, refused.json()["code"]) == (422, "imported_vectors")
        for place in ("thumbnails", "strips", "models"):
            missing = client.get(f"/{place}/{IDS[2]}")
            assert (missing.status_code, missing.json()["code"]) == (404, "no_image")
        headers = {"Authorization": "Bearer secret"}
        added = client.post("/objects", files={"files": ("a.ply", b"ply")}, headers=headers)
        assert (added.status_code, added.json()["code"]) == (422, "imported_vectors")
        assert client.delete(f"/objects/{IDS[2]}", headers=headers).json() == {"removed": 1}
