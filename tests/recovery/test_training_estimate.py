"""What is said of a training before it begins: its time and its memory."""

import dataclasses
import importlib
import time

import pytest
import torch
from torch import nn

from rsdtr.errors import RsdtrError
from rsdtr.models.zoo import weights_sha256
from rsdtr.recovery.finetune import finetune
from rsdtr.recovery.options import FinetuneOptions
from rsdtr.recovery.training_estimate import MemoryNeeds, estimate, memory_needs
from tests.support.lights import brightness, lights, tiny

module = importlib.import_module("rsdtr.recovery.training_estimate")


class Slow(nn.Module):
    """Waits 20 ms whenever it is trained on."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            time.sleep(0.02)
        return x


def test_the_time_is_that_of_the_steps_and_nothing_is_changed():
    model, data = nn.Sequential(Slow(), tiny()), lights()
    before, state = weights_sha256(model), torch.get_rng_state()
    options = FinetuneOptions(epochs=5, batch_size=16)
    found = estimate(model, data, options)
    assert 4 * 0.02 < found.epoch_seconds < 5 * 4 * 0.02  # four steps of 20 ms, not five epochs
    assert found.seconds == pytest.approx(5 * found.epoch_seconds)
    assert weights_sha256(model) == before
    assert torch.equal(state, torch.get_rng_state())
    list(finetune(model, data, dataclasses.replace(options, epochs=1)))


def test_the_memory_is_that_of_weights_moments_and_what_a_step_keeps():
    """A linear layer of 16×2 and its bias, by hand, in float32.

    The step keeps the pictures, 16 numbers each, and the log-softmax, 2, besides labels of 8 bytes.
    """
    model, data = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)), lights()
    weights = 4 * (32 + 2)

    def state(**changes: object) -> float:
        options = FinetuneOptions(batch_size=32, augment="none", **changes)
        return memory_needs(model, data, options, model).bytes(32 // options.accumulate)

    least = 1.25 * 32 * (16 + 2 + 2) * 4
    assert state() == pytest.approx(5 * weights + least, rel=0.15)
    assert state(momentum=0.0) == state() - weights
    assert state(optimizer="adamw") == state() + weights
    assert state(ema=0.9) == state() + weights
    assert state(distill=0.5) == state() + weights
    assert state(accumulate=2) - 5 * weights == pytest.approx((state() - 5 * weights) / 2, rel=0.1)


def test_what_does_not_fit_is_refused_with_the_batch_size_that_would(monkeypatch):
    options = FinetuneOptions(batch_size=64)
    needs = memory_needs(tiny(), lights(), options, None)
    monkeypatch.setattr(module, "free_bytes", lambda _: needs.bytes(11))
    with pytest.raises(
        RsdtrError, match=r"batches of 64 needs .* give a batch size of (10|11), or"
    ):
        estimate(tiny(), lights(), options)
    estimate(tiny(), lights(), dataclasses.replace(options, batch_size=10))
    monkeypatch.setattr(module, "free_bytes", lambda _: 1000)
    with pytest.raises(RsdtrError, match=r"0\.0 GB are free: not even two pictures would fit"):
        estimate(tiny(), lights(), options)


def test_the_most_pictures_by_hand():
    needs = MemoryNeeds(state=100, two=80, more=40)  # 1.25·80 = 100, and 50 for each one more
    assert needs.bytes(5) == 350
    assert [needs.most_pictures(free) for free in (199, 200, 349, 350)] == [0, 2, 4, 5]


def test_two_pictures_are_enough_for_an_estimate():
    data = dataclasses.replace(lights(), train=brightness(2, 0))
    assert estimate(tiny(), data, FinetuneOptions(epochs=1)).seconds > 0
