import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from rsdtr.cost import conv_macs, pipeline_macs, pipeline_macs_per_pixel
from rsdtr.layers import TRConv2d
from rsdtr.ring import TensorRing


def counted_macs(module, x):
    with FlopCounterMode(display=False) as counter:
        module(x)
    return counter.get_total_flops() // 2


def test_by_hand():
    assert conv_macs((8, 4, 3, 3), (5, 5)) == 8 * 4 * 9 * 25
    # I·R1·R2 + R1·R2·KH·R3 + R1·R3·KW·R0 + R1·R0·O
    assert pipeline_macs_per_pixel((8, 4, 3, 3), (1, 2, 3, 5)) == 24 + 90 + 30 + 16


@pytest.mark.parametrize("stride", [(1, 1), (2, 1), (2, 2)])
@pytest.mark.parametrize("kernel_size", [(3, 3), (1, 1), (5, 2)])
def test_equal_to_the_flop_counter(kernel_size, stride):
    conv = nn.Conv2d(6, 10, kernel_size, stride=stride, padding=1)
    ring = TensorRing.random(conv.weight.shape, (2, 3, 4, 5))
    layer = TRConv2d.from_conv(conv, ring)
    x = torch.randn(1, 6, 12, 9)
    output = conv(x)
    sizes = (12, 9), (output.shape[2], output.shape[3])
    assert conv_macs(conv.weight.shape, sizes[1]) == counted_macs(conv, x)
    # With zero padding along one axis at a time, each sublayer sees its own axis's output.
    assert pipeline_macs(ring.shape, ring.ranks, *sizes) == counted_macs(layer, x)
