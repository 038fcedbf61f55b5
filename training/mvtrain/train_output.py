"""Output of `mvr train`: progress, notes and the validation results."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from mvretrieval.console import counted, progress, say
from mvretrieval.weighting.adapter import Adapter
from mvtrain.config import TrainConfig
from mvtrain.log import TrainingLog
from mvtrain.train_options import Options

Log = Callable[[dict[str, Any]], None]
_COUNTS = ("steps", "held_out_steps", "names_known")


class TrainOutput:
    """Receives the records of a training: writes them beside the adapter, and shows the progress.

    Files are opened with the first record, which follows all checks: a refused run leaves neither a folder nor an emptied log.

    Attributes:
        first: the first record, with the numbers of objects and classes.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._open = ExitStack()
        self._log: TrainingLog | None = None
        self._step: Log | None = None
        self.first: dict[str, Any] = {}

    def __enter__(self) -> TrainOutput:
        self._open.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._open.__exit__(*error)

    def __call__(self, record: dict[str, Any]) -> None:
        """Write a record."""
        if self._log is None or self._step is None:
            self.first = record
            say(
                f"training on {counted(record['objects'], 'object')}, {counted(record['classes'], 'class')}, on {record['device']}"
            )
            self._log = self._open.enter_context(TrainingLog(self._options.out, self._options.tensorboard))
            step = self._open.enter_context(progress("step"))
            self._step = with_progress(self._log, step, self._options.config())
        elif "step" in record:
            self._step(record)
        else:
            self._log(record)

    def metrics(self, adapter: Adapter) -> dict[str, Any]:
        """Metrics of the training for `--json`; also logged."""
        counts = {name: int(adapter.config.metrics[name]) for name in _COUNTS if name in adapter.config.metrics}
        metrics: dict[str, Any] = adapter.config.metrics | counts
        self({"stage": "done", **metrics})
        _note_reduced_whitening(self._options, adapter)
        return {"objects": self.first["objects"], "classes": self.first["classes"], **metrics}


def with_progress(log: Log, progress: Callable[[int, int], None], config: TrainConfig) -> Log:
    """A log that also reports the progress over all folds and the final run.

    Args:
        log: receives the records.
        progress: receives (done, total) steps; the total is an upper bound until the final run, whose length is chosen by
            the folds.
        config: of the training.
    """
    stages: list[str] = []

    def record(entry: dict[str, Any]) -> None:
        log(entry)
        if entry["stage"] not in stages:
            stages.append(entry["stage"])
        before = (len(stages) - 1) * config.max_steps
        folds = config.folds if stages[0].startswith("fold") else 0
        total = before + entry["of"] if len(stages) > folds else (folds + 1) * config.max_steps
        progress(before + entry["step"], total)

    return record


def _note_reduced_whitening(options: Options, adapter: Adapter) -> None:
    if options.init_from is not None or not options.whiten or adapter.whitening is None:
        return
    found, wanted = adapter.whitening.dim, min(options.whiten, adapter.whitening.mean.shape[-1])
    if found < wanted:
        say(
            f"note: whitened to {found} dimensions instead of {wanted}, since there are only {found + 1} views. Nearly as many "
            "dimensions as views amplify noise: compare with a much smaller --whiten, or with 0"
        )


def print_report(options: Options, metrics: dict[str, Any]) -> None:
    """Print the validation results, and the next command."""
    objects, classes = counted(metrics["objects"], "object"), counted(metrics["classes"], "class")
    steps = counted(metrics["steps"], "step")
    print(f"{options.out}: adapter trained on {objects}, {classes}, {metrics['seconds']} s")
    if "held_out_mAP" in metrics:
        print(
            f"  mAP on held-out classes: {metrics['held_out_mAP']:.4f} after {counted(metrics['held_out_steps'], 'step')}, "
            f"{_compared(metrics)} {metrics['untrained_mAP']:.4f} without training; then {steps} on all classes"
        )
    elif options.self_supervised:
        print(f"  no validation: self-supervised training has no classes to hold out; {steps}")
    elif options.folds and metrics["steps"]:
        print(
            f"  no validation: too few classes with several objects for {options.folds} folds; {steps}. Label more classes, or "
            "choose the number with --folds 0 --max-steps N"
        )
    if "names_top1" in metrics:
        print(
            f"  text: {metrics['names_known']} classes have a known name; zero-shot accuracy on held-out names: "
            f"top-1 {metrics['names_top1']:.0%}, top-5 {metrics['names_top5']:.0%}"
        )
    print(f"  next: mvr reindex {options.collection} --adapter {options.out}")


def _compared(metrics: dict[str, Any]) -> str:
    difference = round(metrics["held_out_mAP"], 4) - round(metrics["untrained_mAP"], 4)
    return "better than" if difference > 0 else "NOT better than" if difference < 0 else "the same as"
