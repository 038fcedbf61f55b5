"""Arithmetic with adapters, tried: `python -m benchmarks.model_soup_results` prints what came out (see NOTES.md).

1. The mean of five seeds' weights against the seeds by themselves and against the mean of their scores.
2. RE-AdaptIR's question: base-meshes has no labels for us. Does the difference that labels made on PSB help an adapter
   that was tuned on base-meshes without labels? Judged by base-meshes' numbered variants (`Bell 01`, `Bell 02`), and by
   its coarse categories. All adapters look through the same whitening, fitted on PSB's train split.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.learning import adapters, vectors
from benchmarks.model_soup import add_difference, average
from benchmarks.psb import SEEDS, base_meshes, psb, spread
from mvretrieval.api import Collection
from mvretrieval.evaluation.metrics import leave_one_out
from mvretrieval.weighting.adapter import Adapter
from mvretrieval.weighting.network import NetworkConfig
from mvtrain.config import TrainConfig
from mvtrain.features import Features, from_collection
from mvtrain.train import train


def main() -> None:
    """Print both tables."""
    p = psb()
    print("Adapters of five seeds, PSB:\n\n| | unseen | whole |\n|---|---|---|")
    single = spread([p.mean_ap(own) for own in vectors("texture")])
    print(
        f"| one by one | {single['unseen']:.4f} ± {single['unseen_sd']:.4f} | {single['whole']:.4f} ± {single['whole_sd']:.4f} |"
    )
    soup = p.mean_ap(p.vectors(average(adapters("texture"))))
    print(f"| mean of weights | {soup['unseen']:.4f} | {soup['whole']:.4f} |")
    scores: NDArray[np.float32] = np.mean([own @ own.T for own in vectors("texture")], axis=0)
    together = p.of_scores(scores)
    print(f"| mean of scores | {together['unseen']:.4f} | {together['whole']:.4f} |")
    _carried()


def _carried() -> None:
    p = psb()
    with Collection.open(base_meshes()) as collection:
        variants = from_collection(collection, "name")
        categories = from_collection(collection, "label")
    stems = [re.sub(r"\s*\d+$", "", name) for name in variants.labels]
    counts = Counter(stems)
    numbered = tuple(stem if counts[stem] > 1 else f"{stem} {i}" for i, stem in enumerate(stems))
    rows: dict[str, list[dict[str, float]]] = {}
    seen = p.features.take(np.flatnonzero(p.train))
    for seed in SEEDS:
        config = TrainConfig(seed=seed)
        # Instance scores meet views of another domain; the comparison is about the linear layer.
        config = replace(config, network=NetworkConfig(kind="mean"))
        before = Adapter.untrained(
            replace(p.config, network=config.network, dim=config.whiten), seen.whitening(config.whiten)
        )
        tuned = p.adapter(train(seen, config, start=before), config)
        alone = replace(variants, labels=variants.ids)
        unlabelled = p.adapter(train(alone, replace(config, folds=0, max_steps=150), start=before), config)
        made = {"untrained": before, "PSB's labels": tuned, "base-meshes, no labels": unlabelled}
        made |= {f"both, strength {s:g}": add_difference(unlabelled, tuned, before, s) for s in (0.25, 0.5, 1.0)}
        for name, adapter in made.items():
            own = _vectors(adapter, variants)
            rows.setdefault(name, []).append(
                {"variants": _mean_ap(own, numbered), "categories": _mean_ap(own, categories.labels)}
            )
    print(
        f"\nbase-meshes, {len(variants)} objects, mAP over five seeds:\n\n| | numbered variants | categories |\n|---|---|---|"
    )
    for name, values in rows.items():
        s = spread(values)
        print(
            f"| {name} | {s['variants']:.4f} ± {s['variants_sd']:.4f} | {s['categories']:.4f} ± {s['categories_sd']:.4f} |"
        )


def _vectors(adapter: Adapter, features: Features) -> NDArray[np.float32]:
    return adapter.pool(features.views.astype(np.float32), features.mask, features.directions)[0]


def _mean_ap(own: NDArray[np.float32], labels: tuple[str, ...]) -> float:
    return leave_one_out(own, labels).means()["mAP"]


if __name__ == "__main__":
    main()
