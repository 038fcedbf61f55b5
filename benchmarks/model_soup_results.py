"""Experiments with adapter weights: `python -m benchmarks.model_soup_results` prints the results (see NOTES.md).

1. The average of the weights of five seeds, against single seeds and against the average of their scores.
2. RE-AdaptIR: does the weight change of supervised training on PSB improve an adapter trained on base-meshes without labels?
   Evaluated on the numbered variants of base-meshes (`Bell 01`, `Bell 02`) and on its coarse categories. All adapters use the
   whitening fitted on PSB's train split.
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
        f"| single seeds | {single['unseen']:.4f} ± {single['unseen_sd']:.4f} | {single['whole']:.4f} ± {single['whole_sd']:.4f} |"
    )
    soup = p.mean_ap(p.vectors(average(adapters("texture"))))
    print(f"| mean of weights | {soup['unseen']:.4f} | {soup['whole']:.4f} |")
    scores: NDArray[np.float32] = np.mean([own @ own.T for own in vectors("texture")], axis=0)
    averaged = p.of_scores(scores)
    print(f"| mean of scores | {averaged['unseen']:.4f} | {averaged['whole']:.4f} |")
    _weight_differences()


def _weight_differences() -> None:
    p = psb()
    with Collection.open(base_meshes()) as collection:
        variants = from_collection(collection.session, "name")
        categories = from_collection(collection.session, "label")
    stems = [re.sub(r"\s*\d+$", "", name) for name in variants.labels]
    counts = Counter(stems)
    numbered = tuple(stem if counts[stem] > 1 else f"{stem} {i}" for i, stem in enumerate(stems))
    rows: dict[str, list[dict[str, float]]] = {}
    seen = p.features.take(np.flatnonzero(p.train))
    for seed in SEEDS:
        config = TrainConfig(seed=seed)
        # Without view scores: the comparison is about the linear layer.
        config = replace(config, network=NetworkConfig(kind="mean"))
        before = Adapter.untrained(
            replace(p.config, network=config.network, dim=config.whiten), seen.whitening(config.whiten)
        )
        tuned = p.adapter(train(seen, config, init_from=before), config)
        without_labels = replace(variants, labels=variants.ids)
        self_supervised = p.adapter(
            train(without_labels, replace(config, folds=0, max_steps=150), init_from=before), config
        )
        made = {"untrained": before, "PSB's labels": tuned, "base-meshes, no labels": self_supervised}
        made |= {f"both, strength {s:g}": add_difference(self_supervised, tuned, before, s) for s in (0.25, 0.5, 1.0)}
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
