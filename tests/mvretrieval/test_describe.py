"""The describer: what its fingerprint covers, and that stored views give the vectors again."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_meshes import SMALL, unit, write_shapes

import mvretrieval.describe
from mvrender.errors import RigError
from mvretrieval.api import Collection, OpenOptions
from mvretrieval.describe import Describer, DescriberConfig
from mvretrieval.errors import DescriberError
from mvretrieval.search.query import Query
from mvretrieval.weighting.whitening import Whitening, WhiteningFit


def _statistics(seed: int = 0, whiten: int | None = None) -> Whitening:
    fit = WhiteningFit(1, 32)
    fit.add(unit(np.random.default_rng(seed).standard_normal((1, 60, 32))))
    return fit.result(whiten)


def _with_encoder(fingerprint: str) -> Describer:
    describer = Describer.from_config(SMALL)
    describer.encoder.fingerprint = fingerprint
    return describer


CHANGES: dict[str, Callable[[], Describer]] = {
    "nothing": lambda: Describer.from_config(SMALL),
    "rig": lambda: Describer.from_config(replace(SMALL, rig="ring:3@20")),
    "styles": lambda: Describer.from_config(replace(SMALL, styles=("clay",))),
    "more styles": lambda: Describer.from_config(replace(SMALL, styles=("texture", "depth"))),
    "size": lambda: Describer.from_config(replace(SMALL, size=65)),
    "pooling": lambda: Describer.from_config(replace(SMALL, pooling="max")),
    "weights": lambda: _with_encoder("other weights"),
    "centring": lambda: Describer.from_config(SMALL, _statistics()),
    "whitening": lambda: Describer.from_config(SMALL, _statistics(whiten=4)),
    "other statistics": lambda: Describer.from_config(SMALL, _statistics(seed=1)),
}


def test_the_fingerprint_changes_with_everything_that_changes_a_vector() -> None:
    fingerprints = {name: make().fingerprint for name, make in CHANGES.items()}
    assert len(set(fingerprints.values())) == len(CHANGES)
    assert all(re.fullmatch(r"[0-9a-f]{16}", fingerprint) for fingerprint in fingerprints.values())
    assert {name: make().fingerprint for name, make in CHANGES.items()} == fingerprints


def test_the_fingerprint_changes_with_the_shading(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Describer.from_config(SMALL).fingerprint
    monkeypatch.setattr(mvretrieval.describe, "VIEWS_VERSION", 999)
    assert Describer.from_config(SMALL).fingerprint != before


def test_backend_device_and_precision_are_not_in_the_fingerprint() -> None:
    other = Describer.from_config(SMALL, device="cpu", precision="float32", backend="raster")
    assert other.fingerprint == Describer.from_config(SMALL).fingerprint


def test_configuration_round_trip() -> None:
    config = replace(SMALL, styles=("clay", "normal"), pooling="max", center=True, whiten=9)
    assert DescriberConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rig": "rnig:3"}, "did you mean 'ring'"),
        ({"size": 10}, "64 to 1024"),
        ({"styles": ()}, "at least one style"),
        ({"styles": ("texture", "texture")}, "named twice"),
        ({"styles": ("textur",)}, "known are texture"),
        ({"pooling": "maen"}, "did you mean 'mean'"),
        ({"whiten": -1}, "not -1"),
    ],
)
def test_configurations_that_cannot_be(changes: dict[str, object], said: str) -> None:
    with pytest.raises((DescriberError, RigError), match=re.escape(said)):
        replace(SMALL, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(("pooling", "whiten"), [("mean", 6), ("max", 0)])
def test_pooling_anew_equals_describing_anew(pooling: str, whiten: int, tmp_path: Path) -> None:
    """Views are kept, so that another pooling needs no rendering; it must give what indexing with it gives."""
    write_shapes(tmp_path / "m", range(4))
    styles = ("texture", "depth")
    config = replace(SMALL, styles=styles, pooling=pooling, whiten=whiten)  # type: ignore[arg-type]
    options = OpenOptions(workers=1)
    with Collection.create(tmp_path / "plain", replace(SMALL, styles=styles), options) as plain:
        plain.add_folder(tmp_path / "m")
        with Collection.create(tmp_path / "asked", config, options) as asked:
            asked.add_folder(tmp_path / "m")
            described = plain.describer.with_config(pooling=pooling, whiten=whiten)
            plain.repool(described.with_whitening(asked.describer.whitening))
            for name in (f"shape-{n:03d}.ply" for n in range(4)):
                vectors = [c.store.vector_of(c.row_id_of(name)) for c in (plain, asked)]
                np.testing.assert_allclose(vectors[0], vectors[1], atol=2e-6)
                assert np.linalg.norm(vectors[0]) == pytest.approx(1, abs=1e-5)
                assert len(vectors[0]) == 2 * (whiten or 1024)
            assert plain.describer.fingerprint == asked.describer.fingerprint
            for hits in (c.search(Query(mesh=tmp_path / "m" / "shape-001.ply"), k=1) for c in (plain, asked)):
                assert hits[0].id == "shape-001.ply" and hits[0].score == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_view_weights_are_those_of_pooling(pooling: str) -> None:
    describer = Describer.from_config(replace(SMALL, styles=("clay", "depth"), pooling=pooling))  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    views, mask = unit(rng.standard_normal((5, 2, 3, 32))), rng.random((5, 3)) < 0.5
    mask[:, 1] = True
    np.testing.assert_allclose(describer.view_weights(views, mask), describer.pool(views, mask)[1], atol=1e-6)


def test_styles_are_pooled_by_themselves_and_stand_behind_one_another() -> None:
    describer = Describer.from_config(replace(SMALL, styles=("texture", "depth")))
    views = unit(np.random.default_rng(0).standard_normal((2, 2, 3, 16)))
    mask = np.array([[True, True, False], [True, True, True]])
    vectors, weights = describer.pool(views, mask)
    for b in range(2):
        parts = [unit(views[b, s, mask[b]].mean(axis=0)) for s in range(2)]
        np.testing.assert_allclose(vectors[b], np.concatenate(parts) / np.sqrt(2), atol=1e-6)
    assert weights.shape == (2, 2, 3) and (weights[0, :, 2] == 0).all()


def test_pictures_are_compared_with_the_styles_that_look_like_pictures() -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    mixed = Describer.from_config(replace(SMALL, styles=("depth", "clay", "normal"))).embed_images(pictures)
    assert not mixed[:1024].any() and not mixed[2048:].any()
    np.testing.assert_allclose(mixed[1024:2048], Describer.from_config(SMALL).embed_images(pictures), atol=1e-6)
    depth = Describer.from_config(replace(SMALL, styles=("depth", "normal"))).embed_images(pictures)
    assert np.linalg.norm(depth) == pytest.approx(1, abs=1e-5) and depth[:1024].any() and depth[1024:].any()


def test_a_picture_in_the_very_middle_is_no_nan() -> None:
    pictures = np.full((1, 64, 64, 3), 255, np.uint8)
    describer = Describer.from_config(SMALL)
    raw = describer.encoder.encode_views(pictures)
    centred = describer.with_whitening(Whitening(raw, None, 1))
    assert np.isfinite(centred.embed_images(pictures)).all()
