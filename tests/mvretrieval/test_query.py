"""Queries: mixtures against the plain formula, preparation of images, errors."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from error_codes import raises_code
from made_meshes import box
from numpy.typing import NDArray
from PIL import Image

from mvrender.cameras import parse_rig
from mvretrieval.api import Collection
from mvretrieval.errors import CollectionError, EncoderError, FilterError, QueryError
from mvretrieval.images import load_image
from mvretrieval.ingest.repool import fit_whitening
from mvretrieval.search import explain
from mvretrieval.search.encode import encode_query
from mvretrieval.search.query import Query, Term

SIDE = 64


def _vectors(collection: Collection) -> tuple[list[str], NDArray[np.float64]]:
    row_ids = [int(n) for n in collection.session.store.select(None)]
    records = collection.session.store.records(row_ids)
    return [records[n].id for n in row_ids], np.stack([collection.session.store.vector_of(n) for n in row_ids]).astype(
        float
    )


def _naive(collection: Collection, parts: list[tuple[NDArray[np.floating], float]]) -> dict[str, float]:
    """Weighted sum of the cosines of each term, z-scored over the collection."""
    ids, vectors = _vectors(collection)
    total = np.zeros(len(ids))
    for vector, weight in parts:
        cosines = vectors @ vector
        total += weight * (cosines - cosines.mean()) / cosines.std()
    return dict(zip(ids, total, strict=True))


# -- one term and several --------------------------------------------------------------------------------------------


def test_mesh_query_scores_are_cosines(things: Collection, shapes: Path) -> None:
    hits = things.search(Query(mesh=shapes / "shape-004.ply"), k=12)
    ids, vectors = _vectors(things)
    own = vectors[ids.index("shape-004.ply")]
    assert hits[0].id == "shape-004.ply" and [hit.rank for hit in hits] == list(range(1, 13))
    assert {hit.id: hit.score for hit in hits} == pytest.approx(dict(zip(ids, vectors @ own, strict=True)), abs=1e-4)
    assert hits[0].metadata == {"label": "box", "n": 4} and hits[0].path == str(shapes / "shape-004.ply")


def test_object_is_not_its_own_hit(things: Collection) -> None:
    hits = things.search(Query(id="shape-004.ply"), k=100)
    assert len(hits) == 11 and "shape-004.ply" not in [hit.id for hit in hits]


@pytest.mark.parametrize("whiten", [0, 8])
def test_best_view_of_a_vector_query_is_the_nearest_view(things: Collection, tmp_path: Path, whiten: int) -> None:
    shutil.copytree(things.folder, tmp_path / "own")
    with Collection.open(tmp_path / "own", write=True) as own:
        if whiten:
            fit_whitening(own.session, describer=own.describer.with_config(whiten=whiten))
        raw, mask = own.session.views(own.session.row_id_of("shape-004.ply"))
        assert mask[2]
        vector, _ = own.describer.pool(raw[None, :, 2:3], mask[None, 2:3], known_directions=False)
        best = {hit.id: hit.best_view for hit in own.search(Query(vector=vector[0]), k=12)}["shape-004.ply"]
    assert best["view"] == 2 and best["similarity"] == pytest.approx(1, abs=1e-3) and "query_view" not in best


@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.0, -0.5), (0.2, 3.0), (2.0, -2.0)])
def test_mixture_is_the_weighted_sum_of_z_scored_cosines(things: Collection, weights: tuple[float, float]) -> None:
    terms = [Term("id", "shape-001.ply", weights[0]), Term("id", "shape-006.ply", weights[1])]
    hits = things.search(Query(terms=terms), k=100)
    ids, vectors = _vectors(things)
    sources = [vectors[ids.index(term.value)] for term in terms]
    expected = _naive(things, list(zip(sources, weights, strict=True)))
    for object_id in ("shape-001.ply", "shape-006.ply"):
        del expected[object_id]
    assert [hit.id for hit in hits] == sorted(expected, key=lambda i: -expected[i])
    assert {hit.id: hit.score for hit in hits} == pytest.approx(expected, abs=1e-3)
    for hit in hits:
        assert hit.parts == pytest.approx([vectors[ids.index(hit.id)] @ source for source in sources], abs=1e-5)


def test_negative_term_ranks_similar_objects_lower(things: Collection) -> None:
    def rank_of_boxes(weight: float) -> float:
        hits = things.search(Query(terms=[Term("id", "shape-001.ply"), Term("id", "shape-000.ply", weight)]), k=100)
        return float(np.mean([hit.rank for hit in hits if hit.metadata["label"] == "box"]))

    assert rank_of_boxes(1.0) < rank_of_boxes(-1.0)


def test_filter_applies_before_the_search(things: Collection) -> None:
    hits = things.search(Query(id="shape-000.ply"), k=3, where="label = 'ring' and n > 3")
    assert sorted(hit.id for hit in hits) == ["shape-007.ply", "shape-011.ply"]
    assert things.search(Query(id="shape-000.ply"), where="n > 99") == []
    with raises_code(FilterError, "no_such_column", "did you mean 'label'"):
        things.search(Query(id="shape-000.ply"), where="labl = 'x'")


def test_hit_has_its_best_view_and_view_weights(things: Collection, shapes: Path) -> None:
    hit = things.search(Query(mesh=shapes / "shape-005.ply"), k=1)[0]
    assert hit.view_weights.shape == (1, 3) and hit.view_weights.sum() == pytest.approx(1)
    assert hit.best_view["style"] == "texture" and hit.best_view["elevation_deg"] == 30
    assert hit.best_view["azimuth_deg"] == hit.best_view["view"] * 120
    assert hit.best_view["query_view"] == hit.best_view["view"] and hit.best_view["similarity"] == pytest.approx(
        1, abs=1e-3
    )
    row_id = things.session.row_id_of(hit.id)
    views, _ = things.session.views(row_id)
    term = Term("vector", things.session.store.vector_of(row_id))
    assert "query_view" not in things.search(Query(terms=[term]), k=1)[0].best_view
    assert views.shape == (1, 3, 1024)


def test_vector_query_equals_the_query_by_its_object(things: Collection) -> None:
    own = things.session.store.vector_of(things.session.row_id_of("shape-003.ply"))
    hits = things.search(Query(vector=7 * own), k=100)
    assert hits[0].id == "shape-003.ply" and hits[0].score == pytest.approx(1, abs=1e-5)
    assert {hit.id: hit.score for hit in hits[1:]} == pytest.approx(
        {hit.id: hit.score for hit in things.search(Query(id="shape-003.ply"), k=100)}, abs=1e-5
    )


@pytest.mark.parametrize("length", [1e-30, 1e30])
def test_norm_of_a_query_vector_does_not_matter(length: float, things: Collection) -> None:
    own = things.session.store.vector_of(things.session.row_id_of("shape-003.ply")).astype(float)
    (hit,) = things.search(Query(vector=np.asarray(own * length)), k=1)
    assert hit.id == "shape-003.ply" and hit.score == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("vector", "code"),
    [
        (np.zeros(1024), "bad_vector"),
        (np.full(1024, np.nan), "bad_vector"),
        (np.r_[np.inf, np.ones(1023)], "bad_vector"),
        (np.ones(7), "bad_vector_shape"),
        ("a chair", "bad_vector"),
        ([[1.0], [1.0, 2.0]], "bad_vector"),
    ],
)
def test_bad_vector_is_an_error(vector: Any, code: str, things: Collection) -> None:
    with raises_code(QueryError, code):
        things.search(Query(vector=vector))


def test_bad_terms_and_arguments_are_errors(things: Collection) -> None:
    for kind, value, code, contained in [
        ("mehs", "a.glb", "unknown_term_kind", "did you mean 'mesh'"),
        ("mesh", 5, "bad_term_value", "int"),
        ("images", "a.png", "bad_term_value", "str"),
        ("id", None, "bad_term_value", "NoneType"),
    ]:
        with raises_code(QueryError, code, contained):
            Term(kind, value)  # type: ignore[arg-type]
    for k in (0, 2.5, "3"):
        with raises_code(QueryError, "bad_k", repr(k)):
            things.search(Query(id="shape-000.ply"), k=k)  # type: ignore[arg-type]
    with pytest.raises(FilterError, match="5"):
        things.search(Query(id="shape-000.ply"), where=5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rig", "view", "label"),
    [("ring:4@30", 1, "90°"), ("cube", 4, "0°, 90° up"), ("cube", 5, "0°, 90° down"), ("cube", 0, "0°, 0° up")],
)
def test_the_elevation_is_named_where_it_differs(rig: str, view: int, label: str) -> None:
    cameras = parse_rig(rig)
    order = sorted(
        range(cameras.n_views), key=lambda i: (abs(cameras.elevations_deg[i]) > 1, -cameras.elevations_deg[i], i)
    )
    i = order[view]
    best = {"azimuth_deg": cameras.azimuths_deg[i], "elevation_deg": cameras.elevations_deg[i], "view": i}
    assert explain.view_label(best, cameras) == label
    assert explain.view_label({"view": 2}, cameras) == "view 3"


def test_the_first_of_equal_views_is_the_best_whatever_the_rounding() -> None:
    scores = np.array([[0.1, 0.5, 0.5 + 3e-7], [-np.inf, -np.inf, -np.inf], [0.2, 0.3, 0.4]], np.float32)
    assert explain._first_best(scores).tolist() == [1, 0, 2]


def test_best_view_of_an_image_query(things: Collection, tmp_path: Path, shapes: Path) -> None:
    (source,) = encode_query(things.session, Query(mesh=shapes / "shape-002.ply"))
    assert source.images is not None
    hits = {}
    for v in range(3):
        Image.fromarray(source.images[v]).save(tmp_path / f"{v}.png")
        hits[v] = things.search(Query(images=tmp_path / f"{v}.png", background="keep"), k=12)
    views, _ = things.session.views(things.session.row_id_of("shape-002.ply"))
    for found in hits.values():
        (hit,) = [hit for hit in found if hit.id == "shape-002.ply"]
        assert hit.rank <= 3 and 0 <= hit.best_view["view"] < len(views[0])


def test_several_images_are_views_of_one_object(things: Collection, tmp_path: Path, shapes: Path) -> None:
    (mesh,) = encode_query(things.session, Query(mesh=shapes / "shape-002.ply"))
    assert mesh.images is not None
    paths = [tmp_path / f"{v}.png" for v in range(3)]
    for path, image in zip(paths, mesh.images, strict=True):
        Image.fromarray(image).save(path)
    (source,) = encode_query(things.session, Query(images=paths))
    encoder = things.describer.encoder
    raw = encoder.encode_views(np.stack([load_image(path, encoder.image_size) for path in paths]))
    mean = raw.mean(axis=0)
    np.testing.assert_allclose(source.vector, mean / np.linalg.norm(mean), atol=1e-5)
    assert source.views.shape == (1, 3, 1024)
    assert things.search(Query(images=paths), k=1)[0].id == "shape-002.ply"


def test_images_of_a_query_are_encoded_once(
    things: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (64, 64), "red").save(tmp_path / "a.png")
    encoder, counts = things.describer.encoder, []
    encode_views = encoder.encode_views

    def counted(images: Any, groups: Any = None) -> Any:
        counts.append(len(images))
        return encode_views(images, groups)

    monkeypatch.setattr(encoder, "encode_views", counted)
    (term,) = encode_query(things.session, Query(images=[tmp_path / "a.png"] * 3))
    assert counts == [3] and term.views.shape == (1, 3, things.describer.encoder.dim)


def test_mixture_over_equal_objects_is_finite(collection: Collection, tmp_path: Path) -> None:
    for name in "abc":
        box(1, 2, 3).export(tmp_path / f"{name}.ply")
    collection.add_folder(tmp_path)
    hits = collection.search(Query(terms=[Term("mesh", tmp_path / "a.ply"), Term("mesh", tmp_path / "b.ply", -0.5)]))
    assert [abs(hit.score) < 1e-3 for hit in hits] == [True] * 3


# -- errors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "code", "contained"),
    [
        (Query(), "empty_query", ""),
        (Query(images=[]), "empty_query", ""),
        (Query(text="  "), "empty_text", ""),
        (Query(minus_text="wood"), "only_negative_terms", ""),
        (Query(terms=[Term("id", "a", 0.0)]), "bad_term_weight", "0"),
        (Query(terms=[Term("id", "a", float("nan"))]), "bad_term_weight", "nan"),
        (Query(terms=[Term("vector", [1.0, 2.0])]), "bad_vector_shape", "(2,)"),
        (Query(mesh="nothing.ply"), "missing_file", "nothing.ply"),
        (Query(images="nothing.png"), "missing_file", "nothing.png"),
        (Query(mesh=__file__), "unknown_format", "test_query.py"),
        (Query(images=__file__), "unknown_image_format", "test_query.py"),
    ],
)
def test_bad_query_is_an_error(things: Collection, query: Query, code: str, contained: str) -> None:
    with raises_code(QueryError, code, contained):
        things.search(query)


def test_other_errors_of_queries(things: Collection) -> None:
    with raises_code(QueryError, "bad_k", "0"):
        things.search(Query(id="shape-000.ply"), k=0)
    with raises_code(EncoderError, "no_text_tower"):
        things.search(Query(text="a chair"))
    with raises_code(CollectionError, "no_such_object", "'x'"):
        things.search(Query(id="x"))


@pytest.mark.parametrize("name", ["terms", "images"])
def test_generators_can_be_read_twice(name: str) -> None:
    given: dict[str, list[Any]] = {"terms": [Term("id", "a"), Term("id", "b")], "images": ["a.png", "b.png"]}
    of_generator: dict[str, Any] = {name: (value for value in given[name])}
    of_list: dict[str, Any] = {name: given[name]}
    query, from_list = Query(**of_generator), Query(**of_list)
    for _ in range(2):
        assert query.all_terms() == from_list.all_terms() and query.all_terms()
    assert query == from_list


# -- images ------------------------------------------------------------------------------------------------------------


def _drawing(background: Any = (255, 255, 255), size: tuple[int, int] = (120, 80)) -> NDArray[np.uint8]:
    """A red block left of the middle."""
    image = np.empty((size[1], size[0], 3), np.uint8)
    image[:] = background
    image[30:60, 20:50] = (200, 30, 30)
    return image


def _box_of(image: NDArray[np.uint8]) -> tuple[int, int, int, int]:
    """Where it is not white: left, top, right, bottom."""
    rows, columns = np.nonzero((image < 200).any(axis=2))
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def _save(folder: Path, image: NDArray[np.uint8] | Image.Image, name: str = "p.png", **options: Any) -> Path:
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(folder / name, **options)
    return folder / name


@pytest.mark.parametrize("background", [(255, 255, 255), (128, 128, 128), (20, 60, 20)])
def test_plain_background_becomes_white_and_is_cropped(background: tuple[int, int, int], tmp_path: Path) -> None:
    image = load_image(_save(tmp_path, _drawing(background)), SIDE)
    assert image.shape == (SIDE, SIDE, 3) and (image[[0, -1]] == 255).all()
    left, top, right, bottom = _box_of(image)
    # The block is square: centred, it fills the image up to the margin.
    assert (left, top) == pytest.approx((SIDE * 0.07, SIDE * 0.07), abs=2)
    assert (right, bottom) == pytest.approx((SIDE * 0.93, SIDE * 0.93), abs=2)
    assert image[SIDE // 2, SIDE // 2] == pytest.approx([200, 30, 30], abs=3)


def test_transparent_background_becomes_white(tmp_path: Path) -> None:
    rgba = np.dstack([_drawing((0, 255, 0)), np.zeros((80, 120), np.uint8)])
    rgba[30:60, 20:50, 3] = 255
    plain = load_image(_save(tmp_path, _drawing()), SIDE)
    assert np.abs(load_image(_save(tmp_path, rgba), SIDE).astype(int) - plain).max() <= 2
    palette = Image.fromarray(rgba).quantize(16)
    assert np.abs(load_image(_save(tmp_path, palette), SIDE).astype(int) - plain).mean() < 3


def test_other_background_is_kept(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (80, 120, 3), np.uint8)
    noise[30:60, 20:50] = (200, 30, 30)
    image = load_image(_save(tmp_path, noise), 120)
    assert image[image.shape[0] // 2].std() > 20
    kept = load_image(_save(tmp_path, _drawing((128, 128, 128))), SIDE, background="keep")
    assert kept[SIDE // 2, SIDE - 12] == pytest.approx([128, 128, 128], abs=2)


def test_uniform_image_is_kept(tmp_path: Path) -> None:
    assert (load_image(_save(tmp_path, np.full((9, 5, 3), 255, np.uint8)), SIDE) == 255).all()
    assert load_image(_save(tmp_path, np.zeros((1, 1, 3), np.uint8)), SIDE).shape == (SIDE, SIDE, 3)


@pytest.mark.parametrize(
    ("orientation", "operation"), [(3, "ROTATE_180"), (6, "ROTATE_90"), (8, "ROTATE_270"), (2, "FLIP_LEFT_RIGHT")]
)
def test_exif_orientation_is_applied(orientation: int, operation: str, tmp_path: Path) -> None:
    upright = _drawing()
    upright[35:45, 25:30] = (20, 20, 200)
    rotated = Image.fromarray(upright).transpose(Image.Transpose[operation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    plain = load_image(_save(tmp_path, upright), SIDE)
    found = load_image(_save(tmp_path, rotated, "q.png", exif=exif), SIDE)
    assert np.abs(found.astype(int) - plain).max() <= 2
    assert np.abs(load_image(_save(tmp_path, rotated, "r.png"), SIDE).astype(int) - plain).max() > 50


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "1", "LA", "I;16", "I", "F"])
def test_image_modes(mode: str, tmp_path: Path) -> None:
    drawing = Image.fromarray(_drawing())
    if mode in ("I;16", "I", "F"):
        grey = np.asarray(drawing.convert("L"), np.float64)
        types = {"I;16": np.uint16, "I": np.int32, "F": np.float32}
        image = Image.fromarray((grey * (1 if mode == "F" else 257)).astype(types[mode]))
        assert image.mode == mode
    else:
        image = drawing.convert(mode)
    found = load_image(_save(tmp_path, image, "p.tif" if mode in ("CMYK", "I", "F") else "p.png"), SIDE)
    assert (found[0] == 255).all()
    left, _, right, _ = _box_of(found)
    assert right - left > SIDE * 0.8


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif", "bmp", "tif"])
def test_damaged_image_is_a_query_error(suffix: str, tmp_path: Path) -> None:
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


def test_folder_and_huge_image_are_errors(tmp_path: Path) -> None:
    with raises_code(QueryError, "unknown_image_format"):
        load_image(tmp_path, SIDE)
    giant = _save(tmp_path, Image.new("1", (20_000, 10_001)))
    with raises_code(QueryError, "too_many_pixels", str(giant)):
        load_image(giant, SIDE)


def test_query_view_of_an_object_is_its_index_in_the_rig(things: Collection, tmp_path: Path) -> None:
    """Also if an earlier view is masked."""
    things.session.save_index()
    shutil.copytree(things.folder, tmp_path / "c")
    with Collection.open(tmp_path / "c", write=True) as collection:
        row_id = collection.session.row_id_of("shape-003.ply")
        views, _ = collection.session.views(row_id)
        whole = collection.session.store.whole(row_id, views.shape)
        with collection.session.store.transaction():
            collection.session.store.put(
                replace(whole, view_mask=np.array([False, True, True])), collection.session.store.next_sequence()
            )
        for hit in collection.search(Query(id="shape-003.ply")):
            found, _ = collection.session.views(collection.session.row_id_of(hit.id))
            similarity = found[0, hit.best_view["view"]] @ views[0].T
            assert hit.best_view["query_view"] == 1 + similarity[1:].argmax()
