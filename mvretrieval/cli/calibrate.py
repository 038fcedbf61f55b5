"""Fit a confidence calibration on the labels of a collection. Each hit then has the probability that it has the query's label.

Without --by, confidence is the probability that a hit is the same object as the query, fitted on one half of each object's views
against the other half. This is stricter: another chair then counts as wrong. Image queries are calibrated on rendered views;
photos may differ from them. A calibration holds for objects like those that it was fitted on: calibrate again after adding
many objects of other classes. Re-embedding a collection invalidates its calibration.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import tyro

from mvretrieval.api import Collection
from mvretrieval.confidence.calibration import Calibration, calibration_of, put_calibration
from mvretrieval.confidence.curve import Curve
from mvretrieval.console import print_json, run_record, say, table, warn_seen_classes
from mvretrieval.errors import CalibrationError
from mvretrieval.evaluation.seen_classes import seen_classes
from mvretrieval.store.augmented import augmentation_of


@dataclass(frozen=True)
class Options:
    """Options of `mvr calibrate`.

    Attributes:
        collection: folder of the collection.
        by: label whose equality the confidence predicts. Default: the same object.
        where: filter of the objects to fit on, such as "split = 'train'". Default: all that have the label.
        seed: of the drawn queries, views and held-out classes.
        remove: remove the calibration.
        json: print one JSON object.
    """

    collection: tyro.conf.Positional[Path]
    by: str | None = None
    where: str | None = None
    seed: int = 0
    remove: bool = False
    json: bool = False


def run(options: Options) -> int:
    """Fit the calibration and print its error on held-out classes."""
    if options.remove and (options.by is not None or options.where is not None):
        raise CalibrationError("--remove takes neither --by nor --where: leave them out", code="remove_with_options")
    with Collection.open(options.collection, write=True) as collection:
        if options.remove:
            return _remove(collection, options.json)
        record = run_record("calibrate", options)
        earlier = calibration_of(collection.session.store)
        calibration = collection.calibrate(options.by, options.where, options.seed)
        collection.session.store.add_run(record["time"], record)
        if earlier is not None and earlier.by != options.by:
            say(f"note: this replaces the calibration for {earlier.classes}")
        if options.by is not None:
            _warn_seen_classes(collection, options.by, options.where)
        if augmentation_of(collection.session.store) is not None:
            say("note: with database-side augmentation, confidence is too low for queries from outside the collection")
    if options.json:
        print_json(json.loads(calibration.to_json()))
    else:
        _print(options.collection, calibration)
    return 0


def _remove(collection: Collection, as_json: bool) -> int:
    removed = calibration_of(collection.session.store) is not None
    with collection.session.store.transaction():
        put_calibration(collection.session.store, None)
    if as_json:
        print_json({"removed": removed})
    else:
        print(f"{collection.folder}: " + ("calibration removed" if removed else "was not calibrated"))
    return 0


def _warn_seen_classes(collection: Collection, by: str, where: str | None) -> None:
    """Warn if the curves are fitted on classes that the adapter or the encoder was trained on."""
    seen = seen_classes(collection.describer)
    if seen:
        used = set(
            map(str, collection.session.store.column_values(by, collection.session.store.select(where).tolist()))
        )
        warn_seen_classes(
            sorted(seen & used), "confidence is too high for unseen classes; calibrate on other classes (--where)"
        )


def _print(folder: Path, calibration: Calibration) -> None:
    verb = "are" if calibration.by is None else "have"
    print(f"{folder}: confidence is the probability that query and hit {verb} {calibration.classes}")
    head = ["query", "curve", "queries", "pairs", "positive", "error on held-out classes"]
    if calibration.by is None:
        head[-1] = "error on held-out objects"
    print(table([_row(name, curve) for name, curve in calibration.curves.items()], head))
    for name, reason in calibration.left_out.items():
        say(f"note: no confidence for queries by {name}: {reason}")


def _row(name: str, curve: Curve) -> list[str]:
    error = "too few" if curve.error is None else f"{curve.error:.3f}"
    method = curve.method + (f", cohort weight {curve.cohort_weight:.2f}" if curve.cohort_weight else "")
    return [name, method, str(curve.queries), str(curve.pairs), f"{curve.same:.0%}", error]
