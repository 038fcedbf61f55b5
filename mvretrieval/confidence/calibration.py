"""A collection's calibration: a curve for each kind of question, kept in its store beside the vectors that it was fitted on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from mvretrieval.confidence.curve import Curve

if TYPE_CHECKING:
    from mvretrieval.store.store import Store

Asking = Literal["objects", "pictures", "words"]
# What each source of a question is asked with. A bare vector is taken for an object's.
ASKING: Mapping[str, Asking] = {
    "mesh": "objects",
    "id": "objects",
    "vector": "objects",
    "images": "pictures",
    "text": "words",
}
_KEY = "calibration"


@dataclass(frozen=True)
class Calibration:
    """What makes confidence of cosines.

    Attributes:
        by: label that says what is of the same kind; None where the same object was meant.
        where: filter of the objects that it was fitted on.
        epoch: of the collection's vectors; with others cosines mean something else.
        curves: for each kind of question that the collection could be asked with.
        left_out: for every other kind, why.
    """

    by: str | None
    where: str | None
    epoch: int
    curves: Mapping[str, Curve]
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def in_words(self) -> str:
        """For people."""
        kind = f"same '{self.by}'" if self.by is not None else "same object (no labels)"
        parts = [
            f"{name} ±{curve.error:.3f}" if curve.error is not None else name for name, curve in self.curves.items()
        ]
        return f"{kind}{f' where {self.where}' if self.where else ''}, asked with {', '.join(parts)}"

    def to_json(self) -> str:
        """As JSON text."""
        curves = {name: curve.to_json() for name, curve in self.curves.items()}
        plain = {
            "by": self.by,
            "where": self.where,
            "epoch": self.epoch,
            "curves": curves,
            "left_out": dict(self.left_out),
        }
        return json.dumps(plain, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Calibration:
        """Back from `to_json`."""
        values = json.loads(text)
        curves = {name: Curve.from_json(curve) for name, curve in values["curves"].items()}
        return cls(**values | {"curves": curves})


def calibration_of(store: Store) -> Calibration | None:
    """What the store has; None where nothing was calibrated. It may be outdated."""
    text = store.get_meta(_KEY)
    return None if text is None else Calibration.from_json(text)


def is_outdated(store: Store, calibration: Calibration) -> bool:
    """Whether the collection has been described anew since: other whitening, adapter, encoder, views or smoothing."""
    return calibration.epoch != store.generation


def put_calibration(store: Store, calibration: Calibration | None) -> None:
    """Remember a calibration, or forget it, in a transaction of the caller's."""
    store.set_meta(_KEY, None if calibration is None else calibration.to_json())
