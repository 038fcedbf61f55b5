"""The describer: rig, styles, encoder, and whitening and pooling or an adapter turn a mesh into one vector; and its fingerprint."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from mvrender.backends.selection import images_of
from mvrender.cameras import Rig, parse_rig
from mvrender.renderer import BackendName, check_size
from mvrender.shading import VIEWS_VERSION, Style, check_style
from mvretrieval.encoders.encoder import PrecisionChoice, ViewEncoder
from mvretrieval.encoders.handle import EncoderHandle
from mvretrieval.encoders.registry import DEFAULT_ENCODER, absolute_encoder
from mvretrieval.errors import DescriberError, did_you_mean
from mvretrieval.normalize import l2_normalize
from mvretrieval.weighting.view_fingerprint import differences
from mvretrieval.weighting.whitening import Whitening, whiten_and_normalize

if TYPE_CHECKING:
    from mvretrieval.weighting.adapter import Adapter

PoolingChoice = Literal["mean", "max"]
# Styles that are comparable with photos and drawings; depth and normal maps are not.
IMAGE_STYLES: tuple[Style, ...] = ("texture", "clay")
IMPORTED_RIG = "views:1"
"""Rig of a collection of imported vectors: each object has one view, of unknown direction, whose vector is that of the object."""
_COMMON_NAMES = (
    "airplane apple bag basket bed bench bicycle bird boat book bottle bowl box bridge building bus cabinet camera candle "
    "car cat chair clock computer cow cup desk dog door drum fish flower fork frog gun guitar hammer hat helicopter horse "
    "house human jar key knife lamp laptop microphone monitor motorcycle mug pencil phone piano plant pot rabbit rifle robot "
    "rocket screw ship shoe shovel skull snake sofa spider spoon statue stool sword table tank television tool train tree "
    "truck umbrella vase wheel window"
).split()


@dataclass(frozen=True)
class DescriberConfig:
    """Configuration of a describer, stored in the collection.

    Attributes:
        encoder: id of the view encoder (see `encoders.registry`).
        rig: the cameras (see `mvrender.cameras`).
        styles: render styles of the views; each style is pooled separately.
        size: side of a view in pixels.
        pooling: how views are pooled into one vector without an adapter.
        center: subtract the mean view vector of each style.
        whiten: dimensions after PCA whitening of each style, which includes centring; 0 for none.
        adapter: fingerprint of the adapter that replaces the last three; empty for none.
    """

    encoder: str = DEFAULT_ENCODER
    rig: str = "ring:12@30"
    styles: tuple[Style, ...] = ("texture",)
    size: int = 224
    pooling: PoolingChoice = "mean"
    center: bool = False
    whiten: int = 0
    adapter: str = ""

    def __post_init__(self) -> None:
        # The collection must find its checkpoint from any working directory.
        object.__setattr__(self, "encoder", absolute_encoder(self.encoder))
        parse_rig(self.rig)
        check_size(self.size)
        if not self.styles:
            raise DescriberError("a describer needs at least one style", code="no_styles")
        for style in self.styles:
            check_style(style)
        if len(set(self.styles)) < len(self.styles):
            raise DescriberError(f"a style is named twice: {', '.join(self.styles)}", code="duplicate_style")
        if not self.has_encoder and (self.rig != IMPORTED_RIG or len(self.styles) > 1):
            raise DescriberError(
                f"'{self.encoder}' stands for vectors that were computed elsewhere, which have neither a rig nor styles: add such "
                "vectors with 'mvr import', or choose an encoder for meshes and images",
                code="imported_vectors",
            )
        if self.pooling not in ("mean", "max"):
            raise DescriberError(
                f"unknown pooling '{self.pooling}': {did_you_mean(self.pooling, ('mean', 'max'))}choose mean or max; "
                "learned weights need an adapter",
                code="unknown_pooling",
            )
        if self.whiten < 0:
            raise DescriberError(
                f"whiten is a number of dimensions of at least 0, not {self.whiten}", code="bad_whitening"
            )
        if self.adapter and (self.center or self.whiten or self.pooling != "mean"):
            raise DescriberError(
                "an adapter has its own whitening and pooling: give an adapter, or whitening and pooling",
                code="adapter_and_pooling",
            )

    @property
    def has_encoder(self) -> bool:
        """Whether anything can be encoded: False for vectors from elsewhere (see `encoders.imported`)."""
        return not self.encoder.startswith("vectors:")  # not parsed: a plug-in may not be installed

    @property
    def wants_whitening(self) -> bool:
        """Whether view vectors are centred or whitened before pooling."""
        return self.center or self.whiten > 0

    def to_json(self) -> str:
        """The configuration as JSON text."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> DescriberConfig:
        """Read the result of `to_json`."""
        values: dict[str, Any] = json.loads(text)
        return cls(**values | {"styles": tuple(values["styles"])})


@dataclass(frozen=True, eq=False)  # arrays do not compare to one truth value
class Describer:
    """Turns views into object vectors.

    Attributes:
        config: rig, styles, view size, encoder and pooling.
        encoder_handle: opens the encoder on first use.
        whitening: centres or whitens view vectors before pooling; with an adapter, the adapter's own. Without it raw view vectors
            are pooled, even if `config` names a whitening.
        adapter: learned weighting that replaces the configured pooling.
        backend: name of the render backend; the best one of this machine by default.
    """

    config: DescriberConfig
    encoder_handle: EncoderHandle
    whitening: Whitening | None = None
    adapter: Adapter | None = None
    backend: BackendName | None = None

    @classmethod
    def from_config(
        cls,
        config: DescriberConfig,
        whitening: Whitening | None = None,
        device: str = "auto",
        precision: PrecisionChoice = "auto",
        backend: BackendName | None = None,
        concurrent: bool = False,
        encoder: ViewEncoder | None = None,
    ) -> Describer:
        """A describer whose encoder is opened on first use.

        Args:
            config: rig, styles, view size, encoder and pooling.
            whitening: fitted on view vectors of `config`.
            device: of the encoder and the adapter.
            precision: of the encoder.
            backend: name of the render backend.
            concurrent: several threads will encode at the same time.
            encoder: an open encoder, instead of one opened by `config.encoder`.
        """
        handle = EncoderHandle(config.encoder, device, precision, concurrent, encoder)
        return cls(config, handle, whitening, None, backend)

    @property
    def encoder(self) -> ViewEncoder:
        """The view encoder, opened.

        Raises:
            EncoderError: the encoder is unknown, or its weights cannot be loaded.
        """
        return self.encoder_handle.encoder

    @cached_property
    def rig(self) -> Rig:
        """The cameras."""
        return parse_rig(self.config.rig)

    @property
    def n_styles(self) -> int:
        """Number of styles S."""
        return len(self.config.styles)

    @property
    def view_fingerprint(self) -> str:
        """Text that changes with everything a raw view vector depends on."""
        config = self.config
        images = "" if self.backend is None else images_of(self.backend)
        version = f"{VIEWS_VERSION}+{images}" if images else str(VIEWS_VERSION)
        return (
            f"views={version} rig={self.rig.fingerprint} styles={','.join(config.styles)} size={config.size} "
            f"encoder=[{self.encoder.fingerprint}]"
        )

    @property
    def fingerprint(self) -> str:
        """16 hex digits that change with everything an object vector depends on."""
        if self.adapter is not None:
            text = f"{self.view_fingerprint} adapter={self.adapter.fingerprint}"
        else:
            whitening = hashlib.sha256(self.whitening.to_bytes()).hexdigest() if self.whitening else "none"
            text = f"{self.view_fingerprint} statistics={whitening} pooling={self.config.pooling}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def with_whitening(self, whitening: Whitening | None) -> Describer:
        """A copy with another whitening and without an adapter; shares the encoder."""
        return replace(self, whitening=whitening, adapter=None)

    def with_adapter(self, adapter: Adapter) -> Describer:
        """A copy with an adapter instead of whitening and pooling; shares the encoder.

        Raises:
            AdapterError: the adapter was trained on other views.
        """
        adapter.config.check_fits(self.view_fingerprint)
        config = replace(self.config, adapter=adapter.fingerprint, pooling="mean", center=False, whiten=0)
        return replace(self, config=config, whitening=adapter.whitening, adapter=adapter)

    def with_config(self, **changes: Any) -> Describer:
        """A copy with changes to the configuration that do not affect raw view vectors; shares the encoder."""
        return replace(self, config=replace(self.config, **changes))

    # -- from views to vectors ----------------------------------------------------------------------------------------

    def encode(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Raw view vectors.

        Args:
            images: (S, V, H, W, 3) uint8.

        Returns:
            (S, V, D), unit norm.
        """
        flat = images.reshape(-1, *images.shape[2:])
        return self._encode_groups(flat, images.shape[1]).reshape(*images.shape[:2], -1)

    def _encode_groups(self, images: NDArray[np.uint8], n_views: int) -> NDArray[np.float32]:
        """Encode images (N, H, W, 3), of which each `n_views` in a row show one object in one style.

        Most encoders process each image separately; with cross-view attention the views of an object attend to one another.
        """
        if not self.encoder.cross_view:
            return self.encoder.encode_views(images)
        return self.encoder.encode_views(images, np.arange(len(images)) // n_views)

    def pool(
        self, view_vectors: NDArray[np.float32], view_mask: NDArray[np.bool_], known_directions: bool = True
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Pool view vectors into object vectors.

        Args:
            view_vectors: (B, S, V, D) raw.
            view_mask: (B, V).
            known_directions: whether the views are those of the rig; False for photos.

        Returns:
            Object vectors (B, S * K), unit norm, the styles concatenated, and view weights (B, S, V).
        """
        if self.adapter is not None:
            directions = self.rig.directions.astype(np.float32) if known_directions else None
            return self.adapter.pool(view_vectors, view_mask, directions)
        import torch

        from mvretrieval.weighting.baselines import MaxPooling, MeanPooling

        pool = MaxPooling() if self.config.pooling == "max" else MeanPooling()
        mask = torch.from_numpy(np.ascontiguousarray(view_mask))
        vectors, weights = [], []
        with torch.inference_mode():
            for s in range(view_vectors.shape[1]):
                own = np.ascontiguousarray(view_vectors[:, s])
                if self.whitening is not None:
                    own = self.whitening.apply(own, s)
                pooled, weight = pool(torch.from_numpy(own), mask)
                vectors.append(pooled.numpy())
                weights.append(weight.numpy())
        joined = np.concatenate(vectors, axis=1) / np.sqrt(len(vectors))
        return joined.astype(np.float32), np.stack(weights, axis=1).astype(np.float32)

    def view_weights(self, view_vectors: NDArray[np.float32], view_mask: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Weights (B, S, V) that `pool` gives the views (B, S, V, D) of the rig; 0 where masked by (B, V)."""
        if self.adapter is None and self.config.pooling == "mean":  # known without pooling, and without loading torch
            shares = (view_mask / view_mask.sum(axis=1, keepdims=True)).astype(np.float32)
            return np.repeat(shares[:, None], self.n_styles, axis=1)
        return self.pool(view_vectors, view_mask)[1]

    def adapted_views(self, views: NDArray[np.float32]) -> NDArray[np.float32]:
        """Raw view vectors (B, S, V, D), centred, whitened or adapted for late interaction: (B, S, V, K), unit norm."""
        return whiten_and_normalize(views, self.whitening) if self.adapter is None else self.adapter.adapt_views(views)

    def embed_images(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Object vector (S * K,) of images (N, H, W, 3) that show one object from unknown directions.

        Images are compared only with styles that resemble them (texture, clay), if the describer has any.
        """
        return self.image_vector(self.encode_images(images))

    def encode_images(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Raw view vectors (N, D) of images (N, H, W, 3) that show one object."""
        return self._encode_groups(images, len(images))

    def image_vector(self, raw: NDArray[np.float32]) -> NDArray[np.float32]:
        """Object vector (S * K,) of the raw view vectors (N, D) of images that show one object."""
        vector: NDArray[np.float32] = self.pool_images(raw[None], np.ones((1, len(raw)), bool))[0]
        return vector

    def pool_images(self, raw: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Object vectors (B, S * K) of raw view vectors (B, n, D) of images; the mask (B, n) is False for padding."""
        views = np.repeat(raw[:, None], self.n_styles, axis=1)
        vectors, _ = self.pool(views, mask, known_directions=False)
        return np.stack([self._in_image_styles(vector) for vector in vectors])

    @property
    def has_text(self) -> bool:
        """Whether `embed_text` works."""
        return self.encoder.has_text or (self.adapter is not None and self.adapter.text_embeddings is not None)

    def embed_text(self, text: str) -> NDArray[np.float32]:
        """Object vector (S * K,) of a text.

        If views are centred, text is centred by the mean of common names: text and images are apart in CLIP's space (the modality
        gap), and each has its own mean. An adapter may have text embeddings for an encoder without a text tower.

        Raises:
            NoTextError: the encoder has no text tower, or the adapter's text embeddings lack the text.
        """
        if self.adapter is not None and self.adapter.text_embeddings is not None:
            return self.adapter.text_embeddings.object_vector(text)
        return self._in_image_styles(self.text_vectors(self.encoder.encode_text([text]))[0])

    def text_vectors(self, raw: NDArray[np.float32]) -> NDArray[np.float32]:
        """Vectors (N, D) of the text tower as object vectors (N, S * K), unit norm."""
        if self.whitening is None:
            parts = [raw] * self.n_styles
        else:
            parts = [self.whitening.apply(raw, s, mean=self._text_mean) for s in range(self.n_styles)]
        units = [l2_normalize(part) for part in parts]
        if self.adapter is not None and self.adapter.config.text == "adapted":
            # A text is treated as a view of unknown direction.
            one = np.stack(units, axis=1)[:, :, None].astype(np.float32)
            return self.adapter.pool_whitened(one, np.ones((len(one), 1), bool), None)[0]
        return np.asarray(np.concatenate(units, axis=1) / np.sqrt(self.n_styles), np.float32)

    @cached_property
    def _text_mean(self) -> NDArray[np.float32]:
        return np.asarray(self.encoder.encode_text([f"a {name}" for name in _COMMON_NAMES]).mean(axis=0), np.float32)

    def _in_image_styles(self, vector: NDArray[np.float32]) -> NDArray[np.float32]:
        kept = [style in IMAGE_STYLES for style in self.config.styles]
        if not any(kept):
            return vector
        parts = vector.reshape(self.n_styles, -1) * np.array(kept, np.float32)[:, None]
        return np.asarray(parts.ravel() / max(float(np.linalg.norm(parts)), 1e-12), np.float32)


def check_same_fingerprint(stored: str, current: str, name: str, fix: str) -> None:
    """Refuse to compare vectors of different describers.

    Raises:
        DescriberError: the fingerprints differ; the message has the parts that differ, and the fix.
    """
    if stored != current:
        lines = "".join(
            f"\n  {part}: {own} (stored), {here} (here)" for part, (own, here) in differences(stored, current).items()
        )
        raise DescriberError(
            f"{name} was embedded with other views or another encoder{lines}\n{fix}", code="other_encoder"
        )
