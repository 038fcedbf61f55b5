"""Text embeddings of known names for image-only encoders, and adapted or frozen text vectors of CLIP encoders."""

from __future__ import annotations

import re
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from error_codes import raises_code
from hypothesis import given
from hypothesis import strategies as st
from made_meshes import SMALL, unit
from tiny_clip import tiny_clip

from mvretrieval.describe import Describer, DescriberConfig
from mvretrieval.errors import EncoderError, NoTextError
from mvretrieval.weighting.adapter import Adapter
from mvretrieval.weighting.config import AdapterConfig
from mvretrieval.weighting.text_embeddings import TextEmbeddings, plain_name
from mvretrieval.weighting.whitening import Whitening, WhiteningFit, whiten_and_normalize


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("Furniture/Desk_Chair", "desk chair"),
        ("a desk chair", "desk chair"),
        ("desk-chair (wooden)", "desk chair"),
        ("  The  DESK\tchair ", "desk chair"),
        ("a", "a"),
        ("an apple", "apple"),
        ("animal", "animal"),
        ("the", "the"),
        ("F-16", "f 16"),
        ("(only)", ""),
        ("vehicles/", ""),
        ("A-frame", "a-frame"),
        ("buildings/the A-frame house", "a-frame house"),
        ("a_frame", "frame"),
        ("The A Team", "team"),
        ("x-a-frame", "x a frame"),
        ("Café", "café"),
        ("CAFE\u0301", "café"),
        ("Straße", "strasse"),
        ("мебель/Письменный_стол", "письменный стол"),
        ("家具/木の椅子（小）", "木の椅子"),
        ("कुर्सी", "कुर्सी"),
        ("เก้าอี้", "เก้าอี้"),
        ("ＤＥＳＫ　chair", "desk chair"),
        ("desk\u200b chair\ufeff", "desk chair"),
        ("e\u200d\u0301", "é"),
        ("!?", ""),
        ("\u2764\ufe0f", ""),
        ("\u0301", ""),
    ],
)
def test_plain_names(text: str, plain: str) -> None:
    assert plain_name(text) == plain and plain_name(plain) == plain


@given(st.one_of(st.text(max_size=12), st.text("aAn the-_/().xs\u0301\u200d\u0345ﬁẞΣς", max_size=10)))
def test_plain_name_is_idempotent(text: str) -> None:
    plain = plain_name(text)
    assert plain_name(plain) == plain == plain.strip() and "_" not in plain


@given(st.text("bcdAN0 -_./(x)\t", max_size=12).map("chair".__add__))
def test_plain_names_of_ascii_are_letters_and_digits(text: str) -> None:
    last = re.sub(r"\(.*?\)", " ", text).rsplit("/", 1)[-1]
    plain = re.sub(r"[^a-z0-9]+", " ", last.lower()).strip()
    assert plain_name(text) == plain or re.match(r"\W*an?\b", last.lower().replace("_", " "))


def test_names_without_letters_are_ignored() -> None:
    embeddings = replace(_embeddings(), names=("???", "Sofa", "(none)", "椅子"))
    assert len(embeddings) == 2 and embeddings.direction_of("!") is None and embeddings.direction_of("") is None
    assert embeddings.nearest_name("***") is None and embeddings.nearest_name("s") is None
    assert embeddings.nearest_name("家具/椅子") == "椅子"
    assert embeddings.direction_of("椅子") is not None
    with raises_code(NoTextError, "unknown_name", "2 names"):
        embeddings.object_vector("***")


def _embeddings() -> TextEmbeddings:
    rng = np.random.default_rng(0)
    vectors = (rng.standard_normal((4, 5)) + 2).astype(np.float32)
    return TextEmbeddings(
        ("desk chair", "Sofa", "the sofa", "aeroplane"),
        vectors,
        rng.standard_normal((5, 6)).astype(np.float32),
        rng.standard_normal(6).astype(np.float32),
        np.asarray(rng.standard_normal(5) / 10, np.float32),
    )


def test_object_vectors_and_scores_equal_their_formulas() -> None:
    embeddings = _embeddings()
    objects = unit(np.random.default_rng(1).standard_normal((9, 6)))
    direction = embeddings.direction_of("furniture/Sofa")
    assert direction is not None and embeddings.origin is not None
    assert embeddings.projection is not None and embeddings.mean is not None
    np.testing.assert_allclose(direction, unit(embeddings.directions[1] + embeddings.directions[2]), atol=1e-6)
    query = embeddings.object_vector("a sofa")
    assert np.linalg.norm(query) == pytest.approx(1, abs=1e-6)
    mapped = [float((embeddings.projection @ h) @ (direction - embeddings.origin)) for h in objects]
    assert list(np.argsort(objects @ query)) == list(np.argsort(mapped))
    # Scores are cosines of centred object vectors.
    np.testing.assert_allclose(embeddings.name_scores(query[None] * 3 + embeddings.mean, ["a sofa"]), [[1]], atol=1e-5)
    centred, raw = embeddings.directions.mean(axis=0), unit(embeddings.vectors).mean(axis=0)
    assert np.abs(centred).max() < 0.2 < np.abs(raw).max()


def test_an_unknown_name_suggests_the_nearest_known_one() -> None:
    with raises_code(NoTextError, "unknown_name", "'desk chiar'", "3 names", "did you mean 'desk chair'?"):
        _embeddings().object_vector("desk chiar")
    with raises_code(NoTextError, "unknown_name", "3 names"):
        _embeddings().object_vector("")
    assert _embeddings().direction_of("xyz") is None
    assert _embeddings().known_name("furniture/Sofas") == "sofa" and _embeddings().known_name("xyzs") is None
    plural, singular = _embeddings().direction_of("Sofas"), _embeddings().direction_of("sofa")
    assert plural is not None and singular is not None and np.array_equal(plural, singular)


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("sofa", "sofa"),
        ("furniture/A Sofa", "sofa"),
        ("furniture/office_desk_chair", "desk chair"),
        ("sofas", "sofa"),
        ("furniture/sofa/three_seats", "sofa"),
        ("furniture/sofa/desk_chair", "desk chair"),
        ("sofa_with_cushion", "sofa"),
        ("furniture/lamp", None),
        ("chair", None),
        ("", None),
    ],
)
def test_nearest_name_of_a_label(label: str, name: str | None) -> None:
    assert _embeddings().nearest_name(label) == name


def test_files_without_text_embeddings_are_refused(tmp_path: Path) -> None:
    good = tmp_path / "good.npz"
    np.savez(good, names=np.array(["a", "b"]), vectors=np.eye(2, 3, dtype=np.float16))
    loaded = TextEmbeddings.load(good)
    assert loaded.names == ("a", "b") and loaded.vectors.dtype == np.float32 and loaded.projection is None
    arrays = {
        "pickled": {"names": np.array(["a", 1], object), "vectors": np.eye(2)},
        "one name": {"names": np.array("a"), "vectors": np.eye(2)},
        "fewer names": {"names": np.array(["a"]), "vectors": np.eye(2)},
        "no vectors": {"names": np.array(["a"])},
        "no number": {"names": np.array(["a"]), "vectors": np.array([[np.nan]])},
        "text vectors": {"names": np.array(["a"]), "vectors": np.array([["x"]])},
        "bytes": {"names": np.array([b"a"]), "vectors": np.eye(1)},
        "empty": {"names": np.array([], str), "vectors": np.zeros((0, 3))},
    }
    for name, parts in arrays.items():
        np.savez(tmp_path / f"{name}.npz", **parts)  # type: ignore[arg-type]
    np.save(tmp_path / "array.npy", np.eye(2))
    (tmp_path / "noise.npz").write_bytes(b"noise")
    (tmp_path / "cut.npz").write_bytes(good.read_bytes()[:200])
    (tmp_path / "nothing.npz").write_bytes(b"")
    with zipfile.ZipFile(tmp_path / "other.npz", "w") as other:
        other.writestr("readme.txt", "hello")
    bad = [path for path in tmp_path.iterdir() if path != good] + [tmp_path / "nowhere.npz", tmp_path]
    assert len(bad) == 15
    for path in bad:
        with raises_code(EncoderError, "bad_text_embeddings", str(path)) as raised:
            TextEmbeddings.load(path)
        assert "pickle" not in str(raised.value).replace(str(path), "")


# -- a CLIP encoder ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clip_describer(tmp_path_factory: pytest.TempPathFactory) -> Describer:
    """Describer of two styles with an untrained CLIP model."""
    folder = tmp_path_factory.mktemp("tiny")
    config = DescriberConfig(tiny_clip(folder), "ring:3@30", ("texture", "clay"), size=64)
    return Describer.from_config(config, device="cpu", precision="float32")


def _whitening() -> Whitening:
    fit = WhiteningFit(2, 32)
    fit.add(unit(np.random.default_rng(0).standard_normal((2, 90, 32))))
    return fit.result(12)


def _adapter(describer: Describer, text: str, trained: bool = True) -> Adapter:
    config = AdapterConfig(
        describer.view_fingerprint,
        "open_clip:",
        "ring:3@30",
        ("texture", "clay"),
        64,
        3,
        12,
        text=text,  # type: ignore[arg-type]
    )
    adapter = Adapter.untrained(config, _whitening())
    torch.manual_seed(1)
    for parameter in adapter.network.parameters():
        torch.nn.init.normal_(parameter, std=0.5 if trained else 0)
    return adapter


def test_text_is_adapted_as_a_view_of_unknown_direction_or_frozen(clip_describer: Describer) -> None:
    text = "a wooden chair"
    raw = clip_describer.encoder.encode_text([text])
    plain = clip_describer.with_whitening(_whitening()).embed_text(text)
    frozen = clip_describer.with_adapter(_adapter(clip_describer, "frozen")).embed_text(text)
    adapted = clip_describer.with_adapter(_adapter(clip_describer, "adapted")).embed_text(text)
    np.testing.assert_allclose(frozen, plain, atol=1e-6)
    for vector in (frozen, adapted):
        assert vector.shape == (24,) and np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    assert abs(float(adapted @ frozen)) < 0.9
    # Centred on the mean of common names, whitened, then passed through the network as one view.
    adapter, describer = (
        _adapter(clip_describer, "adapted"),
        clip_describer.with_adapter(_adapter(clip_describer, "adapted")),
    )
    whitening = _whitening()
    centred = np.stack([whitening.apply(raw, s, mean=describer._text_mean) for s in range(2)], axis=1)[:, :, None]
    expected, weights = adapter.pool_whitened(whiten_and_normalize(centred, None), np.ones((1, 1), bool), None)
    assert weights.tolist() == [[[1.0], [1.0]]]
    np.testing.assert_allclose(adapted, expected[0], atol=1e-5)


def test_an_untrained_adapter_does_not_change_text_vectors(clip_describer: Describer) -> None:
    plain = clip_describer.with_whitening(_whitening()).embed_text("a lamp")
    untrained = clip_describer.with_adapter(_adapter(clip_describer, "adapted", trained=False)).embed_text("a lamp")
    np.testing.assert_allclose(untrained, plain, atol=1e-6)


def test_training_with_the_text_loss(clip_describer: Describer) -> None:
    pytest.importorskip("pytorch_metric_learning")
    from mvtrain.class_names import TEMPLATES, text_vectors
    from mvtrain.config import TrainConfig
    from mvtrain.features import Features
    from mvtrain.train import train

    classes = ["furniture/chair", "Dog", "an airplane", "table_lamp"]
    rng = np.random.default_rng(0)
    centres = unit(rng.standard_normal((4, 1, 32)))
    views = unit(centres[np.repeat(np.arange(4), 5), None] + 0.1 * rng.standard_normal((20, 2, 3, 32)))
    features = Features(
        ids=tuple(map(str, range(20))),
        labels=tuple(np.repeat(classes, 5).tolist()),
        views=views.astype(np.float16),
        mask=np.ones((20, 3), bool),
        directions=clip_describer.rig.directions.astype(np.float32),
    )
    calls = []

    def texts(names: list[str], whitening: Whitening | None) -> np.ndarray:
        calls.append(text_vectors(clip_describer, names, whitening))
        return calls[-1]

    losses: list[float] = []
    config = TrainConfig(
        loss="text", whiten=12, folds=0, max_steps=30, evaluate_every=1, learning_rate=0.01, min_views=0
    )
    trained = train(features, config, text_vectors=texts, log=lambda record: losses.append(record["loss"]))
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5]), losses
    # The targets equal the vectors of text queries, averaged over the templates.
    frozen = Adapter(_adapter(clip_describer, "frozen").config, trained.whitening, trained.network)
    describer = clip_describer.with_adapter(frozen)
    found = trained.network(
        torch.from_numpy(whiten_and_normalize(views, trained.whitening)), torch.ones(20, 3, dtype=torch.bool), None
    )
    cosines = found[0].detach().numpy() @ calls[0].T
    assert [sorted(classes)[i] for i in cosines.argmax(axis=1)] == list(features.labels)
    raw = clip_describer.encoder.encode_text([template.format("dog") for template in TEMPLATES]).mean(
        axis=0, keepdims=True
    )
    np.testing.assert_allclose(calls[0][sorted(classes).index("Dog")], describer.text_vectors(unit(raw))[0], atol=1e-5)


def test_builtin_features_read_no_words() -> None:
    from mvtrain.class_names import text_vectors

    with pytest.raises(NoTextError):
        text_vectors(Describer.from_config(SMALL), ["chair"], None)
