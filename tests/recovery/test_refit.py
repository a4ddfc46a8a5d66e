"""Refitting: what is gained, what is decided, what must not change."""

import copy
import dataclasses
from itertools import pairwise

import pytest
import torch
from torch import nn

from rsdtr.compressed.compress import compress
from rsdtr.compressed.fuse import fuse
from rsdtr.compressed.tr_conv2d import TRConv2d
from rsdtr.data.datasets import DataSplits, LabelledImages, load_data
from rsdtr.data.image_sources import ArrayPictures
from rsdtr.errors import DataError, RsdtrError
from rsdtr.measuring.accuracy import accuracy
from rsdtr.models.model_loading import load_model
from rsdtr.models.zoo import ModelSpec, model_spec, weights_sha256
from rsdtr.planning.model_profile import profile
from rsdtr.planning.plan import plan
from rsdtr.recovery.options import RefitOptions
from rsdtr.recovery.recalibrate import recalibrate
from rsdtr.recovery.refit import Step, refit
from rsdtr.ring.forms import FORMS
from rsdtr.ring.tensor_ring import TensorRing
from tests.support.networks import Varied, varied, varied_spec
from tests.support.own_networks import ImageNetwork, conv, decayed

DIGITS = model_spec("digits_resnet20")


@pytest.fixture(scope="module")
def digits() -> DataSplits:
    whole = load_data("digits", DIGITS)
    return DataSplits(whole.train.subset(300), whole.validation, whole.test)


@pytest.fixture(scope="module")
def dense() -> nn.Module:
    return load_model(DIGITS.name)


@pytest.fixture(scope="module")
def rings(dense: nn.Module) -> nn.Module:
    """Three layers of the digits network with so few ranks that it loses its way."""
    layers = ["layer1.0.*", "layer2.1.conv2"]
    return compress(dense, plan(profile(dense, DIGITS), 0.9, layers=layers))


def pictures(spec: ModelSpec, count: int = 60) -> LabelledImages:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (count, *spec.input_shape), generator=generator)
    labels = torch.arange(count) % 2
    return LabelledImages("noise", ("a", "b"), labels, ArrayPictures(pixels.to(torch.uint8)), spec)


def divergence(model: nn.Module, dense: nn.Module, images: LabelledImages) -> float:
    """Mean KL divergence (nats) of the class probabilities from the dense network's."""
    pixels, _ = next(images.batches(len(images)))
    with torch.inference_mode():
        p, q = (network.eval()(pixels).softmax(1) for network in (dense, copy.deepcopy(model)))
    return float((p * (p / q).log()).sum(1).mean())


# --- what is gained ---


def test_digits_gain_what_recalibration_does_not_give(
    digits: DataSplits, dense: nn.Module, rings: nn.Module
) -> None:
    refitted = refit(rings, dense, digits.train, 300)
    recalibrated = recalibrate(rings, digits.train, 300, reference=dense)
    found = divergence(refitted.model, dense, digits.test)
    assert found < divergence(recalibrated, dense, digits.test)
    assert found < 0.2 * divergence(rings, dense, digits.test)
    assert accuracy(refitted.model, digits.test).percent > accuracy(rings, digits.test).percent


def test_all_cores_do_better_than_the_o_core(
    digits: DataSplits, dense: nn.Module, rings: nn.Module
) -> None:
    found = {
        cores: refit(rings, dense, digits.train, 200, options=RefitOptions(cores=cores))
        for cores in ("O", "all")
    }
    assert divergence(found["all"].model, dense, digits.test) < divergence(
        found["O"].model, dense, digits.test
    )
    for mode in (1, 2, 3):
        name = f"layer1.0.conv1.cores.{mode}"
        assert not torch.equal(found["all"].model.get_parameter(name), rings.get_parameter(name))
        # Rescaled to equal norms, but the same direction.
        one, other = found["O"].model.get_parameter(name), rings.get_parameter(name)
        torch.testing.assert_close(one / one.norm(), other / other.norm())


def test_a_network_without_batchnorm_gains(
    digits: DataSplits, dense: nn.Module, rings: nn.Module
) -> None:
    plain = fuse(dense)  # the trained network, its BatchNorm folded into its convolutions
    assert not any(isinstance(module, nn.BatchNorm2d) for module in plain.modules())
    compressed = compress(
        plain, plan(profile(plain, DIGITS), 0.9, layers=["layer1.0.*", "layer2.1.conv2"])
    )
    refitted = refit(compressed, plain, digits.train, 300)
    assert [step.name for step in refitted.steps if step.measure == "divergence"] == ["cores"]
    found = divergence(refitted.model, plain, digits.test)
    assert found < 0.2 * divergence(compressed, plain, digits.test)
    assert not torch.equal(
        refitted.model.get_parameter("layer1.0.conv1.bias"),
        compressed.get_parameter("layer1.0.conv1.bias"),
    )


def test_a_ring_of_the_right_ranks_becomes_the_convolution() -> None:
    spec = varied_spec()
    network = varied()
    layer = TRConv2d.from_conv(network.wide, TensorRing.random((20, 16, 3, 5), (2, 2, 2, 2)))
    with torch.no_grad():
        network.wide.weight.copy_(layer.kernel() / layer.kernel().norm())
    spoilt = copy.deepcopy(network)
    spoilt.wide = layer
    with torch.no_grad():
        for core in layer.cores:
            core *= layer.kernel().norm() ** -0.25
            core += 0.05 * core.std() * torch.randn_like(core)
        assert layer.bias is not None
        layer.bias.fill_(1)
    options = RefitOptions(sweeps=50, ridge=0)
    refitted = refit(spoilt, network, pictures(spec), 60, options=options)
    assert refitted.steps[0].name == "wide"
    assert refitted.steps[0].after < 1e-4 < 1e-2 < refitted.steps[0].before
    pixels, _ = next(pictures(spec).batches(60))
    with torch.inference_mode():
        expected = network(pixels)
        errors = [(made(pixels) - expected).norm() for made in (spoilt, refitted.model)]
    assert errors[1] < 0.05 * errors[0]


def test_a_layer_that_runs_twice_learns_from_both_runs() -> None:
    def use(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        x = net.b(net.stem(x).relu()).relu()
        return net.head(net.b(x).relu().mean((2, 3)))

    torch.manual_seed(0)
    parts = {"stem": conv(3, 12), "b": conv(12, 12), "head": nn.Linear(12, 4)}
    network, spec = decayed(ImageNetwork(use, **parts)), varied_spec()
    compressed = compress(network, plan(profile(network, spec), 0.7, layers=["b"]))
    first, *_ = refit(compressed, network, pictures(spec), 60).steps
    assert first.name == "b"
    assert first.after < 0.85 * first.before


# --- what must not change ---


def test_a_copy_comes_back_the_same_for_a_seed_whatever_the_form(
    digits: DataSplits, dense: nn.Module, rings: nn.Module
) -> None:
    given = copy.deepcopy(rings).train()
    given.get_submodule("layer1").eval()
    before = [weights_sha256(network) for network in (given, dense)]
    state = torch.get_rng_state()
    one, two = (refit(given, dense, digits.train, 60) for _ in range(2))
    assert [weights_sha256(network) for network in (given, dense)] == before
    assert torch.equal(state, torch.get_rng_state())
    assert weights_sha256(one.model) == weights_sha256(two.model) != before[0]
    assert one.steps == two.steps
    modes = [module.training for module in given.modules()]
    assert [module.training for module in one.model.modules()] == modes
    assert all(parameter.grad is None for parameter in one.model.parameters())
    pixels, _ = next(digits.test.batches(20))
    outputs = []
    for form in FORMS:
        for module in one.model.eval().modules():
            if isinstance(module, TRConv2d):
                module.form = form
        with torch.inference_mode():
            outputs.append(one.model(pixels))
    for output in outputs[1:]:
        torch.testing.assert_close(output, outputs[0], atol=1e-3, rtol=1e-3)


def test_activations_that_do_not_fit_the_budget_are_computed_again(
    digits: DataSplits, dense: nn.Module, rings: nn.Module
) -> None:
    every = refit(rings, dense, digits.train, 40)
    none = refit(rings, dense, digits.train, 40, options=RefitOptions(budget=0))
    assert weights_sha256(every.model) == weights_sha256(none.model)


# --- what is decided ---


def test_a_refit_that_does_not_help_is_not_kept(
    digits: DataSplits, dense: nn.Module, rings: nn.Module
) -> None:
    good = refit(rings, dense, digits.train, 300).model
    again = refit(good, dense, digits.train, 2)  # one picture to learn from, one to judge
    judged = [step for step in again.steps if step.measure == "divergence"]
    assert judged[-1].name == "cores"  # one image has no BatchNorm statistics
    for before, after in pairwise(judged):
        assert after.before == (before.after if before.kept else before.before)
    if not judged[0].kept:
        assert weights_sha256(again.model) == weights_sha256(good)
    layers = [step for step in again.steps if step.measure != "divergence"]
    assert any(not step.kept for step in layers)
    assert Step("a", "divergence", 1.0, 0.5).kept
    assert not Step("a", "divergence", 1.0, 1.0).kept


def test_progress_counts_layers(digits: DataSplits, dense: nn.Module, rings: nn.Module) -> None:
    seen: list[tuple[int, int]] = []
    refit(rings, dense, digits.train, 10, progress=lambda *step: seen.append(step))
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]


# --- what is refused ---


def test_too_few_images_are_refused(digits: DataSplits, dense: nn.Module, rings: nn.Module) -> None:
    with pytest.raises(DataError, match="a refit was asked for with 1 images: give at least 2"):
        refit(rings, dense, digits.train, 1)


def test_networks_that_do_not_belong_together_are_refused(
    digits: DataSplits, dense: nn.Module, rings: nn.Module
) -> None:
    with pytest.raises(RsdtrError, match="no ring layer to refit: compress it first"):
        refit(dense, dense, digits.train, 10)
    with pytest.raises(RsdtrError, match="a reference of another structure than the model"):
        refit(rings, Varied(), digits.train, 10)


def test_values_that_are_not_finite_are_refused(
    digits: DataSplits, dense: nn.Module, rings: nn.Module
) -> None:
    broken = copy.deepcopy(rings)
    broken.get_buffer("bn1.running_mean").fill_(torch.nan)
    with pytest.raises(RsdtrError, match=r"out of layer layer1\.0\.conv1 is not finite"):
        refit(broken, dense, digits.train, 10)
    unfit = copy.deepcopy(dense)
    unfit.get_parameter("conv1.weight").detach()[0, 0, 0, 0] = torch.nan
    with pytest.raises(RsdtrError, match=r"the dense network's own conv1\.weight holds NaN"):
        refit(rings, unfit, digits.train, 10)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"cores": "I"}, "cores is 'I': give one of all, O"),
        ({"sweeps": 0}, "sweeps is 0: give at least 1"),
        ({"ridge": -1.0}, "ridge is -1.0: give a number of at least 0"),
        ({"ridge": float("nan")}, "ridge is nan: give a number of at least 0"),
        ({"held_out": 1.0}, "held_out is 1.0: give a number in 0 < x < 1"),
    ],
)
def test_impossible_options_are_refused(changed: dict, message: str) -> None:
    with pytest.raises(RsdtrError, match=message):
        dataclasses.replace(RefitOptions(), **changed)
