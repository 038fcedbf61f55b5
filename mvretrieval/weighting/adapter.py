"""An adapter: whitening and a pooling network that turn frozen view vectors into object vectors.

It is stored as a folder: `model.safetensors` (whitening, network, text embeddings), `config.json` (encoder, rig, styles,
classes seen, metrics, revision), `README.md` (a model card) and `log.jsonl` (the training log).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from mvretrieval.errors import AdapterError
from mvretrieval.weighting.config import AdapterConfig
from mvretrieval.weighting.hub import CARD, CONFIG, HUB, MODEL, fetch
from mvretrieval.weighting.network import AdapterNetwork
from mvretrieval.weighting.text_embeddings import TextEmbeddings
from mvretrieval.weighting.whitening import Whitening, whiten_and_normalize


class Adapter:
    """Raw view vectors -> object vectors."""

    def __init__(
        self,
        config: AdapterConfig,
        whitening: Whitening | None,
        network: AdapterNetwork,
        text_embeddings: TextEmbeddings | None = None,
    ) -> None:
        """Combine the parts of an adapter.

        Args:
            config: what it was trained on.
            whitening: applied before the network.
            network: moved to the CPU, since pooling takes a small part of the time, and set to evaluation mode.
            text_embeddings: for `text="named"`.
        """
        self.config = config
        self.whitening = whitening
        self.network = network.cpu().eval()
        self.text_embeddings = text_embeddings

    @classmethod
    def untrained(cls, config: AdapterConfig, whitening: Whitening | None) -> Adapter:
        """Create an adapter whose network equals mean (or max) pooling."""
        network = AdapterNetwork(config.network, len(config.styles), config.dim, config.n_views)
        return cls(config, whitening, network)

    # -- pooling ------------------------------------------------------------------------------------------------------

    def pool(
        self, views: NDArray[np.float32], mask: NDArray[np.bool_], directions: NDArray[np.float32] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Pool raw view vectors into object vectors.

        Args:
            views: (B, S, V, D).
            mask: (B, V).
            directions: (V, 3) of the rig, or None for query images.

        Returns:
            (B, S * K) unit norm, and weights (B, S, V).

        Raises:
            ShapeError: an object has no view, or slot scores get another number of views.
        """
        return self.pool_whitened(whiten_and_normalize(views, self.whitening), mask, directions)

    def pool_whitened(
        self, views: NDArray[np.float32], mask: NDArray[np.bool_], directions: NDArray[np.float32] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Like `pool`, for views (B, S, V, K) that `whiten_and_normalize` returned."""
        batch_directions = None if directions is None else torch.from_numpy(directions).expand(len(views), -1, -1)
        with torch.inference_mode():
            vectors, weights = self.network(
                torch.from_numpy(views), torch.from_numpy(np.ascontiguousarray(mask)), batch_directions
            )
        return vectors.numpy(), weights.numpy()

    def adapt_views(self, views: NDArray[np.float32]) -> NDArray[np.float32]:
        """Pass each raw view vector (B, S, V, D) through the network as an object of one view; (B, S, V, K) unit norm."""
        whitened = whiten_and_normalize(views, self.whitening)
        b, s, v, k = whitened.shape
        single = np.ascontiguousarray(whitened.swapaxes(1, 2)).reshape(b * v, s, 1, k)
        vectors, _ = self.pool_whitened(single, np.ones((b * v, 1), bool), None)
        # Each style's part of an object vector has norm 1 / sqrt(S).
        return np.ascontiguousarray(vectors.reshape(b, v, s, k).swapaxes(1, 2)) * np.float32(s**0.5)

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits over all that determines an object vector: network options and tensors."""
        digest = hashlib.sha256(
            json.dumps(asdict(self.config.network), sort_keys=True).encode() + self.config.plugin.encode()
        )
        for name, tensor in sorted(self._tensors().items()):
            digest.update(name.encode() + tensor.numpy().tobytes())
        return digest.hexdigest()[:16]

    # -- files --------------------------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Write model.safetensors, config.json and README.md.

        Raises:
            AdapterError: the folder cannot be written (`adapter_not_written`).
        """
        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / MODEL).write_bytes(self.to_bytes())
            (folder / CONFIG).write_text(json.dumps(self._header(), indent=2) + "\n", encoding="utf-8")
            (folder / CARD).write_text(_model_card(self.config), encoding="utf-8")
        except OSError as error:
            raise AdapterError(
                f"the adapter cannot be written to {folder}: {error}", code="adapter_not_written"
            ) from error

    @classmethod
    def load(cls, source: str | Path) -> Adapter:
        """Read an adapter.

        Args:
            source: a folder, or `hf-hub:owner/name` (with `@revision`) on the Hugging Face hub.

        Raises:
            AdapterError: it is missing (`adapter_not_found`, `download_failed`), a tuned encoder (`adapter_is_encoder`),
                unreadable (`adapter_unreadable`), or invalid (see `from_bytes`).
        """
        folder = fetch(str(source)) if str(source).startswith(HUB) else Path(source)
        if _is_tuned_encoder(folder):
            raise AdapterError(
                f"{folder} is a tuned encoder: give it as --encoder tuned:{folder}; the adapter trained with it is "
                f"--adapter {folder / 'adapter'}",
                code="adapter_is_encoder",
            )
        path = folder / MODEL
        if not path.is_file():
            raise AdapterError(
                f"no adapter at {folder}: give a folder with {MODEL} and {CONFIG}, as 'mvr train' writes it, or "
                f"{HUB}owner/name",
                code="adapter_not_found",
            )
        try:
            data = path.read_bytes()
        except OSError as error:
            raise AdapterError(f"the adapter {path} cannot be read: {error}", code="adapter_unreadable") from error
        try:
            return cls.from_bytes(data)
        except AdapterError as error:
            raise AdapterError(f"{path}: {error}", code=error.code) from error

    def to_bytes(self) -> bytes:
        """Serialize as one safetensors file with the configuration in its metadata."""
        return save_tensors(self._tensors(), metadata={"config": json.dumps(self._header())})

    @classmethod
    def from_bytes(cls, data: bytes) -> Adapter:
        """Inverse of `to_bytes`.

        Raises:
            AdapterError: not an adapter (`not_an_adapter`), damaged (`adapter_damaged`), weights that do not match the
                configuration (`adapter_inconsistent`), or an unknown configuration (see `AdapterConfig.from_dict`).
        """
        try:
            tensors = load_tensors(data)
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
            values = json.loads(header["__metadata__"]["config"])
        except KeyError:
            raise AdapterError(
                "the file is not an adapter of mvretrieval: give a folder that 'mvr train' wrote", code="not_an_adapter"
            ) from None
        except (SafetensorError, ValueError) as error:
            raise AdapterError(
                f"the adapter is damaged ({error}): download or train it again", code="adapter_damaged"
            ) from error
        config = AdapterConfig.from_dict(values)
        try:
            adapter = cls.untrained(config, _whitening(config, values, tensors))
            _check_plugin(config, adapter.network)
            network = {name.removeprefix("network."): t for name, t in tensors.items() if name.startswith("network.")}
            adapter.network.load_state_dict(network)
            if config.text == "named":
                adapter.text_embeddings = _text_embeddings(config, values, tensors)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise AdapterError(
                f"the adapter's weights do not match its configuration: {error}", code="adapter_inconsistent"
            ) from error
        return adapter

    def _tensors(self) -> dict[str, torch.Tensor]:
        """All tensors by the names that they have in a file."""
        tensors = {f"network.{n}": t.detach().cpu().contiguous() for n, t in self.network.state_dict().items()}
        if self.whitening is not None:
            tensors["statistics.mean"] = torch.from_numpy(self.whitening.mean)
            if self.whitening.transform is not None:
                tensors["statistics.transform"] = torch.from_numpy(np.ascontiguousarray(self.whitening.transform))
        if self.text_embeddings is not None:
            arrays = self.text_embeddings.arrays()
            tensors |= {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
        return tensors

    def _header(self) -> dict[str, Any]:
        """All that is stored as JSON."""
        header = self.config.to_dict()
        if self.whitening is not None:
            header["statistics_views"] = self.whitening.n_views
        if self.text_embeddings is not None:
            header["text_names"] = list(self.text_embeddings.names)
        return header


def _is_tuned_encoder(folder: Path) -> bool:
    try:
        values = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(values, dict) and values.get("kind") == "tuned encoder"


def _check_plugin(config: AdapterConfig, network: AdapterNetwork) -> None:
    """Refuse another version of a view weighting of another package than the one that was trained."""
    if network.plugin_fingerprint != config.plugin:
        raise AdapterError(
            f"the adapter was trained with version '{config.plugin}' of the view weighting '{config.network.kind}', and version "
            f"'{network.plugin_fingerprint}' is installed: install the other version, or train again",
            code="plugin_changed",
        )


def _whitening(config: AdapterConfig, values: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Whitening | None:
    """Read the whitening from a file's values and tensors; ValueError where shapes disagree."""
    if "statistics.mean" not in tensors:
        return None
    transform = tensors.get("statistics.transform")
    whitening = Whitening(
        tensors["statistics.mean"].numpy(),
        None if transform is None else transform.numpy(),
        int(values["statistics_views"]),
    )
    mean, n_styles = whitening.mean, len(config.styles)
    shape = (n_styles, mean.shape[-1], config.dim)
    if mean.shape != shape[:2] or whitening.dim != config.dim or (transform is not None and transform.shape != shape):
        raise ValueError(f"whitening of shape {mean.shape} for {n_styles} styles and {config.dim} dimensions")
    return whitening


def _text_embeddings(config: AdapterConfig, values: dict[str, Any], tensors: dict[str, torch.Tensor]) -> TextEmbeddings:
    """Read the text embeddings from a file's values and tensors; ValueError where shapes disagree."""
    names, vectors = tuple(values["text_names"]), tensors["text.vectors"].float().numpy()
    projection, mean, origin = (tensors[f"text.{part}"].numpy() for part in ("projection", "mean", "origin"))
    dim, text_dim = len(config.styles) * config.dim, vectors.shape[1]
    shapes = (projection.shape, mean.shape, origin.shape)
    if len(names) != len(vectors) or shapes != ((text_dim, dim), (dim,), (text_dim,)):
        raise ValueError(
            f"{len(names)} names, vectors {vectors.shape}, projection {projection.shape}, {dim} dimensions"
        )
    return TextEmbeddings(names, vectors, projection, mean, origin)


def _model_card(config: AdapterConfig) -> str:
    metrics = "".join(f"| {name} | {value:.4f} |\n" for name, value in config.metrics.items())
    return (
        "---\nlibrary_name: mvretrieval\ntags: [3d, retrieval, multi-view]\n---\n\n"
        "# Adapter for mvretrieval\n\n"
        f"Weights and adapts view vectors of `{config.encoder}` "
        f"({config.rig}, {', '.join(config.styles)}, {config.size} px) into one vector per object.\n\n"
        "```\nmvr reindex COLLECTION --adapter THIS_FOLDER\n```\n\n"
        f"Trained on {len(config.classes)} classes; `config.json` lists them and the training options.\n\n"
        + (f"| validation | |\n|---|---|\n{metrics}" if metrics else "")
    )
