"""Re-embedding a collection."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh
from error_codes import raises_code

from mvretrieval import Collection, DescriberConfig, Query
from mvretrieval.errors import CollectionError, DescriberError
from mvretrieval.ingest.reembed import STAGING, reembed

CONFIG = DescriberConfig(encoder="builtin:", rig="ring:3@30", size=64)


@pytest.fixture
def things(tmp_path: Path) -> Path:
    meshes = tmp_path / "meshes"
    meshes.mkdir()
    for i, mesh in enumerate(
        [
            trimesh.creation.box(),
            trimesh.creation.icosphere(),
            trimesh.creation.cone(1, 3),
            trimesh.creation.torus(1, 0.3),
        ]
    ):
        mesh.export(meshes / f"{i}.glb")
    (tmp_path / "labels.csv").write_text("file,kind\n" + "".join(f"meshes/{i}.glb,{i % 2}\n" for i in range(4)))
    with Collection.create(tmp_path / "things", CONFIG) as collection:
        from mvretrieval import IndexOptions

        collection.add_folder(meshes, options=IndexOptions(labels=tmp_path / "labels.csv"))
    return tmp_path / "things"


def test_reembedded_collection_equals_a_new_one(things: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, styles=("clay", "depth"), rig="ring:2@10", whiten=3)
    with Collection.open(things, write=True) as collection:
        before = {record.id: record.row_id for record in collection.session.store.records([1, 2, 3, 4]).values()}
        assert reembed(collection.session, config, fit_where="kind = 1 or kind = 0") == []
        assert not (things / STAGING).exists()
    with Collection.create(tmp_path / "fresh", config) as fresh:
        fresh.add_folder(tmp_path / "meshes")
    with Collection.open(things) as collection, Collection.open(tmp_path / "fresh") as fresh:
        for object_id, row_id in before.items():
            assert collection.session.row_id_of(object_id) == row_id
            assert collection.get(object_id).metadata == {"kind": int(object_id[0]) % 2}
            np.testing.assert_array_equal(
                collection.session.store.vector_of(row_id),
                fresh.session.store.vector_of(fresh.session.row_id_of(object_id)),
            )
        found = [hit.id for hit in collection.search(Query(mesh=tmp_path / "meshes" / "1.glb"))]
        assert found[0] == "1.glb" and len(found) == 4


def test_repooling_needs_no_files(things: Path, tmp_path: Path) -> None:
    for file in (tmp_path / "meshes").iterdir():
        file.unlink()
    with Collection.open(things, write=True) as collection:
        before = collection.session.store.vector_of(1).copy()
        reembed(collection.session, replace(CONFIG, pooling="max"))
        assert not np.allclose(before, collection.session.store.vector_of(1))
        reembed(collection.session, CONFIG)
        np.testing.assert_array_equal(before, collection.session.store.vector_of(1))


def test_missing_file_stops_the_run_and_changes_nothing(things: Path, tmp_path: Path) -> None:
    missing = tmp_path / "meshes" / "2.glb"
    kept = missing.read_bytes()
    missing.unlink()
    config = replace(CONFIG, styles=("normal",))
    with Collection.open(things, write=True) as collection:
        before = collection.session.store.vector_of(3).copy()
        with raises_code(CollectionError, "objects_missing", "1", "--drop-missing"):
            reembed(collection.session, config)
        assert collection.describer.config == CONFIG
        np.testing.assert_array_equal(before, collection.session.store.vector_of(3))
    missing.write_bytes(kept)
    steps: list[tuple[int, int]] = []
    with Collection.open(things, write=True) as collection:
        assert reembed(collection.session, config, progress=lambda done, total: steps.append((done, total))) == []
        assert len(steps) == 1, "the three that were embedded before the stop are not embedded again"
        assert len(collection) == 4 and collection.describer.config == config
        missing.unlink()
        failed = reembed(collection.session, CONFIG, drop_missing=True)
        assert [(object_id, code) for object_id, code, _ in failed] == [("2.glb", "missing_file")]
        assert len(collection) == 3
        assert "2.glb" not in [hit.id for hit in collection.search(Query(id="1.glb"))]


def test_outdated_views_are_reembedded_by_the_same_describer(things: Path) -> None:
    with Collection.open(things, write=True) as collection:
        fingerprint = collection.describer.view_fingerprint
        with collection.session.store.transaction():  # as an earlier release of the encoder would have written it
            collection.session.store.set_meta("view_fingerprint", "views=0")
        with raises_code(DescriberError, "other_encoder", "mvr reindex", "--encoder builtin:"):
            collection.session.check_encoder()
        before = collection.session.store.views_of(1)[0].copy()
        reembed(collection.session, replace(CONFIG, whiten=2))
        assert collection.session.store.get_meta("view_fingerprint") == fingerprint
        np.testing.assert_array_equal(before, collection.session.store.views_of(1)[0])
        collection.session.check_encoder()


def test_resumed_run_uses_moved_files(things: Path, tmp_path: Path) -> None:
    missing = tmp_path / "meshes" / "3.glb"
    kept = missing.read_bytes()
    missing.unlink()
    config = replace(CONFIG, styles=("normal",))
    with Collection.open(things, write=True) as collection, pytest.raises(CollectionError):
        reembed(collection.session, config)
    missing.write_bytes(kept)
    (tmp_path / "meshes" / "0.glb").rename(tmp_path / "meshes" / "zero.glb")
    with Collection.open(things, write=True) as collection:
        collection.add_folder(tmp_path / "meshes")  # the object moves, and keeps its id
        assert reembed(collection.session, config) == []
        assert collection.get("0.glb").path.endswith("zero.glb") and len(collection) == 4
