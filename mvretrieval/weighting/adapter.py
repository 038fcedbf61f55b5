"""An adapter: statistics and a network that turn frozen view vectors into object vectors, and the folder they live in.

`model.safetensors` holds statistics, network and text space; `config.json` says what it was trained on and how (encoder,
rig, styles, classes seen, metrics, revision), `README.md` the same for people (a model card), `log.jsonl` how it went.
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
        """Put an adapter together.

        Args:
            config: what it was made for.
            whitening: centring or whitening before the network.
            network: used in evaluation mode, on the CPU: pooling is a small part of describing.
            text_embeddings: for `text="named"`.
        """
        self.config = config
        self.whitening = whitening
        self.network = network.cpu().eval()
        self.text_embeddings = text_embeddings

    @classmethod
    def untrained(cls, config: AdapterConfig, whitening: Whitening | None) -> Adapter:
        """Equal to the pooling without a network."""
        network = AdapterNetwork(config.network, len(config.styles), config.dim, config.n_views)
        return cls(config, whitening, network)

    # -- use ----------------------------------------------------------------------------------------------------------

    def pool(
        self, views: NDArray[np.float32], mask: NDArray[np.bool_], directions: NDArray[np.float32] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Object vectors of raw view vectors.

        Args:
            views: (B, S, V, D).
            mask: (B, V).
            directions: (V, 3) of the rig, or None for pictures.

        Returns:
            (B, S * K) unit norm, and weights (B, S, V).

        Raises:
            ShapeError: an object has no view, or slot scores meet another number of views.
        """
        return self.pool_prepared(whiten_and_normalize(views, self.whitening), mask, directions)

    def pool_prepared(
        self, views: NDArray[np.float32], mask: NDArray[np.bool_], directions: NDArray[np.float32] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The same of (B, S, V, K) views that went through `whiten_and_normalize`."""
        towards = None if directions is None else torch.from_numpy(directions).expand(len(views), -1, -1)
        with torch.inference_mode():
            vectors, weights = self.network(
                torch.from_numpy(views), torch.from_numpy(np.ascontiguousarray(mask)), towards
            )
        return vectors.numpy(), weights.numpy()

    def adapt_views(self, views: NDArray[np.float32]) -> NDArray[np.float32]:
        """(B, S, V, D) raw view vectors to (B, S, V, K) unit vectors, each through the network as an object of one view."""
        prepared = whiten_and_normalize(views, self.whitening)
        b, s, v, k = prepared.shape
        alone = np.ascontiguousarray(prepared.swapaxes(1, 2)).reshape(b * v, s, 1, k)
        vectors, _ = self.pool_prepared(alone, np.ones((b * v, 1), bool), None)
        # A style's part of an object vector is 1 / sqrt(S) long.
        return np.ascontiguousarray(vectors.reshape(b, v, s, k).swapaxes(1, 2)) * np.float32(s**0.5)

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits that change when an object vector's meaning does."""
        digest = hashlib.sha256(json.dumps(asdict(self.config.network), sort_keys=True).encode())
        for name, tensor in sorted(self._tensors().items()):
            digest.update(name.encode() + tensor.numpy().tobytes())
        return digest.hexdigest()[:16]

    # -- files --------------------------------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """Write model.safetensors, config.json and README.md.

        Raises:
            AdapterError: the folder cannot be written.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / MODEL).write_bytes(self.to_bytes())
            (folder / CONFIG).write_text(json.dumps(self._plain(), indent=2) + "\n", encoding="utf-8")
            (folder / CARD).write_text(self._card(), encoding="utf-8")
        except OSError as error:
            raise AdapterError(f"the adapter cannot be written to {folder}: {error}") from error

    @classmethod
    def load(cls, source: str | Path) -> Adapter:
        """Read an adapter.

        Args:
            source: a folder, or `hf-hub:owner/name` (with `@revision`) on the model hub.

        Raises:
            AdapterError: it is not there, damaged, or of another format.
        """
        folder = fetch(str(source)) if str(source).startswith(HUB) else Path(source)
        if _is_tuned_encoder(folder):
            raise AdapterError(
                f"{folder} is a tuned encoder: give it as --encoder tuned:{folder}; the view weights that were trained with it are "
                f"--adapter {folder / 'adapter'}"
            )
        if not (folder / MODEL).is_file():
            raise AdapterError(
                f"no adapter at {folder}: a folder with {MODEL} and {CONFIG} is needed, as 'mvr train' writes it, or "
                f"{HUB}owner/name"
            )
        try:
            data = (folder / MODEL).read_bytes()
        except OSError as error:
            raise AdapterError(f"the adapter {folder / MODEL} cannot be read: {error}") from error
        try:
            return cls.from_bytes(data)
        except AdapterError as error:
            raise AdapterError(f"{folder / MODEL}: {error}") from error

    def to_bytes(self) -> bytes:
        """As one safetensors file that carries its configuration."""
        return save_tensors(self._tensors(), metadata={"config": json.dumps(self._plain())})

    @classmethod
    def from_bytes(cls, data: bytes) -> Adapter:
        """Back from `to_bytes`.

        Raises:
            AdapterError: damaged, or of another format.
        """
        try:
            tensors = load_tensors(data)
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
            values = json.loads(header["__metadata__"]["config"])
        except KeyError:
            raise AdapterError(
                "these weights are no adapter of this program: name a folder that 'mvr train' wrote"
            ) from None
        except (SafetensorError, ValueError) as error:
            raise AdapterError(f"damaged, or no adapter of this program ({error}): fetch or train it again") from error
        config = AdapterConfig.from_dict(values)
        try:
            adapter = cls.untrained(config, _statistics(config, values, tensors))
            own = {name.removeprefix("network."): t for name, t in tensors.items() if name.startswith("network.")}
            adapter.network.load_state_dict(own)
            if config.text == "named":
                adapter.text_embeddings = _text_space(config, values, tensors)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise AdapterError(f"its weights and its configuration do not belong together: {error}") from error
        return adapter

    def _tensors(self) -> dict[str, torch.Tensor]:
        tensors = {f"network.{n}": t.detach().cpu().contiguous() for n, t in self.network.state_dict().items()}
        if self.whitening is not None:
            tensors["statistics.mean"] = torch.from_numpy(self.whitening.mean)
            if self.whitening.transform is not None:
                tensors["statistics.transform"] = torch.from_numpy(np.ascontiguousarray(self.whitening.transform))
        if self.text_embeddings is not None:
            arrays = self.text_embeddings.arrays()
            tensors |= {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
        return tensors

    def _plain(self) -> dict[str, Any]:
        plain = self.config.to_dict()
        if self.whitening is not None:
            plain["statistics_views"] = self.whitening.n_views
        if self.text_embeddings is not None:
            plain["text_names"] = list(self.text_embeddings.names)
        return plain

    def _card(self) -> str:
        config = self.config
        metrics = "".join(f"| {name} | {value:.4f} |\n" for name, value in config.metrics.items())
        return (
            "---\nlibrary_name: mvretrieval\ntags: [3d, retrieval, multi-view]\n---\n\n"
            "# Adapter for mvretrieval\n\n"
            f"Weighs and adapts view vectors of `{config.encoder}` "
            f"({config.rig}, {', '.join(config.styles)}, {config.size} px) into one vector per object.\n\n"
            "```\nmvr reindex COLLECTION --adapter THIS_FOLDER\n```\n\n"
            f"Trained on {len(config.classes)} classes; `config.json` lists them and the options of the training.\n\n"
            + (f"| validation | |\n|---|---|\n{metrics}" if metrics else "")
        )


def _is_tuned_encoder(folder: Path) -> bool:
    try:
        values = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(values, dict) and values.get("kind") == "tuned encoder"


def _statistics(config: AdapterConfig, values: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Whitening | None:
    if "statistics.mean" not in tensors:
        return None
    transform = tensors.get("statistics.transform")
    whitening = Whitening(
        tensors["statistics.mean"].numpy(),
        None if transform is None else transform.numpy(),
        int(values["statistics_views"]),
    )
    mean, n_styles = whitening.mean, len(config.styles)
    wanted = (n_styles, mean.shape[-1], config.dim)
    if mean.shape != wanted[:2] or whitening.dim != config.dim or (transform is not None and transform.shape != wanted):
        raise ValueError(f"statistics of {mean.shape} for {n_styles} styles and {config.dim} dimensions")
    return whitening


def _text_space(config: AdapterConfig, values: dict[str, Any], tensors: dict[str, torch.Tensor]) -> TextEmbeddings:
    names, vectors = tuple(values["text_names"]), tensors["text.vectors"].float().numpy()
    projection, mean, origin = (tensors[f"text.{part}"].numpy() for part in ("projection", "mean", "origin"))
    dim, text_dim = len(config.styles) * config.dim, vectors.shape[1]
    shapes = (projection.shape, mean.shape, origin.shape)
    if len(names) != len(vectors) or shapes != ((text_dim, dim), (dim,), (text_dim,)):
        raise ValueError(f"{len(names)} names, vectors {vectors.shape}, a map {projection.shape} to {dim} dimensions")
    return TextEmbeddings(names, vectors, projection, mean, origin)
