"""What a ring layer's output goes through before it is compared with the dense network's."""

import copy

import pytest
from torch import Tensor, nn

from rsdtr.compressed.compress import compress
from rsdtr.compressed.fuse import fuse
from rsdtr.compressed.tr_conv2d import TRConv2d
from rsdtr.models.model_loading import load_model
from rsdtr.models.zoo import model_spec
from rsdtr.planning.model_profile import profile
from rsdtr.planning.plan import plan
from rsdtr.recovery.graph_walk import HOOKED, Walk, sites

DIGITS = model_spec("digits_resnet20")


@pytest.fixture(scope="module")
def dense() -> nn.Module:
    return load_model(DIGITS.name)


@pytest.fixture(scope="module")
def rings(dense: nn.Module) -> nn.Module:
    layers = ["layer1.0.*", "layer2.1.conv2"]
    return compress(dense, plan(profile(dense, DIGITS), 0.9, layers=layers))


def test_what_follows_a_layer_is_what_it_is_compared_behind(rings: nn.Module) -> None:
    walk = Walk(copy.deepcopy(rings), [], 0)
    first, second, third = sites(walk)
    assert (first.layer, first.norm, first.addend) == ("layer1.0.conv1", "layer1.0.bn1", None)
    assert (second.layer, second.norm) == ("layer1.0.conv2", "layer1.0.bn2")
    assert third.layer == "layer2.1.conv2"
    assert first.relu
    assert second.relu
    assert "add" in str(second.value.target)
    assert second.addend is not None


def test_a_folded_norm_hides_nothing(dense: nn.Module) -> None:
    plain = fuse(dense)
    layers = ["layer1.0.*"]
    first, second = sites(
        Walk(compress(plain, plan(profile(plain, DIGITS), 0.9, layers=layers)), [], 0)
    )
    assert (first.norm, first.addend, first.relu) == (None, None, True)
    assert (second.norm, second.relu) == (None, True)
    assert second.addend is not None


def test_a_shortcut_with_a_ring_that_runs_later_is_no_addend() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.main = TRConv2d(2, 2, 3, (1, 1, 1, 1), padding=1)
            self.short = TRConv2d(2, 2, 1, (1, 1, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            return self.main(x) + self.short(x)

    main, short = sites(Walk(Block(), [], 0))
    assert (main.layer, main.addend, main.relu) == ("main", None, False)
    assert short.layer == "short"
    assert short.addend is main.call


def test_a_layer_that_runs_again_has_one_place_with_all_its_runs() -> None:
    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.main = TRConv2d(2, 2, 3, (1, 1, 1, 1), padding=1)
            self.last = TRConv2d(2, 2, 1, (1, 1, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            x = self.main(x).relu()
            x = x + self.main(x)
            return self.last(x)

    network = Loop()
    network.last.register_forward_hook(lambda *_: None)
    main, last = sites(Walk(network, [], 0))
    assert (main.layer, len(main.again)) == ("main", 1)
    assert not main.relu  # of the second run all is used
    assert main.again[0].addend is None  # the first run is part of it
    assert (last.obstacle, main.obstacle) == (HOOKED, None)
