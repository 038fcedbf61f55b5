"""Zero-shot classification of ModelNet40: each of the 2,468 test models is given one of 40 class names, without 3D training.

    python -m data_scripts.modelnet40 DOWNLOADS/modelnet40 data/modelnet40 --download
    python examples/zero_shot_modelnet40.py data/modelnet40 results/modelnet40

The protocol is that of the literature: test split, all 40 names as candidates, top-1 over the objects, and its mean over the
classes. Nothing is random. An interrupted run resumes. With the default encoder, the weights are downloaded on first use.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import tyro

from mvrender.shading import Style
from mvretrieval import (
    Collection,
    DescriberConfig,
    IndexOptions,
    OpenOptions,
    ViewFusion,
    ZeroShotOptions,
    evaluate_zero_shot,
)
from mvretrieval.console import progress, table, write_run_record
from mvretrieval.evaluation.reproduce.table import read_table

OBJECTS, CLASSES = 2468, 40
FUSIONS = {
    "mean of features": ViewFusion("features"),
    "mean of scores": ViewFusion("logits", "equal"),
    # The view selection of MV-CLIP (Song et al. 2024): the views whose class probabilities have the lowest entropy.
    "4 most certain views": ViewFusion("logits", "equal", keep_views=4),
}


@dataclass(frozen=True)
class Options:
    """Zero-shot classification of ModelNet40.

    Attributes:
        data: folder that data_scripts.modelnet40 wrote.
        out: folder for the collection and result.json.
        encoder: encoder with a text tower.
        rig: cameras.
        styles: render styles; ModelNet40 has no colours.
        size: side of a view in pixels.
        templates: sets of prompts: photo is 'a photo of a {}.', imagenet-80 is CLIP's own for ImageNet, renders is this project's;
            or files with one prompt per line.
        device: auto, cpu, cuda or cuda:N.
    """

    data: tyro.conf.Positional[Path]
    out: tyro.conf.Positional[Path]
    encoder: str = "open_clip:ViT-L-14/laion2b_s32b_b82k"
    rig: str = "ring:12@30"
    styles: tuple[Style, ...] = ("clay",)
    size: int = 224
    templates: tuple[str, ...] = ("photo", "imagenet-80", "renders")
    device: str = "auto"


def main(options: Options) -> None:
    labels = options.data / "labels.csv"
    with labels.open(encoding="utf-8", newline="") as file:
        classes = tuple(sorted({row["label"] for row in csv.DictReader(file)}))

    config = DescriberConfig(options.encoder, options.rig, options.styles, options.size)
    folder, machine = options.out / "collection", OpenOptions(options.device)
    results = []
    with Collection.create(folder, config, machine, exist_ok=True) as models, progress("mesh") as step:
        models.add_folder(options.data / "test", options=IndexOptions(labels=labels, progress=step))
        failures = len(models.failures())
        for templates in options.templates:
            for name, fusion in FUSIONS.items():
                zero_shot = ZeroShotOptions(where="split = 'test'", classes=classes, templates=templates, fusion=fusion)
                found = evaluate_zero_shot(models.session, zero_shot)
                results.append({"prompts": templates, "fusion": name, **found.to_dict()})

    first = results[0]
    print(f"{first['objects']} of {OBJECTS} objects, {first['candidates']} of {CLASSES} classes, {failures} failed")
    keys = ("top1", "class_mean_top1", "top5")
    rows = [[one["prompts"], one["fusion"], *(f"{100 * one[key]:.1f}" for key in keys)] for one in results]
    print(table(rows, ["prompts", "views", "top-1", "class mean", "top-5"]), end="\n\n")

    name = "ModelNet40, test"
    published = [one for one in read_table("zero-shot").published if name in one.values]
    print("published, top-1; 'mvr reproduce zero-shot' has the sources")
    rows = [[one.method, one.encoder, one.trained, f"{one.values[name]:.1f}"] for one in published]
    print(table(rows, ["method", "encoder", "trained", "top-1"]))
    result = {"failed": failures, "runs": results}
    write_run_record("zero_shot_modelnet40", options, result, options.out / "result.json")


if __name__ == "__main__":
    main(tyro.cli(Options))
