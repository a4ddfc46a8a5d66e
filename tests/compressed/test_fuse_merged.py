"""Where only values count a ring network costs what the dense network costs."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from rsdtr.compressed.compress import compress
from rsdtr.compressed.fuse import merged
from rsdtr.compressed.tr_conv2d import TRConv2d
from rsdtr.data.datasets import LabelledImages, load_data
from rsdtr.measuring.accuracy import accuracy
from rsdtr.measuring.fidelity import Divergence, fidelity
from rsdtr.models.model_loading import load_model
from rsdtr.models.zoo import model_spec
from rsdtr.planning.model_profile import profile
from rsdtr.planning.plan import plan
from rsdtr.recovery.recalibrate import recalibrate
from rsdtr.ring.forms import Form

DIGITS = model_spec("digits_resnet20")


@pytest.fixture(scope="module")
def images() -> LabelledImages:
    return load_data("digits", DIGITS).test.subset(20)


@pytest.fixture(scope="module")
def dense() -> nn.Module:
    return load_model(DIGITS.name)


@pytest.fixture
def rings(dense: nn.Module) -> nn.Module:
    return compress(dense, plan(profile(dense, DIGITS), 0.3))


def flops(work: Callable[[], object]) -> int:
    """Those of convolutions: rebuilding the kernels is done once, however many the images."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_flop_counts()["Global"][torch.ops.aten.convolution]


VALUES: dict[str, Callable[[nn.Module, LabelledImages], object]] = {
    "accuracy": accuracy,
    "fidelity": lambda network, images: fidelity(network, load_model(DIGITS.name), images),
    "divergence": lambda network, images: Divergence(load_model(DIGITS.name), images)(network),
    "recalibrate": lambda network, images: recalibrate(network, images, 20),
    "recalibrate relatively": lambda network, images: recalibrate(
        network, images, 20, reference=load_model(DIGITS.name)
    ),
}


@pytest.mark.parametrize("value", VALUES)
def test_a_value_costs_what_the_dense_networks_costs(
    value: str, dense: nn.Module, rings: nn.Module, images: LabelledImages
) -> None:
    expected = flops(lambda: VALUES[value](dense, images))
    assert flops(lambda: VALUES[value](rings, images)) == expected


@pytest.mark.parametrize("value", VALUES)
def test_afterwards_every_ring_has_its_form_and_mode(
    value: str, rings: nn.Module, images: LabelledImages
) -> None:
    layers = [module for module in rings.modules() if isinstance(module, TRConv2d)]
    forms: tuple[Form, ...] = ("pipeline", "O|IHW", "I|HWO", "IH|WO")
    for k, layer in enumerate(layers):
        layer.form = forms[k % 4]
    layers[1].train()
    new = VALUES[value](rings, images)
    for network in (rings, new) if isinstance(new, nn.Module) else (rings,):
        found = [module for module in network.modules() if isinstance(module, TRConv2d)]
        assert [layer.form for layer in found] == [forms[k % 4] for k in range(len(layers))]
        assert [layer.training for layer in found] == [k == 1 for k in range(len(layers))]


def test_the_values_are_those_of_the_paper_s_sublayers(
    rings: nn.Module, images: LabelledImages
) -> None:
    x = images.spec.normalise(images.pixels(slice(None)))
    with torch.inference_mode():
        torch.testing.assert_close(merged(rings)(x), rings(x), rtol=1e-4, atol=1e-4)


def test_recalibration_is_that_of_the_paper_s_sublayers(
    rings: nn.Module, images: LabelledImages
) -> None:
    slow = copy.deepcopy(rings)
    for norm in slow.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.reset_running_stats()
            norm.momentum = None
            norm.train()
    with torch.no_grad():
        generator = torch.Generator().manual_seed(0)
        for pixels, _ in images.batches(10, generator):
            slow(pixels)
    new = recalibrate(rings, images, 20, batch_size=10)
    for name, value in slow.named_buffers():
        torch.testing.assert_close(new.get_buffer(name), value, rtol=1e-3, atol=1e-4)


def test_merged_shares_the_weights_and_leaves_the_network_alone(rings: nn.Module) -> None:
    network = merged(rings)
    assert network is not rings
    for (name, mine), (_, theirs) in zip(
        network.named_parameters(), rings.named_parameters(), strict=True
    ):
        assert mine is theirs, name
    for (name, mine), (_, theirs) in zip(
        network.named_buffers(), rings.named_buffers(), strict=True
    ):
        assert mine is theirs, name
    network.eval()
    rings.train()
    assert not network.training


def test_a_network_without_rings_is_run_as_it_is(dense: nn.Module) -> None:
    assert merged(dense) is dense
