"""Zero-shot classification of Objaverse-LVIS: 46,832 objects, 1,156 category names as candidates, top-1, top-3 and top-5.

    python -m data_scripts.objaverse_lvis DOWNLOADS/objaverse data/objaverse-lvis --download
    python examples/zero_shot_objaverse_lvis.py data/objaverse-lvis results/objaverse-lvis

All objects are classified; the data set has no split. Nothing is random. An interrupted run resumes. With the default encoder,
the weights are downloaded on first use.
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

OBJECTS, CLASSES = 46_832, 1_156
FUSIONS = {"mean of features": ViewFusion("features"), "entropy weights": ViewFusion("logits", "entropy")}


@dataclass(frozen=True)
class Options:
    """Zero-shot classification of Objaverse-LVIS.

    Attributes:
        data: folder that data_scripts.objaverse_lvis wrote.
        out: folder for the collection and result.json.
        encoder: encoder with a text tower.
        rig: cameras; Duoduo CLIP has 12 views in random directions.
        styles: render styles.
        size: side of a view in pixels.
        templates: sets of prompts (name, photo, renders, imagenet-80), or files with one prompt per line.
        device: auto, cpu, cuda or cuda:N.
    """

    data: tyro.conf.Positional[Path]
    out: tyro.conf.Positional[Path]
    encoder: str = "open_clip:ViT-B-32/laion2b_s34b_b79k"
    rig: str = "ring:12@30"
    styles: tuple[Style, ...] = ("texture",)
    size: int = 224
    templates: tuple[str, ...] = ("photo", "renders")
    device: str = "auto"


def category_name(label: object) -> str:
    """`bow_(weapon)` -> `bow (weapon)`. Without the parentheses, five pairs of LVIS categories would be one class each."""
    return str(label).replace("_", " ")


def main(options: Options) -> None:
    labels = options.data / "labels.csv"
    with labels.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    # An object with several categories is labeled with the first, and the others are candidates too.
    categories = tuple(sorted({name for row in rows for name in row["categories"].split(", ")}))

    config = DescriberConfig(options.encoder, options.rig, options.styles, options.size)
    folder, machine = options.out / "collection", OpenOptions(options.device)
    results = []
    with Collection.create(folder, config, machine, exist_ok=True) as objects, progress("object") as step:
        objects.add_folder(options.data, options=IndexOptions(labels=labels, progress=step))
        failures = len(objects.failures())
        for templates in options.templates:
            for name, fusion in FUSIONS.items():
                zero_shot = ZeroShotOptions("label", None, categories, templates, fusion, name_of=category_name)
                found = evaluate_zero_shot(objects.session, zero_shot)
                results.append({"prompts": templates, "fusion": name, **found.to_dict()})

    first = results[0]
    print(f"{first['objects']} of {OBJECTS} objects, {first['candidates']} of {CLASSES} classes, {failures} failed")
    keys = ("top1", "top3", "top5", "class_mean_top1")
    cells = [[one["prompts"], one["fusion"], *(f"{100 * one[key]:.1f}" for key in keys)] for one in results]
    print(table(cells, ["prompts", "views", "top-1", "top-3", "top-5", "class mean"]), end="\n\n")

    name = "Objaverse-LVIS"
    published = [one for one in read_table("zero-shot").published if name in one.values]
    print("published, top-1; 'mvr reproduce zero-shot' has the sources")
    cells = [[one.method, one.encoder, one.trained, f"{one.values[name]:.1f}"] for one in published]
    print(table(cells, ["method", "encoder", "trained", "top-1"]))
    result = {"failed": failures, "runs": results}
    write_run_record("zero_shot_objaverse_lvis", options, result, options.out / "result.json")


if __name__ == "__main__":
    main(tyro.cli(Options))
