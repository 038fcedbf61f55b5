"""Learn how sure a similarity makes, from a collection's own labels; hits then carry the probability to be of the same kind.

Without --by, it is the probability to be the same object, learnt from some of an object's views against the others: a
stricter thing, since another chair is then as wrong as a lamp. Pictures are calibrated by views of the meshes, which photos
resemble more or less. What is learnt is how it goes among the objects that it was learnt from: calibrate again when many of
other kinds have come. Describing the collection anew takes confidence away until it is calibrated again.
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
        by: label that says which objects are of the same kind; without it, the probability is that of the same object.
        where: objects to learn from, such as "split = 'train'"; all that have the label by default.
        seed: of the questions, views and held-out classes that are drawn.
        remove: take the calibration off.
        json: one JSON object.
    """

    collection: tyro.conf.Positional[Path]
    by: str | None = None
    where: str | None = None
    seed: int = 0
    remove: bool = False
    json: bool = False


def run(options: Options) -> int:
    """Calibrate and tell how well."""
    if options.remove and (options.by is not None or options.where is not None):
        raise CalibrationError("--remove takes a calibration off: leave --by and --where out, or --remove")
    with Collection.open(options.collection, write=True) as collection:
        if options.remove:
            return _remove(collection)
        record = run_record("calibrate", options)
        calibration = collection.calibrate(options.by, options.where, options.seed)
        collection.store.add_run(record["time"], record)
        if options.by is not None:
            _say_met(collection, options.by, options.where)
        if augmentation_of(collection.store) is not None:
            say(
                "note: the collection is smoothed, objects from elsewhere are surer to be of a kind than their confidence says"
            )
    if options.json:
        print_json(json.loads(calibration.to_json()))
    else:
        _print(options.collection, calibration)
    return 0


def _remove(collection: Collection) -> int:
    had = calibration_of(collection.store) is not None
    with collection.store.transaction():
        put_calibration(collection.store, None)
    print(f"{collection.folder}: " + ("hits carry no confidence any more" if had else "was not calibrated"))
    return 0


def _say_met(collection: Collection, by: str, where: str | None) -> None:
    """What is learnt on classes that adapter or encoder know by heart does not hold for others."""
    met = seen_classes(collection.describer)
    if met:
        there = set(map(str, collection.store.column_values(by, collection.store.select(where).tolist())))
        warn_seen_classes(
            sorted(met & there), "confidence is too high for classes new to it; calibrate on others (--where)"
        )


def _print(folder: Path, calibration: Calibration) -> None:
    kind = f"of the same '{calibration.by}'" if calibration.by is not None else "the same object"
    print(f"{folder}: hits carry the probability that they are {kind} as the question")
    head = ["asked with", "curve", "questions", "pairs", "of them the same", "error on held-out classes"]
    if calibration.by is None:
        head[-1] = "error on held-out objects"
    print(table([_row(name, curve) for name, curve in calibration.curves.items()], head))
    for name, reason in calibration.left_out.items():
        say(f"note: not for questions asked with {name}: {reason}")


def _row(name: str, curve: Curve) -> list[str]:
    error = "too few" if curve.error is None else f"{curve.error:.3f}"
    how = curve.method + (f", height x {curve.cohort_weight:.2f}" if curve.cohort_weight else "")
    return [name, how, str(curve.queries), str(curve.pairs), f"{curve.same:.0%}", error]
