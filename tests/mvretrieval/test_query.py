"""Questions: mixtures against the plain formula, pictures as they are prepared, and questions that are none."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_meshes import box
from numpy.typing import NDArray
from PIL import Image

from mvretrieval.api import Collection
from mvretrieval.errors import CollectionError, EncoderError, FilterError, QueryError
from mvretrieval.images import load_image
from mvretrieval.search.encode import encode_query
from mvretrieval.search.query import Query, Term

SIDE = 64


def _vectors(collection: Collection) -> tuple[list[str], NDArray[np.float64]]:
    row_ids = [int(n) for n in collection.store.select(None)]
    records = collection.store.records(row_ids)
    return [records[n].id for n in row_ids], np.stack([collection.store.vector_of(n) for n in row_ids]).astype(float)


def _naive(collection: Collection, parts: list[tuple[NDArray[np.floating], float]]) -> dict[str, float]:
    """Each source's cosines standardised over the collection, and their weighted sum."""
    ids, vectors = _vectors(collection)
    total = np.zeros(len(ids))
    for vector, weight in parts:
        cosines = vectors @ vector
        total += weight * (cosines - cosines.mean()) / cosines.std()
    return dict(zip(ids, total, strict=True))


# -- one source and several --------------------------------------------------------------------------------------------


def test_a_mesh_finds_itself_and_its_kind_with_cosines(things: Collection, shapes: Path) -> None:
    hits = things.search(Query(mesh=shapes / "shape-004.ply"), k=12)
    ids, vectors = _vectors(things)
    own = vectors[ids.index("shape-004.ply")]
    assert hits[0].id == "shape-004.ply" and [hit.rank for hit in hits] == list(range(1, 13))
    assert {hit.id: hit.score for hit in hits} == pytest.approx(dict(zip(ids, vectors @ own, strict=True)), abs=1e-4)
    assert hits[0].metadata == {"label": "box", "n": 4} and hits[0].path == str(shapes / "shape-004.ply")


def test_an_object_is_not_its_own_answer(things: Collection) -> None:
    hits = things.search(Query(id="shape-004.ply"), k=100)
    assert len(hits) == 11 and "shape-004.ply" not in [hit.id for hit in hits]


@pytest.mark.parametrize("whiten", [0, 8])
def test_of_a_bare_vector_the_best_view_is_the_one_that_lies_next_to_it(
    things: Collection, tmp_path: Path, whiten: int
) -> None:
    shutil.copytree(things.folder, tmp_path / "own")
    with Collection.open(tmp_path / "own", write=True) as own:
        if whiten:
            own.fit_whitening(describer=own.describer.with_config(whiten=whiten))
        raw, mask = own.views(own.row_id_of("shape-004.ply"))
        assert mask[2]
        vector, _ = own.describer.pool(raw[None, :, 2:3], mask[None, 2:3], known_directions=False)
        best = {hit.id: hit.best_view for hit in own.search(Query(vector=vector[0]), k=12)}["shape-004.ply"]
    assert best["view"] == 2 and best["similarity"] == pytest.approx(1, abs=1e-3) and "query_view" not in best


@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.0, -0.5), (0.2, 3.0), (2.0, -2.0)])
def test_a_mixture_is_the_weighted_sum_of_standardised_cosines(
    things: Collection, weights: tuple[float, float]
) -> None:
    terms = [Term("id", "shape-001.ply", weights[0]), Term("id", "shape-006.ply", weights[1])]
    hits = things.search(Query(terms=terms), k=100)
    ids, vectors = _vectors(things)
    sources = [vectors[ids.index(term.value)] for term in terms]
    expected = _naive(things, list(zip(sources, weights, strict=True)))
    for asked in ("shape-001.ply", "shape-006.ply"):
        del expected[asked]
    assert [hit.id for hit in hits] == sorted(expected, key=lambda i: -expected[i])
    assert {hit.id: hit.score for hit in hits} == pytest.approx(expected, abs=1e-3)
    for hit in hits:
        assert hit.parts == pytest.approx([vectors[ids.index(hit.id)] @ source for source in sources], abs=1e-5)


def test_a_minus_term_pushes_its_like_down(things: Collection) -> None:
    def rank_of_boxes(weight: float) -> float:
        hits = things.search(Query(terms=[Term("id", "shape-001.ply"), Term("id", "shape-000.ply", weight)]), k=100)
        return float(np.mean([hit.rank for hit in hits if hit.metadata["label"] == "box"]))

    assert rank_of_boxes(1.0) < rank_of_boxes(-1.0)


def test_a_filter_holds_before_the_search(things: Collection) -> None:
    hits = things.search(Query(id="shape-000.ply"), k=3, where="label = 'ring' and n > 3")
    assert sorted(hit.id for hit in hits) == ["shape-007.ply", "shape-011.ply"]
    assert things.search(Query(id="shape-000.ply"), where="n > 99") == []
    with pytest.raises(FilterError, match="did you mean 'label'"):
        things.search(Query(id="shape-000.ply"), where="labl = 'x'")


def test_a_hit_carries_its_best_view_and_its_view_weights(things: Collection, shapes: Path) -> None:
    hit = things.search(Query(mesh=shapes / "shape-005.ply"), k=1)[0]
    assert hit.view_weights.shape == (1, 3) and hit.view_weights.sum() == pytest.approx(1)
    assert hit.best_view["style"] == "texture" and hit.best_view["elevation_deg"] == 30
    assert hit.best_view["azimuth_deg"] == hit.best_view["view"] * 120
    assert hit.best_view["query_view"] == hit.best_view["view"] and hit.best_view["similarity"] == pytest.approx(
        1, abs=1e-3
    )
    row_id = things.row_id_of(hit.id)
    views, _ = things.views(row_id)
    ask = Term("vector", things.store.vector_of(row_id))
    assert "query_view" not in things.search(Query(terms=[ask]), k=1)[0].best_view
    assert views.shape == (1, 3, 1024)


def test_a_vector_of_any_length_asks_like_the_object_it_is_of(things: Collection) -> None:
    own = things.store.vector_of(things.row_id_of("shape-003.ply"))
    hits = things.search(Query(vector=7 * own), k=100)
    assert hits[0].id == "shape-003.ply" and hits[0].score == pytest.approx(1, abs=1e-5)
    assert {hit.id: hit.score for hit in hits[1:]} == pytest.approx(
        {hit.id: hit.score for hit in things.search(Query(id="shape-003.ply"), k=100)}, abs=1e-5
    )


@pytest.mark.parametrize("length", [1e-30, 1e30])
def test_the_length_of_a_vector_does_not_matter(length: float, things: Collection) -> None:
    own = things.store.vector_of(things.row_id_of("shape-003.ply")).astype(float)
    (hit,) = things.search(Query(vector=own * length), k=1)
    assert hit.id == "shape-003.ply" and hit.score == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("vector", "said"),
    [
        (np.zeros(1024), "no direction"),
        (np.full(1024, np.nan), "no direction"),
        (np.r_[np.inf, np.ones(1023)], "no direction"),
        (np.ones(7), r"shape \(7,\)"),
        ("a chair", "the vector is none"),
        ([[1.0], [1.0, 2.0]], "the vector is none"),
    ],
)
def test_vectors_that_ask_nothing_are_refused(vector: Any, said: str, things: Collection) -> None:
    with pytest.raises(QueryError, match=said):
        things.search(Query(vector=vector))


def test_what_no_question_can_be_asked_with_is_refused(things: Collection) -> None:
    for kind, value, said in [
        ("mehs", "a.glb", "did you mean 'mesh'"),
        ("mesh", 5, "the path of a mesh, not int"),
        ("images", "a.png", "a list of paths of pictures, not str"),
        ("id", None, "the id of an object, not NoneType"),
    ]:
        with pytest.raises(QueryError, match=said):
            Term(kind, value)  # type: ignore[arg-type]
    for k in (0, 2.5, "3"):
        with pytest.raises(QueryError, match="k is a whole number of hits from 1"):
            things.search(Query(id="shape-000.ply"), k=k)  # type: ignore[arg-type]
    with pytest.raises(FilterError, match="not 5"):
        things.search(Query(id="shape-000.ply"), where=5)  # type: ignore[arg-type]


def test_the_best_view_is_the_one_that_looks_like_the_picture(things: Collection, tmp_path: Path, shapes: Path) -> None:
    (source,) = encode_query(things.session, Query(mesh=shapes / "shape-002.ply"))
    assert source.images is not None
    hits = {}
    for v in range(3):
        Image.fromarray(source.images[v]).save(tmp_path / f"{v}.png")
        hits[v] = things.search(Query(images=tmp_path / f"{v}.png", background="keep"), k=12)
    views, _ = things.views(things.row_id_of("shape-002.ply"))
    for found in hits.values():
        (hit,) = [hit for hit in found if hit.id == "shape-002.ply"]
        assert hit.rank <= 3 and 0 <= hit.best_view["view"] < len(views[0])


def test_several_pictures_are_views_of_one_object(things: Collection, tmp_path: Path, shapes: Path) -> None:
    (mesh,) = encode_query(things.session, Query(mesh=shapes / "shape-002.ply"))
    assert mesh.images is not None
    paths = [tmp_path / f"{v}.png" for v in range(3)]
    for path, picture in zip(paths, mesh.images, strict=True):
        Image.fromarray(picture).save(path)
    (source,) = encode_query(things.session, Query(images=paths))
    encoder = things.describer.encoder
    raw = encoder.encode_views(np.stack([load_image(path, encoder.image_size) for path in paths]))
    mean = raw.mean(axis=0)
    np.testing.assert_allclose(source.vector, mean / np.linalg.norm(mean), atol=1e-5)
    assert source.views.shape == (1, 3, 1024)
    assert things.search(Query(images=paths), k=1)[0].id == "shape-002.ply"


def test_equal_objects_do_not_blow_a_mixture_up(collection: Collection, tmp_path: Path) -> None:
    for name in "abc":
        box(1, 2, 3).export(tmp_path / f"{name}.ply")
    collection.add_folder(tmp_path)
    hits = collection.search(Query(terms=[Term("mesh", tmp_path / "a.ply"), Term("mesh", tmp_path / "b.ply", -0.5)]))
    assert [abs(hit.score) < 1e-3 for hit in hits] == [True] * 3


# -- no questions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "said"),
    [
        (Query(), "an empty question"),
        (Query(images=[]), "an empty question"),
        (Query(text="  "), "the words are empty"),
        (Query(minus_text="wood"), "only minus terms"),
        (Query(terms=[Term("id", "a", 0.0)]), "the weight of a is 0"),
        (Query(terms=[Term("id", "a", float("nan"))]), "the weight of a is nan"),
        (Query(terms=[Term("vector", [1.0, 2.0])]), "the vector has shape (2,), this collection's have (1024,)"),
        (Query(mesh="nothing.ply"), "cannot ask with nothing.ply: no such file"),
        (Query(images="nothing.png"), "no picture at nothing.png"),
        (Query(mesh=__file__), "is not a mesh format"),
        (Query(images=__file__), "is no readable picture"),
    ],
)
def test_questions_that_cannot_be_asked(things: Collection, query: Query, said: str) -> None:
    with pytest.raises(QueryError, match=re.escape(said)):
        things.search(query)


def test_other_errors_of_questions(things: Collection) -> None:
    with pytest.raises(QueryError, match="number of hits from 1, not 0"):
        things.search(Query(id="shape-000.ply"), k=0)
    with pytest.raises(EncoderError, match="has no text tower"):
        things.search(Query(text="a chair"))
    with pytest.raises(CollectionError, match="no object 'x'"):
        things.search(Query(id="x"))


# -- pictures ----------------------------------------------------------------------------------------------------------


def _drawing(background: Any = (255, 255, 255), size: tuple[int, int] = (120, 80)) -> NDArray[np.uint8]:
    """A red block left of the middle."""
    picture = np.empty((size[1], size[0], 3), np.uint8)
    picture[:] = background
    picture[30:60, 20:50] = (200, 30, 30)
    return picture


def _box_of(picture: NDArray[np.uint8]) -> tuple[int, int, int, int]:
    """Where it is not white: left, top, right, bottom."""
    rows, columns = np.nonzero((picture < 200).any(axis=2))
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def _save(folder: Path, picture: NDArray[np.uint8] | Image.Image, name: str = "p.png", **options: Any) -> Path:
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    image.save(folder / name, **options)
    return folder / name


@pytest.mark.parametrize("background", [(255, 255, 255), (128, 128, 128), (20, 60, 20)])
def test_a_plain_background_becomes_white_and_is_cropped(background: tuple[int, int, int], tmp_path: Path) -> None:
    picture = load_image(_save(tmp_path, _drawing(background)), SIDE)
    assert picture.shape == (SIDE, SIDE, 3) and (picture[[0, -1]] == 255).all()
    left, top, right, bottom = _box_of(picture)
    # The block is square: it fills the picture but for the margin, in the middle.
    assert (left, top) == pytest.approx((SIDE * 0.07, SIDE * 0.07), abs=2)
    assert (right, bottom) == pytest.approx((SIDE * 0.93, SIDE * 0.93), abs=2)
    assert picture[SIDE // 2, SIDE // 2] == pytest.approx([200, 30, 30], abs=3)


def test_a_transparent_background_becomes_white(tmp_path: Path) -> None:
    rgba = np.dstack([_drawing((0, 255, 0)), np.zeros((80, 120), np.uint8)])
    rgba[30:60, 20:50, 3] = 255
    plain = load_image(_save(tmp_path, _drawing()), SIDE)
    assert np.abs(load_image(_save(tmp_path, rgba), SIDE).astype(int) - plain).max() <= 2
    palette = Image.fromarray(rgba).quantize(16)
    assert np.abs(load_image(_save(tmp_path, palette), SIDE).astype(int) - plain).mean() < 3


def test_a_busy_background_is_kept(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (80, 120, 3), np.uint8)
    noise[30:60, 20:50] = (200, 30, 30)
    picture = load_image(_save(tmp_path, noise), 120)
    assert picture[picture.shape[0] // 2].std() > 20
    kept = load_image(_save(tmp_path, _drawing((128, 128, 128))), SIDE, background="keep")
    assert kept[SIDE // 2, SIDE - 12] == pytest.approx([128, 128, 128], abs=2)


def test_a_picture_of_nothing_is_kept(tmp_path: Path) -> None:
    assert (load_image(_save(tmp_path, np.full((9, 5, 3), 255, np.uint8)), SIDE) == 255).all()
    assert load_image(_save(tmp_path, np.zeros((1, 1, 3), np.uint8)), SIDE).shape == (SIDE, SIDE, 3)


@pytest.mark.parametrize(
    ("orientation", "operation"), [(3, "ROTATE_180"), (6, "ROTATE_90"), (8, "ROTATE_270"), (2, "FLIP_LEFT_RIGHT")]
)
def test_the_orientation_of_the_camera_is_honoured(orientation: int, operation: str, tmp_path: Path) -> None:
    upright = _drawing()
    upright[35:45, 25:30] = (20, 20, 200)
    turned = Image.fromarray(upright).transpose(Image.Transpose[operation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    plain = load_image(_save(tmp_path, upright), SIDE)
    found = load_image(_save(tmp_path, turned, "q.png", exif=exif), SIDE)
    assert np.abs(found.astype(int) - plain).max() <= 2
    assert np.abs(load_image(_save(tmp_path, turned, "r.png"), SIDE).astype(int) - plain).max() > 50


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "1", "LA", "I;16", "I", "F"])
def test_pictures_of_every_kind(mode: str, tmp_path: Path) -> None:
    drawing = Image.fromarray(_drawing())
    if mode in ("I;16", "I", "F"):
        grey = np.asarray(drawing.convert("L"), np.float64)
        types = {"I;16": np.uint16, "I": np.int32, "F": np.float32}
        picture = Image.fromarray((grey * (1 if mode == "F" else 257)).astype(types[mode]))
        assert picture.mode == mode
    else:
        picture = drawing.convert(mode)
    found = load_image(_save(tmp_path, picture, "p.tif" if mode in ("CMYK", "I", "F") else "p.png"), SIDE)
    assert (found[0] == 255).all()
    left, _, right, _ = _box_of(found)
    assert right - left > SIDE * 0.8


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif", "bmp", "tif"])
def test_broken_pictures_are_errors_of_ours(suffix: str, tmp_path: Path) -> None:
    path = _save(tmp_path, _drawing(), f"p.{suffix}")
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    for i in range(60):
        broken = bytearray(data[: rng.integers(len(data))] if i % 2 else data)
        for place in rng.integers(len(broken), size=4) if len(broken) else []:
            broken[place] = rng.integers(256)
        path.write_bytes(bytes(broken))
        try:
            load_image(path, SIDE)
        except QueryError as error:
            assert str(path) in str(error)


def test_folders_and_giants_are_no_pictures(tmp_path: Path) -> None:
    with pytest.raises(QueryError, match="no readable picture"):
        load_image(tmp_path, SIDE)
    giant = _save(tmp_path, Image.new("1", (20_000, 10_001)))
    with pytest.raises(QueryError, match=r"too large .*; scale it down"):
        load_image(giant, SIDE)


def test_the_view_of_a_known_object_is_told_by_its_own_number(things: Collection, tmp_path: Path) -> None:
    """Also where one before it was left out."""
    things.save_index()
    shutil.copytree(things.folder, tmp_path / "c")
    with Collection.open(tmp_path / "c", write=True) as collection:
        row_id = collection.row_id_of("shape-003.ply")
        views, _ = collection.views(row_id)
        whole = collection.store.whole(row_id, views.shape)
        with collection.store.transaction():
            collection.store.put(
                replace(whole, view_mask=np.array([False, True, True])), collection.store.next_sequence()
            )
        for hit in collection.search(Query(id="shape-003.ply")):
            found, _ = collection.views(collection.row_id_of(hit.id))
            similarity = found[0, hit.best_view["view"]] @ views[0].T
            assert hit.best_view["query_view"] == 1 + similarity[1:].argmax()
