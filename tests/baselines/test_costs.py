"""ρ by hand, and against the flop counter on both layers as they run."""

import json

import opt_einsum
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from torch import Tensor, nn

from rsdtr.baselines.conv_chain import composed, stage_kernels
from rsdtr.baselines.costs import (
    CHANNELS,
    curve,
    flops_ratio,
    layer_ratios,
    rank_for,
)
from rsdtr.baselines.tensorized_ring import TensorizedRing, tensorized_macs, tensorized_storage
from rsdtr.charts.comparison import layer_ratio_figure, ratio_figure
from rsdtr.commands.cli import cli
from rsdtr.compressed.tr_conv2d import TRConv2d
from rsdtr.models.model_loading import load_model
from rsdtr.models.zoo import model_spec
from rsdtr.planning.model_profile import profile
from rsdtr.planning.plan import plan
from rsdtr.ring.cost import pipeline_macs
from rsdtr.ring.tensor_ring import TensorRing
from tests.support.oracles import counted_macs

SHAPE, RANK = (16, 8, 3, 3), 3  # O = 4·4, I = 4·2
DIGITS = "digits_resnet20"


class Contracted(nn.Module):
    """A tensorized ring layer of SHAPE that never rebuilds its kernel; stride, padding 1."""

    def __init__(self, cores: tuple[Tensor, ...], stride: int) -> None:
        super().__init__()
        self.cores, self.stride = [core.float() for core in cores], stride

    def forward(self, x: Tensor) -> Tensor:
        o1, o2, i1, i2, pixels = self.cores
        images = x.reshape(4, 2, -1)
        inside = opt_einsum.contract("abz,CaD,DbE->CEz", images, i1, i2, optimize="optimal")
        kernel = pixels.permute(2, 0, 1).reshape(RANK, RANK, 3, 3)  # (A, E, KH, KW)
        y = F.conv2d(inside.reshape(RANK, RANK, *x.shape[2:]), kernel, None, self.stride, 1)
        out = opt_einsum.contract("CAz,ApB,BqC->pqz", y.flatten(2), o1, o2, optimize="optimal")
        return out.reshape(1, 16, *y.shape[2:])


@pytest.mark.parametrize("stride", [1, 2])
def test_rho_is_the_flop_counters_on_both_layers(stride):
    torch.manual_seed(0)
    kernel = torch.randn(SHAPE, dtype=torch.float64)
    ring = TensorizedRing(kernel)
    x = torch.randn(1, 8, 10, 12)
    tensorized = Contracted(ring.cores((RANK,)), stride)
    conv = nn.Conv2d(8, 16, 3, stride=stride, padding=1, bias=False)
    stages = ring.stages((RANK,))
    conv.weight.data = composed(stages, stage_kernels(stages, ring.cores((RANK,)))).float()
    expected = conv(x)
    torch.testing.assert_close(tensorized(x), expected, rtol=1e-4, atol=1e-4)
    ours = TRConv2d.from_conv(conv, TensorRing.random(SHAPE, (2, 3, 4, 5)), form="pipeline")
    ours = ours.eval().requires_grad_(False)
    ours(x)  # merges the kernels, once
    sizes = (10, 12), (expected.shape[2], expected.shape[3])
    counted = counted_macs(tensorized, x)
    assert tensorized_macs(SHAPE, RANK, *sizes) == counted
    rho = flops_ratio(SHAPE, (2, 3, 4, 5), RANK, *sizes)
    assert rho == pytest.approx(counted / counted_macs(ours, x))


def test_rho_by_hand():
    # (4, 3, 1, 1), R = 2, one pixel. Into the ring 3·2·2, the pixel 2³, out of it 4·2·2.
    assert tensorized_macs((4, 3, 1, 1), 2, (1, 1), (1, 1)) == 12 + 8 + 16
    # Ranks (1, 2, 3, 5): 3·6 + 6·5 + 10 + 2·4.
    assert pipeline_macs((4, 3, 1, 1), (1, 2, 3, 5), (1, 1), (1, 1)) == 66
    assert flops_ratio((4, 3, 1, 1), (1, 2, 3, 5), 2, (1, 1), (1, 1)) == pytest.approx(36 / 66)
    assert tensorized_storage((4, 3, 1, 1), 2) == 4 * (4 + 3 + 1)


def test_the_rank_of_equal_storage():
    # (4, 3, 1, 1) stores 8·R².
    assert [rank_for((4, 3, 1, 1), storage) for storage in (5, 8, 71, 72)] == [1, 1, 2, 3]


def test_a_curve_ends_where_the_ring_would_be_as_large_as_the_kernel():
    # 16 channels: the ring stores R²·38, the kernel 2,304; 7² · 38 = 1,862 and 8² · 38 = 2,432.
    assert [rank for rank, _ in curve(16)] == [1, 2, 3, 4, 6]
    assert curve(16)[0][1] == flops_ratio((16, 16, 3, 3), (1,) * 4, 1, (32, 32), (32, 32))


@pytest.fixture(scope="module")
def ratios():
    spec = model_spec(DIGITS)
    costs = profile(load_model(DIGITS), spec)
    decided = plan(costs, 0.6)
    return decided, layer_ratios(decided, costs)


def test_the_rings_of_a_plan(ratios):
    decided, found = ratios
    assert [r.name for r in found] == [layer.name for layer in decided.layers if layer.ranks]
    assert [r.macs for r in found] == [x.macs.compressed for x in decided.layers if x.ranks]
    for ratio in found:
        larger = tensorized_storage(ratio.shape, ratio.rank + 1)
        assert ratio.tensorized_storage <= ratio.storage < larger or ratio.rank == 1
        assert ratio.rho == ratio.tensorized_macs / ratio.macs


def test_the_figures_as_data(ratios):
    figure = ratio_figure()
    assert [trace.name for trace in figure.data] == [f"{c} channels" for c in CHANNELS]
    assert list(zip(figure.data[0].x, figure.data[0].y, strict=True)) == list(curve(16))
    _, found = ratios
    bars = layer_ratio_figure(found, DIGITS).data[0]
    assert list(bars.x) == [ratio.name for ratio in found]
    assert list(bars.y) == [ratio.rho for ratio in found]
    assert figure.layout.shapes[0].y0 == 1


def test_on_the_command_line(ratios):
    _, found = ratios
    asked = ["ratio", DIGITS, "--eps", "0.6"]
    told = json.loads(CliRunner().invoke(cli, [*asked, "--json"]).stdout)
    assert [layer["rho"] for layer in told["layers"]] == [ratio.rho for ratio in found]
    assert told["above_1"] == sum(ratio.rho > 1 for ratio in found)
    text = CliRunner().invoke(cli, asked).stdout
    assert f"ρ is above 1 in {told['above_1']} of {len(found)} layers (ε_p 0.6)" in text
