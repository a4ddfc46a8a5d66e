"""Sixty random convolutions; `make soak` runs 1,000."""

import random

import pytest
import torch

from rsdtr.compressed.compress import compress
from rsdtr.compressed.tr_conv2d import TRConv2d
from rsdtr.errors import RingError
from rsdtr.planning.model_profile import profile
from rsdtr.planning.plan import plan
from rsdtr.ring.tensor_ring import TensorRing
from rsdtr.search.paper_rule import KernelSpectra
from tests.soak.convolutions import outcome
from tests.support.networks import varied, varied_spec


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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_kernels_in_half_precision_are_refused_and_stay_dense(dtype):
    """A ring of bfloat16 said that it had no error, and had one of 0.3 %."""
    refused = "is too coarse for a ring: compress model.float\\(\\) instead"
    conv = torch.nn.Conv2d(4, 4, 3).to(dtype)
    with pytest.raises(RingError, match=f"a kernel of b?float16 {refused}"):
        KernelSpectra(conv.weight)
    with pytest.raises(RingError, match=refused):
        TRConv2d.from_conv(conv, TensorRing.random((4, 4, 3, 3), (1, 2, 2, 1)))
    model = varied()
    decided = plan(profile(model, varied_spec()), 0.6, layers="all")
    with pytest.raises(RingError, match=refused):
        compress(model.to(dtype), decided)  # planned in single precision
    found = profile(model, varied_spec())
    assert "too coarse for a ring" in found.layer("body").obstacle
    kept = plan(found, 0.6, layers="all")
    assert all(layer.ranks is None for layer in kept.layers)
    same = compress(model, kept).state_dict()
    assert all(torch.equal(same[name], value) for name, value in model.state_dict().items())
