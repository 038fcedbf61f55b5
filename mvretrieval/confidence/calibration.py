"""A collection's calibration: one curve per query modality, stored beside the vectors that it was fitted on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from mvretrieval.confidence.curve import Curve
from mvretrieval.store.store import Store

QueryModality = Literal["objects", "images", "text"]
# Kind of a query's term -> modality. A vector is treated as an object's.
QUERY_MODALITY: Mapping[str, QueryModality] = {
    "mesh": "objects",
    "id": "objects",
    "vector": "objects",
    "images": "images",
    "text": "text",
}
_META_KEY = "calibration"
# Name in collections of format version 1 -> name now.
_OLD_MODALITIES = {"pictures": "images", "words": "text"}


@dataclass(frozen=True)
class Calibration:
    """From cosines to confidence.

    Attributes:
        by: label that defines the classes; None if each object is its own class.
        where: filter of the objects that it was fitted on.
        generation: of the collection's vectors; it is outdated for others.
        curves: by query modality.
        left_out: for each other modality, the reason.
    """

    by: str | None
    where: str | None
    generation: int
    curves: Mapping[str, Curve]
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def classes(self) -> str:
        """What confidence is the probability of, for people."""
        return f"the same '{self.by}'" if self.by is not None else "the same object"

    @property
    def summary(self) -> str:
        """One line for people: classes, filter, modalities and their calibration errors."""
        parts = [
            f"{name} (calibration error {curve.error:.3f})" if curve.error is not None else name
            for name, curve in self.curves.items()
        ]
        return f"{self.classes}{f' where {self.where}' if self.where else ''}; kinds of query: {', '.join(parts)}"

    def to_json(self) -> str:
        """Convert to JSON text."""
        plain = {
            "by": self.by,
            "where": self.where,
            "generation": self.generation,
            "curves": {name: curve.to_json() for name, curve in self.curves.items()},
            "left_out": dict(self.left_out),
        }
        return json.dumps(plain, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Calibration:
        """Inverse of `to_json`; also reads the keys of format version 1."""
        values = json.loads(text)
        return cls(
            by=values["by"],
            where=values["where"],
            generation=values["generation"] if "generation" in values else values["epoch"],
            curves={_modality(name): Curve.from_json(curve) for name, curve in values["curves"].items()},
            left_out={_modality(name): reason for name, reason in values["left_out"].items()},
        )


def calibration_of(store: Store) -> Calibration | None:
    """The stored calibration, possibly outdated; None if there is none."""
    return store.read_meta(_META_KEY, Calibration.from_json)


def is_outdated(store: Store, calibration: Calibration) -> bool:
    """Whether vectors changed since: other whitening, adapter, encoder, views or database-side augmentation."""
    return calibration.generation != store.generation


def put_calibration(store: Store, calibration: Calibration | None) -> None:
    """Store a calibration, or remove it, inside the caller's transaction."""
    store.set_meta(_META_KEY, None if calibration is None else calibration.to_json())


def _modality(name: str) -> str:
    return _OLD_MODALITIES.get(name, name)
