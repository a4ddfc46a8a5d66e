import copy

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from rsdtr.errors import PlanError, UnknownName
from rsdtr.models.model_loading import load_model
from rsdtr.models.zoo import model_spec
from rsdtr.planning.layer_profile import Runs
from rsdtr.planning.model_profile import profile
from tests.support.networks import Regions, varied, varied_spec


def test_every_convolution_in_network_order_with_its_sizes():
    found = profile(varied(), varied_spec())
    assert [layer.name for layer in found.layers] == [
        "stem",
        "body",
        "grouped",
        "point",
        "twice",
        "wide",
        "head",
    ]
    wide = found.layer("wide")
    assert (wide.shape, wide.stride) == ((20, 16, 3, 5), (2, 1))
    assert (wide.input_size, wide.output_size) == ((14, 10), (7, 10))
    assert wide.macs == 20 * 16 * 15 * 70
    assert (wide.padding, wide.dilation, wide.padding_mode) == ((1, 2), (1, 1), "zeros")
    assert found.layer("twice").macs == 2 * 16 * 16 * 9 * 140
    grouped, head = found.layer("grouped"), found.layer("head")
    assert (grouped.kind, grouped.groups, grouped.shape) == ("conv", 4, (16, 4, 3, 3))
    assert (head.kind, head.shape, head.macs) == ("linear", (4, 20, 1, 1), 80)
    assert (head.input_size, head.output_size, head.input_shape) == ((1, 1), (1, 1), (20,))
    assert not grouped.in_paper_policy
    assert not head.in_paper_policy


@pytest.mark.parametrize("name", ["digits_resnet20", "cifar10_vgg16_bn", "resnet18"])
def test_macs_are_the_flop_counter_s(name):
    spec = model_spec(name)
    model = spec.build().eval()
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, *spec.input_shape))
    found = profile(model, spec)
    assert found.macs == counter.get_total_flops() // 2
    assert found.params == sum(parameter.numel() for parameter in model.parameters())
    assert found.not_counted == ()


def test_a_second_stage_is_counted_for_each_region():
    found = profile(Regions(), varied_spec())
    assert found.layer("trunk").obstacle is None
    second = found.layer("second")
    assert (second.macs, second.runs, second.obstacle) == (3 * 8 * 8 * 9 * 16, 3, None)
    assert second.sizes == (Runs((4, 4), (4, 4), 3),)
    assert found.macs == 8 * 3 * 9 * 140 + 3 * 8 * 8 * 9 * 16 + 3 * 128 * 5


def test_the_paper_s_policy_leaves_stem_shortcuts_and_classifier_alone():
    spec = model_spec("resnet18")
    found = profile(spec.build(), spec)
    chosen = [layer.name for layer in found.layers if layer.in_paper_policy]
    assert len(chosen) == 16
    assert not any("downsample" in name or name == "conv1" for name in chosen)


def test_what_cannot_be_a_ring_says_why():
    model = varied()
    found = profile(model, varied_spec())
    assert found.layer("body").obstacle is None
    assert found.layer("grouped").obstacle is None
    model.grouped = nn.Conv2d(16, 16, 3, padding=1, groups=16)
    depthwise = profile(model, varied_spec()).layer("grouped").obstacle
    assert depthwise.startswith("depthwise convolution (groups=16)")
    assert found.layer("twice").obstacle.startswith("has an attribute kernel")
    with torch.no_grad():
        model.body.weight.zero_()
        model.wide.weight[0, 0, 0, 0] = float("nan")
    broken = profile(model, varied_spec())
    assert "zero everywhere" in broken.layer("body").obstacle
    assert "NaN or Inf" in broken.layer("wide").obstacle
    model.point = Doubling(16, 16, 1)
    assert "not a plain nn.Conv2d" in profile(model, varied_spec()).layer("point").obstacle


class Doubling(nn.Conv2d):
    """Another function of the same kernel, but in training alone."""

    def forward(self, x):
        return super().forward(x) * (2 if self.training else 1)


class Casting(nn.Linear):
    """As timm's own: the same function, written down again."""

    def forward(self, x):
        return nn.functional.linear(x, self.weight.to(x.dtype), self.bias)


def test_a_subclass_that_computes_the_same_may_be_a_ring():
    model, state = varied(), torch.get_rng_state()
    model.point = type("Subclass", (nn.Conv2d,), {})(16, 16, 1)
    model.head = Casting(model.head.in_features, model.head.out_features)
    weights = copy.deepcopy(model.state_dict())
    torch.set_rng_state(state)
    found = profile(model, varied_spec())
    assert found.layer("point").obstacle is None
    assert found.layer("head").obstacle is None
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())


def test_the_model_comes_back_bit_equal_and_in_its_mode():
    model = varied()
    model.norm.train()
    before = copy.deepcopy(model.state_dict())
    profile(model, varied_spec())
    assert model.norm.training
    assert not model.body.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model.body._forward_hooks


def test_unknown_layer_and_nothing_to_compress():
    with pytest.raises(UnknownName, match="no layer 'tail': choose one of stem, body"):
        profile(varied(), varied_spec()).layer("tail")
    flat = nn.Sequential(nn.Flatten(), nn.Linear(420, 4))
    with pytest.raises(PlanError, match=r"no nn\.Conv2d that runs"):
        profile(flat, varied_spec())


def test_spectra_are_computed_once():
    layer = profile(load_model("digits_resnet20", "none"), model_spec("digits_resnet20")).layers[1]
    assert layer.spectra is layer.spectra
