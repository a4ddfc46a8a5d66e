import copy

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from rsdtr.compressed.compress import compress, skeleton
from rsdtr.compressed.tr_conv2d import TRConv2d
from rsdtr.errors import PlanError
from rsdtr.planning.model_profile import profile
from rsdtr.planning.plan import plan
from tests.support.networks import varied, varied_spec


@pytest.fixture(scope="module")
def made():
    return plan(profile(varied(), varied_spec()), 0.4)


def test_the_plan_is_obeyed_to_the_scalar_and_to_the_mac(made):
    model = compress(varied(), made)
    rings = {name: m for name, m in model.named_modules() if isinstance(m, TRConv2d)}
    assert list(rings) == ["body", "wide"]
    for layer in made.layers:
        if layer.kept_dense is None:
            assert rings[layer.name].ranks == layer.ranks
            assert rings[layer.name].shift == layer.shift
    assert sum(p.numel() for p in model.parameters()) == made.params.compressed
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, 14, 10))
    assert counter.get_total_flops() // 2 == made.macs.compressed


def test_the_error_of_each_kernel_is_the_plan_s_and_below_eps(made):
    dense, model = varied(), compress(varied(), made)
    for layer in made.layers:
        if layer.kept_dense is None:
            kernel = dense.get_submodule(layer.name).weight.double()
            rebuilt = model.get_submodule(layer.name).ring.to_tensor().double()
            error = float(((rebuilt - kernel).norm() / kernel.norm()).detach())
            assert error == pytest.approx(layer.relative_error, abs=1e-6)
            assert error <= made.eps


def test_the_given_model_stays_bit_equal(made):
    model = varied()
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        for parameter in compress(model, made).parameters():
            parameter.add_(1)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(isinstance(module, TRConv2d) for module in model.modules())


def test_the_same_plan_gives_the_same_bits(made):
    one, other = compress(varied(), made).state_dict(), compress(varied(), made).state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_skeleton_takes_the_compressed_state(made):
    model = compress(varied(), made)
    empty = skeleton(varied_spec_build(), made)
    empty.load_state_dict(model.state_dict())
    x = torch.randn(2, 3, 14, 10)
    assert torch.equal(empty.eval()(x), model(x))


def varied_spec_build():
    torch.manual_seed(5)
    return type(varied())()


def test_a_module_with_two_names_becomes_one_ring(made):
    model = varied()
    model.alias = model.wide
    new = compress(model, made)
    assert new.alias is new.wide
    assert isinstance(new.alias, TRConv2d)


def test_a_plan_for_another_model_is_refused(made):
    model = varied()
    model.body = nn.Conv2d(12, 18, 3)
    with pytest.raises(PlanError, match=r"layer body has a kernel \(18, 12, 3, 3\)"):
        compress(model, made)
    model.body = nn.Linear(12, 18)
    with pytest.raises(
        PlanError, match=r"layer body is Linear, expected an nn\.Conv2d of groups=1"
    ):
        compress(model, made)
    del model.body
    with pytest.raises(PlanError, match="names a layer 'body' that this model lacks"):
        compress(model, made)
