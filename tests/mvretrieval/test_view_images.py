"""Objects whose views are given as images: equal to the meshes that the images were rendered from."""

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
from mvrender.jobs import Rendered, RenderJob, RenderSpec
from mvrender.pool import RenderPool
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
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Meshes, images of their views, views.csv and labels.csv; not to be changed."""
    base = tmp_path_factory.mktemp("rendered")
    paths = write_shapes(base / "meshes", range(N))
    rows = [["id", "file", "azimuth_deg", "elevation_deg"]]
    with RenderPool(RenderSpec(rig=parse_rig(RIG), size=64), 1) as pool:
        for path in paths:
            done = pool.render(RenderJob(path))
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
def views(rendered: Path, tmp_path: Path) -> Path:
    """A copy of `rendered` for one test."""
    shutil.copytree(rendered, tmp_path / "rendered")
    return tmp_path / "rendered"


@pytest.fixture
def gallery(tmp_path: Path) -> Iterator[Collection]:
    """An empty collection for view images."""
    collection = Collection.create(tmp_path / "gallery", CONFIG, OpenOptions(workers=2))
    yield collection
    collection.session.release()


def write_rows(path: Path, rows: list[list[str]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def read_rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def edit(path: Path, change: Callable[[list[str]], list[str] | None]) -> None:
    """Change every row but the header; None removes it."""
    header, *rows = read_rows(path)
    write_rows(path, [header, *(new for row in rows if (new := change(row)) is not None)])


def add(collection: Collection, csv: Path, **options: object) -> tuple[IndexReport, int]:
    """Report of a run, and the number of images it encoded."""
    return encoded(collection, lambda: collection.add_views(csv, IndexOptions(**options)))  # type: ignore[arg-type]


def views_by_stem(collection: Collection) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    row_ids = [int(n) for n in collection.session.store.select(None)]
    return {Path(collection.session.store.records([n])[n].id).stem: collection.session.views(n) for n in row_ids}


# -- equal to meshes -------------------------------------------------------------------------------------------------


def test_view_vectors_are_those_of_the_meshes(rendered: Path, gallery: Collection, tmp_path: Path) -> None:
    with Collection.create(tmp_path / "meshes", CONFIG, OpenOptions(workers=1)) as meshes:
        meshes.add_folder(rendered / "meshes")
        report = gallery.add_views(rendered / "views.csv", IndexOptions(labels=rendered / "labels.csv"))
        assert counts(report) == {"added": N} and report.labeled == N and not report.failed
        assert meshes.session.store.get_meta("view_fingerprint") == gallery.session.store.get_meta("view_fingerprint")
        ours, theirs = views_by_stem(gallery), views_by_stem(meshes)
        assert sorted(ours) == sorted(theirs)
        for name, (vectors, mask) in theirs.items():
            np.testing.assert_array_equal(ours[name][1], mask)
            np.testing.assert_array_equal(ours[name][0], vectors)
    record = gallery.get("views/shape-003")
    assert record.path == str(rendered / "views" / "shape-003") and record.metadata == {"label": "ring"}
    assert record.facts["format"] == "views"
    # The cameras are the same: meshes can be queries, and can be added.
    hit = gallery.search(Query(mesh=rendered / "meshes" / "shape-003.ply"), k=1)[0]
    assert hit.id == record.id and hit.score == pytest.approx(1, abs=1e-4)
    (by_image,) = gallery.search(Query(images=rendered / "views" / "shape-005" / "02.png"), k=1)
    assert by_image.id == "views/shape-005"
    assert counts(gallery.add_folder(rendered / "meshes")) == {"added": N}
    assert counts(gallery.add_views(rendered / "views.csv")) == {"unchanged": N}


def test_rig_of_a_manifest_has_the_name_of_a_known_rig(tmp_path: Path) -> None:
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
    # The order of the images is the order of the views.
    assert rig_for("ring:4@10", lambda rows: rows[::-1]) == "views:270@10,180@10,90@10,0@10"
    assert rig_for("random:5@1").startswith("views:")


def test_missing_views_are_masked_and_row_order_does_not_matter(
    views: Path, gallery: Collection, tmp_path: Path
) -> None:
    full = views_by_stem_of(views, tmp_path / "full")
    header, *rows = read_rows(views / "views.csv")
    kept = [row for row in rows if not (row[0].endswith("002") and row[2] in ("60", "330"))]
    write_rows(views / "views.csv", [header, *(kept[i] for i in np.random.default_rng(0).permutation(len(kept)))])
    gallery.add_views(views / "views.csv")
    for name, (vectors, mask) in views_by_stem(gallery).items():
        missing = [2, 11] if name == "shape-002" else []
        assert np.flatnonzero(~mask).tolist() == missing
        np.testing.assert_array_equal(vectors[:, mask], full[name][0][:, mask])


def views_by_stem_of(views: Path, folder: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    with Collection.create(folder, CONFIG, OpenOptions(workers=1)) as collection:
        collection.add_views(views / "views.csv")
        return views_by_stem(collection)


def test_images_are_not_cropped_and_share_a_scale(views: Path, gallery: Collection) -> None:
    from mvretrieval.ingest.view_images import ViewImageReader, ViewImagesJob

    folder = views / "made"
    folder.mkdir()
    tall = Image.new("RGBA", (64, 128), (0, 0, 0, 0))
    tall.paste((255, 0, 0, 255), (0, 0, 64, 64))
    tall.save(folder / "0.png")
    Image.new("RGB", (64, 64), (0, 0, 255)).save(folder / "1.png")
    reader = ViewImageReader(parse_rig("ring:2@0"), 64, 1)
    job = ViewImagesJob(
        folder, views / "views.csv", None, "x", ((0, str(folder / "0.png")), (1, str(folder / "1.png")))
    )
    (read,) = reader.run([job], lambda _: True)
    assert isinstance(read, Rendered) and read.views is not None
    first, second = read.views.images[0]
    assert (first[:, :15] == 255).all() and (first[:31, 17:47] == (255, 0, 0)).all() and (first[33:] == 255).all()
    assert (second[16:48, 16:48] == (0, 0, 255)).all() and (second[:15] == 255).all() and (second[:, 50:] == 255).all()


def test_formats_and_orientations(views: Path) -> None:
    from mvretrieval.ingest.view_images import ViewImageReader, ViewImagesJob

    folder = views / "made"
    folder.mkdir()
    image = Image.new("RGB", (640, 320), "white")
    image.paste((200, 30, 30), (0, 0, 320, 320))
    image.save(folder / "plain.png")
    image.save(folder / "photo.jpg", quality=95)
    rotated = Image.Exif()
    rotated[0x0112] = 6  # rotate by a quarter clockwise
    image.rotate(90, expand=True).save(folder / "rotated.jpg", quality=95, exif=rotated)
    image.convert("P", palette=Image.Palette.ADAPTIVE).save(folder / "palette.png")
    grey = np.full((320, 640), 65535, np.uint16)
    grey[:, :320] = 20000
    Image.fromarray(grey).save(folder / "deep.png")
    names = ["plain.png", "photo.jpg", "rotated.jpg", "palette.png", "deep.png"]
    reader = ViewImageReader(parse_rig("views:5"), 64, 1)
    job = ViewImagesJob(
        folder, views / "views.csv", None, "x", tuple((i, str(folder / name)) for i, name in enumerate(names))
    )
    (read,) = reader.run([job], lambda _: True)
    assert isinstance(read, Rendered) and read.views is not None and read.views.mask.all()
    images = read.views.images[0].astype(int)
    for image in images[1:4]:
        assert np.abs(image - images[0]).mean() < 3
    assert np.abs(images[4, 32, 10] - 20000 / 257).max() < 1 and (images[4, 32, 50] == 255).all()


# -- indexing again -------------------------------------------------------------------------------------------------------------


def test_unchanged_objects_are_skipped_and_changed_ones_replaced(views: Path, gallery: Collection) -> None:
    table = views / "views.csv"
    assert add(gallery, table)[1] == 12 * N
    report, encoded = add(gallery, table)
    assert counts(report) == {"unchanged": N} and encoded == 0
    row_id = gallery.session.row_id_of("views/shape-001")
    shutil.copy(views / "views/shape-002/03.png", views / "views/shape-001/03.png")
    os.utime(views / "views/shape-004/00.png")
    report, encoded = add(gallery, table)
    assert counts(report) == {"replaced": 1, "unchanged": N - 1} and encoded == 12
    assert gallery.session.row_id_of("views/shape-001") == row_id
    # Other directions of the same images change the object too.
    edit(table, lambda row: [*row[:2], str((int(row[2]) + 30) % 360), row[3]] if row[0].endswith("005") else row)
    report, encoded = add(gallery, table)
    assert counts(report) == {"replaced": 1, "unchanged": N - 1} and encoded == 12


def test_identical_content_is_encoded_once(views: Path, gallery: Collection) -> None:
    shutil.copytree(views / "views/shape-001", views / "views/twin")
    rows = read_rows(views / "views.csv")
    twin = [["views/twin", row[1].replace("shape-001", "twin"), *row[2:]] for row in rows if "001" in row[0]]
    write_rows(views / "views.csv", [*rows, *twin])
    report, encoded = add(gallery, views / "views.csv")
    assert counts(report) == {"added": N + 1, "identical": 1} and encoded == 12 * N
    (hit,) = gallery.search(Query(id="views/twin"), k=1)
    assert hit.id == "views/shape-001" and hit.score == pytest.approx(1, abs=1e-5)


def test_moved_objects_keep_their_ids(views: Path, gallery: Collection) -> None:
    add(gallery, views / "views.csv", labels=views / "labels.csv")
    moved = views.with_name("elsewhere")
    views.rename(moved)
    report, encoded = add(gallery, moved / "views.csv")
    assert counts(report) == {"moved": N} and encoded == 0
    assert gallery.get("views/shape-001").path == str(moved / "views/shape-001")
    assert gallery.get("views/shape-001").metadata == {"label": "ball"}
    # The same object of the same manifest in another folder.
    (moved / "views/shape-001").rename(moved / "shape")
    edit(moved / "views.csv", lambda row: [row[0], row[1].replace("views/shape-001/", "shape/"), *row[2:]])
    report, encoded = add(gallery, moved / "views.csv")
    assert counts(report) == {"moved": 1, "unchanged": N - 1} and encoded == 0
    assert gallery.get("views/shape-001").path == str(moved / "shape")


def test_objects_removed_from_the_manifest_are_reported_and_pruned(views: Path, gallery: Collection) -> None:
    add(gallery, views / "views.csv")
    edit(views / "views.csv", lambda row: None if row[0].endswith("003") else row)
    assert counts(add(gallery, views / "views.csv")[0]) == {"unchanged": N - 1, "gone": 1}
    assert counts(add(gallery, views / "views.csv", prune=True)[0]) == {"unchanged": N - 1, "gone": 1, "removed": 1}


def test_killed_run_resumes(views: Path, tmp_path: Path) -> None:
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


# -- errors -----------------------------------------------------------------------------------------------------


def test_bad_images_are_failures_and_do_not_stop_a_run(views: Path, gallery: Collection) -> None:
    table = views / "views.csv"
    (views / "views/shape-000/04.png").unlink()
    (views / "views/shape-001/04.png").write_bytes(b"not an image")
    whole = (views / "views/shape-002/05.png").read_bytes()
    (views / "views/shape-002/05.png").write_bytes(whole[: len(whole) // 2])
    for v in range(12):
        Image.new("RGB", (64, 64), "white").save(views / f"views/shape-003/{v:02d}.png")
    header, *rows = read_rows(table)
    more = ["views/shape-004", "views/shape-004/00.png"]
    rows += [[*more, "0", "30"]]  # a thirteenth
    rows = [[*row[:2], "15", "30"] if row[0].endswith("005") and row[2] == "30" else row for row in rows]
    write_rows(table, [header, *rows])
    report, encoded = add(gallery, table)
    expected = {"missing_view": 1, "unreadable_view": 2, "nothing_visible": 1, "other_views": 2}
    assert counts(report) == {"added": N - 6} and dict(report.failed) == expected and encoded == 12 * (N - 6)
    messages = {Path(path).name: message for path, _, message in gallery.session.store.failures()}
    assert messages["shape-000"].startswith("object 'views/shape-000':")
    assert "04.png" in messages["shape-000"] and str(table) in messages["shape-000"]
    assert "shape-001/04.png" in messages["shape-001"] and "shape-002/05.png" in messages["shape-002"]
    assert "13 views" in messages["shape-004"] and "azimuth 15, elevation 30" in messages["shape-005"]
    report, _ = add(gallery, table)  # only those that may have been fixed are tried again
    assert dict(report.failed) == expected and len(report.failures) == 3
    shutil.copy(views / "views/shape-006/04.png", views / "views/shape-000/04.png")
    write_rows(table, [header, *(row for row in rows if not row[0].endswith(("001", "004")))])
    report, _ = add(gallery, table)
    assert counts(report) == {"added": 1, "unchanged": N - 6}
    assert {Path(path).name for path, _, _ in gallery.session.store.failures()} == {
        "shape-002",
        "shape-003",
        "shape-005",
    }
    gallery.add_folder(views)  # failures of meshes in the same folder do not affect those of views
    assert len(gallery.session.store.failures()) == 3


def test_object_that_fails_keeps_its_earlier_views(views: Path, gallery: Collection) -> None:
    image = views / "views/shape-000/04.png"
    add(gallery, views / "views.csv")
    image.rename(image.with_name("aside"))
    report, _ = add(gallery, views / "views.csv")
    assert report.failures[0][2].endswith("the object keeps its earlier views") and len(gallery) == N
    image.with_name("aside").rename(image)
    report, encoded = add(gallery, views / "views.csv")
    assert counts(report) == {"unchanged": N} and encoded == 0 and gallery.session.store.failures() == []


@pytest.mark.parametrize(
    ("text", "code", "contained"),
    [
        (
            "id,azimuth_deg,elevation_deg\na,0,0\n",
            "no_such_column",
            "id, azimuth_deg, elevation_deg",
        ),
        ("id;file\na;b\n", "no_such_column", "commas"),
        ("id,file,azimuth_deg\na,b.png,0\n", "half_of_directions", "'azimuth_deg'"),
        ("id,file\n,b.png\n", "empty_cell", "line 2: the cell 'id'"),
        ("id,file\na,\n", "empty_cell", "line 2: the cell 'file'"),
        ("id,file,azimuth_deg,elevation_deg\na,b.png,0,95\n", "bad_angle", "not '95'"),
        ("id,file,azimuth_deg,elevation_deg\na,b.png,,1\n", "bad_angle", "not ''"),
        ("id,file\n", "no_rows", "views.csv"),
        ("id,file\na,x/1.png\nb,x/1.png\n", "shared_image", "'a' and 'b'"),
        ("id,file\na,\xff.png\n", "not_utf8", "views.csv"),
    ],
)
def test_bad_manifest_stops_the_run_before_it_starts(
    tmp_path: Path, gallery: Collection, text: str, code: str, contained: str
) -> None:
    (tmp_path / "views.csv").write_bytes(text.encode("latin-1"))
    with raises_code(ViewsError, code, contained):
        gallery.add_views(tmp_path / "views.csv")
    with raises_code(ViewsError, "csv_unreadable", "nowhere.csv"):
        gallery.add_views(tmp_path / "nowhere.csv")


def test_manifest_that_does_not_fit_the_collection(views: Path, gallery: Collection, tmp_path: Path) -> None:
    header, *rows = read_rows(views / "views.csv")
    write_rows(views / "plain.csv", [header[:2], *(row[:2] for row in rows)])
    with raises_code(ViewsError, "no_directions", "azimuth_deg", "--rig ring:12@30"):
        gallery.add_views(views / "plain.csv")
    assert counts(gallery.add_views(views / "plain.csv", in_rig_order=True)) == {"added": N}
    two = Collection.create(tmp_path / "two", replace(CONFIG, styles=("texture", "clay")), OpenOptions(workers=1))
    with two, raises_code(DescriberError, "several_styles", "texture, clay"):
        two.add_views(views / "views.csv")


# -- unknown directions --------------------------------------------------------------------------------------


def test_images_of_unknown_directions(views: Path, tmp_path: Path) -> None:
    header, *rows = read_rows(views / "views.csv")
    rows = [row for row in rows if not (row[0].endswith("002") and row[2] in ("60", "330"))]
    write_rows(views / "views.csv", [header[:2], *(row[:2] for row in rows)])
    rig = rig_of(read_view_manifest(views / "views.csv"))
    assert rig.name == "views:12" and not rig.is_known
    with Collection.create(tmp_path / "c", replace(CONFIG, rig=rig.name), OpenOptions(workers=1)) as collection:
        assert counts(collection.add_views(views / "views.csv")) == {"added": N}
        assert collection.session.views(collection.session.row_id_of("views/shape-002"))[1].sum() == 10
        (hit,) = collection.search(Query(images=views / "views/shape-003/01.png"), k=1)
        assert hit.id == "views/shape-003" and "azimuth_deg" not in hit.best_view
        json.dumps(hit.to_json(), allow_nan=False)
        for call in (
            lambda: collection.search(Query(mesh=views / "meshes/shape-000.ply")),
            lambda: collection.add_folder(views / "meshes"),
            lambda: collection.add(views / "meshes/shape-000.ply"),
        ):
            with raises_code(DescriberError, "unknown_directions", "12"):
                call()
        assert len(collection) == N


# -- re-embedding ----------------------------------------------------------------------------------------------------


def test_reembed_from_stored_vectors_or_from_the_images(views: Path, gallery: Collection) -> None:
    add(gallery, views / "views.csv")
    before = views_by_stem(gallery)
    reembed(gallery.session, replace(CONFIG, whiten=8))
    assert gallery.session.index.get().dim == 8
    for change, name in (({"rig": "ring:6@30"}, "rig ring:6@30"), ({"styles": ("clay",)}, "styles")):
        with raises_code(DescriberError, "views_cannot_be_rendered", str(N), name):
            reembed(gallery.session, replace(CONFIG, **change))
    (views / "views/shape-000/04.png").rename(views / "aside.png")
    failed = reembed(gallery.session, replace(CONFIG, size=96), drop_missing=True)
    assert [(object_id, code) for object_id, code, _ in failed] == [("views/shape-000", "missing_view")]
    assert len(gallery) == N - 1 and gallery.describer.config.size == 96
    reembed(gallery.session, CONFIG)  # back to 64 pixels: same images, same vectors
    for name, (vectors, mask) in views_by_stem(gallery).items():
        np.testing.assert_array_equal(vectors, before[name][0])
        np.testing.assert_array_equal(mask, before[name][1])
    (views / "aside.png").rename(views / "views/shape-000/04.png")
    assert counts(add(gallery, views / "views.csv")[0]) == {"added": 1, "unchanged": N - 1}


# -- the command line --------------------------------------------------------------------------------------------------


def test_commands(
    rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mvr = runner(monkeypatch, capsys)
    c, table, labels = tmp_path / "c", rendered / "views.csv", rendered / "labels.csv"
    code, out, err = mvr(
        "index", c, "--view-manifest", table, "--labels", labels, "--encoder", "builtin:", "--workers", "1"
    )
    assert code == 0 and f"c: {N} objects" in out
    assert "views: ring:12@30, texture, 224 px; view images of 8 objects" in err
    code, out, _ = mvr("index", c, "--view-manifest", table, "--json")
    assert code == 0 and json.loads(out)["unchanged"] == N
    code, out, _ = mvr("info", c)
    assert code == 0 and "ring:12@30, texture, 224 px; all given as images" in out
    code, out, _ = mvr("search", c, "--image", rendered / "views/shape-006/01.png", "-k", "1", "--json")
    assert code == 0 and json.loads(out)["id"] == "views/shape-006"
    assert mvr("search", c, "--id", "views/shape-001", "--html", tmp_path / "page.html")[0] == 0
    code, out, _ = mvr("eval", c, "--by", "label", "--json")
    assert code == 0 and json.loads(out.splitlines()[0])
    assert mvr("eval", c, "--by", "label", "--report", tmp_path / "report")[0] == 0
    code, _, err = mvr("train", c, "--by", "label", "--out", tmp_path / "adapter", *QUICK)
    assert code == 0, err
    code, _, err = mvr("reindex", c, "--adapter", tmp_path / "adapter")
    assert code == 0, err
    for wrong, contained in (
        (["index", c], "nothing to index"),
        (["index", c, rendered / "meshes", "--view-manifest", table], "need two runs"),
        (["index", c, "--view-manifest", table, "--up", "+z"], "--up +z applies to meshes"),
        (["index", c, "--view-manifest", table, "--styles", "texture,clay"], "view images have one style"),
        (["index", c, "--view-manifest", table, "--rig", "ring:6@30"], "has rig ring:12@30"),
        (["index", tmp_path / "new", "--view-manifest", tmp_path / "no.csv"], "cannot be read"),
        (["reindex", c, "--no-adapter", "--rig", "ring:6@30"], "rig ring:6@30"),
    ):
        code, _, err = mvr(*wrong)
        assert code == 1 and contained in err and "Traceback" not in err
    assert not (tmp_path / "new").exists()
    from mvtrain.render_views import meshes_of_collection

    with Collection.open(c) as collection, raises_code(TrainingError, "views_not_tunable"):
        meshes_of_collection(collection.session, "label", None)


def test_labels_of_meshes_are_labels_of_their_rendered_views(
    rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mvr = runner(monkeypatch, capsys)
    meshes, out = tmp_path / "m", tmp_path / "o"
    for n, path in enumerate(sorted((rendered / "meshes").iterdir())):
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
        row_ids = [int(n) for n in collection.session.store.select(None)]
        records = collection.session.store.records(row_ids)
        labels = collection.session.store.column_values("label", row_ids)
    assert dict(zip((records[n].id for n in row_ids), labels, strict=True)) == {
        file: file.split("/")[0] for file in files
    }


def test_commands_without_directions(
    rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "views.csv"
    write_rows(
        table,
        [
            [row[0], row[1] if i == 0 else str(rendered / row[1])]
            for i, row in enumerate(read_rows(rendered / "views.csv"))
        ],
    )
    c, mvr = tmp_path / "c", runner(monkeypatch, capsys)
    for arguments in (
        ["index", c, "--view-manifest", table, "--encoder", "builtin:", "--size", "64"],
        ["search", c, "--image", rendered / "views/shape-006/01.png", "--html", tmp_path / "page.html"],
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
