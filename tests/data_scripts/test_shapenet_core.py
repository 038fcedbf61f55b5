from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_archives import check_error, damage, files_of, image, table, write_folder, write_zip

from data_scripts import shapenet_core
from mvrender.loading import load

OBJ = b"mtllib model_normalized.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\nusemtl skin\nf 1/1 2/2 3/3\n"
MTL = b"newmtl skin\nKd 1 1 1\nmap_Kd ../images/texture0.png\n"


def model(synset: str, name: str, mark: int = 0) -> dict[str, bytes]:
    folder = f"{synset}/{name}"
    return {
        f"{folder}/models/model_normalized.obj": OBJ + b"# %d\n" % mark,
        f"{folder}/models/model_normalized.mtl": MTL,
        f"{folder}/models/model_normalized.surface.binvox": b"voxels",
        f"{folder}/models/model_normalized.json": b"{}",
        f"{folder}/images/texture0.png": image(mark, "PNG"),
    }


PLANE, LAMP = "02691156", "03636649"
MODELS = model(PLANE, "aa", 1) | model(PLANE, "bb", 2) | model(LAMP, "cc", 3)
MODELS |= {f"{LAMP}/empty/models/model_normalized.mtl": MTL}
TAXONOMY = [
    {"synsetId": PLANE, "name": "airplane,aeroplane,plane", "children": [], "numInstances": 2},
    {"synsetId": LAMP, "name": "lamp", "children": ["03367059"], "numInstances": 1},
    {"synsetId": "03367059", "name": "floor lamp", "children": [], "numInstances": 1},
]
SPLIT = (
    "id,synsetId,subSynsetId,modelId,split\n"
    f"000001,{PLANE},{PLANE},aa,train\n000003,{int(LAMP)},3367059,cc,val\n000009,{LAMP},{LAMP},gone,test\n"
)
TABLES = {"taxonomy.json": json.dumps(TAXONOMY).encode(), "all.csv": SPLIT.encode()}


def run(source: Path, out: Path, *more: str) -> int:
    return shapenet_core.main([str(source), str(out), *more])


def test_one_zip_or_one_per_synset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prefixed = {f"ShapeNetCore.v2/{name}": data for name, data in (MODELS | TABLES).items()}
    one = write_zip(tmp_path / "ShapeNetCore.v2.zip", prefixed)
    several = write_folder(tmp_path / "release", TABLES)
    for synset in (PLANE, LAMP):
        write_zip(several / f"{synset}.zip", {n: d for n, d in MODELS.items() if n.startswith(synset)})
    for number, source in enumerate((one, several)):
        out = tmp_path / f"out{number}"
        assert run(source, out) == 0
        assert table(out / "labels.csv") == [
            {
                "file": f"{PLANE}/aa/models/model_normalized.obj",
                "label": "airplane",
                "split": "train",
                "name": "aa",
                "synset": f"n{PLANE}",
                "sub_label": "airplane",
                "names": "airplane, aeroplane, plane",
            },
            {
                "file": f"{PLANE}/bb/models/model_normalized.obj",
                "label": "airplane",
                "split": "",
                "name": "bb",
                "synset": f"n{PLANE}",
                "sub_label": "airplane",
                "names": "airplane, aeroplane, plane",
            },
            {
                "file": f"{LAMP}/cc/models/model_normalized.obj",
                "label": "lamp",
                "split": "val",
                "name": "cc",
                "synset": f"n{LAMP}",
                "sub_label": "floor lamp",
                "names": "lamp",
            },
        ]
        printed = capsys.readouterr().err
        assert f"1 models without a split in all.csv: {PLANE}/bb" in printed
        assert f"1 models of all.csv missing: {LAMP}/gone" in printed
        assert not list(out.rglob("*.binvox"))


def test_textures_are_found(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(write_folder(tmp_path / "v2", MODELS | TABLES), out) == 0
    loaded = load(out / f"{PLANE}/aa/models/model_normalized.obj", root=out)
    assert loaded.facts["textured"]
    assert not loaded.mesh.notes


def test_a_damaged_mesh_drops_its_model_but_a_damaged_texture_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_zip(tmp_path / "v2.zip", MODELS | TABLES)
    damage(source, OBJ + b"# 1\n")
    damage(source, image(3, "PNG"))
    assert run(source, tmp_path / "out") == 0
    assert [row["name"] for row in table(tmp_path / "out/labels.csv")] == ["bb", "cc"]
    printed = capsys.readouterr().err
    assert f"{PLANE}/aa/models/model_normalized.obj damaged" in printed
    assert f"{LAMP}/cc/images/texture0.png damaged" in printed


def test_a_second_run_writes_only_missing_files(tmp_path: Path) -> None:
    source, out = write_zip(tmp_path / "v2.zip", MODELS | TABLES), tmp_path / "out"
    assert run(source, out) == 0
    before = files_of(out)
    (out / f"{LAMP}/cc/images/texture0.png").unlink()
    assert run(source, out) == 0
    after = files_of(out)
    rewritten = {n for n in after if after[n] != before.get(n)}
    assert {n for n in rewritten if not n.endswith(".csv")} <= {f"{LAMP}/cc/images/texture0.png"}
    assert set(after) == set(before)


def test_missing_tables_are_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_folder(tmp_path / "v2", MODELS | {"taxonomy.json": TABLES["taxonomy.json"]})
    assert run(source, tmp_path / "out") == 1
    check_error(capsys, "missing_split", "all.csv")
    assert run(source, tmp_path / "out", "--no-split") == 0
    assert {row["split"] for row in table(tmp_path / "out/labels.csv")} == {""}
    (source / "all.csv").write_text("id;synsetId\n")
    assert run(source, tmp_path / "out2") == 1
    check_error(capsys, "bad_split", "modelId, split, subSynsetId, synsetId")
    (source / "all.csv").write_bytes(SPLIT.replace("gone", "égaré").encode("latin-1"))
    assert run(source, tmp_path / "out2") == 1
    check_error(capsys, "not_utf8", "all.csv")
    (source / "all.csv").write_text(SPLIT + "1,2,3,4," + "5" * 200_000)
    assert run(source, tmp_path / "out2") == 1
    check_error(capsys, "bad_split", "field larger than field limit")
    (source / "taxonomy.json").write_text("[{}]")
    assert run(source, tmp_path / "out2", "--no-split") == 1
    check_error(capsys, "bad_taxonomy", "taxonomy.json")
    (source / "taxonomy.json").unlink()
    assert run(source, tmp_path / "out2", "--no-split") == 1
    check_error(capsys, "missing_labels", "taxonomy.json")
    assert run(write_folder(tmp_path / "other", {"a.obj": OBJ}), tmp_path / "out2") == 1
    check_error(capsys, "wrong_data_set")
