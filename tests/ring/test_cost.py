import pytest
import torch
from torch import nn

from rsdtr.compressed.tr_conv2d import TRConv2d
from rsdtr.ring.cost import (
    conv_macs,
    form_activations,
    form_macs,
    pipeline_macs,
    pipeline_macs_per_pixel,
)
from rsdtr.ring.forms import FORMS
from rsdtr.ring.tensor_ring import TensorRing
from tests.support.oracles import counted_macs


def test_by_hand():
    assert conv_macs((8, 4, 3, 3), (5, 5)) == 8 * 4 * 9 * 25
    # I·R1·R2 + R1·R2·KH·R3 + R1·R3·KW·R0 + R1·R0·O
    assert pipeline_macs_per_pixel((8, 4, 3, 3), (1, 2, 3, 5)) == 24 + 90 + 30 + 16


def test_forms_by_hand():
    # (8, 4, 3, 3) of ranks (1, 2, 3, 5), from 6×6 to 3×3 pixels at stride 2.
    def costs(form):
        case = (form, (8, 4, 3, 3), (1, 2, 3, 5), (6, 6), (3, 3))
        return form_macs(*case), form_activations(*case)

    assert costs("dense") == (8 * 4 * 9 * 9, 0)
    assert costs("O|IHW") == (2 * 4 * 9 * 9 + 8 * 2 * 9, 2 * 9)
    assert costs("I|HWO") == (6 * 4 * 36 + 8 * 6 * 9 * 9, 6 * 36)
    assert costs("IH|WO") == (10 * 4 * 3 * 18 + 8 * 10 * 3 * 9, 10 * 18)
    # 1×1 to 6 channels, two copies of 3 → 5 → 1 channels, 1×1 from 2 channels
    assert costs("pipeline") == (
        6 * 4 * 36 + 2 * 5 * 3 * 3 * 18 + 2 * 1 * 5 * 3 * 9 + 8 * 2 * 9,
        6 * 36 + 10 * 18 + 2 * 9,
    )


def produced_elements(module, x):
    """Elements of the outputs of all convolutions that the module runs."""
    nodes = torch.export.export(module, (x,)).graph.nodes
    return sum(node.meta["val"].numel() for node in nodes if "conv2d" in str(node.target))


@pytest.mark.parametrize("stride", [(1, 1), (2, 1), (1, 3), (2, 2)])
@pytest.mark.parametrize("kernel_size", [(3, 3), (1, 1), (5, 2)])
@pytest.mark.parametrize("form", FORMS)
def test_equal_to_the_flop_counter(form, kernel_size, stride):
    conv = nn.Conv2d(6, 10, kernel_size, stride=stride, padding=1)
    ring = TensorRing.random(conv.weight.shape, (2, 3, 4, 5))
    layer = TRConv2d.from_conv(conv, ring, form=form).eval().requires_grad_(False)
    x = torch.randn(1, 6, 12, 9)
    output = layer(x)  # merges the kernels, once
    sizes = (12, 9), (output.shape[2], output.shape[3])
    assert conv_macs(conv.weight.shape, sizes[1]) == counted_macs(conv, x)
    # With zero padding along one axis at a time, each sublayer sees its own axis's output.
    assert form_macs(form, ring.shape, ring.ranks, *sizes) == counted_macs(layer, x)
    between = form_activations(form, ring.shape, ring.ranks, *sizes)
    assert between + output.numel() == produced_elements(layer, x)
    if form == "pipeline":
        assert pipeline_macs(ring.shape, ring.ranks, *sizes) == counted_macs(layer, x)
    if form == "dense":
        assert form_macs(form, ring.shape, ring.ranks, *sizes) == counted_macs(conv, x)
