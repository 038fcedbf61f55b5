"""Ablation of the adapter: `python -m benchmarks.ablation > docs/ablation.md`.

PSB, shared MobileNetV2. Each row is one change; means and deviations over five seeds. All rows of a table use the number of
steps that was chosen for the default by cross-validation, so that they differ only in the change.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import date

import numpy as np
from numpy.typing import NDArray

from benchmarks.__main__ import commit, hardware
from benchmarks.learning import MATCH_WEIGHT, all_matches, augmented_scores, chosen, expanded_scores, mixed
from benchmarks.model_soup import average
from benchmarks.psb import DODECAHEDRON, SEEDS, STYLES, Psb, psb, spread
from mvretrieval.evaluation.transductive import Method, transductive
from mvretrieval.weighting.adapter import Adapter
from mvretrieval.weighting.network import NetworkConfig
from mvtrain.config import TrainConfig

ADAM = NetworkConfig()
# Untrained rows have no seeds.
UNTRAINED = {
    "mean of raw views": (0, NetworkConfig(kind="mean", linear=False)),
    "maximum of raw views": (0, NetworkConfig(kind="max", linear=False)),
    "mean of whitened views, 512": (512, NetworkConfig(kind="mean", linear=False)),
}
TRAINED: dict[str, TrainConfig] = {
    "AdaM, the default": TrainConfig(),
    "without instance scores": TrainConfig(network=replace(ADAM, instance_scores=False)),
    "without data-set scores": TrainConfig(network=replace(ADAM, dataset_scores="none")),
    "without scores: mean and linear layer": TrainConfig(network=NetworkConfig(kind="mean")),
    "without the linear layer: scores only": TrainConfig(network=replace(ADAM, linear=False)),
    "data-set scores by slot": TrainConfig(network=replace(ADAM, dataset_scores="slots")),
    "mean of two softmaxes": TrainConfig(network=replace(ADAM, average_softmaxes=True)),
    "residual ratio 0.5": TrainConfig(network=replace(ADAM, residual=0.5)),
    "maximum and linear layer": TrainConfig(network=NetworkConfig(kind="max")),
    "CLIP-Adapter, residual 0.2": TrainConfig(network=NetworkConfig(kind="clip-adapter", residual=0.2)),
    "chunk-and-adapt": TrainConfig(network=NetworkConfig(kind="chunk")),
    "without whitening": TrainConfig(whiten=0),
    "whitened to 256": TrainConfig(whiten=256),
    "no view dropout": TrainConfig(min_views=0),
    "multi-similarity loss": TrainConfig(loss="multi-similarity"),
    "prototypes loss": TrainConfig(loss="prototypes"),
}
Row = dict[str, float]


def main() -> None:
    """Print the tables."""
    print("# Ablation\n")
    print(_intro())
    p = psb()
    print(
        f"## One style ({', '.join(p.config.styles)}), twelve views\n\nSteps chosen on held-out classes: {chosen().steps}.\n"
    )
    _head("change")
    for name, (whiten, network) in UNTRAINED.items():
        _line(name, [p.mean_ap(p.vectors(_untrained(p, whiten, network)))])
    kept: list[Adapter] = []
    for name, config in TRAINED.items():
        adapters = _trained(p, replace(config, max_steps=chosen().steps))
        kept = kept or adapters
        _line(name, [p.mean_ap(p.vectors(adapter)) for adapter in adapters])
    _line("mean of the five seeds' weights", [p.mean_ap(p.vectors(average(kept)))])
    _styles()


def _styles() -> None:
    p, steps = psb(STYLES, DODECAHEDRON), chosen(STYLES, DODECAHEDRON).steps
    print(f"\n## Several styles ({STYLES}) on the {DODECAHEDRON}, with augmentation and re-ranking\n")
    print(f"Twenty views; steps chosen on held-out classes: {steps}.\n")
    _head("cumulative, row by row")
    untrained = _untrained(p, 512, NetworkConfig(kind="mean", linear=False))
    _line("mean of whitened views", [p.mean_ap(p.vectors(untrained))])
    adapters = _trained(p, TrainConfig(max_steps=steps))
    vectors = [p.vectors(adapter) for adapter in adapters]
    plain_mean = _trained(p, TrainConfig(network=NetworkConfig(kind="mean"), max_steps=steps))
    _line("mean and linear layer for each style", [p.mean_ap(p.vectors(adapter)) for adapter in plain_mean])
    _line("AdaM for each style", [p.mean_ap(own) for own in vectors])
    augmented = [augmented_scores(own) for own in vectors]
    _line("database-side augmentation: 3 neighbours, alpha 1", [p.of_scores(scores) for scores in augmented])
    both = [expanded_scores(own) for own in vectors]
    _line("query expansion: 5 neighbours, alpha 3", [p.of_scores(scores) for scores in both])
    matches = [all_matches(p, adapter) for adapter in adapters]
    _line(
        f"late interaction, weight {MATCH_WEIGHT}",
        [p.of_scores(mixed(scores, match)) for scores, match in zip(both, matches, strict=True)],
    )
    print("\nWithout augmentation and expansion:\n")
    _head("change")
    plain = [own @ own.T for own in vectors]
    _line("late interaction, weight 0.5", [p.of_scores(mixed(s, m, 0.5)) for s, m in zip(plain, matches, strict=True)])
    _line("late interaction alone", [p.of_scores(match) for match in matches])
    raw = all_matches(p, untrained)
    _line("late interaction alone, untrained", [p.of_scores(raw)])
    print("\n## Transductive: whole query batches, only in evaluation\n")
    print("From AdaM's vectors in several styles; the graph spans the objects of the evaluated set.\n")
    _head("method")
    methods: tuple[Method, ...] = ("k-reciprocal", "propagation")
    for method in methods:
        _line(method, [_transductive(p, method, own) for own in vectors])


def _transductive(p: Psb, method: Method, vectors: NDArray[np.float32]) -> Row:
    found: Row = {}
    for name in ("unseen", "whole"):
        rows = np.flatnonzero(getattr(p, name))
        scores = np.zeros((len(vectors), len(vectors)), np.float32)
        scores[np.ix_(rows, rows)] = transductive(method, vectors[rows] @ vectors[rows].T)
        found[name] = p.of_scores(scores)[name]
    return found


def _untrained(p: Psb, whiten: int, network: NetworkConfig) -> Adapter:
    seen = p.features.take(np.flatnonzero(p.train))
    whitening = seen.whitening(whiten)
    dim = seen.views.shape[3] if whitening is None else whitening.dim
    return Adapter.untrained(replace(p.config, network=network, dim=dim), whitening)


def _trained(p: Psb, config: TrainConfig) -> list[Adapter]:
    return [p.learn(replace(config, seed=seed, folds=0)) for seed in SEEDS]


def _intro() -> str:
    return (
        "PSB, MobileNetV2; mAP, leave one out. Unseen: the 71 test classes without a training object; whole: the "
        "905 test objects. Mean and sample standard deviation over five seeds. Written by `python -m benchmarks.ablation`.\n"
        f"{hardware()}; {date.today().isoformat()}, commit {commit()}. [Concepts](concepts.md#view-weighting) explains the parts.\n"
    )


def _head(first: str) -> None:
    print(f"| {first} | unseen | whole |\n|---|---|---|")


def _line(name: str, rows: list[Row]) -> None:
    values = spread(rows)

    def shown(key: str) -> str:
        deviation = f" ± {values[f'{key}_sd']:.4f}" if len(rows) > 1 else ""
        return f"{values[key]:.4f}{deviation}"

    print(f"| {name} | {shown('unseen')} | {shown('whole')} |", flush=True)
    print(f"  {name}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
