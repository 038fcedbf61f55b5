from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from fake_archives import check_error, files_of, glb, table, write_folder, write_tar

from data_scripts import abo
from mvretrieval.ingest.labels_csv import read_labels


def listing(model: str | None, product_type: str, name: str, tag: str = "en_US") -> dict[str, object]:
    fields: dict[str, object] = {
        "item_id": name,
        "product_type": [{"value": product_type}],
        "item_name": [{"language_tag": tag, "value": name}],
    }
    return (
        fields if model is None else {**fields, "3dmodel_id": model, "brand": [{"language_tag": tag, "value": "Rivet"}]}
    )


def shard(*listings: dict[str, object]) -> bytes:
    return gzip.compress("\n".join(json.dumps(one) for one in listings).encode())


MODELS = {f"3dmodels/original/{model[-1]}/{model}.glb": glb(i) for i, model in enumerate(("B001A", "B002L", "B0034"))}
MODELS["3dmodels/metadata/3dmodels.csv.gz"] = gzip.compress(b"3dmodel_id,path\n")
LISTINGS = {
    "listings/metadata/listings_0.json.gz": shard(
        listing("B001A", "SOFA", "Sofá", "es_ES"),
        listing(None, "SHOES", "no model"),
        listing("B002L", "LAMP", "Lamp, tall"),
    ),
    "listings/metadata/listings_f.json.gz": shard(
        listing("B001A", "SOFA", "Sofa"), listing("B001A", "CHAIR", "A", "de_DE")
    ),
}


def archives(folder: Path, listings: dict[str, bytes] = LISTINGS) -> Path:
    folder.mkdir()
    write_tar(folder / "abo-3dmodels.tar", MODELS, "w")
    write_tar(folder / "abo-listings.tar", listings, "w")
    return folder


def test_product_types_are_the_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert abo.main([str(archives(tmp_path / "abo")), str(out)]) == 0
    rows = {row["model"]: row for row in table(out / "labels.csv")}
    assert {model: (row["file"], row["label"], row["name"]) for model, row in rows.items()} == {
        "B001A": ("A/B001A.glb", "SOFA", "Sofa"),
        "B002L": ("L/B002L.glb", "LAMP", "Lamp, tall"),
        "B0034": ("4/B0034.glb", "", ""),
    }
    assert rows["B001A"]["brand"] == "Rivet"
    assert (out / "L/B002L.glb").read_bytes() == glb(1)
    assert read_labels(out / "labels.csv").rows[str(out / "4/B0034.glb")]["label"] is None
    printed = capsys.readouterr()
    assert printed.out == f"mvr index abo-collection/ {out} --labels {out}/labels.csv\n"
    assert "1 models without a product type in the listings: B0034" in printed.err
    assert "3 models, published: 7,953" in printed.err


def test_a_second_run_rewrites_no_model(tmp_path: Path) -> None:
    source, out = archives(tmp_path / "abo"), tmp_path / "out"
    assert abo.main([str(source), str(out)]) == 0
    before = files_of(out)
    (out / "L/B002L.glb").unlink()
    assert abo.main([str(source), str(out)]) == 0
    after = files_of(out)
    assert {n for n in after if after[n] != before[n] and n.endswith(".glb")} <= {"L/B002L.glb"}
    assert set(after) == set(before)


def test_damaged_models_and_listings_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = MODELS | LISTINGS
    files["3dmodels/original/A/B001A.glb"] = glb()[:-10]
    files["3dmodels/original/L/B002L.glb"] = b"version https://git-lfs.github.com/spec/v1\n"
    files["listings/metadata/listings_f.json.gz"] = LISTINGS["listings/metadata/listings_f.json.gz"][:-20]
    assert abo.main([str(write_folder(tmp_path / "abo", files)), str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().err
    assert "A/B001A.glb is truncated" in printed
    assert "Git LFS pointer" in printed
    assert "listings_f.json.gz is damaged" in printed
    assert [row["model"] for row in table(tmp_path / "out/labels.csv")] == ["B0034"]


def test_listings_whose_compression_is_damaged_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = LISTINGS["listings/metadata/listings_f.json.gz"]
    damaged = whole[:10] + b"\xff" + whole[11:]  # an invalid block type: zlib raises, not gzip
    odd = gzip.compress(b'{"3dmodel_id": ["B0034"], "product_type": [{"value": "SOFA"}]}')
    files = LISTINGS | {"listings/metadata/listings_f.json.gz": damaged, "listings/metadata/listings_e.json.gz": odd}
    assert abo.main([str(archives(tmp_path / "abo", files)), str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().err
    assert "listings_f.json.gz is damaged (its compressed data are damaged: Error" in printed
    assert "listings_e.json.gz is damaged" in printed
    assert {row["model"]: row["label"] for row in table(tmp_path / "out/labels.csv")}["B002L"] == "LAMP"


def test_missing_archives_are_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = write_tar(tmp_path / "abo-3dmodels.tar", MODELS, "w")
    assert abo.main([str(models), str(tmp_path / "out")]) == 1
    check_error(capsys, "missing_labels", "abo-listings.tar")
    listings = write_tar(tmp_path / "abo-listings.tar", LISTINGS, "w")
    assert abo.main([str(listings), str(tmp_path / "out")]) == 1
    check_error(capsys, "wrong_data_set", "original/X/ID.glb")
