"""How a collection's objects are described: kept in its store, opened on this machine."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvrender.backends.selection import choose_backend
from mvrender.mesh import Limits
from mvretrieval.describe import Describer, DescriberConfig, check_same
from mvretrieval.store.store import Store
from mvretrieval.weighting.whitening import Whitening

if TYPE_CHECKING:
    from mvretrieval.encoders.encoder import PrecisionChoice
    from mvretrieval.weighting.adapter import Adapter


@dataclass(frozen=True)
class OpenOptions:
    """How this machine runs a collection; nothing here changes what vectors mean.

    Attributes:
        device: where networks run.
        precision: of the encoder.
        backend: renderer by name.
        workers: render processes; one per core by default.
        start_workers: start them at once, while the encoder is opened, rather than with the first file.
        limits: what one mesh may cost.
        shared: several threads will ask with meshes and pictures at once; what they ask with is then encoded together.
    """

    device: str = "auto"
    precision: PrecisionChoice = "auto"
    backend: str | None = None
    workers: int | None = None
    start_workers: bool = False
    limits: Limits = field(default_factory=Limits)
    shared: bool = False


class Description:
    """The describer of an open collection, read again when another process has changed it."""

    def __init__(self, folder: Path, store: Store, options: OpenOptions) -> None:
        self._folder = folder
        self._store = store
        self._options = options
        self._describer: Describer | None = None
        self._epoch = -1
        # Where weights lie now, by the encoder id that the store has.
        self._relocated: dict[str, str] = {}

    @property
    def describer(self) -> Describer:
        """As the store has it now; the opened encoder stays open while it is the same."""
        generation = int(self._store.get_meta("epoch", 0))
        if self._describer is None or self._epoch != generation:
            config = DescriberConfig.from_json(self._store.get_meta("describer"))
            config = replace(config, encoder=self._relocated.get(config.encoder, config.encoder))
            fitted = _fitted_of(self._store)
            if self._describer is not None and self._describer.config.encoder == config.encoder:
                describer = self._describer.with_fitted(fitted)
                describer.config = config
            else:
                describer = open_describer(config, fitted, self._options)
            self._describer, self._epoch = describer, generation
        return self._describer

    @property
    def dim(self) -> int:
        """Length D of an object vector."""
        describer = self.describer
        whitening = describer.whitening
        view_dim = int(self._store.get_meta("view_dim")) if whitening is None else whitening.dim
        return describer.n_styles * view_dim

    def use(self, describer: Describer) -> None:
        """Take an opened describer for the one that the store has now."""
        self._describer, self._epoch = describer, int(self._store.get_meta("epoch", 0))

    def write(self, describer: Describer) -> None:
        """Remember how objects are described, in a transaction of the caller's."""
        meta = _describer_meta(describer)
        if self._store.get_meta("view_fingerprint") is None:
            meta |= _view_meta(describer)
        for key, value in meta.items():
            self._store.set_meta(key, value)

    def check_encoder(self) -> None:
        """See `Collection.check_encoder`."""
        check_same(
            self._store.get_meta("view_fingerprint"),
            self.describer.view_fingerprint,
            str(self._folder),
            f"Ask with the encoder it was built with, or describe it anew: mvr reindex {self._folder} "
            f"--encoder {self.describer.config.encoder}",
        )

    def notices(self) -> list[str]:
        """See `Collection.notices`."""
        here = {"precision": self.describer.encoder.precision, "backend": choose_backend(self.describer.backend)[0]}
        return [
            f"the collection was made with {name} {made}, this uses {here[name]}: vectors differ within the tested tolerance"
            for name in here
            if (made := self._store.get_meta(name)) != here[name]
        ]

    def relocate_encoder(self, encoder_id: str) -> None:
        """See `Collection.relocate_encoder`."""
        current = self.describer
        if encoder_id == current.config.encoder:
            return
        # Not by `with_config`, which shares the encoder that `current` may have open.
        config = replace(current.config, encoder=encoder_id)
        other = Describer(config, current.fitted, current.device, current.precision, current.backend, current.shared)
        check_same(
            self._store.get_meta("view_fingerprint"),
            other.view_fingerprint,
            str(self._folder),
            f"Leave --encoder out, or describe the collection anew: mvr reindex {self._folder} --encoder {encoder_id}",
        )
        stored = DescriberConfig.from_json(self._store.get_meta("describer")).encoder
        self._relocated[stored] = encoder_id
        self._describer = other


def open_describer(config: DescriberConfig, fitted: Whitening | Adapter | None, options: OpenOptions) -> Describer:
    """A describer as this machine runs it."""
    return Describer(config, fitted, options.device, options.precision, options.backend, options.shared)  # type: ignore[arg-type]


def meta_of(describer: Describer) -> dict[str, Any]:
    """What a new collection's store remembers of its describer."""
    return {**_describer_meta(describer), **_view_meta(describer)}


def _describer_meta(describer: Describer) -> dict[str, Any]:
    fitted, adapter = describer.fitted, describer.adapter
    return {
        "describer": describer.config.to_json(),
        "statistics": fitted.to_bytes() if fitted is not None and adapter is None else None,
        "adapter": adapter.to_bytes() if adapter is not None else None,
    }


def _fitted_of(store: Store) -> Whitening | Adapter | None:
    """What `_describer_meta` wrote."""
    adapter, whitening = store.get_meta("adapter"), store.get_meta("statistics")
    if adapter:
        from mvretrieval.weighting.adapter import Adapter

        return Adapter.from_bytes(adapter)
    return Whitening.from_bytes(whitening) if whitening else None


def _view_meta(describer: Describer) -> dict[str, Any]:
    """What raw view vectors depend on, and what they were made with."""
    encoder = describer.encoder
    return {
        "view_fingerprint": describer.view_fingerprint,
        "precision": encoder.precision,
        "backend": choose_backend(describer.backend)[0],
        "view_dim": encoder.dim,
    }
