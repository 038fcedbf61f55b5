"""The describer of an open collection: kept in its store, opened on this machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mvrender.backends.selection import choose_backend, is_named
from mvrender.renderer import BackendName
from mvretrieval.describe import Describer, DescriberConfig, check_same_fingerprint
from mvretrieval.encoders.encoder import ViewEncoder
from mvretrieval.encoders.plugin import check_probe, probe_vector
from mvretrieval.encoders.registry import is_plugin, object_id
from mvretrieval.session.options import OpenOptions
from mvretrieval.store.store import Store
from mvretrieval.weighting.whitening import Whitening

if TYPE_CHECKING:
    from mvretrieval.weighting.adapter import Adapter  # loads torch, which a search by id does without


class StoredDescriber:
    """The describer that the store names, read again after another process has changed it."""

    def __init__(self, folder: Path, store: Store, options: OpenOptions) -> None:
        self._folder = folder
        self._store = store
        self._options = options
        self._describer: Describer | None = None
        self._generation = -1
        # Where weights are now, by the encoder id in the store.
        self._relocated: dict[str, str] = {}
        self._probed: ViewEncoder | None = None

    def _stored_config(self) -> DescriberConfig:
        config = self._store.read_meta("describer", DescriberConfig.from_json)
        assert config is not None  # checked when the collection was opened
        return config

    @property
    def describer(self) -> Describer:
        """The current describer; the opened encoder is kept as long as its id stays the same."""
        generation = self._store.generation
        if self._describer is None or self._generation != generation:
            config = self._stored_config()
            config = replace(config, encoder=self._relocated.get(config.encoder, config.encoder))
            describer = self._describer
            if describer is None or describer.config.encoder != config.encoder:
                describer = open_describer(config, self._options, self._store.get_meta("backend"))
            whitening, adapter = _read_weighting(self._store)
            self._describer = replace(describer, config=config, whitening=whitening, adapter=adapter)
            self._generation = generation
        return self._describer

    @property
    def dim(self) -> int:
        """Length D of an object vector."""
        describer = self.describer
        whitening = describer.whitening
        view_dim = int(self._store.get_meta("view_dim")) if whitening is None else whitening.dim
        return describer.n_styles * view_dim

    def use(self, describer: Describer) -> None:
        """Use an opened describer that equals the stored one."""
        self._describer, self._generation = describer, self._store.generation

    def write(self, describer: Describer) -> None:
        """Store a describer, inside the caller's transaction."""
        meta = _describer_meta(describer)
        if self._store.get_meta("view_fingerprint") is None:
            meta |= _view_meta(describer)
        for key, value in meta.items():
            self._store.set_meta(key, value)

    def check_encoder(self) -> None:
        """Check that the encoder opened here is the one that encoded the stored views.

        Raises:
            DescriberError: its weights or its preprocessing differ.
        """
        check_same_fingerprint(
            self._store.get_meta("view_fingerprint"),
            self.describer.view_fingerprint,
            str(self._folder),
            f"Pass the encoder that it was built with, or re-embed it: mvr reindex {self._folder} "
            f"--encoder {self.describer.config.encoder}",
        )
        probe = self._store.get_meta("encoder_probe")
        encoder = self.describer.encoder
        if probe is not None and self._probed is not encoder:
            check_probe(encoder, self.describer.config.encoder, np.frombuffer(probe, np.float32))
            self._probed = encoder

    def notices(self) -> list[str]:
        """Differences between this machine and the one that built the collection, as sentences."""
        here = {"precision": self.describer.encoder.precision, "backend": choose_backend(self.describer.backend)[0]}
        return [
            f"the collection was built with {name} {stored}, this machine uses {here[name]}: vectors differ within the tested "
            "tolerance"
            for name in here
            if (stored := self._store.get_meta(name)) != here[name]
        ]

    def relocate_encoder(self, encoder_id: str) -> None:
        """Load the encoder from another place, such as a checkpoint file that moved.

        Raises:
            DescriberError: it is another encoder.
        """
        current = self.describer
        if encoder_id == current.config.encoder:
            return
        config = replace(current.config, encoder=encoder_id)
        moved = open_describer(config, self._options)
        moved = replace(moved, whitening=current.whitening, adapter=current.adapter)
        check_same_fingerprint(
            self._store.get_meta("view_fingerprint"),
            moved.view_fingerprint,
            str(self._folder),
            f"Leave --encoder out, or re-embed the collection: mvr reindex {self._folder} --encoder {encoder_id}",
        )
        self._relocated[self._stored_config().encoder] = encoder_id
        self._describer = moved


def open_describer(
    config: DescriberConfig, options: OpenOptions, stored_backend: BackendName | None = None
) -> Describer:
    """A describer as this machine runs it, with neither whitening nor adapter.

    Args:
        config: of the describer.
        options: of this machine. An encoder given there is used if `config` names it.
        stored_backend: that rendered the stored views. A plug-in is used again, since its images differ from those of others.
    """
    given = options.encoder
    if given is not None and object_id(given) != config.encoder:
        given = None
    again = stored_backend if stored_backend is not None and not is_named(stored_backend) else None
    return Describer.from_config(
        config,
        device=options.device,
        precision=options.precision,
        backend=options.backend or again,
        concurrent=options.concurrent,
        encoder=given,
    )


def new_meta(describer: Describer) -> dict[str, Any]:
    """What the store of a new collection keeps of its describer."""
    return {**_describer_meta(describer), **_view_meta(describer)}


def _describer_meta(describer: Describer) -> dict[str, Any]:
    whitening, adapter = describer.whitening, describer.adapter
    return {
        "describer": describer.config.to_json(),
        "whitening": whitening.to_bytes() if whitening is not None and adapter is None else None,
        "adapter": adapter.to_bytes() if adapter is not None else None,
    }


def _read_weighting(store: Store) -> tuple[Whitening | None, Adapter | None]:
    """Read what `_describer_meta` wrote; an adapter holds its own whitening."""
    adapter, whitening = store.get_meta("adapter"), store.get_meta("whitening")
    if adapter:
        from mvretrieval.weighting.adapter import Adapter

        loaded = Adapter.from_bytes(adapter)
        return loaded.whitening, loaded
    return (Whitening.from_bytes(whitening) if whitening else None), None


def _view_meta(describer: Describer) -> dict[str, Any]:
    """What raw view vectors depend on, and what computed them."""
    encoder = describer.encoder
    plugin = is_plugin(describer.config.encoder)
    return {
        "encoder_probe": probe_vector(encoder).tobytes() if plugin else None,
        "view_fingerprint": describer.view_fingerprint,
        "precision": encoder.precision,
        "backend": choose_backend(describer.backend)[0],
        "view_dim": encoder.dim,
    }
