"""Spherical harmonics: orthonormal, and with the polar axis along +Y."""

from __future__ import annotations

import math

import numpy as np
import torch

from mvretrieval.weighting.spherical_harmonics import N_HARMONICS, harmonics


def test_harmonics_are_orthonormal_over_the_sphere() -> None:
    # Gauss-Legendre nodes in height and even steps in azimuth integrate degree 6 exactly.
    nodes, weights = (torch.tensor(part) for part in np.polynomial.legendre.leggauss(8))
    azimuth = torch.arange(16, dtype=torch.float64) * (2 * math.pi / 16)
    flat = (1 - nodes**2).sqrt()
    points = torch.stack(
        [flat[:, None] * azimuth.sin(), nodes[:, None].expand(-1, 16), flat[:, None] * azimuth.cos()], dim=-1
    ).reshape(-1, 3)
    area = (weights[:, None] * (2 * math.pi / 16)).expand(-1, 16).reshape(-1, 1)
    values = harmonics(points)
    assert values.shape == (128, N_HARMONICS)
    torch.testing.assert_close(
        values.T @ (area * values), torch.eye(N_HARMONICS, dtype=torch.float64), atol=1e-7, rtol=0
    )
    torch.testing.assert_close(
        (area * values).sum(dim=0), torch.zeros(N_HARMONICS, dtype=torch.float64), atol=1e-9, rtol=0
    )


def test_order_zero_is_constant_around_the_up_axis() -> None:
    azimuth = torch.linspace(0, 6, 7)
    ring = torch.stack([0.8 * azimuth.sin(), torch.full_like(azimuth, 0.6), 0.8 * azimuth.cos()], dim=1)
    values = harmonics(ring)
    zonal = [1, 5, 11]
    assert values[:, zonal].std(dim=0).max() < 1e-6
    assert values[:, [i for i in range(N_HARMONICS) if i not in zonal]].std(dim=0).min() > 0.05
