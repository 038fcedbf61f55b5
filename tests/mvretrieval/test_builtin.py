"""The encoder without weights."""

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from mvretrieval.encoders.builtin import BuiltinEncoder
from mvretrieval.errors import EncoderError

SHAPES = {
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
        self.centre, self.radius, self.colour = centre, radius, colour

    def __call__(self, *corners: float) -> list[float]:
        return [self.centre[i % 2] + self.radius * corner for i, corner in enumerate(corners)]


def drawn(
    shape: str,
    centre: tuple[float, float] = (112, 112),
    radius: float = 70,
    colour: tuple[int, int, int] = (130, 130, 130),
    size: int = 224,
) -> NDArray[np.uint8]:
    # Drawn four times as large, so that edges are smooth as a render's.
    picture = Image.new("RGB", (896, 896), "white")
    SHAPES[shape](ImageDraw.Draw(picture), Box((4 * centre[0], 4 * centre[1]), 4 * radius, colour))
    return np.asarray(picture.resize((size, size), Image.Resampling.BOX))


@pytest.fixture(scope="module")
def encoder() -> BuiltinEncoder:
    return BuiltinEncoder()


@pytest.fixture(scope="module")
def originals(encoder: BuiltinEncoder) -> NDArray[np.float32]:
    return encoder.encode_views(np.stack([drawn(shape) for shape in SHAPES]))


def test_vectors_are_unit_float32_even_of_nothing_and_noise(encoder: BuiltinEncoder) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    vectors = encoder.encode_views(np.stack([np.full_like(noise, 255), np.zeros_like(noise), noise, drawn("disc")]))
    assert vectors.shape == (4, encoder.dim)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert encoder.encode_views(np.empty((0, 224, 224, 3), np.uint8)).shape == (0, encoder.dim)


def test_same_vectors_from_another_instance_and_in_other_batches(encoder: BuiltinEncoder) -> None:
    pictures = np.stack([drawn(shape, radius=radius) for shape in SHAPES for radius in (40, 55, 70, 85)])
    together = encoder.encode_views(pictures)
    alone = np.concatenate([BuiltinEncoder().encode_views(picture[None]) for picture in pictures])
    np.testing.assert_allclose(together, alone, atol=1e-4)
    np.testing.assert_array_equal(together, BuiltinEncoder().encode_views(pictures))


@pytest.mark.parametrize("size", [64, 200, 448, 1024])
def test_resolution_hardly_matters(encoder: BuiltinEncoder, originals: NDArray[np.float32], size: int) -> None:
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
def test_a_moved_scaled_or_painted_shape_is_nearest_to_itself(
    encoder: BuiltinEncoder, originals: NDArray[np.float32], change: dict[str, object]
) -> None:
    changed = encoder.encode_views(np.stack([drawn(shape, **change) for shape in SHAPES]))  # type: ignore[arg-type]
    similarity = changed @ originals.T
    np.fill_diagonal(others := similarity.copy(), -1)
    assert (similarity.diagonal() > others.max(1) + 0.2).all(), similarity.round(2)


def test_colour_tells_equal_shapes_apart_but_less_than_shape_does(encoder: BuiltinEncoder) -> None:
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


def test_reads_no_words(encoder: BuiltinEncoder) -> None:
    assert not encoder.has_text
    with pytest.raises(EncoderError, match="text tower"):
        encoder.encode_text(["a chair"])
