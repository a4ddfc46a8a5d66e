import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from rsdtr.compressed import TRLinear, fuse
from rsdtr.errors import RingError
from rsdtr.models.surgery import replaced
from rsdtr.ring.forms import FORMS
from rsdtr.ring.tensor_ring import TensorRing
from tests.support.oracles import ring_by_einsum

FLAT = (7, 5, 3, 4), (2, 3, 4, 2)  # O, C, H, W of a flattened map, and ranks
PLAIN = (7, 10, 1, 1), (3, 2, 2, 1)


def made(shape, ranks, form="pipeline", bias=True):
    torch.manual_seed(5)
    o, c, h, w = shape
    linear = nn.Linear(c * h * w, o, bias=bias, dtype=torch.float64)
    ring = TensorRing.random(shape, ranks, seed=2, shift=1)
    return linear, ring, TRLinear.from_linear(linear, ring, form=form).eval()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("shape", "ranks"), [FLAT, PLAIN, ((6, 4, 1, 3), (2, 2, 3, 2))])
@pytest.mark.parametrize("leading", [(), (4,), (2, 3), (2, 1, 3)])
def test_it_computes_the_trace_of_its_cores(form, bias, shape, ranks, leading):
    linear, ring, layer = made(shape, ranks, form, bias)
    x = torch.randn(*leading, linear.in_features, dtype=torch.float64)
    weight = ring_by_einsum(ring.cores).flatten(1)  # (O, C·H·W), the order of torch.flatten
    expected = F.linear(x, weight, linear.bias)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), expected)
        torch.testing.assert_close(layer.to_dense()(x), expected)
        torch.testing.assert_close(layer.weight, weight)
        plain = fuse(nn.Sequential(layer))
        torch.testing.assert_close(plain(x), expected)
    assert not any(isinstance(module, TRLinear) for module in plain.modules())


def test_a_convolution_over_the_whole_map_is_the_same():
    linear, ring, layer = made(*FLAT)
    x = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    conv = F.conv2d(x, ring_by_einsum(ring.cores), linear.bias)  # (2, 7, 1, 1)
    torch.testing.assert_close(layer(x.flatten(1)), conv.flatten(1))


@pytest.mark.parametrize("form", FORMS)
def test_gradients_reach_every_core_and_the_input(form):
    _, ring, layer = made(*FLAT, form)
    cores = [core.clone().requires_grad_() for core in ring.cores]
    x = torch.randn(3, 60, dtype=torch.float64, requires_grad=True)
    layer.train()(x).square().sum().backward()
    other = x.detach().clone().requires_grad_()
    F.linear(other, ring_by_einsum(cores).flatten(1), layer.bias).square().sum().backward()
    torch.testing.assert_close(x.grad, other.grad)
    for core, expected in zip(layer.cores, cores, strict=True):
        torch.testing.assert_close(core.grad, expected.grad)


def test_it_stands_where_a_linear_layer_stood():
    linear, ring, _ = made(*FLAT)
    linear.weight.requires_grad_(False)
    linear.note = "mine"
    seen = []
    linear.register_forward_hook(lambda module, inputs, output: seen.append(type(module)))
    before = copy.deepcopy(linear.state_dict())
    net = nn.Sequential(linear)
    new = replaced(net, {linear: TRLinear.from_linear(linear, ring)})
    new(torch.randn(1, 60, dtype=torch.float64))
    (layer,) = new
    assert seen == [TRLinear]
    assert (layer.in_features, layer.out_features, layer.note) == (60, 7, "mine")
    assert not any(core.requires_grad for core in layer.cores)
    assert layer.bias.requires_grad
    assert layer.weight.dtype == torch.float64
    assert list(layer.state_dict()) == ["bias", *(f"cores.{k}" for k in range(4))]
    assert all(torch.equal(value, before[name]) for name, value in linear.state_dict().items())
    assert "in_features=60, out_features=7, map_size=(3, 4)" in repr(layer)


def test_its_weight_cannot_be_set():
    _, _, layer = made(*PLAIN)
    with pytest.raises(RingError, match="the kernel of a TRLinear is merged from its cores"):
        layer.weight = torch.zeros(7, 10)


def test_what_makes_no_layer():
    with pytest.raises(RingError, match=r"in_features is 10, expected a multiple of the map's 3·2"):
        TRLinear(10, 4, (1, 1, 1, 1), map_size=(3, 2))
    with pytest.raises(RingError, match=r"ranks are \(1, 0, 1, 1\)"):
        TRLinear(10, 4, (1, 0, 1, 1))
    ring = TensorRing.random((7, 10, 1, 1), (1, 1, 1, 1))
    with pytest.raises(RingError, match=r"the linear layer's is \(8, 10, 1, 1\)"):
        TRLinear.from_linear(nn.Linear(10, 8), ring)
    with pytest.raises(RingError, match="bfloat16 is too coarse"):
        TRLinear.from_linear(nn.Linear(10, 7).bfloat16(), ring)
