"""Distillation without labels: what it wins back, what decides, that resuming changes nothing."""

import dataclasses
from importlib import import_module

import pytest
import torch
from torch import Tensor, nn

from rsdtr.compressed.compress import compress
from rsdtr.data.datasets import LabelledImages, load_data
from rsdtr.data.image_sources import ArrayPictures
from rsdtr.errors import DataError, RsdtrError
from rsdtr.measuring.accuracy import accuracy
from rsdtr.measuring.fidelity import distance_from, fidelity
from rsdtr.models.model_loading import load_model
from rsdtr.models.own_networks import described
from rsdtr.models.zoo import model_spec, weights_sha256
from rsdtr.planning.model_profile import profile
from rsdtr.planning.plan import plan
from rsdtr.recovery.block_outputs import block_names, listening, relative_squared_error
from rsdtr.recovery.distill import DistillBegun, DistillStep, distill, distill_record, one_cycle
from rsdtr.recovery.options import DistillOptions
from tests.support.networks import Tiny

DIGITS = model_spec("digits_resnet20")
QUICK = DistillOptions(steps=12, batch_size=32, augment="crop")


@pytest.fixture(scope="module")
def digits() -> LabelledImages:
    return load_data("digits", DIGITS).train.subset(300)


@pytest.fixture(scope="module")
def dense() -> nn.Module:
    return load_model(DIGITS.name)


@pytest.fixture(scope="module")
def rings(dense: nn.Module) -> nn.Module:
    """Three layers of the digits network with so few ranks that it loses its way."""
    return compress(dense, plan(profile(dense, DIGITS), 0.9, layers=["layer1.0.*", "layer2.1.*"]))


# --- what is gained ---


def test_a_network_comes_nearer_to_the_dense_one_without_a_label(digits, dense, rings):
    before, dense_before = weights_sha256(rings), weights_sha256(dense)
    found = distill(rings, dense, digits.without_labels(), 300, options=QUICK)
    assert found.judged.kept
    assert found.judged.measure == "divergence"
    test = load_data("digits", DIGITS).test
    distance = distance_from(dense, test)
    assert distance(found.model) < 0.5 * distance(rings)
    assert accuracy(found.model, test).percent > accuracy(rings, test).percent
    assert (weights_sha256(rings), weights_sha256(dense)) == (before, dense_before)
    forms = [[m.form for m in net.modules() if hasattr(m, "form")] for net in (rings, found.model)]
    assert forms[0] == forms[1]
    assert not found.model.training


def test_the_blocks_alone_teach(digits, dense, rings):
    alone = dataclasses.replace(QUICK, temperature=1e-3, blocks=3.0)
    assert distill(rings, dense, digits, 300, options=alone).judged.kept


def test_a_network_without_classes_learns_its_answers_and_its_blocks():
    torch.manual_seed(0)
    dense = Tiny(also=True)
    images = torch.rand(60, 3, 16, 16)
    spec = described(dense, images[:1])
    small = compress(dense, plan(profile(dense, spec), 0.6, layers="all"))
    options = DistillOptions(steps=80, batch_size=20, lr=2e-2)
    found = distill(small, dense, unlabelled(images, spec), 60, options=options)
    assert found.judged.measure == "answer error"
    assert found.judged.kept
    fresh = torch.rand(20, 3, 16, 16)
    errors = [fidelity(net, dense, fresh).relative_error for net in (small, found.model)]
    assert errors[1] < 0.9 * errors[0]


def unlabelled(images: Tensor, spec) -> LabelledImages:
    labels = torch.full((len(images),), -1)
    return LabelledImages("rand", (), labels, ArrayPictures(images), spec)


# --- what decides ---


def test_what_harms_on_held_out_images_is_not_kept(digits, dense, rings):
    wild = dataclasses.replace(QUICK, lr=30.0, clip=1e9)
    found = distill(rings, dense, digits, 300, options=wild)
    assert not found.judged.kept
    assert weights_sha256(found.model) == weights_sha256(rings)
    assert found.told.endswith("not kept, the network is as it was before")


def test_a_loss_that_is_not_finite_ends_it_and_nothing_is_kept(digits, dense, rings, monkeypatch):
    module = import_module("rsdtr.recovery.distill")
    monkeypatch.setattr(
        module, "relative_squared_error", lambda z, found: (found * torch.nan).sum()
    )
    steps: list[DistillStep] = []
    found = distill(rings, dense, digits, 300, options=QUICK, on_step=steps.append)
    assert steps == []
    assert not found.judged.kept
    assert weights_sha256(found.model) == weights_sha256(rings)
    assert distill_record("digits", 300, found)["judged"]["after"] is None


def test_batch_statistics_are_followed_for_the_first_part_only(digits, dense, rings):
    def means(moving_norms: float) -> list[Tensor]:
        options = dataclasses.replace(QUICK, steps=2, lr=1e-9, moving_norms=moving_norms)
        reached: list[DistillBegun] = []
        distill(
            rings, dense, digits, 300, options=options,
            on_step=lambda step: reached.append(
                DistillBegun(step.number, {k: v.clone() for k, v in step.state().state.items()})
            ),
        )  # fmt: skip
        return [begun.state["model.bn1.running_mean"] for begun in reached]

    kept = rings.bn1.running_mean
    assert all(torch.equal(mean, kept) for mean in means(0.0))
    first, second = means(0.5)
    assert torch.equal(first, second)
    assert not torch.equal(first, kept)
    first, second = means(1.0)
    assert not torch.equal(first, second)


# --- resuming ---


@pytest.mark.parametrize("stop", [1, 7])
def test_interrupted_it_ends_with_the_same_bits(digits, dense, rings, stop):
    class Stop(Exception):
        pass

    states: list[DistillBegun] = []

    def note(step: DistillStep) -> None:
        if step.number == stop:
            begun = step.state()
            kept = {name: value.clone() for name, value in begun.state.items()}
            states.append(DistillBegun(begun.steps, kept))
            raise Stop

    whole = distill(rings, dense, digits, 300, options=QUICK)
    with pytest.raises(Stop):
        distill(rings, dense, digits, 300, options=QUICK, on_step=note)
    again = distill(rings, dense, digits, 300, options=QUICK, begun=states[0])
    assert weights_sha256(again.model) == weights_sha256(whole.model)
    assert again.judged == whole.judged


def test_the_seed_decides_and_torchs_random_state_is_left_alone(digits, dense, rings):
    torch.manual_seed(3)
    state = torch.random.get_rng_state()
    first, other = (
        distill(rings, dense, digits, 300, options=dataclasses.replace(QUICK, seed=seed)).model
        for seed in (0, 1)
    )
    assert torch.equal(torch.random.get_rng_state(), state)
    assert weights_sha256(first) != weights_sha256(other)


# --- blocks ---


def test_a_block_is_the_smallest_module_around_a_ring(dense, rings):
    assert block_names(rings) == ["layer1.0", "layer2.1"]
    spec = described(Tiny(), torch.rand(1, 3, 8, 8))
    net = Tiny()
    small = compress(net, plan(profile(net, spec), 0.6, layers="all"))
    names = block_names(small)
    assert names == ["second"]  # the ring itself: the whole network is no block
    pixels = torch.rand(2, 3, 8, 8)
    with listening(small, names) as heard:
        small(pixels)
        assert [tuple(x.shape) for x in heard["second"]] == [(2, 12, 4, 4)]
    assert not any(module._forward_hooks for module in small.modules())
    with pytest.raises(RsdtrError, match="the reference has no second"), listening(dense, names):
        pass


def test_the_relative_error_is_of_all_numbers_together():
    expected, found = torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.tensor([[3.0, 4.0], [0.0, 5.0]])
    assert relative_squared_error(expected, found) == 1.0
    assert relative_squared_error(torch.zeros(2), torch.zeros(2)) == 0.0


# --- what cannot be done ---


def test_what_cannot_be_distilled_is_one_sentence(digits, dense, rings):
    with pytest.raises(DataError, match="was asked for with 2 images: give at least 3"):
        distill(rings, dense, digits, 2)
    with pytest.raises(RsdtrError, match="no ring layer to distil into: compress it first"):
        distill(dense, dense, digits, 50)
    frozen = distill(rings, dense, digits, 50, options=dataclasses.replace(QUICK, steps=1)).model
    frozen.requires_grad_(False)
    with pytest.raises(RsdtrError, match="no weight is left to train, all are frozen"):
        distill(frozen, dense, digits, 50)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"steps": -1}, "steps is -1: give at least 0"),
        ({"lr": 0.0}, "lr is 0.0: give a number above 0"),
        ({"blocks": -1.0}, "blocks is -1.0: give a number of at least 0"),
        ({"moving_norms": 1.5}, "moving_norms is 1.5: give a number in 0"),
        ({"held_out": 1.0}, "held_out is 1.0: give a number in 0 < x < 1"),
        ({"augment": "spin"}, "augment is 'spin': give one of none"),
    ],
)
def test_impossible_options_are_refused(fields, told):
    with pytest.raises(RsdtrError, match=told):
        DistillOptions(**fields)


def test_the_learning_rate_rises_and_falls_in_one_cycle():
    rates = [one_cycle(number, 100, 0.5, 0.2) for number in range(100)]
    assert rates[0] == pytest.approx(0.02)
    assert rates[20] == max(rates) == 0.5
    assert rates[:21] == sorted(rates[:21])
    assert rates[20:] == sorted(rates[20:], reverse=True)
    assert 0 < rates[-1] < 1e-3
    assert one_cycle(0, 1, 0.5, 0.2) == pytest.approx(0.02)


def test_many_images_are_gone_through_two_and_a_half_times():
    assert DistillOptions().steps_for(4500, 128) == 400
    assert DistillOptions().steps_for(49_000, 128) == 958
    assert DistillOptions(steps=7).steps_for(49_000, 128) == 7
