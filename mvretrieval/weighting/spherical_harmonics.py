"""Real spherical harmonics of degree 1 to 3. Degree 0 is a constant, which a softmax ignores."""

from __future__ import annotations

import torch
from torch import Tensor

N_HARMONICS = 15


def harmonics(directions: Tensor) -> Tensor:
    """Evaluate the orthonormal real spherical harmonics of degree 1 to 3.

    Args:
        directions: (..., 3) unit vectors.

    Returns:
        (..., 15), sorted by degree l, then by order -l..l; the polar axis is +Y.
    """
    # The usual formulas have Z as the polar axis; (x, y, z) -> (z, x, y) makes it Y.
    x, y, z = directions[..., 2], directions[..., 0], directions[..., 1]
    rows = [
        0.4886025119 * y,
        0.4886025119 * z,
        0.4886025119 * x,
        1.0925484306 * x * y,
        1.0925484306 * y * z,
        0.3153915653 * (3 * z * z - 1),
        1.0925484306 * x * z,
        0.5462742153 * (x * x - y * y),
        0.5900435899 * y * (3 * x * x - y * y),
        2.8906114426 * x * y * z,
        0.4570457995 * y * (5 * z * z - 1),
        0.3731763326 * z * (5 * z * z - 3),
        0.4570457995 * x * (5 * z * z - 1),
        1.4453057213 * z * (x * x - y * y),
        0.5900435899 * x * (x * x - 3 * y * y),
    ]
    return torch.stack(rows, dim=-1)
