"""Evaluate retrieval in a collection by one of its labels: objects are queries, objects of the same class are relevant.

The exit code is 1 if there is no query: nothing was measured.
"""

from __future__ import annotations

import math
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from mvretrieval.augmentation import ALPHA
from mvretrieval.console import counted, print_json, run_record, say, table, warn_seen_classes, write_run_record
from mvretrieval.errors import EvaluationError
from mvretrieval.evaluation.comparison import evaluate_other
from mvretrieval.evaluation.evaluation_set import EvaluationSet, Selection, load_evaluation_set
from mvretrieval.evaluation.metrics import Evaluation, Measure, evaluate
from mvretrieval.evaluation.os3dor import FAMILIES, FamilyName
from mvretrieval.evaluation.per_query import write_per_query
from mvretrieval.evaluation.protocols import OpenSetQueries, Task, draw_queries, leave_one_out_task, open_set_task
from mvretrieval.evaluation.ranking import ScoreFunction, cosines, precomputed
from mvretrieval.evaluation.scoring import MAX_OBJECTS, ScoringOptions, task_scores
from mvretrieval.evaluation.seen_classes import seen_classes
from mvretrieval.evaluation.significance import Difference, compare
from mvretrieval.evaluation.transductive import Method, check_count, transductive
from mvretrieval.evaluation.trec import affordable_depth, write_qrels, write_run
from mvretrieval.search.options import RerankOptions
from mvretrieval.session.session import Session
from mvretrieval.store.filters import quote_column


@dataclass(frozen=True)
class Options:
    """Options of `mvr eval`.

    Attributes:
        collection: folder of the collection.
        by: label that defines the classes.
        where: filter; only matching objects are queries or in the gallery.
        classes: file with one class per line; only objects of these classes are queries or in the gallery.
        protocol: leave-one-out: every object is a query; open-set: a few objects of each class are queries, the rest is the
            gallery.
        queries_per_class: open-set: queries per class.
        seed: seed of the open-set draw and of the tests of --compare.
        query_split: open-set: JSON file of the drawn queries; read if it exists, else written.
        metrics: textbook metrics, or those of the open-set benchmarks, for comparison with their tables.
        dba: database-side augmentation with this many neighbours, 0 for none; default: the collection's own setting.
        dba_alpha: power of the cosine that weights them.
        expand: query expansion with this many neighbours, 0 for none.
        expand_alpha: power of the cosine that weights them.
        rerank_weight: weight of late interaction of views in the score, 0 to 1.
        transductive: also re-rank the whole batch of queries at once; a separate table, since a search cannot do that.
        compare: another collection, or a TREC run file, for a paired significance test.
        trec: folder for qrels.txt and run.txt.
        per_query: CSV file for the metrics of each query.
        report: folder for an HTML report.
        json: print one JSON object.
    """

    collection: tyro.conf.Positional[Path]
    by: str = "label"
    where: str | None = None
    classes: Path | None = None
    protocol: Literal["leave-one-out", "open-set"] = "leave-one-out"
    queries_per_class: int = 5
    seed: int = 0
    query_split: Path | None = None
    metrics: FamilyName = "textbook"
    dba: int | None = None
    dba_alpha: float | None = None
    expand: int = 0
    expand_alpha: float | None = None
    rerank_weight: float = 0.0
    transductive: Method | None = None
    compare: Path | None = None
    trec: Path | None = None
    per_query: Path | None = None
    report: Path | None = None
    json: bool = False

    def __post_init__(self) -> None:
        if self.protocol == "leave-one-out" and self.metrics == "os3dor":
            raise EvaluationError(
                "the os3dor metrics are defined for queries outside the gallery: add --protocol open-set",
                code="bad_options",
            )
        if self.protocol == "leave-one-out" and self.query_split is not None:
            raise EvaluationError(
                "in leave-one-out every object is a query, so --query-split has no effect: add --protocol open-set",
                code="bad_options",
            )
        if self.queries_per_class < 1 or self.seed < 0:
            raise EvaluationError("--queries-per-class must be >= 1 and --seed >= 0", code="bad_options")
        self.scoring()

    def scoring(self) -> ScoringOptions:
        """How queries are scored.

        Raises:
            EvaluationError: an alpha is given without neighbours, or a value is out of range.
            QueryError: a value is out of range.
        """
        for count, alpha, name in ((self.dba, self.dba_alpha, "dba"), (self.expand, self.expand_alpha, "expand")):
            if alpha is not None and not count:
                raise EvaluationError(
                    f"--{name}-alpha has no effect without neighbours: add --{name} N", code="bad_options"
                )
        dba_alpha, expand_alpha = (ALPHA if alpha is None else alpha for alpha in (self.dba_alpha, self.expand_alpha))
        n_reranked = MAX_OBJECTS if self.rerank_weight else 0
        rerank = RerankOptions(self.expand, expand_alpha, n_reranked, self.rerank_weight)
        return ScoringOptions(self.dba, dba_alpha, rerank)


@dataclass(frozen=True)
class _Run:
    """What was evaluated, and the results so far."""

    evaluation_set: EvaluationSet
    task: Task
    scores: ScoreFunction
    evaluation: Evaluation
    result: dict[str, Any]
    differences: dict[str, Difference]


def run(options: Options) -> int:
    """Evaluate, write the requested files, and print."""
    if options.report is not None:
        from mvretrieval.evaluation.report.write import check_extra

        check_extra()
    with Session.open(options.collection) as session, session.reading():
        done = _evaluate(options, session)
        _write_report(options, session, done)
    _write_files(options, done)
    if options.json:
        print_json(done.result)
    else:
        _print(options, done)
    return 0 if len(done.evaluation.queries) else 1


def _evaluate(options: Options, session: Session) -> _Run:
    evaluation_set = load_evaluation_set(session, Selection(options.by, options.where, options.classes))
    if evaluation_set.unknown_classes_note:
        say(f"note: {evaluation_set.unknown_classes_note}")
    task, queries = _task(options, evaluation_set)
    measure = FAMILIES[options.metrics](task.n_relevant)
    seen = sorted({str(evaluation_set.labels[i]) for i in task.queries} & seen_classes(session.describer))
    warn_seen_classes(seen, "this is not open-set; leave them out with --where or --classes")
    scores, description = task_scores(session, evaluation_set, task, options.scoring())
    if description:
        say(description)
    evaluation = evaluate(task, scores, measure, evaluation_set.ids)
    if not len(task.queries):
        say(f"no queries: {_why_no_queries(options, evaluation_set)}")
    result: dict[str, Any] = {
        "queries": len(evaluation.queries),
        "objects": len(evaluation_set.ids),
        "unlabeled": evaluation_set.n_unlabeled,
        "seen_classes": seen,
        "protocol": options.protocol,
        "metrics": options.metrics,
        **_means(evaluation),
    }
    if options.transductive is not None:
        result["transductive"] = _transductive(options.transductive, evaluation_set, task, measure)
    differences = _compare(options, evaluation_set, task, queries, evaluation)
    if differences:
        result["compare"] = {name: asdict(difference) for name, difference in differences.items()}
    return _Run(evaluation_set, task, scores, evaluation, result, differences)


def _why_no_queries(options: Options, evaluation_set: EvaluationSet) -> str:
    n = len(evaluation_set.ids)
    if not n:
        return f"no object matches {evaluation_set.selection.description}; 'mvr info {options.collection}' lists the labels"
    if evaluation_set.n_unlabeled == n:
        return (
            f"none of the {n} objects has a '{options.by}': set it with 'mvr index --labels FILE.csv', or choose another label "
            "with --by"
        )
    return (
        f"no two of the {n} objects have the same '{options.by}': choose another label with --by, or a selection with more "
        "objects of a class"
    )


def _task(options: Options, evaluation_set: EvaluationSet) -> tuple[Task, OpenSetQueries | None]:
    n_unlabeled = evaluation_set.n_unlabeled
    if n_unlabeled and n_unlabeled < len(evaluation_set.ids):
        filter_text = shlex.quote(f"{quote_column(options.by)} is not null")
        say(
            f"{counted(n_unlabeled, 'object')} of {len(evaluation_set.ids)} without a '{options.by}' are in the gallery as not "
            f"relevant; to leave them out: --where {filter_text}"
        )
    if options.protocol == "leave-one-out":
        task = leave_one_out_task(evaluation_set.labels, evaluation_set.ids)
        if task.skipped:
            say(f"skipped: {counted(task.skipped, 'object')} without another object of the same class")
        return task, None
    queries = _open_set_queries(options, evaluation_set)
    if queries.short_classes:
        say(
            f"{counted(queries.short_classes, 'class')} with at most {queries.per_class} objects: fewer queries, since one object "
            "stays in the gallery"
        )
    task = open_set_task(evaluation_set.labels, evaluation_set.ids, queries)
    if task.skipped:
        say(f"skipped: {counted(task.skipped, 'query')} without a relevant object")
    return task, queries


def _open_set_queries(options: Options, evaluation_set: EvaluationSet) -> OpenSetQueries:
    """Read the queries from the file, or draw them and write it."""
    file = options.query_split
    if file is not None and file.exists():
        queries = OpenSetQueries.read(file)
        say(f"{counted(len(queries.ids), 'query')} from {file}: {queries.per_class} per class, seed {queries.seed}")
        return queries
    queries = draw_queries(evaluation_set.labels, evaluation_set.ids, options.queries_per_class, options.seed)
    if file is not None:
        queries.write(file)
        say(f"{counted(len(queries.ids), 'query')} written to {file}")
    return queries


def _means(evaluation: Evaluation) -> dict[str, float | None]:
    """Means, None without queries: JSON has no NaN."""
    return {name: None if math.isnan(mean) else mean for name, mean in evaluation.means().items()}


def _transductive(method: Method, evaluation_set: EvaluationSet, task: Task, measure: Measure) -> dict[str, Any]:
    check_count(len(evaluation_set.ids))
    everything = np.arange(len(evaluation_set.ids))
    scores = transductive(method, cosines(evaluation_set.vectors)(everything, everything))
    return {"method": method, **_means(evaluate(task, precomputed(scores), measure))}


def _compare(
    options: Options, evaluation_set: EvaluationSet, task: Task, queries: OpenSetQueries | None, evaluation: Evaluation
) -> dict[str, Difference]:
    if options.compare is None:
        return {}
    other, notes = evaluate_other(
        options.compare, evaluation_set, task, queries, FAMILIES[options.metrics], options.scoring()
    )
    for note in notes:
        say(note)
    return compare(evaluation, other, options.seed)


def _write_report(options: Options, session: Session, done: _Run) -> None:
    if options.report is None:
        return
    from mvretrieval.evaluation.report.data import EvaluatedObjects
    from mvretrieval.evaluation.report.write import write_report

    chosen = done.evaluation_set
    objects = EvaluatedObjects(chosen.row_ids, chosen.labels, chosen.vectors, options.by, chosen.selection.description)
    page = write_report(
        session, objects, done.evaluation, options.report,
        task=done.task, scores=done.scores, run=run_record("eval", options),
    )  # fmt: skip
    say(f"report: {page}")


def _write_files(options: Options, done: _Run) -> None:
    """Write the requested files, and a record of the run beside each."""
    ids, labels = done.evaluation_set.ids, done.evaluation_set.labels
    if options.trec is not None:
        depth = affordable_depth(done.task)
        if depth is not None:
            say(
                f"run.txt has the first {depth} items of each query, full rankings would be too large: its mAP is lower"
            )
        write_qrels(options.trec / "qrels.txt", done.task, ids)
        write_run(options.trec / "run.txt", done.task, done.scores, ids, depth)
        write_run_record("eval", options, done.result, options.trec / "eval.json")
    if options.per_query is not None:
        write_per_query(options.per_query, done.evaluation, labels)
        record = options.per_query.with_name(options.per_query.name + ".json")
        write_run_record("eval", options, done.result, record)


def _print(options: Options, done: _Run) -> None:
    if options.metrics == "os3dor":
        print("metrics of the open-set benchmarks; ANMRR: lower is better")
    names = list(done.evaluation.values)
    print(table([[str(done.result["queries"]), *_cells(done.result, names)]], ["queries", *names]))
    if done.differences:
        _print_differences(options, done.differences)
    if "transductive" in done.result:
        found = done.result["transductive"]
        print(f"\ntransductive ({found['method']}): needs all queries at once, which a search does not have")
        print(table([_cells(found, names)], names))


def _print_differences(options: Options, differences: dict[str, Difference]) -> None:
    print(f"\ncompared with {options.compare}, {next(iter(differences.values())).queries} queries")
    rows = [
        [
            name, f"{d.first:.4f}", f"{d.second:.4f}", f"{d.difference:+.4f}", f"{d.low:+.4f} .. {d.high:+.4f}", f"{d.p:.4f}"
        ]
        for name, d in differences.items()
    ]  # fmt: skip
    print(table(rows, ["metric", "this", "other", "difference", "95 % interval", "p"]))


def _cells(result: dict[str, Any], names: list[str]) -> list[str]:
    return ["-" if result[name] is None else f"{result[name]:.4f}" for name in names]
