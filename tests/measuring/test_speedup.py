"""The smallest ε_p that makes a network so much faster, and what is said where none does."""

import pytest
import torch
from torch import nn

import rsdtr
from rsdtr.errors import PlanError, RsdtrError
from rsdtr.measuring import speedup
from rsdtr.measuring.speedup import TRIED, Speedup
from tests.support.own_networks import conv, decayed


@pytest.fixture
def net() -> nn.Module:
    body = nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 8), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return decayed(body)


def made_up(monkeypatch):
    """Have every network be 1 + 2 ε_p times as fast; the ε_p that were tried."""
    tried = []

    def at(net, costs, choices, eps, images, threads):
        tried.append(eps)
        plan = choices.decide(costs)
        return Speedup(plan, rsdtr.compress(net, plan), 1 + 2 * eps, len(images), threads)

    monkeypatch.setattr(speedup, "_at", at)
    return tried


def test_the_smallest_eps_that_suffices_is_taken(net, monkeypatch):
    tried = made_up(monkeypatch)
    small = rsdtr.shrink(net, torch.rand(2, 3, 8, 8), target_speedup=1.9)
    assert small.speedup == pytest.approx(2.0)  # at 0.5; at 0.4 it is 1.8
    assert tried[0] == TRIED[-1]
    assert len(tried) <= 4
    assert {0.4, 0.5} <= set(tried)


def test_what_is_out_of_reach_tells_the_most(net, monkeypatch):
    made_up(monkeypatch)
    with pytest.raises(PlanError, match=r"2.80 times as fast at ε_p 0.9.*and 5 was asked for"):
        rsdtr.shrink(net, torch.rand(2, 3, 8, 8), target_speedup=5)


def test_what_is_told_was_measured(net, monkeypatch, tmp_path):
    monkeypatch.setenv("RSDTR_CACHE", str(tmp_path))
    monkeypatch.setattr(speedup, "TRIED", (0.5,))
    images = torch.rand(1, 3, 8, 8)
    small = rsdtr.shrink(net, images, target_speedup=0.01)
    assert small.speedup > 0.01
    assert small.plan.measured_on.batch == 1
    assert small(images).shape == (1, 8)


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ({"target_speedup": 0}, "give a number above 0"),
        ({"target_speedup": 2, "eps": 0.5}, "target_speedup and 1 of eps"),
    ],
)
def test_requests_that_cannot_be_honoured(net, words, match):
    with pytest.raises(RsdtrError, match=match):
        rsdtr.shrink(net, torch.rand(1, 3, 8, 8), **words)


def test_several_inputs_are_not_timed(net):
    with pytest.raises(RsdtrError, match=r"times networks of one batch of images"):
        rsdtr.shrink(net, (torch.rand(1, 3, 8, 8),), target_speedup=2)
