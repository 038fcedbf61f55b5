"""Zero-shot classification and cross-modal retrieval with an untrained CLIP model, and with an adapter's text embeddings."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Mvr, as_json, runner
from error_codes import raises_code
from made_meshes import SMALL, new_object, unit
from PIL import Image
from tiny_clip import tiny_clip

from mvretrieval.api import Collection, OpenOptions
from mvretrieval.cli.commands import SUBCOMMANDS
from mvretrieval.describe import DescriberConfig
from mvretrieval.errors import EvaluationError
from mvretrieval.evaluation.seen_classes import seen_names
from mvretrieval.evaluation.zero_shot.evaluate import ZeroShotOptions, evaluate_zero_shot
from mvretrieval.evaluation.zero_shot.templates import DEFAULT, IMAGENET, SETS, load_templates
from mvretrieval.evaluation.zero_shot.text_queries import class_name_classifier, text_matrix
from mvretrieval.weighting.adapter import Adapter
from mvretrieval.weighting.config import AdapterConfig
from mvretrieval.weighting.network import NetworkConfig
from mvretrieval.weighting.text_embeddings import TextEmbeddings

NAMES = ("chair", "dog", "airplane", "table lamp")
LABELS = ("furniture/chair", "Dog", "an airplane", "table_lamp")


@pytest.fixture
def mvr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Mvr:
    return runner(monkeypatch, capsys, "eval")


def _put(collection: Collection, name: str, views: Any, labels: dict[str, Any]) -> None:
    """Add an object with two given views (S, 2, D); the third is masked."""
    raw = np.concatenate([views, np.full((len(views), 1, views.shape[2]), 0.5)], axis=1).astype(np.float16)
    mask = np.array([True, True, False])
    vector, _ = collection.describer.pool(raw[None].astype(np.float32), mask[None])
    new = replace(new_object(name, vector[0]), view_vectors=raw, view_mask=mask)
    collection.session.store.set_metadata(
        collection.session.store.put(new, collection.session.store.next_sequence()), labels
    )


@pytest.fixture(scope="module")
def clip_things(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Objects whose view vectors equal their name's text vector, in one of two views or in both."""
    folder = tmp_path_factory.mktemp("tiny-names")
    names = DescriberConfig(tiny_clip(folder), "ring:3@30", ("texture", "depth"), size=64)
    with Collection.create(folder / "things", names, OpenOptions(device="cpu", precision="float32")) as things:
        texts = text_matrix(things.describer, NAMES, SETS[DEFAULT]).reshape(4, 2, 32)[:, 0]
        noise = unit(np.random.default_rng(0).standard_normal((4, 32)))
        with things.session.store.transaction():
            for i, label in enumerate(LABELS):
                for copy in range(2):
                    second = texts[i] if copy else 0.9 * texts[i] + 0.1 * noise[i]
                    views = unit(np.repeat(np.stack([texts[i], second])[None], 2, axis=0))
                    _put(things, f"{i}-{copy}.ply", views, {"label": label, "split": "test" if i else "train"})
            _put(things, "unlabeled.ply", unit(noise[None, :2].repeat(2, axis=0)), {"split": "test"})
    return folder / "things"


@pytest.fixture(scope="module")
def named_things(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder without a text tower, and an adapter with text embeddings of three of the four names."""
    folder = tmp_path_factory.mktemp("named")
    with Collection.create(folder / "plain", SMALL) as plain:
        fingerprint, dim = plain.describer.view_fingerprint, plain.describer.encoder.dim
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((3, 7)).astype(np.float32)
    projection = rng.standard_normal((7, dim)).astype(np.float32)
    config = AdapterConfig(
        fingerprint, "builtin:", SMALL.rig, SMALL.styles, SMALL.size, 3, dim, NetworkConfig(), "named"
    )
    adapter = Adapter.untrained(config, None)
    means = [np.zeros(n, np.float32) for n in (dim, 7)]
    adapter.text_embeddings = TextEmbeddings(("a chair", "dog", "airplane"), vectors, projection, *means)
    adapter.save(folder / "adapter")
    with Collection.create(folder / "things", SMALL, adapter=adapter) as things, things.session.store.transaction():
        for i, label in enumerate(LABELS):
            if i < 3:
                direction = adapter.text_embeddings.object_vector(label)
            else:
                direction = unit(rng.standard_normal((1, dim)))[0]
            for copy in range(2):
                _put(things, f"{i}-{copy}.ply", np.stack([direction, direction])[None], {"label": label, "n": copy})
    return folder / "things"


def test_objects_that_equal_their_names_are_classified_correctly(mvr: Mvr, clip_things: Path) -> None:
    result = as_json(mvr("zero-shot", clip_things, "--json", "--per-class"))
    assert (result["objects"], result["classes"], result["candidates"]) == (8, 4, 4)
    assert result["top1"] == result["class_mean_top1"] == result["top5"] == 1 and result["chance"] == 0.25
    assert result["left_out"]["unlabeled"] == 1 and result["left_out"]["unknown_names"] == []
    assert [one["class"] for one in result["per_class"]] == sorted(NAMES)
    for stage in ("features", "logits", "probabilities"):
        for weights in ("equal", "entropy"):
            again = as_json(
                mvr("zero-shot", clip_things, "--json", "--view-fusion", stage, "--weights", weights, "--keep-views", 1)
            )
            assert again["top1"] == 1, (stage, weights)
    code, out, err = mvr("zero-shot", clip_things, "--per-class")
    assert (
        code == 0
        and "8 objects of 4 classes" in out
        and "table lamp" in out
        and "1 object without a usable label" in err
    )


def test_feature_fusion_with_equal_weights_is_the_stored_vector(mvr: Mvr, clip_things: Path) -> None:
    stored = as_json(mvr("zero-shot", clip_things, "--json", "--templates", "photo"))
    again = as_json(mvr("zero-shot", clip_things, "--json", "--templates", "photo", "--weights", "equal"))
    assert {key: stored[key] for key in stored if "top" in key} == {key: again[key] for key in again if "top" in key}


def test_candidates_from_a_file_and_seen_classes(mvr: Mvr, clip_things: Path, tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("dog\nairplane\nzebra\n\n")
    result = as_json(mvr("zero-shot", clip_things, "--json", "--classes", tmp_path / "classes.txt"))
    assert (result["objects"], result["classes"], result["candidates"]) == (4, 2, 3)
    assert result["left_out"]["not_candidates"] == 4 and result["empty_classes"] == ["zebra"]
    err = mvr("zero-shot", clip_things, "--classes", tmp_path / "classes.txt")[2]
    assert f"1 class of {tmp_path}/classes.txt without an object in the collection: zebra" in err
    (tmp_path / "misspelt.txt").write_text("\ufeffchiar\n", encoding="utf-8")
    code, _, err = mvr("zero-shot", clip_things, "--classes", tmp_path / "misspelt.txt")
    assert code == 1 and "no object has the class 'chiar': did you mean 'chair'?" in err
    result = as_json(mvr("zero-shot", clip_things, "--json", "--seen", "split = 'train'"))
    assert result["objects"] == 6 and result["left_out"]["seen"] == 2
    generalized = result["generalized"]
    assert (generalized["unseen"], generalized["seen"], generalized["harmonic"]) == (1, None, None)
    assert (generalized["seen_classes"], generalized["unseen_classes"], generalized["unseen_objects"]) == (1, 3, 6)
    # A negative bias raises the seen class above all others.
    lost = as_json(mvr("zero-shot", clip_things, "--json", "--seen", "split = 'train'", "--bias", -9))
    assert lost["generalized"]["unseen"] == lost["top1"] == 0
    code, out, err = mvr("zero-shot", clip_things, "--seen", "split = 'train'")
    assert code == 0 and "unseen alone" in out and "left out: 2 objects trained on" in err
    code, _, err = mvr("zero-shot", clip_things, "--seen", "split = 'val'")
    assert code == 1 and "matches no object with a 'label'" in err


def test_known_and_unknown_names_of_an_adapter(mvr: Mvr, named_things: Path) -> None:
    result = as_json(mvr("zero-shot", named_things, "--json"))
    assert (result["objects"], result["candidates"], result["top1"]) == (6, 3, 1)
    assert result["left_out"]["unknown_objects"] == 2 and result["left_out"]["unknown_names"] == ["table lamp"]
    for stage in ("features", "logits", "probabilities"):
        for weights in ("equal", "adapter", "entropy"):
            again = as_json(mvr("zero-shot", named_things, "--json", "--view-fusion", stage, "--weights", weights))
            assert again["top1"] == 1, (stage, weights)
    found = as_json(mvr("text-to-3d", named_things, "--json"))
    assert (found["queries"], found["unknown_texts"], found["found@1"], found["mAP"]) == (3, ["table lamp"], 1, 1)
    assert "table lamp" in mvr("zero-shot", named_things)[2]
    code, _, err = mvr("zero-shot", named_things, "--where", "label = 'table_lamp'")
    assert code == 1 and "none of the 2 objects can be classified" in err and "table lamp" in err


def test_seen_classes_are_reported(mvr: Mvr, named_things: Path, tmp_path: Path) -> None:
    trained = tmp_path / "trained"
    adapter = Adapter.load(named_things.parent / "adapter")
    assert adapter.text_embeddings is not None
    adapter.config = replace(adapter.config, classes=("animal/dog", "zebra"))
    with Collection.create(trained, SMALL, adapter=adapter) as things, things.session.store.transaction():
        for label in LABELS[:3]:
            _put(
                things,
                f"{label}.ply",
                np.tile(adapter.text_embeddings.object_vector(label), (1, 2, 1)),
                {"label": label},
            )
    code, _, err = mvr("zero-shot", trained)
    assert code == 0 and "(dog)" in err and "this is not zero-shot" in err
    assert as_json(mvr("zero-shot", trained, "--json"))["seen_classes"] == ["dog"]
    for options in (["--where", "label != 'Dog'"], ["--seen", "label = 'Dog'"]):
        assert as_json(mvr("zero-shot", trained, "--json", *options))["seen_classes"] == []
        assert "note:" not in mvr("zero-shot", trained, *options)[2]

    found = as_json(mvr("text-to-3d", trained, "--json"))
    assert found["seen_classes"] == ["dog"] and "(dog)" in mvr("text-to-3d", trained)[2]
    # By the nearest name in the text embeddings: a toy dog is a dog.
    adapter.config = replace(adapter.config, classes=("animal/toy_dog",))
    with Collection.create(tmp_path / "kin", SMALL, adapter=adapter) as kin:
        assert seen_names(kin.describer) == {"toy dog", "dog"}


def test_the_temperature_is_the_encoders(clip_things: Path) -> None:
    with Collection.open(clip_things) as things:
        assert class_name_classifier(things.session, ["dog"], ("{}",)).temperature == pytest.approx(
            0.07
        )  # the initial value of CLIP's training


def test_labels_that_differ_in_parentheses_can_be_two_classes(clip_things: Path, tmp_path: Path) -> None:
    """Five pairs of the categories of LVIS do."""
    copy = tmp_path / "things"
    shutil.copytree(clip_things, copy)
    labels = ("bow_(weapon)", "bow_(ribbon)")
    with Collection.open(copy, OpenOptions(device="cpu", precision="float32"), write=True) as things:
        texts = text_matrix(things.describer, ["bow (weapon)", "bow (ribbon)"], ("{}",)).reshape(2, 2, 32)[:, 0]
        with things.session.store.transaction():
            for label, text in zip(labels, texts, strict=True):
                views = unit(np.repeat(np.stack([text, text])[None], 2, axis=0))
                _put(things, f"{label}.ply", views, {"label": label, "split": "bows"})
        options = ZeroShotOptions(where="split = 'bows'", classes=(*labels, "zebra"), templates=("{}",))
        merged = evaluate_zero_shot(things.session, options)
        assert merged.task.names == ("bow", "zebra") and merged.task.merged == (tuple(sorted(labels)),)
        apart = evaluate_zero_shot(things.session, replace(options, name_of=lambda label: str(label).replace("_", " ")))
    assert apart.task.names == ("bow (ribbon)", "bow (weapon)", "zebra") and not apart.task.merged
    assert apart.accuracy.top[1] == 1 and apart.empty_classes == ("zebra",)
    with raises_code(EvaluationError, "bad_options", "bias"):
        ZeroShotOptions(bias=0.1)


def test_names_find_their_objects(mvr: Mvr, clip_things: Path, tmp_path: Path) -> None:
    found = as_json(mvr("text-to-3d", clip_things, "--json", "--by", "label"))
    assert (found["queries"], found["objects"]) == (4, 9)
    assert (found["found@1"], found["recall@1"], found["recall@5"], found["median_rank"], found["mAP"]) == (
        1,
        0.5,
        1,
        1,
        1,
    )
    captions = tmp_path / "captions.csv"
    captions.write_text("id,text\n1-1.ply,dog\n2-0.ply,an airplane\nnowhere.ply,a car\n")
    found = as_json(mvr("text-to-3d", clip_things, "--json", "--captions", captions))
    assert (found["queries"], found["without_relevant_object"], found["found@5"]) == (2, 1, found["recall@5"])
    code, out, err = mvr("text-to-3d", clip_things, "--captions", captions)
    assert code == 0 and "median rank" in out and "left out: 1 text without a relevant object" in err


def test_unusable_labels_and_other_alphabets(mvr: Mvr, clip_things: Path, tmp_path: Path) -> None:
    copy = tmp_path / "things"
    shutil.copytree(clip_things, copy)
    with Collection.open(copy, write=True) as things, things.session.store.transaction():
        noise = unit(np.random.default_rng(7).standard_normal((6, 2, 32)))
        for i, label in enumerate(("???", "(none)", "椅子", "мебель/Стул", "стул", "Café")):
            _put(things, f"more-{i}.ply", np.repeat(noise[i][None], 2, axis=0), {"label": label, "split": "more"})
    result = as_json(mvr("zero-shot", copy, "--json", "--per-class", "--where", "split = 'more'"))
    assert [one["class"] for one in result["per_class"]] == ["café", "стул", "椅子"]
    assert (result["objects"], result["candidates"], result["merged_labels"]) == (4, 3, [["мебель/Стул", "стул"]])
    assert result["left_out"]["unlabeled"] == 2 and result["left_out"]["unknown_names"] == []
    assert "are one class: мебель/Стул, стул" in mvr("zero-shot", copy)[2]
    found = as_json(mvr("text-to-3d", copy, "--json", "--where", "split = 'more'"))
    assert (found["queries"], found["objects"], found["unlabeled"], found["unknown_texts"]) == (3, 6, 2, [])
    code, _, err = mvr("text-to-3d", copy)
    assert code == 0 and "3 objects of 15 without a usable 'label'" in err and "'label is not null'" in err
    (tmp_path / "captions.csv").write_text("id,text\nmore-0.ply,dog\n")
    assert as_json(mvr("text-to-3d", copy, "--json", "--captions", tmp_path / "captions.csv"))["unlabeled"] == 0
    for command in ("zero-shot", "text-to-3d"):
        code, _, err = mvr(command, copy, "--where", "label = '???'")
        assert code == 1 and "label" in err and "Traceback" not in err
    code, _, err = mvr("zero-shot", copy, "--seen", "label = '???'")
    assert code == 1 and "matches no object with a 'label'" in err


def test_images_find_their_objects(mvr: Mvr, clip_things: Path, tmp_path: Path) -> None:
    copy = tmp_path / "things"
    shutil.copytree(clip_things, copy)
    image = np.full((64, 64, 3), 255, np.uint8)
    image[16:48, 20:44] = (200, 30, 60)
    Image.fromarray(image).save(tmp_path / "red.png")
    with Collection.open(copy, OpenOptions(device="cpu", precision="float32"), write=True) as things:
        from mvretrieval.images import load_image

        raw = things.describer.encoder.encode_views(load_image(tmp_path / "red.png", 64)[None])
        with things.session.store.transaction():
            _put(things, "red.ply", np.repeat(raw[None], 2, axis=0).repeat(2, axis=1), {"label": "red thing"})
    (tmp_path / "by-id.csv").write_text("image,id\nred.png,red.ply\nred.png,gone.ply\n")
    (tmp_path / "by-label.csv").write_text("image,label\nred.png,red thing\n")
    for file in ("by-id.csv", "by-label.csv"):
        found = as_json(mvr("image-to-3d", copy, "--queries", tmp_path / file, "--json"))
        assert (found["queries"], found["found@1"], found["median_rank"], found["mAP"]) == (1, 1, 1, 1), file
    assert (
        as_json(mvr("image-to-3d", copy, "--queries", tmp_path / "by-id.csv", "--json"))["without_relevant_object"] == 1
    )
    (tmp_path / "missing.csv").write_text("image,id\nblue.png,red.ply\n")
    code, _, err = mvr("image-to-3d", copy, "--queries", tmp_path / "missing.csv")
    assert code == 1 and "1 of 1 images" in err and "blue.png" in err


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (["--templates", "rendrs"], 1, "did you mean 'renders'?"),
        (["--weights", "adapter"], 1, "has no adapter"),
        (["--by", "lable"], 1, "did you mean 'label'?"),
        (["--classes", "/nowhere.txt"], 1, "cannot be read"),
        (["--where", "split = 'none'"], 1, "no object is selected"),
        (["--bias", "1"], 2, "--seen"),
        (["--temperature", "0"], 2, "temperature"),
        (["--temperature", "1e-320"], 2, "temperature must be at least 1e-12"),
        (["--temperature", "nan"], 2, "temperature"),
        (["--seen", "split = 'train'", "--bias", "inf"], 2, "--bias inf is out of range"),
        (["--seen", "split = 'train'", "--bias", "nan"], 2, "--bias nan is out of range"),
        (["--seen", "split = 'train'", "--bias=-1e308"], 2, "is out of range"),
        (["--keep-views", "-1"], 2, "views to keep"),
    ],
)
def test_failures_are_one_message(mvr: Mvr, clip_things: Path, arguments: list[str], code: int, named: str) -> None:
    found, out, err = mvr("zero-shot", clip_things, *arguments)
    assert found == code and out == "" and named in err and "Traceback" not in err


def test_an_encoder_without_a_text_tower(mvr: Mvr, named_things: Path) -> None:
    plain = named_things.parent / "plain"
    with Collection.open(plain) as collection:
        if not len(collection):
            with collection.session.store.transaction():
                _put(collection, "a.ply", np.ones((1, 2, collection.describer.encoder.dim)), {"label": "chair"})
    for command in ("zero-shot", "text-to-3d"):
        code, out, err = mvr(command, plain)
        assert code == 1 and out == ""
        assert "no text tower" in err and "mvr train" in err and "--text-embeddings" in err and "mvr reindex" in err


def test_a_folder_named_like_a_subcommand(mvr: Mvr, clip_things: Path, tmp_path: Path, monkeypatch: Any) -> None:
    shutil.copytree(clip_things, tmp_path / "zero-shot")
    monkeypatch.chdir(tmp_path)
    assert "mAP" in as_json(mvr("./zero-shot", "--json"))
    assert as_json(mvr("zero-shot", "./zero-shot", "--json"))["task"] == "zero-shot"
    code, out, _ = mvr("--help")
    assert code == 0 and all(f"mvr eval {name}" in out for name in SUBCOMMANDS["eval"])
    for name in SUBCOMMANDS["eval"]:
        assert mvr(name, "--help")[0] == 0


def test_templates(tmp_path: Path) -> None:
    assert all(template.count("{}") == 1 for templates in SETS.values() for template in templates)
    assert len(load_templates(IMAGENET)) == 80 and all(t.count("{}") == 1 for t in load_templates(IMAGENET))
    file = tmp_path / "mine.txt"
    file.write_text("# own\na {} of wood\n\na {} of wood\nthe {}\n")
    assert load_templates(str(file)) == ("a {} of wood", "the {}")
    for bad in ("no braces", "{} and {}", "a {name}", ""):
        file.write_text(bad)
        with pytest.raises(EvaluationError):
            load_templates(str(file))


def test_training_uses_the_same_templates() -> None:
    from mvtrain.class_names import TEMPLATES

    assert load_templates(DEFAULT) == TEMPLATES
