"""The divergence between two networks' class probabilities."""

import math

import pytest
import torch
from torch import nn

from rsdtr.data.datasets import load_data
from rsdtr.measuring.fidelity import Divergence
from rsdtr.models.zoo import model_spec


class Constant(nn.Module):
    """The same logits for every picture."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.logits.expand(len(x), -1)


def test_divergence_is_that_of_the_probabilities():
    images = load_data("digits", model_spec("digits_resnet20")).train.subset(7)
    divergence = Divergence(Constant(math.log(3.0), 0.0), images, batch_size=4)
    # Probabilities 3/4, 1/4 against 1/2, 1/2: 3/4·ln(3/2) + 1/4·ln(1/2) = 0.130812 nats.
    assert divergence(Constant(5.0, 5.0)) == pytest.approx(0.130812, abs=1e-6)
    assert divergence(Constant(math.log(3.0) + 2, 2.0)) == pytest.approx(0, abs=1e-7)
    assert divergence(Constant(math.nan, 0.0)) > 1e300
