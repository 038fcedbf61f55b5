"""View encoders of other packages, and encoders that are given as objects.

A plug-in of the group `encoders` is a function of the text after the colon of the id, the device and the precision. It returns a
`ViewEncoder`:

    def make(rest: str, device: str, precision: PrecisionChoice) -> ViewEncoder
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mvrender import plugins
from mvretrieval.encoders.encoder import PrecisionChoice, ViewEncoder
from mvretrieval.errors import EncoderError, MvrError

_UNIT_TOLERANCE = 1e-2  # of the norm; bfloat16 has two to three digits
_SAME_COSINE = 0.99  # of the same image in both precisions, or on other machines
_MEMBERS = (
    "id", "dim", "image_size", "batch_size", "fingerprint", "precision", "precision_reason", "has_text", "temperature",
    "cross_view", "encode_views", "encode_text",
)  # fmt: skip


def open_plugin(name: str, rest: str, device: str, precision: PrecisionChoice) -> ViewEncoder:
    """Open the encoder of a plug-in, and check it.

    Args:
        name: of the plug-in.
        rest: of the encoder id, after the colon.
        device: of the network.
        precision: of the network.

    Raises:
        EncoderError: it does not keep the contract of `ViewEncoder` (`bad_plugin_encoder`), or raises (`plugin_failed`).
        PluginError: it cannot be imported.
    """
    make = plugins.find("encoders", name)
    assert make is not None  # `parse_encoder` found it
    try:
        encoder: ViewEncoder = make(rest, device, precision)
    except MvrError:
        raise
    except Exception as error:  # of another package
        raise EncoderError(
            f"plug-in '{name}' cannot open '{name}:{rest}' ({type(error).__name__}: {error}): check the text after the colon",
            code="plugin_failed",
        ) from error
    check_encoder(encoder, f"{name}:{rest}")
    return encoder


def check_encoder(encoder: ViewEncoder, name: str) -> None:
    """Check the contract of `ViewEncoder` with two images.

    Args:
        encoder: open.
        name: for the message.

    Raises:
        EncoderError: code `bad_plugin_encoder`.
    """
    missing = [member for member in _MEMBERS if not hasattr(encoder, member)]
    if missing:
        raise _error(name, f"lacks {', '.join(missing)}")
    fingerprint = encoder.fingerprint
    if not isinstance(fingerprint, str) or not fingerprint.strip() or encoder.fingerprint != fingerprint:
        raise _error(
            name, f"has the fingerprint {fingerprint!r}, which must be a text that changes with the weights only"
        )
    for member in ("dim", "image_size", "batch_size"):
        if not isinstance(getattr(encoder, member), int) or getattr(encoder, member) < 1:
            raise _error(name, f"has the {member} {getattr(encoder, member)!r}, which must be a positive int")
    images = _probe_images(encoder.image_size)
    vectors = np.asarray(encoder.encode_views(images))
    if vectors.shape != (2, encoder.dim) or vectors.dtype != np.float32:
        raise _error(
            name, f"returned {vectors.dtype} vectors {vectors.shape} of two images, not float32 {(2, encoder.dim)}"
        )
    norms = np.linalg.norm(vectors, axis=1)
    if not np.all(np.abs(norms - 1) < _UNIT_TOLERANCE):
        raise _error(name, f"returned vectors of norm {norms.tolist()}, which must be 1")
    alone = np.asarray(encoder.encode_views(images[1:]))
    if alone.shape != (1, encoder.dim) or float(alone[0] @ vectors[1]) < _SAME_COSINE:
        raise _error(name, "gives an image another vector when it is encoded alone")


def probe_vector(encoder: ViewEncoder) -> NDArray[np.float32]:
    """(D,) vector of a fixed image, which changes with the weights (see `check_probe`)."""
    vector: NDArray[np.float32] = encoder.encode_views(_probe_images(encoder.image_size)[1:])[0]
    return vector


def check_probe(encoder: ViewEncoder, name: str, stored: NDArray[np.float32]) -> None:
    """Check that an encoder with the stored fingerprint still gives the stored vector.

    Args:
        encoder: open.
        name: for the message.
        stored: result of `probe_vector` when the collection was made.

    Raises:
        EncoderError: it does not (`fingerprint_not_changed`).
    """
    cosine = float(probe_vector(encoder) @ stored)
    if cosine < _SAME_COSINE:
        raise EncoderError(
            f"encoder '{name}' gives other vectors than when the collection was made (cosine {cosine:.3f} of the same image), and "
            "its fingerprint is the same: change the fingerprint in the encoder, then re-embed with 'mvr reindex'",
            code="fingerprint_not_changed",
        )


def _probe_images(size: int) -> NDArray[np.uint8]:
    """Two images (2, size, size, 3): white with a grey disc, and noise."""
    rows, columns = np.mgrid[:size, :size]
    disc = np.hypot(rows - size / 2, columns - size / 3) < size / 4
    first = np.where(disc[..., None], 90, 255).repeat(3, axis=2)
    return np.stack([first, np.random.default_rng(0).integers(0, 256, (size, size, 3))]).astype(np.uint8)


def _error(name: str, problem: str) -> EncoderError:
    return EncoderError(f"encoder '{name}' {problem}: see ViewEncoder for the contract", code="bad_plugin_encoder")
