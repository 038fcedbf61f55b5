"""Open-set retrieval on OS-ESB-core, OS-NTU-core, OS-MN40-core or OS-ABO-core, with and without an adapter.

    python -m data_scripts.open_set DOWNLOADS/os-esb data/os-esb --set esb --download
    python examples/open_set_os3dor.py data/os-esb results/os-esb --set esb

The adapter is trained on the seen classes only, and the number of its steps is chosen on seen classes that are held out in turn.
Queries are the published ones, 5 of each unseen class; the gallery is the rest of these classes. Each query is ranked by itself.
The metrics are those of the benchmarks, which differ from the textbook's (`mvretrieval.evaluation.os3dor`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import tyro

from mvretrieval import Collection, DescriberConfig, IndexOptions, OpenOptions
from mvretrieval.console import progress, table, write_run_record
from mvretrieval.evaluation.evaluation_set import EvaluationSet, Selection, load_evaluation_set, with_adapter
from mvretrieval.evaluation.metrics import evaluate
from mvretrieval.evaluation.os3dor import os3dor_measure
from mvretrieval.evaluation.protocols import OpenSetQueries, open_set_task
from mvretrieval.evaluation.ranking import cosines
from mvretrieval.evaluation.reproduce.table import read_table
from mvtrain import TrainConfig, fit_adapter

# Name, published numbers of queries and of targets.
SETS = {
    "esb": ("OS-ESB-core", 120, 452),
    "ntu": ("OS-NTU-core", 270, 1271),
    "mn40": ("OS-MN40-core", 160, 9329),
    "abo": ("OS-ABO-core", 85, 5455),
}
METRICS = ("mAP", "NDCG@100", "ANMRR")


@dataclass(frozen=True)
class Options:
    """Open-set retrieval on one of the OS-core sets.

    Attributes:
        data: folder that data_scripts.open_set wrote.
        out: folder for the collection, the adapters and result.json.
        set: which set it is.
        encoder: view encoder.
        size: side of a view in pixels; that of the encoder.
        seeds: seeds of the training; one adapter each.
        whiten: dimensions of the adapter's whitening; 0 for none.
        max_steps: maximum number of training steps.
        device: auto, cpu, cuda or cuda:N.
    """

    data: tyro.conf.Positional[Path]
    out: tyro.conf.Positional[Path]
    set: Literal["esb", "ntu", "mn40", "abo"]
    encoder: str = "open_clip:ViT-L-14/laion2b_s32b_b82k"
    size: int = 224
    seeds: tuple[int, ...] = (0, 1, 2)
    whiten: int = 512
    max_steps: int = 300
    device: str = "auto"


def main(options: Options) -> None:
    config = DescriberConfig(options.encoder, "ring:24@30", ("clay",), options.size)
    folder, machine = options.out / "collection", OpenOptions(options.device)
    queries = OpenSetQueries.read(options.data / "queries.json")
    with Collection.create(folder, config, machine, exist_ok=True) as objects, progress("object") as step:
        objects.add_views(options.data / "views.csv", IndexOptions(labels=options.data / "labels.csv", progress=step))
        unseen = load_evaluation_set(objects.session, Selection("label", "split in ('query', 'target')"))
        runs = {"mean of views": measure(unseen, queries)}
        for seed in options.seeds:
            training = TrainConfig(whiten=options.whiten, max_steps=options.max_steps, seed=seed)
            adapter = fit_adapter(objects, "label", training, "split = 'train'", device=options.device)
            if both := set(adapter.config.classes) & set(unseen.labels):
                raise SystemExit(f"not open-set, these classes are seen and unseen: {', '.join(sorted(both))}")
            adapter.save(options.out / f"adapter-{seed}")
            adapted = measure(with_adapter(objects.session, unseen, adapter), queries)
            runs[f"adapter, seed {seed}"] = adapted | adapter.config.metrics

    title, n_queries, n_targets = SETS[options.set]
    targets = len(unseen.ids) - len(queries.ids)
    print(f"{title}: {len(queries.ids)} of {n_queries} queries, {targets} of {n_targets} targets")
    trained = [run for name, run in runs.items() if name.startswith("adapter")]
    rows = [[name, *(f"{100 * run[metric]:.2f}" for metric in METRICS)] for name, run in runs.items()]
    if len(trained) > 1:
        values = [[100 * run[metric] for run in trained] for metric in METRICS]
        rows.append(["adapter, mean", *(f"{np.mean(each):.2f} ± {np.std(each, ddof=1):.2f}" for each in values)])
    print(table(rows, ["", *METRICS]), end="\n\n")

    print("published, inductive, mAP; 'mvr reproduce open-set' has the sources, and the transductive results")
    published = [one for one in read_table("open-set").published if one.setting == "inductive" and title in one.values]
    rows = [[one.method, one.encoder, one.trained, one.llm_text, f"{one.values[title]:.2f}"] for one in published]
    print(table(rows, ["method", "encoder", "trained", "LLM text", "mAP"]))
    write_run_record("open_set_os3dor", options, {"set": title, "runs": runs}, options.out / "result.json")


def measure(objects: EvaluationSet, queries: OpenSetQueries) -> dict[str, float]:
    """mAP, NDCG@100 and ANMRR of the queries against the other objects, by cosine."""
    task = open_set_task(objects.labels, objects.ids, queries)
    return evaluate(task, cosines(objects.vectors), os3dor_measure(task.n_relevant)).means()


if __name__ == "__main__":
    main(tyro.cli(Options))
