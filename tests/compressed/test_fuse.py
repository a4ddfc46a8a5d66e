"""Fused models compute the same with plain convolutions and without BatchNorm."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.ops import FrozenBatchNorm2d

from rsdtr.compressed.compress import compress
from rsdtr.compressed.fuse import MergedRing, fuse, plain_convolutions
from rsdtr.compressed.tr_conv2d import PADDING_MODES, TRConv2d
from rsdtr.measuring.fastest_forms import in_one_form
from rsdtr.models.model_loading import load_model
from rsdtr.models.zoo import model_spec
from rsdtr.planning.model_profile import profile
from rsdtr.planning.plan import plan
from rsdtr.ring.forms import FORMS
from tests.support.networks import varied, varied_spec
from tests.support.oracles import layer_and_dense, relative_difference


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("mode", PADDING_MODES)
@pytest.mark.parametrize(
    ("kernel_size", "stride", "padding", "dilation"),
    [
        ((3, 3), 1, 1, 1),
        ((3, 2), (2, 1), (2, 1), (1, 2)),
        ((4, 3), 1, "same", (1, 2)),
        ((2, 5), (1, 2), "valid", 1),
        ((1, 1), 2, 1, 1),
    ],
)
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")
def test_a_ring_layer_as_plain_convolutions(form, mode, kernel_size, stride, padding, dilation):
    conv = nn.Conv2d(5, 7, kernel_size, stride, padding, dilation, padding_mode=mode)
    layer, dense = layer_and_dense(conv, (2, 3, 4, 2), form)
    plain = plain_convolutions(layer.eval())
    x = torch.randn(2, 5, 11, 12)
    assert relative_difference(plain(x), dense(x)) <= 1e-5
    kinds = {type(module) for module in plain.modules()}
    assert kinds <= {MergedRing, nn.Conv2d}
    assert len([m for m in plain.modules() if isinstance(m, nn.Conv2d)]) == len(layer.sublayers)
    assert not plain.training


@pytest.mark.parametrize("form", FORMS)
def test_no_more_arithmetic_than_the_form_has(form):
    layer, _ = layer_and_dense(nn.Conv2d(6, 8, 3, padding=1), form=form)
    layer.eval().requires_grad_(False)
    x = torch.randn(1, 6, 9, 9)
    layer(x)
    counts = []
    for module in (layer, fuse(layer)):
        with FlopCounterMode(display=False) as counter:
            module(x)
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1]


def unsettled(model):
    """The model with BatchNorm that does something."""
    generator = torch.Generator().manual_seed(3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for value in (module.weight, module.bias, module.running_mean, module.running_var):
                if value is not None:
                    value.data.copy_(0.5 + torch.rand(value.shape, generator=generator))
    return model.eval()


def norms(model):
    return [name for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)]


@pytest.fixture(scope="module")
def digits():
    spec = model_spec("digits_resnet20")
    found = profile(load_model(spec.name), spec)
    return found, plan(found, 0.7, layers=["layer1.*", "layer3.2.*"])


@pytest.mark.parametrize("form", FORMS)
def test_a_whole_network(digits, form):
    found, decided = digits
    model = compress(load_model(decided.model), in_one_form(decided, found, form))
    before = copy.deepcopy(model.state_dict())
    fused = fuse(model.train())
    assert model.training
    assert not fused.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    x = torch.randn(5, 1, 16, 16)
    with torch.inference_mode():
        torch.testing.assert_close(fused(x), model.eval()(x), rtol=0, atol=1e-4)
    assert norms(fused) == []
    assert not any(isinstance(module, TRConv2d) for module in fused.modules())


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "densenet121", "googlenet"])
def test_families_of_networks(name):
    spec = model_spec(name)
    torch.manual_seed(0)
    model = unsettled(spec.build())
    fused = fuse(model)
    x = torch.randn(1, 3, 96, 96)
    with torch.inference_mode():
        expected, found = model(x), fused(x)
    assert relative_difference(found, expected) <= 1e-4
    assert len(norms(fused)) < len(norms(model))


class Block(nn.Module):
    """A convolution and its norm, put together by `use`."""

    def __init__(self, use, norm=None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = norm or nn.BatchNorm2d(4)
        self.use = use

    def forward(self, x: Tensor) -> Tensor:
        return self.use(self.conv, self.norm, x)


def looked_at_twice(conv, norm, x):
    y = conv(x)
    return norm(y) + y


def used_twice(conv, norm, x):
    return norm(conv(x)) + conv(x)


def normed_twice(conv, norm, x):
    return norm(conv(x)) + norm(x[:, :1].expand(-1, 4, -1, -1)[..., 2:, 2:])


def something_between(conv, norm, x):
    return norm(conv(x).relu())


def branching(conv, norm, x):
    return norm(conv(x)) if x.sum() > 0 else conv(x)


@pytest.mark.parametrize(
    "use", [looked_at_twice, used_twice, normed_twice, something_between, branching]
)
def test_a_norm_that_cannot_be_folded_stays(use):
    model = unsettled(Block(use))
    x = torch.rand(2, 3, 6, 6)
    fused = fuse(model)
    assert norms(fused) == ["norm"]
    assert torch.equal(fused(x), model(x))


class Untraceable(nn.Module):
    """Parts put together by code that torch.fx cannot follow."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        for part in self.parts if x.sum() > 0 else ():
            x = part(x)
        return x


def plainly(conv, norm, x):
    return norm(conv(x))


def test_parts_are_folded_where_the_whole_cannot_be_traced():
    model = unsettled(Untraceable(Block(plainly), Untraceable(nn.Conv2d(4, 3, 1)), Block(plainly)))
    fused, x = fuse(model), torch.rand(2, 3, 9, 9)
    assert norms(fused) == []
    assert relative_difference(fused(x), model(x)) <= 1e-5


def test_a_convolution_that_two_parts_share_is_not_folded():
    """As heads do that have one convolution for all scales, and a norm for each."""
    conv = nn.Conv2d(3, 3, 3)
    first, second = (Block(plainly, nn.BatchNorm2d(3)) for _ in range(2))
    first.conv = second.conv = conv
    model = unsettled(Untraceable(first, second))
    fused, x = fuse(model), torch.rand(2, 3, 9, 9)
    assert norms(fused) == ["parts.0.norm", "parts.1.norm"]
    assert torch.equal(fused(x), model(x))


def test_a_part_that_stands_in_two_places_is_folded_once():
    part = Block(plainly, nn.BatchNorm2d(3))
    part.conv = nn.Conv2d(3, 3, 3)
    model = unsettled(Untraceable(Untraceable(part), Untraceable(part)))
    fused, x = fuse(model), torch.rand(2, 3, 9, 9)
    assert norms(fused) == []
    assert relative_difference(fused(x), model(x)) <= 1e-5


def test_torchvisions_frozen_norm_is_folded():
    model = Block(plainly, FrozenBatchNorm2d(4))
    for value in model.norm.buffers():
        value.copy_(0.5 + torch.rand(4))
    fused, x = fuse(model), torch.rand(2, 3, 6, 6)
    assert type(fused.norm) is nn.Identity
    assert relative_difference(fused(x), model(x)) <= 1e-5


def test_a_norm_with_hooks_or_without_statistics_stays():
    model = unsettled(Block(plainly, nn.BatchNorm2d(4, track_running_stats=False)))
    assert norms(fuse(model)) == ["norm"]
    model = unsettled(Block(plainly))
    assert norms(fuse(model)) == []
    model.norm.register_forward_hook(lambda module, inputs, output: 2 * output)
    x = torch.rand(2, 3, 6, 6)
    assert torch.equal(fuse(model)(x), model(x))


def test_a_norm_without_weights_and_a_convolution_without_bias():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4, affine=False))
    unsettled(model)
    fused, x = fuse(model), torch.randn(2, 3, 6, 6)
    assert norms(fused) == []
    torch.testing.assert_close(fused(x), model(x))


def test_one_ring_under_two_names_stays_one_and_is_not_folded_twice():
    found = profile(varied(), varied_spec())
    model = compress(varied(), plan(found, 0.4))
    model.alias = model.wide
    fused, x = fuse(unsettled(model)), torch.randn(2, 3, 14, 10)
    assert fused.alias is fused.wide
    assert relative_difference(fused(x), model(x)) <= 1e-5


def test_weights_that_do_not_train_stay_so():
    layer, _ = layer_and_dense(nn.Conv2d(3, 4, 3))
    assert all(parameter.requires_grad for parameter in fuse(layer).parameters())
    layer.requires_grad_(False)
    assert not any(parameter.requires_grad for parameter in fuse(layer).parameters())
