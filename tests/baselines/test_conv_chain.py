"""A chain of convolutions equals the one convolution with the kernel that it makes up."""

from functools import cache
from math import prod

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from rsdtr.baselines.conv_chain import (
    FactoredConv2d,
    Stage,
    composed,
    stage_kernels,
    stage_macs,
)
from rsdtr.baselines.cp import CP
from rsdtr.baselines.factorizations import FACTORIZATIONS
from rsdtr.baselines.mpo import MPO
from rsdtr.baselines.tensorized_ring import TRN
from rsdtr.errors import RingError

# Ranks that fit a kernel (8, 6, kh, kw) for any kh, kw.
RANKS = {
    "channel-svd": (3,), "spatial-svd": (4,), "tucker2": (4, 4), "tt": (4, 4, 4),
    "ht": (4, 3, 1, 1, 1), "cp": (3,), "trn": (2,), "mpo": (1, 3),
}  # fmt: skip
METHODS = {method.name: method for method in (*FACTORIZATIONS, MPO, CP, TRN)}


def layer_of(name: str, conv: nn.Conv2d) -> FactoredConv2d:
    return FactoredConv2d(conv, *decomposed(name, tuple(conv.kernel_size)))


@cache
def decomposed(name: str, size: tuple[int, int]) -> tuple[tuple[Stage, ...], tuple[Tensor, ...]]:
    """Stages and cores of a seeded kernel: what an example tests is how they are placed."""
    kernel = torch.randn(8, 6, *size, generator=torch.Generator().manual_seed(0))
    prepared = METHODS[name].prepare(kernel)
    return prepared.stages(RANKS[name]), prepared.cores(RANKS[name])


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("name", RANKS)
@settings(max_examples=40)
@given(
    size=st.sampled_from([(3, 3), (3, 1), (1, 5), (2, 4), (1, 1)]),
    stride=st.sampled_from([1, 2, (2, 1)]),
    dilation=st.sampled_from([1, (1, 2)]),
    padding=st.sampled_from([0, 1, (2, 0), "same", "valid"]),
    mode=st.sampled_from(["zeros", "reflect", "replicate", "circular"]),
    bias=st.booleans(),
)
def test_it_computes_the_convolution_with_its_kernel(
    name, size, stride, dilation, padding, mode, bias
):
    if padding == "same":
        stride = 1
    torch.manual_seed(0)
    conv = nn.Conv2d(
        6, 8, size, stride, padding=padding, dilation=dilation, bias=bias, padding_mode=mode
    )
    layer = layer_of(name, conv)
    images = torch.randn(2, 6, 11, 12)
    dense = nn.Conv2d(
        6, 8, size, stride, padding=padding, dilation=dilation, bias=bias, padding_mode=mode
    )
    with torch.no_grad():
        dense.weight.copy_(layer.kernel())
        if bias:
            dense.bias.copy_(conv.bias)
        expected = dense(images)
        for ours in (layer(images), layer.plain()(images), layer.to_dense()(images)):
            torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


def test_composed_by_hand():
    # Two inputs scaled by 2 and 3, then a column of (1, 10): w[0, i] = scale·(1, 10).
    stages = (
        Stage(kernel=(2, 1, 1, 1), axes=(1,), cores=(0,), equation="a->a", groups=2),
        Stage(kernel=(1, 2, 2, 1), axes=(0,), cores=(1,), equation="oih->oih"),
    )
    cores = [torch.tensor([2.0, 3.0]), torch.tensor([[[1.0, 10.0], [1.0, 10.0]]])]
    whole = composed(stages, stage_kernels(stages, cores))
    assert whole.tolist() == [[[[2.0], [20.0]], [[3.0], [30.0]]]]


@pytest.mark.parametrize("name", [name for name in RANKS if name != "trn"])
def test_macs_are_those_of_the_real_module(name):
    conv = nn.Conv2d(6, 8, 3, (2, 1), padding=1, bias=False)
    layer = layer_of(name, conv)
    plain = layer.plain()
    with FlopCounterMode(display=False) as counter:
        plain(torch.randn(1, 6, 10, 9))
    assert stage_macs(layer.stages, (10, 9), (5, 9)) * 2 == counter.get_total_flops()


@pytest.mark.parametrize("name", RANKS)
def test_storage_is_what_the_layer_saves(name):
    conv = nn.Conv2d(6, 8, 3)
    prepared = METHODS[name].prepare(conv.weight)
    saved = sum(core.numel() for core in layer_of(name, conv).cores)
    assert saved == sum(prod(shape) for shape in prepared.shapes(RANKS[name]))


def test_gradients_reach_every_core():
    layer = layer_of("ht", nn.Conv2d(6, 8, 3))
    layer(torch.randn(1, 6, 5, 5)).sum().backward()
    assert all(core.grad is not None and bool(core.grad.any()) for core in layer.cores)


def test_what_is_no_chain_is_refused():
    conv = nn.Conv2d(6, 8, 3)
    first = Stage(kernel=(4, 6, 3, 3), axes=(0, 1), cores=(0,), equation="oihw->oihw")
    last = Stage(kernel=(8, 4, 1, 1), axes=(), cores=(1,), equation="oi->oi")
    cores = [torch.zeros(4, 6, 3, 3), torch.zeros(8, 4)]
    FactoredConv2d(conv, (first, last), cores)
    with pytest.raises(RingError, match="takes 4 channels and gets 6"):
        FactoredConv2d(conv, (last, first), cores)
    with pytest.raises(RingError, match="a convolution to 4 channels"):
        FactoredConv2d(conv, (first,), cores)
    with pytest.raises(RingError, match=r"axes \[0\]"):
        FactoredConv2d(conv, (first.model_copy(update={"axes": (0,)}), last), cores)
    with pytest.raises(RingError, match="groups=2"):
        FactoredConv2d(nn.Conv2d(6, 8, 3, groups=2), (first, last), cores)
