"""How a mesh becomes one vector: rig + styles + encoder + statistics and pooling or an adapter, and the fingerprint of all."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from mvrender.cameras import Rig, parse_rig
from mvrender.renderer import BackendName, check_size
from mvrender.shading import VIEWS_VERSION, Style, check_style
from mvretrieval.encoders.encoder import PrecisionChoice, ViewEncoder
from mvretrieval.encoders.handle import EncoderHandle
from mvretrieval.encoders.registry import DEFAULT_ENCODER, absolute_encoder
from mvretrieval.errors import DescriberError, did_you_mean
from mvretrieval.normalize import l2_normalize
from mvretrieval.weighting.whitening import Whitening, whiten_and_normalize

if TYPE_CHECKING:
    from mvretrieval.weighting.adapter import Adapter

PoolingChoice = Literal["mean", "max"]
# Styles in which a photo or a drawing may be compared with renders; depth and normal maps look like nothing else.
IMAGE_STYLES: tuple[Style, ...] = ("texture", "clay")
_COMMON_NAMES = (
    "airplane apple bag basket bed bench bicycle bird boat book bottle bowl box bridge building bus cabinet camera candle "
    "car cat chair clock computer cow cup desk dog door drum fish flower fork frog gun guitar hammer hat helicopter horse "
    "house human jar key knife lamp laptop microphone monitor motorcycle mug pencil phone piano plant pot rabbit rifle robot "
    "rocket screw ship shoe shovel skull snake sofa spider spoon statue stool sword table tank television tool train tree "
    "truck umbrella vase wheel window"
).split()


@dataclass(frozen=True)
class DescriberConfig:
    """What decides how objects are described. A collection remembers it.

    Attributes:
        encoder: id of the view encoder (see `encoders.registry`).
        rig: where the cameras stand (see `mvrender.cameras`).
        styles: what the views look like; each style is pooled by itself.
        size: pixels of a view.
        pooling: how views become one vector, without an adapter.
        center: take away the mean view vector of each style.
        whiten: dimensions left by PCA whitening of each style (includes centring); 0 for none.
        adapter: fingerprint of the adapter that does all of the last three instead; none if empty.
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
        # A collection must find its checkpoint from any folder.
        object.__setattr__(self, "encoder", absolute_encoder(self.encoder))
        parse_rig(self.rig)
        check_size(self.size)
        if not self.styles:
            raise DescriberError("a describer needs at least one style")
        for style in self.styles:
            check_style(style)
        if len(set(self.styles)) < len(self.styles):
            raise DescriberError(f"a style is named twice: {', '.join(self.styles)}")
        if self.pooling not in ("mean", "max"):
            raise DescriberError(
                f"unknown pooling '{self.pooling}': {did_you_mean(self.pooling, ('mean', 'max'))}known are mean and max; "
                "learnt weights come with an adapter"
            )
        if self.whiten < 0:
            raise DescriberError(f"whiten takes a number of dimensions, not {self.whiten}")
        if self.adapter and (self.center or self.whiten or self.pooling != "mean"):
            raise DescriberError("an adapter brings its own whitening and pooling: name one or the other")

    @property
    def wants_whitening(self) -> bool:
        """Whether view vectors are centred or whitened before pooling."""
        return self.center or self.whiten > 0

    def to_json(self) -> str:
        """As JSON text."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> DescriberConfig:
        """Back from `to_json`."""
        values: dict[str, Any] = json.loads(text)
        return cls(**values | {"styles": tuple(values["styles"])})


@dataclass(frozen=True)
class Describer:
    """Turns views into object vectors.

    Attributes:
        config: rig, styles, view size, encoder and pooling.
        encoder_handle: opens the encoder on first use.
        whitening: centres or whitens view vectors before pooling; the adapter's own where there is one. Without it raw view vectors
            are pooled, whatever `config` names.
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
    ) -> Describer:
        """A describer whose encoder is opened on first use.

        Args:
            config: see there.
            whitening: fitted on view vectors of `config`.
            device: where networks run.
            precision: of the encoder.
            backend: name of the render backend.
            concurrent: several threads will encode at the same time.
        """
        return cls(config, EncoderHandle(config.encoder, device, precision, concurrent), whitening, None, backend)

    @property
    def encoder(self) -> ViewEncoder:
        """The view encoder, opened.

        Raises:
            EncoderError: it is unknown, or its weights cannot be loaded.
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
        """Everything that changes the meaning of a raw view vector, as text."""
        config = self.config
        return (
            f"views={VIEWS_VERSION} rig={self.rig.fingerprint} styles={','.join(config.styles)} size={config.size} "
            f"encoder=[{self.encoder.fingerprint}]"
        )

    @property
    def fingerprint(self) -> str:
        """16 hex digits that change with the meaning of an object vector."""
        if self.adapter is not None:
            text = f"{self.view_fingerprint} adapter={self.adapter.fingerprint}"
        else:
            whitening = hashlib.sha256(self.whitening.to_bytes()).hexdigest() if self.whitening else "none"
            text = f"{self.view_fingerprint} statistics={whitening} pooling={self.config.pooling}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def with_whitening(self, whitening: Whitening | None) -> Describer:
        """The same with another whitening and without an adapter; shares the encoder."""
        return replace(self, whitening=whitening, adapter=None)

    def with_adapter(self, adapter: Adapter) -> Describer:
        """The same with an adapter instead of whitening and pooling; shares the encoder.

        Raises:
            AdapterError: the adapter was trained on other views.
        """
        adapter.config.check_fits(self.view_fingerprint)
        config = replace(self.config, adapter=adapter.fingerprint, pooling="mean", center=False, whiten=0)
        return replace(self, config=config, whitening=adapter.whitening, adapter=adapter)

    def with_config(self, **changes: Any) -> Describer:
        """The same with changes to the configuration that leave raw view vectors as they are; shares the encoder."""
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
        return self._encode_together(flat, images.shape[1]).reshape(*images.shape[:2], -1)

    def _encode_together(self, images: NDArray[np.uint8], n_views: int) -> NDArray[np.float32]:
        """Vectors of pictures (N, H, W, 3), of which `n_views` in a row show one object in one style.

        Most encoders see each picture by itself; some let the views of an object attend to one another.
        """
        if not self.encoder.cross_view:
            return self.encoder.encode_views(images)
        return self.encoder.encode_views(images, np.arange(len(images)) // n_views)

    def pool(
        self, view_vectors: NDArray[np.float32], view_mask: NDArray[np.bool_], known_directions: bool = True
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Object vectors of view vectors.

        Args:
            view_vectors: (B, S, V, D) raw.
            view_mask: (B, V).
            known_directions: whether the views are the rig's; False for photos.

        Returns:
            (B, S * K) unit norm, the styles' vectors behind one another, and weights (B, S, V).
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
        """Weights (B, S, V) that `pool` gives the rig's views (B, S, V, D), masked ones (B, V) left out."""
        if self.adapter is None and self.config.pooling == "mean":  # said without pooling anything, and without torch
            shares = (view_mask / view_mask.sum(axis=1, keepdims=True)).astype(np.float32)
            return np.repeat(shares[:, None], self.n_styles, axis=1)
        return self.pool(view_vectors, view_mask)[1]

    def adapted_views(self, views: NDArray[np.float32]) -> NDArray[np.float32]:
        """(B, S, V, D) raw view vectors as views are compared one by one: centred, whitened, adapted; (B, S, V, K) unit norm."""
        return whiten_and_normalize(views, self.whitening) if self.adapter is None else self.adapter.adapt_views(views)

    def embed_images(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Object vector (S * K,) of pictures (N, H, W, 3) that show one object from unknown directions.

        Pictures are compared with the styles that look like pictures (texture, clay), if the describer has any.
        """
        raw = self._encode_together(images, len(images))
        vector: NDArray[np.float32] = self.pool_images(raw[None], np.ones((1, len(raw)), bool))[0]
        return vector

    def pool_images(self, raw: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Object vectors (B, S * K) of raw view vectors (B, n, D) of pictures, those in the mask (B, n)."""
        views = np.repeat(raw[:, None], self.n_styles, axis=1)
        vectors, _ = self.pool(views, mask, known_directions=False)
        return np.stack([self._in_picture_styles(vector) for vector in vectors])

    @property
    def has_text(self) -> bool:
        """Whether `embed_text` works."""
        return self.encoder.has_text or (self.adapter is not None and self.adapter.text_embeddings is not None)

    def embed_text(self, text: str) -> NDArray[np.float32]:
        """Object vector (S * K,) of words.

        Where views are centred, words are centred by the mean of common names: text and pictures lie apart in CLIP's
        space, and each has its own middle. An adapter may bring words to an encoder that reads none.

        Raises:
            NoTextError: the encoder reads no words, or the adapter knows others.
        """
        if self.adapter is not None and self.adapter.text_embeddings is not None:
            return self.adapter.text_embeddings.object_vector(text)
        return self._in_picture_styles(self.text_vectors(self.encoder.encode_text([text]))[0])

    def text_vectors(self, raw: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, D) vectors of the text encoder as (N, S * K) unit vectors in the space of object vectors."""
        if self.whitening is None:
            parts = [raw] * self.n_styles
        else:
            parts = [self.whitening.apply(raw, s, mean=self._text_mean) for s in range(self.n_styles)]
        units = [l2_normalize(part) for part in parts]
        if self.adapter is not None and self.adapter.config.text == "adapted":
            # A text is a view of unknown direction.
            one = np.stack(units, axis=1)[:, :, None].astype(np.float32)
            return self.adapter.pool_whitened(one, np.ones((len(one), 1), bool), None)[0]
        return np.asarray(np.concatenate(units, axis=1) / np.sqrt(self.n_styles), np.float32)

    @cached_property
    def _text_mean(self) -> NDArray[np.float32]:
        return np.asarray(self.encoder.encode_text([f"a {name}" for name in _COMMON_NAMES]).mean(axis=0), np.float32)

    def _in_picture_styles(self, vector: NDArray[np.float32]) -> NDArray[np.float32]:
        kept = [style in IMAGE_STYLES for style in self.config.styles]
        if not any(kept):
            return vector
        parts = vector.reshape(self.n_styles, -1) * np.array(kept, np.float32)[:, None]
        return np.asarray(parts.ravel() / max(float(np.linalg.norm(parts)), 1e-12), np.float32)


def check_same(stored: str, asked: str, name: str, how_to_mend: str) -> None:
    """Refuse to compare vectors of different meaning.

    Raises:
        DescriberError: with both, and the command that mends it.
    """
    if stored != asked:
        raise DescriberError(f"{name} was described with\n  {stored}\nand this asks with\n  {asked}\n{how_to_mend}")
