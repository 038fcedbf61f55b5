"""An adapter's configuration: what it was trained on, and whether it fits other views."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from mvrender.shading import Style
from mvretrieval.errors import AdapterError
from mvretrieval.weighting.network import NetworkConfig
from mvretrieval.weighting.view_fingerprint import differences

FORMAT = 1
TextKind = Literal["adapted", "frozen", "named"]


@dataclass(frozen=True)
class AdapterConfig:
    """What an adapter was trained on.

    Attributes:
        views: fingerprint of its training views (see `Describer.view_fingerprint`).
        encoder: id of their encoder.
        rig: their cameras.
        styles: their styles.
        size: their width and height in pixels.
        n_views: V.
        dim: K, dimensions of a whitened view vector.
        network: which modules.
        text: how text becomes an object vector: `adapted`, through the network as one view of unknown direction; `frozen`, as
            the text encoder embeds it (centred and whitened where views are); `named`, by the adapter's own text embeddings.
        classes: seen in training.
        metrics: of the validation.
        training: resolved options, seed, versions and revision of the training.
        plugin: fingerprint of a view weighting of another package; empty for built-in ones.
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
    plugin: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Convert to a dict for JSON."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> AdapterConfig:
        """Inverse of `to_dict`.

        Raises:
            AdapterError: another format (`adapter_other_format`), or something is missing (`adapter_incomplete`).
        """
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            found = values.get("format") if isinstance(values, dict) else None
            raise AdapterError(
                f"the adapter has format {found}; this version of mvretrieval reads format {FORMAT}: train it again, or "
                "install the version of mvretrieval that wrote it",
                code="adapter_other_format",
            )
        known = {name: values[name] for name in cls.__dataclass_fields__ if name in values}
        try:
            known["network"] = NetworkConfig(**known["network"])
            known |= {name: tuple(known[name]) for name in ("styles", "classes")}
            return cls(**known)
        except (KeyError, TypeError) as error:
            raise AdapterError(
                f"the adapter's configuration is incomplete: {error}", code="adapter_incomplete"
            ) from error

    def check_fits(self, view_fingerprint: str) -> list[str]:
        """Check that the adapter applies to views.

        Args:
            view_fingerprint: of the views (see `Describer.view_fingerprint`).

        Returns:
            Notices about differences that are allowed: other cameras.

        Raises:
            AdapterError: other styles, size or encoder (`adapter_other_views`), or slot scores and other cameras
                (`adapter_other_cameras`).
        """
        different = differences(self.views, view_fingerprint)
        other_cameras = different.pop("rig", None) is not None
        if different:
            lines = "".join(f"\n  {name}: {own} (adapter), {here} (here)" for name, (own, here) in different.items())
            raise AdapterError(
                f"the adapter was trained on other views ({self.encoder}){lines}\nTrain an adapter on this collection "
                "('mvr train'), or re-embed the collection with the adapter's views: 'mvr reindex' with "
                f"--styles {','.join(self.styles)} --size {self.size} and the adapter's encoder",
                code="adapter_other_views",
            )
        if not other_cameras:
            return []
        if self.network.by_slot:
            raise AdapterError(
                f"the adapter scores views by slot and works with its own cameras only ({self.rig}): for other cameras train "
                "with --dataset-scores directions",
                code="adapter_other_cameras",
            )
        if self.network.kind == "chunk":
            effect = "its convolution expects neighbouring views of a ring"
        elif self.network.kind == "adam" and self.network.dataset_scores == "directions":
            effect = "other cameras are weighted by their direction"
        else:
            effect = "other cameras may show less of an object"
        return [f"the adapter was trained with {self.rig}: {effect}"]
