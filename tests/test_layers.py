import copy
import io

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rsdtr.errors import RingError
from rsdtr.layers import FORMS, PADDING_MODES, TRConv2d
from rsdtr.ring import TensorRing


def layer_and_dense(conv, ranks=(2, 3, 4, 2), form="pipeline"):
    """A ring layer with random cores, and the convolution with the kernel they stand for."""
    ring = TensorRing.random(conv.weight.shape, ranks, seed=1)
    layer = TRConv2d.from_conv(conv, ring, form=form)
    dense = copy.deepcopy(conv)
    with torch.no_grad():
        dense.weight.copy_(ring.to_tensor())
    return layer, dense


def relative_difference(one, other):
    return float(((one - other).abs().max() / other.abs().max()).detach())


@settings(max_examples=150)
@given(
    data=st.data(),
    kernel_size=st.tuples(st.integers(1, 5), st.integers(1, 4)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 3)),
    mode=st.sampled_from(PADDING_MODES),
    form=st.sampled_from(FORMS),
    bias=st.booleans(),
    double=st.booleans(),
)
def test_equal_to_the_convolution_with_the_rebuilt_kernel(
    data, kernel_size, dilation, mode, form, bias, double
):
    padding = data.draw(
        st.one_of(
            st.integers(0, 3),
            st.tuples(st.integers(0, 3), st.integers(0, 3)),
            st.sampled_from(["same", "valid"]),
        )
    )
    same = padding == "same"
    stride = (1, 1) if same else data.draw(st.tuples(st.integers(1, 3), st.integers(1, 2)))
    conv = nn.Conv2d(
        5, 7, kernel_size, stride, padding, dilation, bias=bias, padding_mode=mode,
        dtype=torch.float64 if double else torch.float32,
    )  # fmt: skip
    layer, dense = layer_and_dense(conv, form=form)
    x = torch.randn(3, 5, 15, 14, dtype=conv.weight.dtype)
    tolerance = 1e-12 if double else 1e-5
    assert relative_difference(layer(x), dense(x)) <= tolerance
    assert relative_difference(layer(x[0]), dense(x[0])) <= tolerance
    assert relative_difference(layer.to_dense()(x), dense(x)) <= tolerance


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("mode", PADDING_MODES)
def test_gradients_of_cores_bias_and_input(form, mode):
    conv = nn.Conv2d(2, 3, (3, 2), (2, 1), (1, 1), padding_mode=mode, dtype=torch.float64)
    layer, _ = layer_and_dense(conv, (2, 1, 2, 2), form)
    x = torch.randn(2, 2, 5, 4, dtype=torch.float64, requires_grad=True)
    names = [name for name, _ in layer.named_parameters()]
    assert names == ["bias", "cores.0", "cores.1", "cores.2", "cores.3"]

    def run(x, *parameters):
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (x, *layer.parameters()))


def test_a_step_of_training_changes_every_core_and_survives_saving():
    conv = nn.Conv2d(4, 6, 3, padding=1)
    layer, _ = layer_and_dense(conv)
    before = copy.deepcopy(layer.state_dict())
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.1)
    layer(torch.randn(2, 4, 6, 6)).pow(2).mean().backward()
    optimiser.step()
    assert all(not torch.equal(value, before[name]) for name, value in layer.state_dict().items())
    stored = io.BytesIO()
    torch.save(layer.state_dict(), stored)
    stored.seek(0)
    other, _ = layer_and_dense(conv)
    other.load_state_dict(torch.load(stored, weights_only=True))
    x = torch.randn(1, 4, 6, 6)
    assert torch.equal(other(x), layer(x))
    assert torch.equal(copy.deepcopy(layer)(x), layer(x))


@pytest.mark.parametrize("form", FORMS)
def test_under_autocast_compile_and_export(form):
    layer, dense = layer_and_dense(nn.Conv2d(8, 8, 3, padding=1), form=form)
    layer.eval()
    x = torch.randn(2, 8, 10, 10)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = layer(x)
    assert half.dtype is torch.bfloat16
    assert relative_difference(half.float(), dense(x)) < 0.05
    batch = torch.export.Dim("batch", min=1, max=64)
    exported = torch.export.export(layer, (x.clone(),), dynamic_shapes=({0: batch},)).module()
    for size in (1, 5):
        y = torch.randn(size, 8, 10, 10)
        assert relative_difference(exported(y), dense(y)) <= 1e-5
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    assert relative_difference(compiled(x), dense(x)) <= 1e-5


def test_no_three_dimensional_convolution_is_run():
    layer, _ = layer_and_dense(nn.Conv2d(4, 6, 3))
    graph = torch.export.export(layer, (torch.randn(2, 4, 6, 6),)).graph
    calls = [str(node.target) for node in graph.nodes if node.op == "call_function"]
    assert sum("conv2d" in call for call in calls) == 4
    assert not any("conv3d" in call or "tensordot" in call for call in calls)


def test_the_given_convolution_stays_as_it_was():
    conv = nn.Conv2d(4, 6, 3).eval()
    before = copy.deepcopy(conv.state_dict())
    layer, _ = layer_and_dense(conv)
    assert not layer.training
    with torch.no_grad():
        layer.bias.add_(1)
    assert all(torch.equal(value, before[name]) for name, value in conv.state_dict().items())


def test_random_cores_give_a_kernel_as_wide_as_a_new_convolution_s():
    layer = TRConv2d(64, 64, 3, (4, 8, 6, 3))
    expected = 1 / (3 * 64 * 9)
    assert float(layer.kernel().detach().var()) == pytest.approx(expected, rel=0.35)


def test_a_grouped_convolution_is_refused():
    ring = TensorRing.random((4, 2, 3, 3), (1, 1, 1, 1))
    with pytest.raises(RingError, match="groups=2: a ring mixes all channels"):
        TRConv2d.from_conv(nn.Conv2d(4, 4, 3, groups=2), ring)


def test_a_ring_of_another_shape_is_refused():
    ring = TensorRing.random((4, 2, 3, 3), (1, 1, 1, 1))
    with pytest.raises(RingError, match=r"\(4, 2, 3, 3\), the convolution's is \(4, 4, 3, 3\)"):
        TRConv2d.from_conv(nn.Conv2d(4, 4, 3), ring)


def test_arguments_that_make_no_layer():
    with pytest.raises(RingError, match="form is 'conv3d', expected one of pipeline"):
        TRConv2d(2, 2, 3, (1, 1, 1, 1), form="conv3d")
    with pytest.raises(RingError, match="expected four whole numbers"):
        TRConv2d(2, 2, 3, (1, 1, 0, 1))
    with pytest.raises(RingError, match="padding='same' needs stride 1"):
        TRConv2d(2, 2, 3, (1, 1, 1, 1), padding="same", stride=2)
    with pytest.raises(RingError, match="padding is 'full'"):
        TRConv2d(2, 2, 3, (1, 1, 1, 1), padding="full")
    with pytest.raises(RingError, match="padding_mode is 'mirror'"):
        TRConv2d(2, 2, 3, (1, 1, 1, 1), padding_mode="mirror")
