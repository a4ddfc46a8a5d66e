"""Sixty random convolutions; `make soak` runs 1,000."""

import random

import pytest
import torch
from convolutions import outcome
from networks import varied, varied_spec

from rsdtr.errors import RingError
from rsdtr.profile import profile
from rsdtr.search import KernelSpectra


@pytest.mark.parametrize("seed", range(6))
def test_random_convolutions_are_right_or_refused(seed):
    generator = random.Random(seed)
    found = {outcome(generator) for _ in range(10)}
    assert "right" in found
    assert len(found) > 1  # some are refused, each with its reason


@pytest.mark.parametrize("scale", [1e-25, 1e20])
def test_kernels_beyond_single_precision_are_refused_and_stay_dense(scale):
    """They were a division by zero; found by random convolutions."""
    with pytest.raises(RingError, match=r"largest entry is .*, expected 1e-18 to 1e\+16: scale it"):
        KernelSpectra(scale * torch.ones(4, 3, 3, 3, dtype=torch.float64))
    model = varied()
    with torch.no_grad():
        model.body.weight.mul_(scale)
    layer = profile(model, varied_spec()).layer("body")
    assert layer.obstacle.startswith("the kernel's largest entry is")
