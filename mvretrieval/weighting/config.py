"""What an adapter was made for, and whether it fits other views."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from mvrender.shading import Style
from mvretrieval.errors import AdapterError
from mvretrieval.weighting.network import NetworkConfig

FORMAT = 1
TextKind = Literal["adapted", "frozen", "named"]


@dataclass(frozen=True)
class AdapterConfig:
    """What an adapter was made for.

    Attributes:
        views: fingerprint of the views that it was trained on (see `Describer.view_fingerprint`).
        encoder: id of their encoder.
        rig: where their cameras stood.
        styles: what they look like.
        size: their pixels.
        n_views: V.
        dim: K, dimensions of a view vector after the statistics.
        network: which modules.
        text: how words are compared with objects: `adapted` like a view of unknown direction, `frozen` as the text
            encoder gives them (centred and whitened where views are), `named` by the adapter's own text space.
        classes: that it was trained on.
        metrics: of the validation.
        training: resolved options, seed, versions and revision of the training.
    """

    views: str
    encoder: str
    rig: str
    styles: tuple[Style, ...]
    size: int
    n_views: int
    dim: int
    network: NetworkConfig = field(default_factory=NetworkConfig)
    text: TextKind = "adapted"
    classes: tuple[str, ...] = ()
    metrics: dict[str, float] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> AdapterConfig:
        """Back from `to_dict`.

        Raises:
            AdapterError: another format, or something is missing.
        """
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            found = values.get("format") if isinstance(values, dict) else None
            raise AdapterError(
                f"this adapter has format {found} and this program reads {FORMAT}: train it again, or "
                "install the version of mvretrieval that made it"
            )
        known = {name: values[name] for name in cls.__dataclass_fields__ if name in values}
        try:
            known["network"] = NetworkConfig(**known["network"])
            known |= {name: tuple(known[name]) for name in ("styles", "classes")}
            return cls(**known)
        except (KeyError, TypeError) as error:
            raise AdapterError(f"the adapter's configuration is not complete: {error}") from error

    def check_fits(self, view_fingerprint: str) -> list[str]:
        """Refuse views that an adapter of this kind cannot mean anything for.

        Args:
            view_fingerprint: of the views (see `Describer.view_fingerprint`).

        Returns:
            Differences that are allowed but worth knowing: other cameras.

        Raises:
            AdapterError: other styles, another size or encoder, or slot scores with other cameras.
        """
        own, other = _parts(self.views), _parts(view_fingerprint)
        different = [name for name in own if name != "rig" and own[name] != other.get(name)]
        if different:
            there = "".join(f"\n  {name}: {own[name]} there, {other.get(name, 'unknown')} here" for name in different)
            raise AdapterError(
                f"the adapter was trained on other views ({self.encoder}){there}\nTrain one on this collection ('mvr train'), "
                "or describe the collection like the adapter's: 'mvr reindex' with "
                f"--styles {','.join(self.styles)} --size {self.size} and the adapter's encoder"
            )
        if own.get("rig") == other.get("rig"):
            return []
        if self.network.by_slot:
            raise AdapterError(
                f"the adapter scores views by slot and is tied to its cameras ({self.rig}): train it with "
                "--dataset-scores directions for other cameras"
            )
        if self.network.kind == "chunk":
            how = "its convolution expects neighbouring views of a ring"
        elif self.network.kind == "adam" and self.network.dataset_scores == "directions":
            how = "other cameras are weighed by their direction"
        else:
            how = "other cameras may show less"
        return [f"the adapter was trained with {self.rig}: {how}"]


def _parts(views: str) -> dict[str, str]:
    """A view fingerprint taken apart; one of an earlier version is a whole."""
    names = r"views=(?P<version>\S+) rig=(?P<rig>.*?) styles=(?P<styles>\S+) size=(?P<size>\d+) encoder=(?P<encoder>.*)"
    found = re.fullmatch(names, views, re.DOTALL)
    return {"views": views} if found is None else found.groupdict()
