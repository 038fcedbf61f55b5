"""Describing a collection anew."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh

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


def test_other_views_equal_a_fresh_collection(things: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, styles=("clay", "depth"), rig="ring:2@10", whiten=3)
    with Collection.open(things, write=True) as collection:
        before = {record.id: record.row_id for record in collection.store.records([1, 2, 3, 4]).values()}
        assert reembed(collection.session, config, fit_where="kind = 1 or kind = 0") == []
        assert not (things / STAGING).exists()
    with Collection.create(tmp_path / "fresh", config) as fresh:
        fresh.add_folder(tmp_path / "meshes")
    with Collection.open(things) as collection, Collection.open(tmp_path / "fresh") as fresh:
        for object_id, row_id in before.items():
            assert collection.row_id_of(object_id) == row_id
            assert collection.get(object_id).metadata == {"kind": int(object_id[0]) % 2}
            np.testing.assert_array_equal(
                collection.store.vector_of(row_id), fresh.store.vector_of(fresh.row_id_of(object_id))
            )
        asked = [hit.id for hit in collection.search(Query(mesh=tmp_path / "meshes" / "1.glb"))]
        assert asked[0] == "1.glb" and len(asked) == 4


def test_pooling_alone_needs_no_files(things: Path, tmp_path: Path) -> None:
    for file in (tmp_path / "meshes").iterdir():
        file.unlink()
    with Collection.open(things, write=True) as collection:
        before = collection.store.vector_of(1).copy()
        reembed(collection.session, replace(CONFIG, pooling="max"))
        assert not np.allclose(before, collection.store.vector_of(1))
        reembed(collection.session, CONFIG)
        np.testing.assert_array_equal(before, collection.store.vector_of(1))


def test_a_lost_file_stops_the_change_and_loses_nothing(things: Path, tmp_path: Path) -> None:
    lost = tmp_path / "meshes" / "2.glb"
    kept = lost.read_bytes()
    lost.unlink()
    config = replace(CONFIG, styles=("normal",))
    with Collection.open(things, write=True) as collection:
        before = collection.store.vector_of(3).copy()
        with pytest.raises(CollectionError, match=r"1 objects cannot be described anew.*--drop-missing"):
            reembed(collection.session, config)
        assert collection.describer.config == CONFIG
        np.testing.assert_array_equal(before, collection.store.vector_of(3))
    lost.write_bytes(kept)
    steps: list[tuple[int, int]] = []
    with Collection.open(things, write=True) as collection:
        assert reembed(collection.session, config, progress=lambda done, total: steps.append((done, total))) == []
        assert len(steps) == 1, "the three that were described before the stop are not described again"
        assert len(collection) == 4 and collection.describer.config == config
        lost.unlink()
        failed = reembed(collection.session, CONFIG, drop_missing=True)
        assert [(object_id, code) for object_id, code, _ in failed] == [("2.glb", "missing_file")]
        assert len(collection) == 3
        assert "2.glb" not in [hit.id for hit in collection.search(Query(id="1.glb"))]


def test_the_same_description_is_made_anew_where_the_views_are_outdated(things: Path) -> None:
    with Collection.open(things, write=True) as collection:
        fingerprint = collection.describer.view_fingerprint
        with collection.store.transaction():  # as an earlier release of the encoder would have left it
            collection.store.set_meta("view_fingerprint", "views=0")
        with pytest.raises(DescriberError, match=r"mvr reindex .* --encoder builtin:"):
            collection.check_encoder()
        before = collection.store.views_of(1)[0].copy()
        reembed(collection.session, replace(CONFIG, whiten=2))
        assert collection.store.get_meta("view_fingerprint") == fingerprint
        np.testing.assert_array_equal(before, collection.store.views_of(1)[0])
        collection.check_encoder()


def test_what_was_described_before_a_stop_is_used_only_while_it_holds(things: Path, tmp_path: Path) -> None:
    lost = tmp_path / "meshes" / "3.glb"
    kept = lost.read_bytes()
    lost.unlink()
    config = replace(CONFIG, styles=("normal",))
    with Collection.open(things, write=True) as collection, pytest.raises(CollectionError):
        reembed(collection.session, config)
    lost.write_bytes(kept)
    (tmp_path / "meshes" / "0.glb").rename(tmp_path / "meshes" / "zero.glb")
    with Collection.open(things, write=True) as collection:
        collection.add_folder(tmp_path / "meshes")  # the object moves, and keeps its id
        assert reembed(collection.session, config) == []
        assert collection.get("0.glb").path.endswith("zero.glb") and len(collection) == 4
