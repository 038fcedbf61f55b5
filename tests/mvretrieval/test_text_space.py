"""Words: known names for encoders that read none, and adapted or frozen text vectors for those that read."""

from __future__ import annotations

import re
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from made_meshes import SMALL, unit
from tiny_clip import tiny_clip

from mvretrieval.describe import Describer, DescriberConfig
from mvretrieval.errors import EncoderError
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
def test_a_plain_name_is_its_own(text: str) -> None:
    plain = plain_name(text)
    assert plain_name(plain) == plain == plain.strip() and "_" not in plain


@given(st.text("bcdAN0 -_./(x)\t", max_size=12).map("chair".__add__))
def test_plain_names_of_ascii_are_letters_and_digits(text: str) -> None:
    words = re.sub(r"\(.*?\)", " ", text).rsplit("/", 1)[-1]
    plain = re.sub(r"[^a-z0-9]+", " ", words.lower()).strip()
    assert plain_name(text) == plain or re.match(r"\W*an?\b", words.lower().replace("_", " "))


def test_a_name_that_says_nothing_is_no_name() -> None:
    space = replace(_space(), names=("???", "Sofa", "(none)", "椅子"))
    assert len(space) == 2 and space.direction_of("!") is None and space.direction_of("") is None
    assert (
        space.nearest_name("***") is None
        and space.nearest_name("s") is None
        and space.nearest_name("家具/椅子") == "椅子"
    )
    assert space.direction_of("椅子") is not None
    with pytest.raises(EncoderError, match="not among the 2 names"):
        space.object_direction("***")


def _space() -> TextEmbeddings:
    rng = np.random.default_rng(0)
    vectors = (rng.standard_normal((4, 5)) + 2).astype(np.float32)
    return TextEmbeddings(
        ("desk chair", "Sofa", "the sofa", "aeroplane"),
        vectors,
        rng.standard_normal((5, 6)).astype(np.float32),
        rng.standard_normal(6).astype(np.float32),
        rng.standard_normal(5).astype(np.float32) / 10,
    )


def test_a_name_scores_objects_as_the_map_and_the_name_do() -> None:
    space = _space()
    objects = unit(np.random.default_rng(1).standard_normal((9, 6)))
    direction = space.direction_of("furniture/Sofa")
    assert direction is not None
    np.testing.assert_allclose(direction, unit(space.directions[1] + space.directions[2]), atol=1e-6)
    asked = space.object_direction("a sofa")
    assert np.linalg.norm(asked) == pytest.approx(1, abs=1e-6)
    mapped = [float((space.projection @ h) @ (direction - space.origin)) for h in objects]  # type: ignore[operator]
    assert list(np.argsort(objects @ asked)) == list(np.argsort(mapped))
    # Seen from the middle, scores are cosines.
    np.testing.assert_allclose(space.name_scores(asked[None] * 3 + space.mean, ["a sofa"]), [[1]], atol=1e-5)
    assert np.abs(space.directions.mean(axis=0)).max() < 0.2 < np.abs(unit(space.vectors).mean(axis=0)).max()


def test_an_unknown_name_gets_the_nearest_known_one() -> None:
    with pytest.raises(EncoderError, match=r"'desk chiar' is not among the 3 names .* did you mean 'desk chair'\?"):
        _space().object_direction("desk chiar")
    with pytest.raises(EncoderError, match="not among the 3 names"):
        _space().object_direction("")
    assert _space().direction_of("xyz") is None
    assert _space().known_name("furniture/Sofas") == "sofa" and _space().known_name("xyzs") is None
    assert np.array_equal(_space().direction_of("Sofas"), _space().direction_of("sofa"))


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
def test_what_a_label_can_be_called(label: str, name: str | None) -> None:
    assert _space().nearest_name(label) == name


def test_files_that_hold_no_text_space(tmp_path: Path) -> None:
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
        "words": {"names": np.array(["a"]), "vectors": np.array([["x"]])},
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
        with pytest.raises(EncoderError, match=re.escape(f"text space {path}")) as raised:
            TextEmbeddings.load(path)
        assert "pickle" not in str(raised.value).replace(str(path), "")


# -- an encoder that reads ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Describer:
    """Describer of two styles with a CLIP model that has learnt nothing."""
    folder = tmp_path_factory.mktemp("tiny")
    names = DescriberConfig(tiny_clip(folder), "ring:3@30", ("texture", "clay"), size=64)
    return Describer(names, device="cpu", precision="float32")


def _statistics() -> Whitening:
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
    adapter = Adapter.untrained(config, _statistics())
    torch.manual_seed(1)
    for parameter in adapter.network.parameters():
        torch.nn.init.normal_(parameter, std=0.5 if trained else 0)
    return adapter


def test_words_are_adapted_as_a_view_of_unknown_direction_or_left_frozen(reader: Describer) -> None:
    words = "a wooden chair"
    raw = reader.encoder.encode_text([words])
    plain = reader.with_fitted(_statistics()).embed_text(words)
    frozen = reader.with_adapter(_adapter(reader, "frozen")).embed_text(words)
    adapted = reader.with_adapter(_adapter(reader, "adapted")).embed_text(words)
    np.testing.assert_allclose(frozen, plain, atol=1e-6)
    for vector in (frozen, adapted):
        assert vector.shape == (24,) and np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    assert abs(float(adapted @ frozen)) < 0.9
    # Word for word: centred by the mean of common names, whitened, then one view through the network.
    adapter, describer = _adapter(reader, "adapted"), reader.with_adapter(_adapter(reader, "adapted"))
    middle = describer._text_mean
    whitening = _statistics()
    centred = np.stack([whitening.apply(raw, s, mean=middle) for s in range(2)], axis=1)[:, :, None]
    expected, weights = adapter.pool_prepared(whiten_and_normalize(centred, None), np.ones((1, 1), bool), None)
    assert weights.tolist() == [[[1.0], [1.0]]]
    np.testing.assert_allclose(adapted, expected[0], atol=1e-5)


def test_an_untrained_adapter_leaves_words_as_they_are(reader: Describer) -> None:
    plain = reader.with_fitted(_statistics()).embed_text("a lamp")
    untrained = reader.with_adapter(_adapter(reader, "adapted", trained=False)).embed_text("a lamp")
    np.testing.assert_allclose(untrained, plain, atol=1e-6)


def test_training_against_the_names_own_vectors(reader: Describer) -> None:
    pytest.importorskip("pytorch_metric_learning")
    from mvtrain.config import TrainConfig
    from mvtrain.features import Features
    from mvtrain.names import TEMPLATES, text_vectors
    from mvtrain.train import train

    classes = ["furniture/chair", "Dog", "an airplane", "table_lamp"]
    rng = np.random.default_rng(0)
    middles = unit(rng.standard_normal((4, 1, 32)))
    views = unit(middles[np.repeat(np.arange(4), 5), None] + 0.1 * rng.standard_normal((20, 2, 3, 32)))
    features = Features(
        ids=tuple(map(str, range(20))),
        labels=tuple(np.repeat(classes, 5).tolist()),
        views=views.astype(np.float16),
        mask=np.ones((20, 3), bool),
        directions=reader.rig.directions.astype(np.float32),
    )
    calls = []

    def texts(names: list[str], whitening: Whitening | None) -> np.ndarray:
        calls.append(text_vectors(reader, names, whitening))
        return calls[-1]

    losses: list[float] = []
    config = TrainConfig(
        loss="text", whiten=12, folds=0, max_steps=30, evaluate_every=1, learning_rate=0.01, min_views=0
    )
    trained = train(features, config, text_vectors=texts, log=lambda record: losses.append(record["loss"]))
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5]), losses
    # The targets are what a search by these words asks with, but for the templates' mean.
    frozen = Adapter(_adapter(reader, "frozen").config, trained.whitening, trained.network)
    describer = reader.with_adapter(frozen)
    found = trained.network(
        torch.from_numpy(whiten_and_normalize(views, trained.whitening)), torch.ones(20, 3, dtype=torch.bool), None
    )
    cosines = found[0].detach().numpy() @ calls[0].T
    assert [sorted(classes)[i] for i in cosines.argmax(axis=1)] == list(features.labels)
    raw = reader.encoder.encode_text([template.format("dog") for template in TEMPLATES]).mean(axis=0, keepdims=True)
    np.testing.assert_allclose(calls[0][sorted(classes).index("Dog")], describer.text_vectors(unit(raw))[0], atol=1e-5)


def test_builtin_features_read_no_words() -> None:
    from mvtrain.names import text_vectors

    with pytest.raises(EncoderError, match="reads no words"):
        text_vectors(Describer(SMALL), ["chair"], None)
