"""An encoder that is opened when it is first needed: a search by id needs none."""

from __future__ import annotations

import threading

from mvretrieval.encoders.encoder import PrecisionChoice, ViewEncoder
from mvretrieval.encoders.plugin import check_encoder
from mvretrieval.encoders.registry import open_encoder


class EncoderHandle:
    """Opens an encoder once, on first use. Describers of the same views share one handle."""

    def __init__(
        self,
        encoder_id: str,
        device: str = "auto",
        precision: PrecisionChoice = "auto",
        concurrent: bool = False,
        given: ViewEncoder | None = None,
    ) -> None:
        """Nothing is loaded yet.

        Args:
            encoder_id: see `encoders.registry`.
            device: where the network runs.
            precision: of the network.
            concurrent: batch the requests of several threads (see `encoders.batching`).
            given: an open encoder to use instead of opening one by its id.
        """
        self.encoder_id = encoder_id
        self.device = device
        self.precision: PrecisionChoice = precision
        self.concurrent = concurrent
        self._given = given
        self._encoder: ViewEncoder | None = None
        self._lock = threading.Lock()

    @classmethod
    def of(cls, encoder: ViewEncoder) -> EncoderHandle:
        """A handle of an open encoder."""
        handle = cls(encoder.id)
        handle._encoder = encoder
        return handle

    @property
    def encoder(self) -> ViewEncoder:
        """The encoder, opened.

        Raises:
            EncoderError: its id is unknown, or its weights cannot be loaded.
        """
        with self._lock:
            if self._encoder is None:
                self._encoder = self._open()
            return self._encoder

    def _open(self) -> ViewEncoder:
        if self._given is None:
            encoder = open_encoder(self.encoder_id, self.device, self.precision)
        else:
            encoder = self._given
            check_encoder(encoder, self.encoder_id)
        if not self.concurrent:
            return encoder
        from mvretrieval.encoders.batching import BatchingEncoder

        return BatchingEncoder(encoder)
