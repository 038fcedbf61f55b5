"""Measure a collection by one of its labels: objects ask for their like among the others."""

from __future__ import annotations

import json
import math
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from mvretrieval.api import Collection
from mvretrieval.augmentation import ALPHA
from mvretrieval.console import counted, print_json, run_record, say, table, warn_seen_classes
from mvretrieval.errors import EvaluationError
from mvretrieval.evaluation.comparison import evaluate_other
from mvretrieval.evaluation.evaluation_set import EvaluationSet, Selection, evaluation_set_of
from mvretrieval.evaluation.metrics import Evaluation, Measure, evaluate
from mvretrieval.evaluation.multistage import Refining, refined
from mvretrieval.evaluation.os3dor import FAMILIES, FamilyName
from mvretrieval.evaluation.per_query import write_per_query
from mvretrieval.evaluation.protocols import OpenSetQueries, Task, draw_queries, leave_one_out_task, open_set_task
from mvretrieval.evaluation.ranking import Scores, cosines, given
from mvretrieval.evaluation.seen_classes import seen_classes
from mvretrieval.evaluation.significance import Difference, compare
from mvretrieval.evaluation.transductive import Method, check_count, transductive
from mvretrieval.evaluation.trec import affordable_depth, write_qrels, write_run
from mvretrieval.store.filters import column_in_words


@dataclass(frozen=True)
class Options:
    """Options of `mvr eval`.

    Attributes:
        collection: folder of the collection.
        by: label that says which objects are alike.
        where: filter; only the objects that it keeps are asked and searched.
        classes: file with one label a line; only objects with one of these are asked and searched.
        protocol: leave-one-out asks with every object; open-set with a few of each class, which are not searched.
        queries_per_class: open-set: how many objects of each class ask.
        seed: of the open-set draw, and of the tests of --compare.
        queries: open-set: file of the drawn queries; used if it is there, written if not.
        metrics: the textbook's, or those that the open-set benchmarks code, to compare with their tables.
        smooth: average objects with so many neighbours of the whole collection first. Default: as the collection is.
        smooth_alpha: power of the cosine that weighs them.
        expand: average each query with so many of its nearest objects.
        expand_alpha: power of their cosines.
        match: share of view matching in the score, 0 to 1.
        transductive: also re-rank the whole batch of queries at once; a table of its own, since a search cannot do that.
        compare: another collection, or a TREC run file, to test this one against query by query.
        trec: folder for qrels.txt and run.txt.
        per_query: CSV file for the values of each query.
        report: folder for a page of what was confused with what.
        json: one JSON object.
    """

    collection: tyro.conf.Positional[Path]
    by: str = "label"
    where: str | None = None
    classes: Path | None = None
    protocol: Literal["leave-one-out", "open-set"] = "leave-one-out"
    queries_per_class: int = 5
    seed: int = 0
    queries: Path | None = None
    metrics: FamilyName = "textbook"
    smooth: int | None = None
    smooth_alpha: float | None = None
    expand: int = 0
    expand_alpha: float | None = None
    match: float = 0.0
    transductive: Method | None = None
    compare: Path | None = None
    trec: Path | None = None
    per_query: Path | None = None
    report: Path | None = None
    json: bool = False

    def __post_init__(self) -> None:
        if self.protocol == "leave-one-out" and self.metrics == "os3dor":
            raise ValueError(
                "the metrics of os3dor are defined for queries outside the gallery: add --protocol open-set"
            )
        if self.protocol == "leave-one-out" and self.queries is not None:
            raise ValueError("leave-one-out asks with every object, --queries has no use: add --protocol open-set")
        if self.queries_per_class < 1 or self.seed < 0:
            raise ValueError("--queries-per-class is a number from 1, --seed one from 0")
        self.refining()

    def refining(self) -> Refining:
        """What is done beyond comparing one vector with each object's.

        Raises:
            EvaluationError: a value is out of range.
        """
        for count, alpha, name in (
            (self.smooth, self.smooth_alpha, "smooth"),
            (self.expand, self.expand_alpha, "expand"),
        ):
            if alpha is not None and not count:
                raise EvaluationError(
                    f"--{name}-alpha says how neighbours are weighed: say with --{name} how many there are"
                )
        alphas = [ALPHA if alpha is None else alpha for alpha in (self.smooth_alpha, self.expand_alpha)]
        return Refining(self.smooth, alphas[0], self.expand, alphas[1], self.match)


def run(options: Options) -> int:
    """Evaluate, write what is asked for, and print."""
    if options.report is not None:
        from mvretrieval.evaluation.report.report import check_extra

        check_extra()
    with Collection.open(options.collection) as collection, collection.reading():
        evaluation_set = evaluation_set_of(collection, Selection(options.by, options.where, options.classes))
        if evaluation_set.unknown_note:
            say(f"note: {evaluation_set.unknown_note}")
        task, queries = _task(options, evaluation_set)
        measure = FAMILIES[options.metrics](task.n_relevant)
        met = sorted({str(evaluation_set.labels[i]) for i in task.queries} & seen_classes(collection.describer))
        warn_seen_classes(met, "no open set; to leave them out, --where or --classes")
        scores, how = refined(collection, evaluation_set, task, options.refining())
        if how:
            say(how)
        evaluation = evaluate(task, scores, measure, evaluation_set.ids)
        if not len(task.queries):
            say(f"nothing was measured: no two of the {len(evaluation_set.ids)} objects have the same '{options.by}'")
        kind = {"protocol": options.protocol, "metrics": options.metrics}
        counts = {
            "queries": len(evaluation.queries),
            "objects": len(evaluation_set.ids),
            "unlabelled": evaluation_set.unlabelled,
        }
        result: dict[str, Any] = {**counts, "classes_learnt_from": met, **kind, **_means(evaluation)}
        if options.transductive is not None:
            result["transductive"] = _transductive(options.transductive, evaluation_set, task, measure)
        differences = _compared(options, evaluation_set, task, queries, evaluation)
        if differences:
            result["compare"] = {name: asdict(difference) for name, difference in differences.items()}
        _report(options, collection, evaluation_set, task, evaluation, scores)
    _write(options, evaluation_set, task, evaluation, result, scores)
    if options.json:
        print_json(result)
    else:
        _print(options, evaluation, result, differences)
    return 0


def _task(options: Options, evaluation_set: EvaluationSet) -> tuple[Task, OpenSetQueries | None]:
    if evaluation_set.unlabelled and evaluation_set.unlabelled < len(evaluation_set.ids):
        say(
            f"{counted(evaluation_set.unlabelled, 'object')} of {len(evaluation_set.ids)} without a '{options.by}' would count as "
            "wrong answers; "
            f"to leave them out: --where {shlex.quote(f'{column_in_words(options.by)} is not null')}"
        )
    if options.protocol == "leave-one-out":
        task = leave_one_out_task(evaluation_set.labels, evaluation_set.ids)
        if task.skipped:
            say(f"not asked: {counted(task.skipped, 'object')}, alone with a label")
        return task, None
    file = options.queries
    if file is not None and file.exists():
        queries = OpenSetQueries.read(file)
        say(f"{counted(len(queries.ids), 'query')} from {file}: {queries.per_class} of each class, seed {queries.seed}")
    else:
        queries = draw_queries(evaluation_set.labels, evaluation_set.ids, options.queries_per_class, options.seed)
        if file is not None:
            queries.write(file)
            say(f"{counted(len(queries.ids), 'query')} written to {file}")
    if queries.short_classes:
        say(
            f"{counted(queries.short_classes, 'class')} with at most {queries.per_class} objects asked with fewer: one has to be "
            "left to find"
        )
    task = open_set_task(evaluation_set.labels, evaluation_set.ids, queries)
    if task.skipped:
        say(f"not asked: {counted(task.skipped, 'query')}, alone with a label")
    return task, queries


def _means(evaluation: Evaluation) -> dict[str, float | None]:
    """Means, None where there is no query: JSON has no NaN."""
    return {name: None if math.isnan(mean) else mean for name, mean in evaluation.means().items()}


def _transductive(method: Method, evaluation_set: EvaluationSet, task: Task, measure: Measure) -> dict[str, Any]:
    check_count(len(evaluation_set.ids))
    everything = np.arange(len(evaluation_set.ids))
    scores = transductive(method, cosines(evaluation_set.vectors)(everything, everything))
    return {"method": method, **_means(evaluate(task, given(scores), measure))}


def _compared(
    options: Options, evaluation_set: EvaluationSet, task: Task, queries: OpenSetQueries | None, evaluation: Evaluation
) -> dict[str, Difference]:
    if options.compare is None:
        return {}
    second, notes = evaluate_other(
        options.compare, evaluation_set, task, queries, FAMILIES[options.metrics], options.refining()
    )
    for note in notes:
        say(note)
    return compare(evaluation, second, options.seed)


def _report(
    options: Options,
    collection: Collection,
    evaluation_set: EvaluationSet,
    task: Task,
    evaluation: Evaluation,
    scores: Scores,
) -> None:
    if options.report is None:
        return
    from mvretrieval.evaluation.report.report import write_report

    page = write_report(
        collection, evaluation_set.row_ids, evaluation_set.labels, evaluation_set.vectors, evaluation, options.report,
        task=task, scores=scores, label_name=options.by, scope=evaluation_set.selection.in_words, run=run_record("eval", options),
    )  # fmt: skip
    say(f"report: {page}")


def _write(
    options: Options,
    evaluation_set: EvaluationSet,
    task: Task,
    evaluation: Evaluation,
    result: dict[str, Any],
    scores: Scores,
) -> None:
    """The files that are asked for, and beside each how it came about."""
    if options.trec is not None:
        depth = affordable_depth(task)
        if depth is not None:
            say(
                f"run.txt holds the first {depth} answers to each query, whole rankings would be too long: its mAP is lower"
            )
        write_qrels(options.trec / "qrels.txt", task, evaluation_set.ids)
        write_run(options.trec / "run.txt", task, scores, evaluation_set.ids, depth)
        _record(options, result, options.trec / "eval.json")
    if options.per_query is not None:
        write_per_query(options.per_query, evaluation, evaluation_set.labels)
        _record(options, result, options.per_query.with_name(options.per_query.name + ".json"))


def _record(options: Options, result: dict[str, Any], path: Path) -> None:
    try:
        path.write_text(json.dumps(run_record("eval", options) | {"result": result}, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise EvaluationError(f"{path} cannot be written: {error.strerror}; name another place") from error


def _print(
    options: Options, evaluation: Evaluation, result: dict[str, Any], differences: dict[str, Difference]
) -> None:
    if options.metrics == "os3dor":
        print("as the open-set benchmarks code them; ANMRR: less is better")
    names = list(evaluation.values)
    print(table([[str(result["queries"]), *_cells(result, names)]], ["queries", *names]))
    if differences:
        print(f"\nagainst {options.compare}, over {next(iter(differences.values())).queries} queries")
        rows = [
            [
                name,
                f"{d.first:.4f}",
                f"{d.second:.4f}",
                f"{d.difference:+.4f}",
                f"{d.low:+.4f} .. {d.high:+.4f}",
                f"{d.p:.4f}",
            ]
            for name, d in differences.items()
        ]
        print(table(rows, ["metric", "this", "other", "difference", "95 % interval", "p"]))
    if "transductive" in result:
        found = result["transductive"]
        print(f"\ntransductive ({found['method']}): all queries known at once, which no search can do")
        print(table([_cells(found, names)], names))


def _cells(result: dict[str, Any], names: list[str]) -> list[str]:
    return ["-" if result[name] is None else f"{result[name]:.4f}" for name in names]
