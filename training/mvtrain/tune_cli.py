"""Tune the encoder on labeled meshes: low-rank updates of its attention, or its last blocks. Interrupted runs resume."""

from __future__ import annotations

import time
from typing import Any

from mvretrieval.console import counted, print_json
from mvretrieval.errors import TrainingError
from mvtrain.tune_options import Options as Options


def run(options: Options) -> int:
    """Render, tune, write the encoder, and print the validation results."""
    try:
        from mvtrain.distributed import join_world
        from mvtrain.tune_run import check_out, tune_and_save
    except ModuleNotFoundError as error:
        raise TrainingError(
            f"{error.name} is not installed: pip install 'mvretrieval[train]'", code="not_installed"
        ) from error
    from mvretrieval.encoders.device import choose_device

    started = time.monotonic()
    with join_world(str(choose_device(options.device))) as world:
        world.run_on_first(lambda: check_out(options))
        metrics = tune_and_save(options, world)
        if not world.is_first:
            return 0
    metrics["seconds"] = round(time.monotonic() - started, 1)
    if options.json:
        print_json({"held_out_mAP": None, "untrained_mAP": None} | metrics)
    else:
        _report(options, metrics)
    return 0


def _report(options: Options, metrics: dict[str, Any]) -> None:
    objects, classes = counted(metrics["objects"], "object"), counted(metrics["classes"], "class")
    steps = counted(metrics["steps"], "step")
    print(f"{options.out}: encoder tuned on {objects}, {classes}, {metrics['seconds']} s")
    if "held_out_mAP" in metrics:
        better = metrics["held_out_mAP"] > metrics["untrained_mAP"]
        advice = (
            f"To train on all classes: --held-out 0 --max-steps {metrics['steps']}"
            if better
            else "The untuned encoder is the better one: keep it, or try a lower --learning-rate or more classes"
        )
        print(
            f"  mAP on held-out classes, mean of the view vectors: {metrics['held_out_mAP']:.4f} after {steps}, "
            f"{'better' if better else 'NOT better'} than {metrics['untrained_mAP']:.4f} before. {advice}"
        )
    elif options.held_out:
        print(
            f"  no validation: too few classes with several objects, unseen by the encoder, to hold out a fraction of "
            f"{options.held_out:g}; {steps}. Label more classes, or choose the number with --held-out 0 --max-steps N"
        )
    print(f"  rendered views are in {options.views_folder}; delete them if you do not tune again")
    source = "reindex" if options.is_collection else "index things/"
    print(f"  next: mvr {source} {options.meshes} --encoder tuned:{options.out}")
    things = options.meshes if options.is_collection else "things/"
    print(
        f"  then: mvr train {things} --by {options.by} --out {options.out / 'new-adapter'}   "
        "(trains view weights with all views and whitening)"
    )
    print(f"    or: mvr reindex {things} --adapter {options.out / 'adapter'}   (the jointly trained view weights)")
