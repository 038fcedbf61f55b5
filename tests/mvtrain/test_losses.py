"""Losses against their formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from mvtrain.config import LossName, TrainConfig
from mvtrain.losses import make_loss


def _batch(classes: int = 5, per_class: int = 3, dim: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    vectors = nn.functional.normalize(torch.randn(classes * per_class, dim), dim=1)
    return vectors, torch.arange(classes).repeat_interleave(per_class)


def test_text_loss_is_cross_entropy_over_cosines_to_class_names() -> None:
    vectors, classes = _batch()
    texts = 3 * torch.randn(5, 8)
    loss = make_loss(TrainConfig(loss="text", temperature=0.2), 5, 8, texts)
    expected = []
    for vector, own in zip(vectors.numpy(), classes.tolist(), strict=True):
        cosines = np.array([vector @ text / np.linalg.norm(text) for text in texts.numpy()])
        probabilities = np.exp(cosines / 0.2) / np.exp(cosines / 0.2).sum()
        expected.append(-math.log(probabilities[own]))
    assert float(loss(vectors, classes)) == pytest.approx(np.mean(expected), rel=1e-5)
    assert not list(loss.parameters()), "the text encoder stays frozen"


def test_supervised_contrastive_loss_follows_the_paper() -> None:
    vectors, classes = _batch()
    loss = make_loss(TrainConfig(loss="supcon", temperature=0.1), 5, 8, None)
    expected = []
    for i in range(len(vectors)):
        others = [j for j in range(len(vectors)) if j != i]
        total = sum(math.exp(float(vectors[i] @ vectors[j]) / 0.1) for j in others)
        own = [j for j in others if classes[j] == classes[i]]
        expected.append(-np.mean([math.log(math.exp(float(vectors[i] @ vectors[j]) / 0.1) / total) for j in own]))
    assert float(loss(vectors, classes)) == pytest.approx(np.mean(expected), rel=1e-4)


@pytest.mark.parametrize("name", ["supcon", "multi-similarity", "prototypes", "text"])
def test_separated_classes_have_a_lower_loss_than_mixed_classes(name: LossName) -> None:
    config = TrainConfig(loss=name)
    prototypes = torch.eye(8)[:5]
    torch.manual_seed(0)
    loss = make_loss(config, 5, 8, prototypes)
    for parameter in loss.parameters():
        with torch.no_grad():
            parameter.copy_(prototypes.reshape(parameter.shape) if parameter.shape[0] == 5 else prototypes.T)
    classes = torch.arange(5).repeat_interleave(3)
    separated, mixed = prototypes[classes], prototypes[torch.arange(5).repeat(3)]
    with torch.no_grad():
        assert float(loss(separated, classes)) < float(loss(mixed, classes)) - 0.1
