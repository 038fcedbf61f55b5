"""Train an adapter (view weights and a linear layer) on the labels of a collection; it also helps classes without labels."""

from __future__ import annotations

import time
from dataclasses import replace

from mvretrieval.api import Collection
from mvretrieval.console import print_json, run_record, say
from mvretrieval.errors import TrainingError
from mvretrieval.weighting.adapter import Adapter
from mvretrieval.weighting.hub import push
from mvretrieval.weighting.text_embeddings import TextEmbeddings
from mvtrain.train_options import Options as Options
from mvtrain.train_output import TrainOutput, print_report


def run(options: Options) -> int:
    """Train, write the adapter, and print the validation results."""
    started = time.monotonic()
    options.check_out()
    try:
        from mvtrain.fit import fit_adapter
    except ModuleNotFoundError as error:
        raise TrainingError(
            f"{error.name} is not installed: pip install 'mvretrieval[train]'", code="not_installed"
        ) from error
    with Collection.open(options.collection) as collection, TrainOutput(options) as output:
        adapter = fit_adapter(
            collection,
            None if options.self_supervised else options.by,
            options.config(),
            options.where,
            shots=options.shots,
            init_from=None if options.init_from is None else Adapter.load(options.init_from),
            text_embeddings=None if options.text_embeddings is None else TextEmbeddings.load(options.text_embeddings),
            device=options.device,
            log=output,
        )
        metrics = output.metrics(adapter)
    adapter.config = replace(adapter.config, training=run_record("train", options.without_paths()))
    adapter.save(options.out)
    if options.push is not None:
        say(f"uploaded to {push(options.out, options.push, options.private)}")
    metrics["seconds"] = round(time.monotonic() - started, 1)
    if options.json:
        print_json({"held_out_mAP": None, "untrained_mAP": None} | metrics)
    else:
        print_report(options, metrics)
    return 0
