import copy
import io

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from rsdtr.compressed.tr_conv2d import PADDING_MODES, TRConv2d
from rsdtr.errors import RingError
from rsdtr.ring.forms import FORMS
from rsdtr.ring.tensor_ring import TensorRing
from tests.support.oracles import layer_and_dense, relative_difference, ring_by_einsum


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


@pytest.mark.parametrize(
    ("form", "convolutions"),
    [("pipeline", 4), ("O|IHW", 2), ("I|HWO", 2), ("IH|WO", 2), ("dense", 1)],
)
def test_plain_convolutions_are_all_that_is_run(form, convolutions):
    layer, _ = layer_and_dense(nn.Conv2d(4, 6, 3), form=form)
    assert len(layer.sublayers) == convolutions
    graph = torch.export.export(layer, (torch.randn(2, 4, 6, 6),)).graph
    calls = [str(node.target) for node in graph.nodes if node.op == "call_function"]
    assert sum("conv2d" in call for call in calls) == convolutions
    assert not any("conv3d" in call or "tensordot" in call for call in calls)


@pytest.mark.parametrize("form", FORMS)
def test_the_sublayer_kernels_have_the_shapes_that_costs_are_counted_from(form):
    layer, _ = layer_and_dense(nn.Conv2d(5, 7, (3, 2)), (2, 3, 4, 5), form)
    assert [kernel.shape for kernel in layer.kernels()] == [s.kernel for s in layer.sublayers]


@pytest.fixture
def kept():
    """A layer in eval mode whose merged kernels are kept already, and an input."""
    layer, _ = layer_and_dense(nn.Conv2d(4, 6, 3, padding=1), form="O|IHW")
    layer.eval()
    x = torch.randn(2, 4, 6, 6)
    with torch.no_grad():
        assert layer.kernels() is layer.kernels()
    return layer, x


def follows_its_cores(layer, x):
    """Whether the layer computes what its present cores stand for."""
    with torch.no_grad():
        return relative_difference(layer(x), layer.to_dense()(x)) <= 1e-5


def test_kept_kernels_follow_an_optimiser_and_other_writes(kept):
    layer, x = kept
    before = layer.kernels()
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.1)
    layer(x).pow(2).mean().backward()  # in eval mode, as when statistics are frozen
    optimiser.step()
    with torch.no_grad():
        assert not torch.equal(layer.kernels()[0], before[0])
    assert follows_its_cores(layer, x)
    with torch.no_grad():
        layer.cores[1].mul_(2)
    assert follows_its_cores(layer, x)
    layer.cores[2] = nn.Parameter(torch.randn_like(layer.cores[2]))
    assert follows_its_cores(layer, x)
    layer.cores[3].data = torch.randn_like(layer.cores[3])
    assert follows_its_cores(layer, x)


def test_kept_kernels_follow_loading_copies_and_changes_of_type(kept):
    layer, x = kept
    other, _ = layer_and_dense(nn.Conv2d(4, 6, 3, padding=1))
    other.reset_parameters()
    layer.load_state_dict(other.state_dict())
    assert follows_its_cores(layer, x)
    layer.load_state_dict(copy.deepcopy(layer.state_dict()), assign=True)
    assert follows_its_cores(layer, x)
    twin = copy.deepcopy(layer)
    with torch.no_grad():
        twin.cores[0].add_(1)
    assert follows_its_cores(twin, x)
    assert follows_its_cores(layer, x)
    layer.to(torch.float64)
    assert follows_its_cores(layer, x.double())
    layer.half().float()
    assert follows_its_cores(layer, x)
    layer.train()
    with torch.no_grad():
        layer.cores[1].add_(1)
    assert follows_its_cores(layer.eval(), x)


def test_the_form_can_be_changed_with_kernels_kept(kept):
    layer, x = kept
    for form in FORMS:
        layer.form = form
        assert follows_its_cores(layer, x)
    with pytest.raises(RingError, match=r"form is 'HW\|OI', expected one of pipeline, O\|IHW"):
        layer.form = "HW|OI"
    assert layer.form == "dense"


def test_kept_kernels_are_no_part_of_what_is_saved_or_copied(kept):
    layer, x = kept
    fresh, _ = layer_and_dense(nn.Conv2d(4, 6, 3, padding=1), form="O|IHW")
    assert layer.state_dict().keys() == fresh.state_dict().keys()

    def stored(module):
        file = io.BytesIO()
        torch.save(module, file)
        return len(file.getvalue())

    with torch.no_grad():
        layer(x)
        assert stored(layer) == stored(fresh.eval())
        assert copy.deepcopy(layer)._kept == {}


def test_nothing_is_kept_where_it_could_be_wrong(kept):
    layer, x = kept
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        assert layer.kernels()[0].dtype is torch.bfloat16
    assert follows_its_cores(layer, x)
    assert layer.kernels()[0].requires_grad
    layer.train()
    with torch.no_grad():
        assert layer.kernels() is not layer.kernels()
    with torch.inference_mode():
        born_there, _ = layer_and_dense(nn.Conv2d(4, 6, 3, padding=1), form="O|IHW")
        assert born_there.eval().kernels() is not born_there.kernels()


def test_kernels_kept_in_inference_mode_serve_gradients_of_the_input(kept):
    layer, x = kept
    layer.requires_grad_(False)
    layer.form = "IH|WO"  # forgets what is kept
    with torch.inference_mode():
        layer(x)
    x.requires_grad_(True)
    layer(x).sum().backward()
    assert x.grad is not None


def test_a_functional_call_uses_the_cores_it_is_given(kept):
    layer, x = kept
    with torch.no_grad():
        doubled = {name: 2 * value for name, value in layer.named_parameters() if "cores" in name}
        found = torch.func.functional_call(layer, doubled | {"bias": layer.bias}, (x,))
        expected = 16 * (layer(x) - layer.bias[:, None, None]) + layer.bias[:, None, None]
        assert relative_difference(found, expected) <= 1e-5


@pytest.mark.parametrize("form", FORMS)
def test_on_the_meta_device_only_shapes_are_known(form):
    layer = TRConv2d(4, 6, 3, (1, 2, 2, 1), stride=2, form=form, device=torch.device("meta"))
    with torch.no_grad():
        assert layer.eval()(torch.empty(2, 4, 9, 9, device="meta")).shape == (2, 6, 4, 4)


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


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("groups", [2, 3])
def test_the_groups_of_a_convolution_share_a_ring(form, groups):
    torch.manual_seed(3)
    conv = nn.Conv2d(
        4 * groups, 5 * groups, (3, 2), stride=(2, 1), padding=(1, 1), dilation=(1, 2),
        groups=groups, dtype=torch.float64,
    )  # fmt: skip
    ring = TensorRing.random((5 * groups, 4, 3, 2), (2, 3, 4, 2), seed=1)
    layer = TRConv2d.from_conv(conv, ring, form=form)
    x = torch.randn(2, 4 * groups, 9, 8, dtype=torch.float64)
    expected = F.conv2d(
        x, ring_by_einsum(ring.cores), conv.bias, (2, 1), (1, 1), (1, 2), groups
    )  # the oracle: the trace written out, in torch's own grouped convolution
    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(layer.to_dense()(x), expected)
    assert layer.weight.shape == conv.weight.shape
    assert f"groups={groups}" in repr(layer)


def test_groups_that_do_not_divide_the_channels_are_refused():
    with pytest.raises(RingError, match="groups is 3, expected a number that divides both 6 input"):
        TRConv2d(6, 4, 3, (1, 1, 1, 1), groups=3)


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
