"""The builtin encoder, which has no weights."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from error_codes import raises_code
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from mvretrieval.encoders.builtin import BuiltinEncoder
from mvretrieval.errors import EncoderError

SHAPES: dict[str, Callable[[Any, Any], object]] = {
    "disc": lambda draw, box: draw.ellipse(box(-1, -1, 1, 1), fill=box.colour),
    "bar": lambda draw, box: draw.rectangle(box(-1, -0.25, 1, 0.25), fill=box.colour),
    "table": lambda draw, box: [
        draw.rectangle(box(*part), fill=box.colour)
        for part in ((-1, -0.6, 1, -0.4), (-0.9, -0.4, -0.75, 0.7), (0.75, -0.4, 0.9, 0.7))
    ],
    "cross": lambda draw, box: [
        draw.rectangle(box(*part), fill=box.colour) for part in ((-1, -0.15, 1, 0.15), (-0.15, -1, 0.15, 1))
    ],
    "ring": lambda draw, box: [
        draw.ellipse(box(-1, -1, 1, 1), fill=box.colour),
        draw.ellipse(box(-0.6, -0.6, 0.6, 0.6), fill="white"),
    ],
}


class Box:
    """Shape coordinates in -1..1 to pixels."""

    def __init__(self, centre: tuple[float, float], radius: float, colour: tuple[int, int, int]) -> None:
        self.centre, self.radius = centre, radius
        self.colour: tuple[int, int, int] = colour

    def __call__(self, *corners: float) -> list[float]:
        return [self.centre[i % 2] + self.radius * corner for i, corner in enumerate(corners)]


def drawn(
    shape: str,
    centre: tuple[float, float] = (112, 112),
    radius: float = 70,
    colour: tuple[int, int, int] = (130, 130, 130),
    size: int = 224,
) -> NDArray[np.uint8]:
    # Drawn at four times the size, for edges as smooth as those of renders.
    image = Image.new("RGB", (896, 896), "white")
    SHAPES[shape](ImageDraw.Draw(image), Box((4 * centre[0], 4 * centre[1]), 4 * radius, colour))
    return np.asarray(image.resize((size, size), Image.Resampling.BOX))


@pytest.fixture(scope="module")
def encoder() -> BuiltinEncoder:
    return BuiltinEncoder()


@pytest.fixture(scope="module")
def originals(encoder: BuiltinEncoder) -> NDArray[np.float32]:
    return encoder.encode_views(np.stack([drawn(shape) for shape in SHAPES]))


def test_vectors_have_unit_norm_even_for_blank_and_noise_images(encoder: BuiltinEncoder) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    vectors = encoder.encode_views(np.stack([np.full_like(noise, 255), np.zeros_like(noise), noise, drawn("disc")]))
    assert vectors.shape == (4, encoder.dim)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert encoder.encode_views(np.empty((0, 224, 224, 3), np.uint8)).shape == (0, encoder.dim)


def test_vectors_do_not_depend_on_the_instance_or_the_batch(encoder: BuiltinEncoder) -> None:
    images = np.stack([drawn(shape, radius=radius) for shape in SHAPES for radius in (40, 55, 70, 85)])
    batched = encoder.encode_views(images)
    single = np.concatenate([BuiltinEncoder().encode_views(image[None]) for image in images])
    np.testing.assert_allclose(batched, single, atol=1e-4)
    np.testing.assert_array_equal(batched, BuiltinEncoder().encode_views(images))


@pytest.mark.parametrize("size", [64, 200, 448, 1024])
def test_vectors_hardly_depend_on_the_resolution(
    encoder: BuiltinEncoder, originals: NDArray[np.float32], size: int
) -> None:
    resized = encoder.encode_views(np.stack([drawn(shape, size=size) for shape in SHAPES]))
    assert (resized * originals).sum(1).min() > (0.8 if size == 64 else 0.95)


@pytest.mark.parametrize(
    "change",
    [
        {"centre": (95, 125)},
        {"radius": 45},
        {"colour": (90, 90, 90)},
        {"colour": (180, 60, 40)},
        {"centre": (130, 100), "radius": 85, "colour": (40, 90, 160)},
    ],
    ids=str,
)
def test_a_moved_scaled_or_recoloured_shape_is_nearest_to_itself(
    encoder: BuiltinEncoder, originals: NDArray[np.float32], change: dict[str, object]
) -> None:
    changed = encoder.encode_views(np.stack([drawn(shape, **change) for shape in SHAPES]))  # type: ignore[arg-type]
    similarity = changed @ originals.T
    np.fill_diagonal(others := similarity.copy(), -1)
    assert (similarity.diagonal() > others.max(1) + 0.2).all(), similarity.round(2)


def test_colour_separates_equal_shapes_but_less_than_shape_does(encoder: BuiltinEncoder) -> None:
    red, blue, red_disc = encoder.encode_views(
        np.stack(
            [
                drawn("table", colour=(200, 40, 40)),
                drawn("table", colour=(40, 40, 200)),
                drawn("disc", colour=(200, 40, 40)),
            ]
        )
    )
    assert red_disc @ red < red @ blue < 0.99


def test_there_is_no_text_tower(encoder: BuiltinEncoder) -> None:
    assert not encoder.has_text and encoder.temperature is None
    with raises_code(EncoderError, "no_text_tower", "builtin:"):
        encoder.encode_text(["a chair"])
