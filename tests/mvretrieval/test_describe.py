"""The describer: fingerprint, configuration, pooling."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from error_codes import raises_code
from made_meshes import SMALL, unit, write_shapes

import mvretrieval.describe
from mvrender.errors import RigError
from mvrender.shading import Style
from mvretrieval.api import Collection, OpenOptions
from mvretrieval.describe import Describer, DescriberConfig
from mvretrieval.errors import DescriberError
from mvretrieval.ingest.repool import repool
from mvretrieval.search.query import Query
from mvretrieval.weighting.whitening import Whitening, WhiteningFit


def _whitening(seed: int = 0, whiten: int | None = None) -> Whitening:
    fit = WhiteningFit(1, 32)
    fit.add(unit(np.random.default_rng(seed).standard_normal((1, 60, 32))))
    return fit.result(whiten)


def _with_encoder(fingerprint: str) -> Describer:
    describer = Describer.from_config(SMALL)
    describer.encoder.fingerprint = fingerprint  # type: ignore[misc]
    return describer


CHANGES: dict[str, Callable[[], Describer]] = {
    "nothing": lambda: Describer.from_config(SMALL),
    "rig": lambda: Describer.from_config(replace(SMALL, rig="ring:3@20")),
    "styles": lambda: Describer.from_config(replace(SMALL, styles=("clay",))),
    "more styles": lambda: Describer.from_config(replace(SMALL, styles=("texture", "depth"))),
    "size": lambda: Describer.from_config(replace(SMALL, size=65)),
    "pooling": lambda: Describer.from_config(replace(SMALL, pooling="max")),
    "weights": lambda: _with_encoder("other weights"),
    "centring": lambda: Describer.from_config(SMALL, _whitening()),
    "whitening": lambda: Describer.from_config(SMALL, _whitening(whiten=4)),
    "other whitening": lambda: Describer.from_config(SMALL, _whitening(seed=1)),
}


def test_fingerprint_changes_with_everything_that_changes_a_vector() -> None:
    fingerprints = {name: make().fingerprint for name, make in CHANGES.items()}
    assert len(set(fingerprints.values())) == len(CHANGES)
    assert all(re.fullmatch(r"[0-9a-f]{16}", fingerprint) for fingerprint in fingerprints.values())
    assert {name: make().fingerprint for name, make in CHANGES.items()} == fingerprints


def test_fingerprint_changes_with_the_shading(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Describer.from_config(SMALL).fingerprint
    monkeypatch.setattr(mvretrieval.describe, "VIEWS_VERSION", 999)
    assert Describer.from_config(SMALL).fingerprint != before


def test_backend_device_and_precision_are_not_in_the_fingerprint() -> None:
    other = Describer.from_config(SMALL, device="cpu", precision="float32", backend="raster")
    assert other.fingerprint == Describer.from_config(SMALL).fingerprint


def test_configuration_json_round_trip() -> None:
    config = replace(SMALL, styles=("clay", "normal"), pooling="max", center=True, whiten=9)
    assert DescriberConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    ("changes", "error", "code", "contained"),
    [
        ({"rig": "rnig:3"}, RigError, "unknown_rig", "did you mean 'ring'"),
        ({"size": 10}, RigError, "bad_view_size", "64 to 1024"),
        ({"styles": ()}, DescriberError, "no_styles", "style"),
        ({"styles": ("texture", "texture")}, DescriberError, "duplicate_style", "texture, texture"),
        ({"styles": ("textur",)}, RigError, "unknown_style", "texture"),
        ({"pooling": "maen"}, DescriberError, "unknown_pooling", "did you mean 'mean'"),
        ({"whiten": -1}, DescriberError, "bad_whitening", "-1"),
        ({"adapter": "0123", "center": True}, DescriberError, "adapter_and_pooling", "adapter"),
    ],
)
def test_bad_configuration_is_an_error(
    changes: dict[str, object], error: type[Exception], code: str, contained: str
) -> None:
    with raises_code(error, code, contained):
        replace(SMALL, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(("pooling", "whiten"), [("mean", 6), ("max", 0)])
def test_repooling_equals_indexing_with_the_new_pooling(pooling: str, whiten: int, tmp_path: Path) -> None:
    """Stored views make rendering needless for another pooling."""
    write_shapes(tmp_path / "m", range(4))
    styles: tuple[Style, ...] = ("texture", "depth")
    config = replace(SMALL, styles=styles, pooling=pooling, whiten=whiten)  # type: ignore[arg-type]
    options = OpenOptions(workers=1)
    with Collection.create(tmp_path / "plain", replace(SMALL, styles=styles), options) as plain:
        plain.add_folder(tmp_path / "m")
        with Collection.create(tmp_path / "direct", config, options) as direct:
            direct.add_folder(tmp_path / "m")
            describer = plain.describer.with_config(pooling=pooling, whiten=whiten)
            repool(plain.session, describer.with_whitening(direct.describer.whitening))
            for name in (f"shape-{n:03d}.ply" for n in range(4)):
                vectors = [c.session.store.vector_of(c.session.row_id_of(name)) for c in (plain, direct)]
                np.testing.assert_allclose(vectors[0], vectors[1], atol=2e-6)
                assert np.linalg.norm(vectors[0]) == pytest.approx(1, abs=1e-5)
                assert len(vectors[0]) == 2 * (whiten or 1024)
            assert plain.describer.fingerprint == direct.describer.fingerprint
            for hits in (c.search(Query(mesh=tmp_path / "m" / "shape-001.ply"), k=1) for c in (plain, direct)):
                assert hits[0].id == "shape-001.ply" and hits[0].score == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_view_weights_are_those_of_pooling(pooling: str) -> None:
    describer = Describer.from_config(replace(SMALL, styles=("clay", "depth"), pooling=pooling))  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    views, mask = unit(rng.standard_normal((5, 2, 3, 32))), rng.random((5, 3)) < 0.5
    mask[:, 1] = True
    np.testing.assert_allclose(describer.view_weights(views, mask), describer.pool(views, mask)[1], atol=1e-6)


def test_styles_are_pooled_separately_and_concatenated() -> None:
    describer = Describer.from_config(replace(SMALL, styles=("texture", "depth")))
    views = unit(np.random.default_rng(0).standard_normal((2, 2, 3, 16)))
    mask = np.array([[True, True, False], [True, True, True]])
    vectors, weights = describer.pool(views, mask)
    for b in range(2):
        parts = [unit(views[b, s, mask[b]].mean(axis=0)) for s in range(2)]
        np.testing.assert_allclose(vectors[b], np.concatenate(parts) / np.sqrt(2), atol=1e-6)
    assert weights.shape == (2, 2, 3) and (weights[0, :, 2] == 0).all()


def test_images_use_only_the_styles_that_resemble_them() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    mixed = Describer.from_config(replace(SMALL, styles=("depth", "clay", "normal"))).embed_images(images)
    assert not mixed[:1024].any() and not mixed[2048:].any()
    np.testing.assert_allclose(mixed[1024:2048], Describer.from_config(SMALL).embed_images(images), atol=1e-6)
    depth = Describer.from_config(replace(SMALL, styles=("depth", "normal"))).embed_images(images)
    assert np.linalg.norm(depth) == pytest.approx(1, abs=1e-5) and depth[:1024].any() and depth[1024:].any()


def test_image_equal_to_the_mean_is_finite() -> None:
    images = np.full((1, 64, 64, 3), 255, np.uint8)
    describer = Describer.from_config(SMALL)
    raw = describer.encoder.encode_views(images)
    centred = describer.with_whitening(Whitening(raw, None, 1))
    assert np.isfinite(centred.embed_images(images)).all()
