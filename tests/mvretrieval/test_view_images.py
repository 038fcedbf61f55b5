"""Objects whose views come as pictures: as good as the meshes that the pictures were made of."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from commands import runner
from counting import counts, encoded
from error_codes import raises_code
from made_meshes import SMALL, write_shapes
from PIL import Image
from waiting import wait_for

from mvrender.cameras import RIG_EXAMPLES, parse_rig
from mvrender.pool import Job, Rendered, RenderPool, RenderSpec
from mvretrieval.api import Collection, OpenOptions
from mvretrieval.errors import DescriberError, TrainingError, ViewsError
from mvretrieval.ingest.index_report import IndexOptions, IndexReport
from mvretrieval.ingest.reembed import reembed
from mvretrieval.ingest.view_manifest import read_view_manifest, rig_of
from mvretrieval.search.query import Query
from mvretrieval.store.store import FILE, Store

RIG = "ring:12@30"
CONFIG = replace(SMALL, rig=RIG)
KINDS = ("box", "ball", "cone", "ring")
N = 8
QUICK = ["--folds", "0", "--max-steps", "2", "--whiten", "0"]


@pytest.fixture(scope="session")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Meshes, their pictures, views.csv and labels.csv; not to be changed."""
    base = tmp_path_factory.mktemp("given")
    paths = write_shapes(base / "meshes", range(N))
    rows = [["id", "file", "azimuth_deg", "elevation_deg"]]
    with RenderPool(RenderSpec(rig=parse_rig(RIG), size=64), 1) as pool:
        for path in paths:
            done = pool.render(Job(path))
            assert isinstance(done, Rendered) and done.views is not None
            (base / "views" / path.stem).mkdir(parents=True)
            for v, image in enumerate(done.views.images[0]):
                file = f"views/{path.stem}/{v:02d}.png"
                Image.fromarray(image).save(base / file)
                rows.append([f"views/{path.stem}", file, f"{30 * v}", "30"])
    write_rows(base / "views.csv", rows)
    write_rows(
        base / "labels.csv", [["file", "label"], *([f"views/{p.stem}", KINDS[i % 4]] for i, p in enumerate(paths))]
    )
    return base


@pytest.fixture
def views(given: Path, tmp_path: Path) -> Path:
    """A copy of one's own."""
    shutil.copytree(given, tmp_path / "given")
    return tmp_path / "given"


@pytest.fixture
def pictures(tmp_path: Path) -> Iterator[Collection]:
    """An empty collection for them."""
    collection = Collection.create(tmp_path / "pictures", CONFIG, OpenOptions(workers=2))
    yield collection
    collection.session.release()


def write_rows(path: Path, rows: list[list[str]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def read_rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def edit(path: Path, change: Callable[[list[str]], list[str] | None]) -> None:
    """Change every row but the head; None takes it out."""
    head, *rows = read_rows(path)
    write_rows(path, [head, *(new for row in rows if (new := change(row)) is not None)])


def add(collection: Collection, csv: Path, **options: object) -> tuple[IndexReport, int]:
    """Report of a run, and how many pictures it encoded."""
    return encoded(collection, lambda: collection.add_views(csv, IndexOptions(**options)))  # type: ignore[arg-type]


def views_by_stem(collection: Collection) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    row_ids = [int(n) for n in collection.store.select(None)]
    return {Path(collection.store.records([n])[n].id).stem: collection.views(n) for n in row_ids}


# -- as good as meshes -------------------------------------------------------------------------------------------------


def test_view_vectors_are_those_of_the_meshes(given: Path, pictures: Collection, tmp_path: Path) -> None:
    with Collection.create(tmp_path / "meshes", CONFIG, OpenOptions(workers=1)) as meshes:
        meshes.add_folder(given / "meshes")
        report = pictures.add_views(given / "views.csv", IndexOptions(labels=given / "labels.csv"))
        assert counts(report) == {"added": N} and report.labelled == N and not report.failed
        assert meshes.store.get_meta("view_fingerprint") == pictures.store.get_meta("view_fingerprint")
        ours, theirs = views_by_stem(pictures), views_by_stem(meshes)
        assert sorted(ours) == sorted(theirs)
        for name, (vectors, mask) in theirs.items():
            np.testing.assert_array_equal(ours[name][1], mask)
            np.testing.assert_array_equal(ours[name][0], vectors)
    record = pictures.get("views/shape-003")
    assert record.path == str(given / "views" / "shape-003") and record.metadata == {"label": "ring"}
    assert record.facts["format"] == "views"
    # Seen from the same cameras, meshes can be asked with, and join.
    hit = pictures.search(Query(mesh=given / "meshes" / "shape-003.ply"), k=1)[0]
    assert hit.id == record.id and hit.score == pytest.approx(1, abs=1e-4)
    (by_picture,) = pictures.search(Query(images=given / "views" / "shape-005" / "02.png"), k=1)
    assert by_picture.id == "views/shape-005"
    assert counts(pictures.add_folder(given / "meshes")) == {"added": N}
    assert counts(pictures.add_views(given / "views.csv")) == {"unchanged": N}


def test_rigs_have_the_names_of_known_ones(tmp_path: Path) -> None:
    def rig_for(name: str, order: Callable[[list[list[str]]], list[list[str]]] = list) -> str:
        rig = parse_rig(name)
        elevations = np.degrees(np.arcsin(rig.directions[:, 1]))
        angles = zip(rig.azimuths_deg, elevations, strict=True)
        rows = [
            ["a", f"{i}.png", f"{azimuth:.3f}", f"{elevation:.3f}"] for i, (azimuth, elevation) in enumerate(angles)
        ]
        write_rows(tmp_path / "v.csv", [["id", "file", "azimuth_deg", "elevation_deg"], *order(rows)])
        found = rig_of(read_view_manifest(tmp_path / "v.csv"))
        again = parse_rig(found.name)
        np.testing.assert_array_equal(again.directions, found.directions)
        assert again.fingerprint == found.fingerprint
        return found.name

    for name in RIG_EXAMPLES:
        if not name.startswith(("random", "os3dor")):
            assert rig_for(name) == name
    assert rig_for("os3dor") == "ring:24@30"
    # The order of the pictures is the order of the views.
    assert rig_for("ring:4@10", lambda rows: rows[::-1]) == "views:270@10,180@10,90@10,0@10"
    assert rig_for("random:5@1").startswith("views:")


def test_missing_views_are_masked_and_rows_may_stand_in_any_order(
    views: Path, pictures: Collection, tmp_path: Path
) -> None:
    full = views_by_stem_of(views, tmp_path / "full")
    head, *rows = read_rows(views / "views.csv")
    kept = [row for row in rows if not (row[0].endswith("002") and row[2] in ("60", "330"))]
    write_rows(views / "views.csv", [head, *(kept[i] for i in np.random.default_rng(0).permutation(len(kept)))])
    pictures.add_views(views / "views.csv")
    for name, (vectors, mask) in views_by_stem(pictures).items():
        lacking = [2, 11] if name == "shape-002" else []
        assert np.flatnonzero(~mask).tolist() == lacking
        np.testing.assert_array_equal(vectors[:, mask], full[name][0][:, mask])


def views_by_stem_of(views: Path, folder: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    with Collection.create(folder, CONFIG, OpenOptions(workers=1)) as collection:
        collection.add_views(views / "views.csv")
        return views_by_stem(collection)


def test_the_frame_is_kept_transparency_is_white_and_views_share_a_scale(views: Path, pictures: Collection) -> None:
    from mvretrieval.ingest.view_images import ViewImageReader, ViewJob

    folder = views / "made"
    folder.mkdir()
    tall = Image.new("RGBA", (64, 128), (0, 0, 0, 0))
    tall.paste((255, 0, 0, 255), (0, 0, 64, 64))
    tall.save(folder / "0.png")
    Image.new("RGB", (64, 64), (0, 0, 255)).save(folder / "1.png")
    reader = ViewImageReader(parse_rig("ring:2@0"), 64, 1)
    job = ViewJob(folder, views / "views.csv", None, "x", ((0, str(folder / "0.png")), (1, str(folder / "1.png"))))
    (read,) = reader.run([job], lambda _: True)
    assert isinstance(read, Rendered) and read.views is not None
    first, second = read.views.images[0]
    assert (first[:, :15] == 255).all() and (first[:31, 17:47] == (255, 0, 0)).all() and (first[33:] == 255).all()
    assert (second[16:48, 16:48] == (0, 0, 255)).all() and (second[:15] == 255).all() and (second[:, 50:] == 255).all()


def test_formats_and_orientations(views: Path) -> None:
    from mvretrieval.ingest.view_images import ViewImageReader, ViewJob

    folder = views / "made"
    folder.mkdir()
    picture = Image.new("RGB", (640, 320), "white")
    picture.paste((200, 30, 30), (0, 0, 320, 320))
    picture.save(folder / "plain.png")
    picture.save(folder / "photo.jpg", quality=95)
    turned = Image.Exif()
    turned[0x0112] = 6  # the camera was turned: shown a quarter clockwise
    picture.rotate(90, expand=True).save(folder / "turned.jpg", quality=95, exif=turned)
    picture.convert("P", palette=Image.Palette.ADAPTIVE).save(folder / "palette.png")
    grey = np.full((320, 640), 65535, np.uint16)
    grey[:, :320] = 20000
    Image.fromarray(grey).save(folder / "deep.png")
    names = ["plain.png", "photo.jpg", "turned.jpg", "palette.png", "deep.png"]
    reader = ViewImageReader(parse_rig("views:5"), 64, 1)
    job = ViewJob(
        folder, views / "views.csv", None, "x", tuple((i, str(folder / name)) for i, name in enumerate(names))
    )
    (read,) = reader.run([job], lambda _: True)
    assert isinstance(read, Rendered) and read.views is not None and read.views.mask.all()
    images = read.views.images[0].astype(int)
    for image in images[1:4]:
        assert np.abs(image - images[0]).mean() < 3
    assert np.abs(images[4, 32, 10] - 20000 / 257).max() < 1 and (images[4, 32, 50] == 255).all()


# -- again -------------------------------------------------------------------------------------------------------------


def test_unchanged_objects_are_skipped_changed_ones_replaced(views: Path, pictures: Collection) -> None:
    table = views / "views.csv"
    assert add(pictures, table)[1] == 12 * N
    report, encoded = add(pictures, table)
    assert counts(report) == {"unchanged": N} and encoded == 0
    row_id = pictures.row_id_of("views/shape-001")
    shutil.copy(views / "views/shape-002/03.png", views / "views/shape-001/03.png")
    os.utime(views / "views/shape-004/00.png")
    report, encoded = add(pictures, table)
    assert counts(report) == {"replaced": 1, "unchanged": N - 1} and encoded == 12
    assert pictures.row_id_of("views/shape-001") == row_id
    # Other directions of the same pictures are another object's looks, too.
    edit(table, lambda row: [*row[:2], str((int(row[2]) + 30) % 360), row[3]] if row[0].endswith("005") else row)
    report, encoded = add(pictures, table)
    assert counts(report) == {"replaced": 1, "unchanged": N - 1} and encoded == 12


def test_identical_content_is_encoded_once(views: Path, pictures: Collection) -> None:
    shutil.copytree(views / "views/shape-001", views / "views/twin")
    rows = read_rows(views / "views.csv")
    twin = [["views/twin", row[1].replace("shape-001", "twin"), *row[2:]] for row in rows if "001" in row[0]]
    write_rows(views / "views.csv", [*rows, *twin])
    report, encoded = add(pictures, views / "views.csv")
    assert counts(report) == {"added": N + 1, "identical": 1} and encoded == 12 * N
    (hit,) = pictures.search(Query(id="views/twin"), k=1)
    assert hit.id == "views/shape-001" and hit.score == pytest.approx(1, abs=1e-5)


def test_moved_objects_keep_their_ids_and_are_not_encoded(views: Path, pictures: Collection) -> None:
    add(pictures, views / "views.csv", labels=views / "labels.csv")
    moved = views.with_name("elsewhere")
    views.rename(moved)
    report, encoded = add(pictures, moved / "views.csv")
    assert counts(report) == {"moved": N} and encoded == 0
    assert pictures.get("views/shape-001").path == str(moved / "views/shape-001")
    assert pictures.get("views/shape-001").metadata == {"label": "ball"}
    # The same object of the same CSV in another folder.
    (moved / "views/shape-001").rename(moved / "shape")
    edit(moved / "views.csv", lambda row: [row[0], row[1].replace("views/shape-001/", "shape/"), *row[2:]])
    report, encoded = add(pictures, moved / "views.csv")
    assert counts(report) == {"moved": 1, "unchanged": N - 1} and encoded == 0
    assert pictures.get("views/shape-001").path == str(moved / "shape")


def test_objects_that_left_the_csv_are_reported_and_pruned_when_asked(views: Path, pictures: Collection) -> None:
    add(pictures, views / "views.csv")
    edit(views / "views.csv", lambda row: None if row[0].endswith("003") else row)
    assert counts(add(pictures, views / "views.csv")[0]) == {"unchanged": N - 1, "gone": 1}
    assert counts(add(pictures, views / "views.csv", prune=True)[0]) == {"unchanged": N - 1, "gone": 1, "removed": 1}


def test_a_killed_run_goes_on_without_repeating_itself(views: Path, tmp_path: Path) -> None:
    rows = read_rows(views / "views.csv")
    for k in range(40):
        for row in [r for r in rows[1:] if r[0].endswith("001")]:
            file = views / row[1].replace("views/shape-001", f"more/{k}")
            file.parent.mkdir(parents=True, exist_ok=True)
            image = np.array(Image.open(views / row[1]))
            image[0, 0] = k
            Image.fromarray(image).save(file)
            rows.append([f"more/{k}", f"more/{k}/{file.name}", *row[2:]])
    write_rows(views / "views.csv", rows)
    folder = tmp_path / "c"
    command = [sys.executable, "-m", "mvretrieval", "index", str(folder)]
    command += ["--view-manifest", str(views / "views.csv"), "--encoder", "builtin:", "--size", "64", "--workers", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: process.poll() is not None or ((folder / FILE).exists() and stored(folder)))
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    with Collection.open(folder, OpenOptions(workers=1), write=True) as collection:
        survived = len(collection)
        assert 1 <= survived < N + 40
        report, encoded = add(collection, views / "views.csv")
        expected = {"added": N + 40 - survived, "unchanged": survived}
        assert counts(report) == {k: n for k, n in expected.items() if n} and encoded == 12 * (N + 40 - survived)


def stored(folder: Path) -> int:
    store = Store.open(folder)
    try:
        return store.count()
    finally:
        store.close()


# -- what is amiss -----------------------------------------------------------------------------------------------------


def test_bad_pictures_are_rows_and_never_stop_a_run(views: Path, pictures: Collection) -> None:
    table = views / "views.csv"
    (views / "views/shape-000/04.png").unlink()
    (views / "views/shape-001/04.png").write_bytes(b"not a picture")
    whole = (views / "views/shape-002/05.png").read_bytes()
    (views / "views/shape-002/05.png").write_bytes(whole[: len(whole) // 2])
    for v in range(12):
        Image.new("RGB", (64, 64), "white").save(views / f"views/shape-003/{v:02d}.png")
    head, *rows = read_rows(table)
    more = ["views/shape-004", "views/shape-004/00.png"]
    rows += [[*more, "0", "30"]]  # a thirteenth
    rows = [[*row[:2], "15", "30"] if row[0].endswith("005") and row[2] == "30" else row for row in rows]
    write_rows(table, [head, *rows])
    report, encoded = add(pictures, table)
    expected = {"missing_view": 1, "unreadable_view": 2, "nothing_visible": 1, "other_views": 2}
    assert counts(report) == {"added": N - 6} and dict(report.failed) == expected and encoded == 12 * (N - 6)
    said = {Path(path).name: message for path, _, message in pictures.store.failures()}
    assert "04.png" in said["shape-000"] and "bring it back, or take its row out of" in said["shape-000"]
    assert said["shape-000"].startswith("object 'views/shape-000': no picture at")
    assert "no readable picture" in said["shape-001"] and "shape-002/05.png" in said["shape-002"]
    assert "13 views" in said["shape-004"] and "azimuth 15, elevation 30" in said["shape-005"]
    report, _ = add(pictures, table)  # not tried again, but for those that may have been mended
    assert dict(report.failed) == expected and len(report.failures) == 3
    shutil.copy(views / "views/shape-006/04.png", views / "views/shape-000/04.png")
    write_rows(table, [head, *(row for row in rows if not row[0].endswith(("001", "004")))])
    report, _ = add(pictures, table)
    assert counts(report) == {"added": 1, "unchanged": N - 6}
    assert {Path(path).name for path, _, _ in pictures.store.failures()} == {"shape-002", "shape-003", "shape-005"}
    pictures.add_folder(views)  # what meshes of the same folder do says nothing about views
    assert len(pictures.store.failures()) == 3


def test_an_object_that_breaks_keeps_its_earlier_views(views: Path, pictures: Collection) -> None:
    picture = views / "views/shape-000/04.png"
    add(pictures, views / "views.csv")
    picture.rename(picture.with_name("aside"))
    report, _ = add(pictures, views / "views.csv")
    assert report.failures[0][2].endswith("the object keeps its earlier views") and len(pictures) == N
    picture.with_name("aside").rename(picture)
    report, encoded = add(pictures, views / "views.csv")
    assert counts(report) == {"unchanged": N} and encoded == 0 and pictures.store.failures() == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "id,azimuth_deg,elevation_deg\na,0,0\n",
            r"no column 'file' \(they have id, azimuth_deg, elevation_deg\): give",
        ),
        ("id;file\na;b\n", "no column 'id'.*commas between"),
        ("id,file,azimuth_deg\na,b.png,0\n", "'azimuth_deg' alone: give"),
        ("id,file\n,b.png\n", "line 2: the cell 'id' is empty"),
        ("id,file\na,\n", "line 2: the cell 'file' is empty"),
        ("id,file,azimuth_deg,elevation_deg\na,b.png,0,95\n", "line 2: elevation_deg is .*not '95'; mend"),
        ("id,file,azimuth_deg,elevation_deg\na,b.png,,1\n", "azimuth_deg is a number of degrees, not ''"),
        ("id,file\n", "have no rows: give"),
        ("id,file\na,x/1.png\nb,x/1.png\n", "'a' and 'b' both begin with .*x/1.png: give"),
        ("id,file\na,\xff.png\n", "save them as UTF-8"),
    ],
)
def test_a_bad_csv_stops_the_run_before_it_starts(tmp_path: Path, pictures: Collection, text: str, said: str) -> None:
    (tmp_path / "views.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(ViewsError, match=said):
        pictures.add_views(tmp_path / "views.csv")
    with pytest.raises(ViewsError, match="cannot be read"):
        pictures.add_views(tmp_path / "nowhere.csv")


def test_other_collections_refuse_with_a_way_out(views: Path, pictures: Collection, tmp_path: Path) -> None:
    head, *rows = read_rows(views / "views.csv")
    write_rows(views / "plain.csv", [head[:2], *(row[:2] for row in rows)])
    with pytest.raises(ViewsError, match=r"add the columns azimuth_deg .*or give --rig ring:12@30"):
        pictures.add_views(views / "plain.csv")
    assert counts(pictures.add_views(views / "plain.csv", in_rig_order=True)) == {"added": N}
    two = Collection.create(tmp_path / "two", replace(CONFIG, styles=("texture", "clay")), OpenOptions(workers=1))
    with two, pytest.raises(DescriberError, match="pictures are of one style: index them into"):
        two.add_views(views / "views.csv")


# -- directions that nobody knows --------------------------------------------------------------------------------------


def test_pictures_of_unknown_directions(views: Path, tmp_path: Path) -> None:
    head, *rows = read_rows(views / "views.csv")
    rows = [row for row in rows if not (row[0].endswith("002") and row[2] in ("60", "330"))]
    write_rows(views / "views.csv", [head[:2], *(row[:2] for row in rows)])
    rig = rig_of(read_view_manifest(views / "views.csv"))
    assert rig.name == "views:12" and not rig.is_known
    with Collection.create(tmp_path / "c", replace(CONFIG, rig=rig.name), OpenOptions(workers=1)) as collection:
        assert counts(collection.add_views(views / "views.csv")) == {"added": N}
        assert collection.views(collection.row_id_of("views/shape-002"))[1].sum() == 10
        (hit,) = collection.search(Query(images=views / "views/shape-003/01.png"), k=1)
        assert hit.id == "views/shape-003" and "azimuth_deg" not in hit.best_view
        json.dumps(hit.to_json(), allow_nan=False)
        for ask in (
            lambda: collection.search(Query(mesh=views / "meshes/shape-000.ply")),
            lambda: collection.add_folder(views / "meshes"),
            lambda: collection.add(views / "meshes/shape-000.ply"),
        ):
            with pytest.raises(DescriberError, match=r"12 pictures from unknown directions\. Ask with pictures"):
                ask()
        assert len(collection) == N


# -- described anew ----------------------------------------------------------------------------------------------------


def test_described_anew_from_stored_vectors_or_from_the_pictures(views: Path, pictures: Collection) -> None:
    add(pictures, views / "views.csv")
    before = views_by_stem(pictures)
    reembed(pictures.session, replace(CONFIG, whiten=8))
    assert pictures.session.index.get().dim == 8
    for change, name in (({"rig": "ring:6@30"}, "rig ring:6@30"), ({"styles": ("clay",)}, "styles")):
        with pytest.raises(
            DescriberError, match=rf"{N} objects .* from view images.*{name}.*index the meshes into a new"
        ):
            reembed(pictures.session, replace(CONFIG, **change))  # type: ignore[arg-type]
    (views / "views/shape-000/04.png").rename(views / "aside.png")
    failed = reembed(pictures.session, replace(CONFIG, size=96), drop_missing=True)
    assert [(object_id, code) for object_id, code, _ in failed] == [("views/shape-000", "missing_view")]
    assert len(pictures) == N - 1 and pictures.describer.config.size == 96
    reembed(pictures.session, CONFIG)  # back to 64 pixels: the pictures are the same, and so are their vectors
    for name, (vectors, mask) in views_by_stem(pictures).items():
        np.testing.assert_array_equal(vectors, before[name][0])
        np.testing.assert_array_equal(mask, before[name][1])
    (views / "aside.png").rename(views / "views/shape-000/04.png")
    assert counts(add(pictures, views / "views.csv")[0]) == {"added": 1, "unchanged": N - 1}


# -- the command line --------------------------------------------------------------------------------------------------


def test_commands(
    given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mvr = runner(monkeypatch, capsys)
    c, table, labels = tmp_path / "c", given / "views.csv", given / "labels.csv"
    code, out, err = mvr(
        "index", c, "--view-manifest", table, "--labels", labels, "--encoder", "builtin:", "--workers", "1"
    )
    assert code == 0 and f"c: {N} objects" in out
    assert "views: ring:12@30, texture, 224 px; view images of 8 objects" in err
    code, out, _ = mvr("index", c, "--view-manifest", table, "--json")
    assert code == 0 and json.loads(out)["unchanged"] == N
    code, out, _ = mvr("info", c)
    assert code == 0 and "ring:12@30, texture, 224 px; all given as images" in out
    code, out, _ = mvr("search", c, "--image", given / "views/shape-006/01.png", "-k", "1", "--json")
    assert code == 0 and json.loads(out)["id"] == "views/shape-006"
    assert mvr("search", c, "--id", "views/shape-001", "--html", tmp_path / "page.html")[0] == 0
    code, out, _ = mvr("eval", c, "--by", "label", "--json")
    assert code == 0 and json.loads(out.splitlines()[0])
    assert mvr("eval", c, "--by", "label", "--report", tmp_path / "report")[0] == 0
    code, _, err = mvr("train", c, "--by", "label", "--out", tmp_path / "adapter", *QUICK)
    assert code == 0, err
    code, _, err = mvr("reindex", c, "--adapter", tmp_path / "adapter")
    assert code == 0, err
    for wrong, said in (
        (["index", c], "nothing to index"),
        (["index", c, given / "meshes", "--view-manifest", table], "need two runs"),
        (["index", c, "--view-manifest", table, "--up", "+z"], "--up +z applies to meshes"),
        (["index", c, "--view-manifest", table, "--styles", "texture,clay"], "view images have one style"),
        (["index", c, "--view-manifest", table, "--rig", "ring:6@30"], "has rig ring:12@30"),
        (["index", tmp_path / "new", "--view-manifest", tmp_path / "no.csv"], "cannot be read"),
        (["reindex", c, "--no-adapter", "--rig", "ring:6@30"], "indexed from view images"),
    ):
        code, _, err = mvr(*wrong)
        assert code == 1 and said in err and "Traceback" not in err
    assert not (tmp_path / "new").exists()
    from mvtrain.render_views import meshes_of_collection

    with Collection.open(c) as collection, raises_code(TrainingError, "views_not_tunable"):
        meshes_of_collection(collection.session, "label", None)


def test_labels_of_meshes_are_labels_of_their_rendered_views(
    given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mvr = runner(monkeypatch, capsys)
    meshes, out = tmp_path / "m", tmp_path / "o"
    for n, path in enumerate(sorted((given / "meshes").iterdir())):
        (meshes / KINDS[n % 4]).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, meshes / KINDS[n % 4] / path.name)
    files = sorted(path.relative_to(meshes).as_posix() for path in meshes.rglob("*.ply"))
    write_rows(meshes / "labels.csv", [["file", "label"], *([file, file.split("/")[0]] for file in files)])
    assert mvr("render", meshes, "--out", out, "--rig", "ring:3@30", "--size", "64", "--styles", "clay")[0] == 0
    monkeypatch.chdir(tmp_path)
    more = ["--encoder", "builtin:", "--size", "64", "--styles", "clay"]
    code, _, err = mvr("index", "v", "--view-manifest", "o/views-clay.csv", "--labels", "m/labels.csv", *more)
    assert code == 0, err
    with Collection.open("v") as collection:
        row_ids = [int(n) for n in collection.store.select(None)]
        records = collection.store.records(row_ids)
        labels = collection.store.column_values("label", row_ids)
    assert dict(zip((records[n].id for n in row_ids), labels, strict=True)) == {
        file: file.split("/")[0] for file in files
    }


def test_commands_without_directions(
    given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "views.csv"
    write_rows(
        table,
        [[row[0], row[1] if i == 0 else str(given / row[1])] for i, row in enumerate(read_rows(given / "views.csv"))],
    )
    c, mvr = tmp_path / "c", runner(monkeypatch, capsys)
    for arguments in (
        ["index", c, "--view-manifest", table, "--encoder", "builtin:", "--size", "64"],
        ["search", c, "--image", given / "views/shape-006/01.png", "--html", tmp_path / "page.html"],
        ["index", c, "--view-manifest", table, "--labels", tmp_path / "labels.csv"],
        ["eval", c, "--by", "label", "--report", tmp_path / "report"],
        ["train", c, "--by", "label", "--out", tmp_path / "adapter", *QUICK],
        ["reindex", c, "--adapter", tmp_path / "adapter"],
    ):
        write_rows(
            tmp_path / "labels.csv", [["file", "label"], *([f"views/shape-{n:03d}", KINDS[n % 4]] for n in range(N))]
        )
        code, _, err = mvr(*arguments)
        assert code == 0, err
    (page,) = (path.read_text() for path in (tmp_path / "report").glob("*.html"))
    assert "<td>unknown</td>" in page and "nan°" not in page and "NaN" not in page
    with Collection.open(c) as collection:
        weights = collection.search(Query(id="views/shape-000"), k=1)[0].view_weights
        assert np.isfinite(weights).all()
