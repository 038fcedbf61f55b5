"""Files of format version 1 open with the same vectors, rankings and numbers. `tests/fixtures/make_v1.py` made them.

Options, JSON keys and messages may be renamed; the tables below map old names to current names. Numbers and ids stay.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mvrender.cameras import parse_rig
from mvretrieval.api import Collection, OpenOptions
from mvretrieval.cli.main import main as mvr_main
from mvretrieval.encoders.registry import open_encoder
from mvretrieval.search.options import RerankOptions
from mvretrieval.search.query import Query, Term
from mvretrieval.store.augmented import search_vectors
from mvretrieval.weighting.adapter import Adapter

FIXTURES = Path(__file__).parents[1] / "fixtures" / "v1"
COLLECTIONS = ("plain", "whitened", "augmented", "adapted", "views")
OBJECT = "box-0.ply"
CLIP = "ViT-tiny-of-fixtures"

# Old option or command -> current one.
ARGUMENTS: dict[str, str] = {"--match-views": "--rerank-views", "--match-weight": "--rerank-weight"}
# The same for the arguments of one command.
COMMAND_ARGUMENTS: dict[str, dict[str, str]] = {
    "eval": {
        "--smooth": "--dba",
        "--smooth-alpha": "--dba-alpha",
        "--match": "--rerank-weight",
        "--views": "--view-fusion",
        "after": "probabilities",
    },
}
# Old JSON key -> current one.
KEYS: dict[str, str] = {"statistics": "whitening", "smoothed": "augmented", "labelled": "labeled"}  # mvr index
# The same for the output of one command.
COMMAND_KEYS: dict[str, dict[str, str]] = {
    "calibrate": {
        "epoch": "generation",
        "share": "cohort_weight",
        "questions": "queries",
        "pictures": "images",
        "words": "text",
    },
    "eval": {
        "unlabelled": "unlabeled",
        "classes_learnt_from": "seen_classes",
        "classes_without_objects": "empty_classes",
        "learnt_from": "seen",
        "words": "text_encoder",
        "views": "view_fusion",
        "mistaken_for": "top_confusion",
        "generalised": "generalized",
        "questions": "queries",
        "without_right_object": "without_relevant_object",
    },
}
# Current keys that the old code did not print.
NEW_KEYS: set[str] = {"schema", "unmatched_label", "held_out_steps", "passed_over"}
# Old keys whose strings are identifiers and must be equal. In other strings (messages) only the numbers must be equal.
EXACT = {"id", "style", "metadata", "facts", "format", "up", "code", "labels", "protocol", "by", "where", "method"}
# Old keys whose values depend on the machine.
NOT_COMPARED = {"seconds"}

# Stored vectors, and vectors rendered and encoded by the test: float16 rounding of views may differ between machines.
STORED, ENCODED = 1e-6, 1e-5
# Rounding of JSON output: six digits of scores, four of confidences.
TOLERANCES = {"confidence": 1.1e-4, "held_out_mAP": 1e-3, "untrained_mAP": 1e-3}

Expected = dict[str, NDArray[Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the fixtures as the working directory."""
    copy = tmp_path_factory.mktemp("fixtures") / "v1"
    shutil.copytree(FIXTURES, copy)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(copy)
        yield copy


@pytest.fixture(scope="module")
def expected() -> Expected:
    with np.load(FIXTURES / "expected.npz") as file:
        return dict(file)


def _open(name: str) -> Collection:
    return Collection.open(name, OpenOptions("cpu", backend="raster", workers=1))


def _mvr(*arguments: str) -> str:
    """Run `mvr`; its stdout."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        renamed = ARGUMENTS | COMMAND_ARGUMENTS.get(arguments[0], {})
        patch.setattr(sys, "argv", ["mvr", *(renamed.get(argument, argument) for argument in arguments)])
        with pytest.raises(SystemExit) as ended:
            mvr_main()
    assert not ended.value.code, err.getvalue()
    return out.getvalue()


@pytest.mark.parametrize("name", COLLECTIONS)
def test_vectors_and_view_weights(folder: Path, expected: Expected, name: str) -> None:
    with _open(name) as collection:
        numbers = [int(number) for number in collection.session.store.select(None)]
        records = collection.session.store.records(numbers)
        assert [records[number].id for number in numbers] == expected[f"{name}/ids"].tolist()
        views = [collection.session.views(number) for number in numbers]
        raw, mask = np.stack([view for view, _ in views]), np.stack([mask for _, mask in views])
        wanted = expected.get(f"{name}/views", expected["plain/views"])
        np.testing.assert_array_equal(raw, wanted.astype(np.float32))
        np.testing.assert_array_equal(mask, expected[f"{name}/mask"])
        stored = np.stack([collection.session.store.vector_of(number) for number in numbers])
        np.testing.assert_allclose(stored, expected[f"{name}/vectors"], atol=STORED)
        np.testing.assert_allclose(
            search_vectors(collection.session.store, numbers)[1], expected[f"{name}/searched"], atol=STORED
        )
        # Pool the stored views again.
        vectors, weights = collection.describer.pool(raw, mask)
        np.testing.assert_allclose(vectors, expected[f"{name}/vectors"], atol=ENCODED)
        np.testing.assert_allclose(weights, expected[f"{name}/weights"], atol=STORED)
        np.testing.assert_allclose(
            collection.describer.view_weights(raw, mask), expected[f"{name}/weights"], atol=STORED
        )


def test_database_side_augmentation_is_on(expected: Expected) -> None:
    for name in COLLECTIONS:
        same = np.array_equal(expected[f"{name}/searched"], expected[f"{name}/vectors"])
        assert same == (name != "augmented")


@pytest.mark.parametrize("name", COLLECTIONS[:-1])
def test_rankings_and_scores(folder: Path, expected: Expected, name: str) -> None:
    image = "queries/query-0.png"
    mixture = [Term("id", OBJECT, 1.0), Term("images", [image], 0.7), Term("id", "ball-1.obj", -0.5)]
    searches: dict[str, tuple[Query, RerankOptions | None, float]] = {
        "id": (Query(id=OBJECT), None, STORED),
        "mesh": (Query(mesh="queries/query.ply"), None, ENCODED),
        "image": (Query(images=[image, "queries/query-1.png"]), None, ENCODED),
        "mixture": (Query(terms=mixture), None, ENCODED),
        "refined": (Query(id=OBJECT), RerankOptions(expand=3, rerank_views=6), STORED),
    }
    if name in ("plain", "whitened"):  # saves a second each; `test_json_output[search-mesh]` covers plain
        del searches["mesh"]
    with _open(name) as collection:
        for key, (query, rerank, tolerance) in searches.items():
            hits = collection.search(query, k=12, rerank=rerank)
            assert [hit.id for hit in hits] == expected[f"{name}/{key}/ids"].tolist(), key
            scores = [hit.score for hit in hits]
            np.testing.assert_allclose(scores, expected[f"{name}/{key}/scores"], atol=tolerance, err_msg=key)


def test_a_rebuilt_index_gives_the_same_ranking(folder: Path, expected: Expected, tmp_path: Path) -> None:
    shutil.copytree(folder / "augmented", tmp_path / "c", ignore=shutil.ignore_patterns("index-*"))
    assert not list((tmp_path / "c").glob("index-*")) and list((FIXTURES / "augmented").glob("index-*"))
    with Collection.open(tmp_path / "c") as collection:
        hits = collection.search(Query(id=OBJECT), k=12)
    assert [hit.id for hit in hits] == expected["augmented/id/ids"].tolist()
    np.testing.assert_allclose([hit.score for hit in hits], expected["augmented/id/scores"], atol=STORED)


@pytest.mark.parametrize("name", ["adapter", "adapter-names"])
def test_adapters(folder: Path, expected: Expected, name: str) -> None:
    adapter = Adapter.load(name)
    views, mask = expected["random/views"].astype(np.float32), expected["random/mask"]
    directions = parse_rig("ring:3@30").directions.astype(np.float32)
    np.testing.assert_allclose(directions, expected["random/directions"], atol=STORED)
    vectors, weights = adapter.pool(views, mask, directions)
    np.testing.assert_allclose(vectors, expected[f"{name}/vectors"], atol=STORED)
    np.testing.assert_allclose(weights, expected[f"{name}/weights"], atol=STORED)
    np.testing.assert_allclose(adapter.pool(views, mask, None)[0], expected[f"{name}/photo-vectors"], atol=STORED)
    np.testing.assert_allclose(adapter.adapt_views(views), expected[f"{name}/single-views"], atol=STORED)
    assert adapter.fingerprint == str(expected[f"{name}/fingerprint"])
    assert (adapter.text_embeddings is not None) == (name == "adapter-names")
    if adapter.text_embeddings is not None:
        found = [adapter.text_embeddings.object_vector(text) for text in ("box", "a sphere", "Tubes")]
        np.testing.assert_allclose(np.stack(found), expected[f"{name}/directions"], atol=STORED)


def test_a_tuned_encoder(folder: Path, expected: Expected, tmp_path: Path) -> None:
    import open_clip

    # A byte tokenizer: the default one needs 49408 rows of weights.
    (tmp_path / "merges.txt.gz").write_bytes(gzip.compress(b"#version\n"))
    config = json.loads((FIXTURES / f"{CLIP}.json").read_text())
    config["text_cfg"]["tokenizer_kwargs"] = {"bpe_path": str(tmp_path / "merges.txt.gz")}
    (tmp_path / f"{CLIP}.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / f"{CLIP}.json")
    encoder: Any = open_encoder("tuned:tuned", "cpu", "float32")
    assert encoder.fingerprint == str(expected["tuned/fingerprint"])
    for name in ("images", "larger-images"):
        found = encoder.encode_views(expected[f"random/{name}"])
        np.testing.assert_allclose(found, expected[f"tuned/{name}"], atol=STORED)
    texts = encoder.encode_text(["a box", "ball", "a photo of a cone"])
    np.testing.assert_allclose(texts, expected["tuned/texts"], atol=STORED)
    assert Adapter.load("tuned/adapter").fingerprint == str(expected["tuned/adapter-fingerprint"])


def test_trec_files(folder: Path, tmp_path: Path) -> None:
    _mvr("eval", "plain", "--trec", str(tmp_path))
    for name in ("qrels.txt", "run.txt"):
        found, wanted = [
            [line.split() for line in (place / name).read_text().splitlines()]
            for place in (tmp_path, FIXTURES / "trec")
        ]
        score = 4 if name == "run.txt" else None
        for line, old in zip(found, wanted, strict=True):
            assert [cell for i, cell in enumerate(line[:5]) if i != score] == [
                cell for i, cell in enumerate(old[:5]) if i != score
            ]
            if score is not None:
                assert float(line[score]) == pytest.approx(float(old[score]), abs=STORED)


def _commands() -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = json.loads((FIXTURES / "json" / "commands.json").read_text())
    return listed


@pytest.mark.parametrize("command", _commands(), ids=lambda command: Path(command["file"]).stem)
def test_json_output(folder: Path, tmp_path: Path, command: dict[str, Any]) -> None:
    arguments = [argument.replace("{out}", str(tmp_path)) for argument in command["arguments"]]
    if command["file"] == "calibrate-same-object.json":
        shutil.copytree(FIXTURES / "plain", tmp_path / "plain")
        arguments = [str(tmp_path / "plain") if argument == "plain" else argument for argument in arguments]
    found, wanted = _mvr(*arguments), (FIXTURES / "json" / command["file"]).read_text()
    assert len(found.splitlines()) == len(wanted.splitlines())
    keys = KEYS | COMMAND_KEYS.get(command["arguments"][0], {})
    for line, old in zip(found.splitlines(), wanted.splitlines(), strict=True):
        if command["arguments"][0] == "info":
            _compare_info(json.loads(line), json.loads(old))
        else:
            _compare(json.loads(line), json.loads(old), NOT_COMPARED, keys)


def _compare_info(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Check that the numbers of the old `mvr info --json`, which were parts of sentences, are among the current values."""
    for key, old in wanted.items():
        value = found["augmentation" if key == "smoothing" else key] if key != "size" else found["size_bytes"]
        if key in ("failures", "notes", "objects"):
            _compare(value, old, set(), KEYS, key, f".{key}")
        elif key == "labels":
            assert (", ".join(value) or "none") == old
        elif key == "encoder":
            assert f"{value['id']} ({value['precision']})" == old
        elif key != "size":  # the size on disk changes with the format
            numbers = [float(number) for number in re.findall(r"\d+\.?\d*", json.dumps(value))]
            for number in re.findall(r"\d+\.?\d*", re.sub(r"adapter \w+", "", old)):
                assert any(float(number) == pytest.approx(own, abs=5e-4) for own in numbers), f".{key}: {number}"


def _compare(found: Any, wanted: Any, skipped: set[str], keys: dict[str, str], key: str = "", where: str = "") -> None:
    """Check that structure, numbers and ids are equal, with keys mapped by the tables above."""
    if isinstance(wanted, dict):
        assert isinstance(found, dict), where
        names = {old: keys.get(old, old) for old in wanted}
        assert set(found) - NEW_KEYS == set(names.values()), where
        for old, name in names.items():
            if old not in skipped:
                exact = key in ("metadata", "facts")  # labels and file facts are not renamed
                _compare(found[name], wanted[old], skipped, keys, key if exact else old, f"{where}.{old}")
    elif isinstance(wanted, list):
        assert isinstance(found, list) and len(found) == len(wanted), where
        for i, (value, old_value) in enumerate(zip(found, wanted, strict=True)):
            _compare(value, old_value, skipped, keys, key, f"{where}[{i}]")
    elif isinstance(wanted, str):
        assert isinstance(found, str), where
        if key in EXACT:
            assert found == wanted, where
        elif wanted.startswith("/"):  # folders differ between machines
            assert Path(found).name == Path(wanted).name, where
        else:
            assert re.findall(r"\d+\.?\d*", found) == re.findall(r"\d+\.?\d*", wanted), where
    elif isinstance(wanted, float) and not isinstance(found, bool):
        assert found == pytest.approx(wanted, abs=TOLERANCES.get(key, 1.1e-5)), where
    else:
        assert found == wanted, where


def test_the_fixtures_are_unchanged(folder: Path) -> None:
    """SQLite would leave files beside a database that was opened in place."""
    assert not [path for path in FIXTURES.rglob("*") if path.name.endswith(("-wal", "-shm", ".lock", "-journal"))]
