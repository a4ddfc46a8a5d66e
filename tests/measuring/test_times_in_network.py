"""Layers timed where they run, by a clock that counts what each of them was made to take."""

import time

import pytest
import torch
from torch import nn

from rsdtr.compressed.compress import compress
from rsdtr.measuring.fastest_forms import in_one_form, layer_cases, use_forms, with_forms
from rsdtr.measuring.times_in_network import profile_in_network, times_in_networks
from rsdtr.planning.model_profile import profile
from rsdtr.planning.plan import plan
from rsdtr.ring.forms import FORMS
from tests.support.networks import varied, varied_spec


class Ticking(nn.Module):
    """Takes so many seconds by the test's clock."""

    def __init__(self, clock, seconds):
        super().__init__()
        self.clock, self.seconds = clock, seconds

    def forward(self, x):
        self.clock[0] += self.seconds
        return x


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def test_each_layer_takes_what_its_calls_take_together(clock):
    class Twice(nn.Module):
        def __init__(self, first, second):
            super().__init__()
            self.first, self.second = Ticking(clock, first), Ticking(clock, second)

        def forward(self, x):
            clock[0] += 0.5  # belongs to no layer
            return self.second(self.first(self.first(x)))

    networks = {"slow": Twice(0.002, 0.003), "fast": Twice(0.001, 0.004)}
    found = times_in_networks(networks, ["first", "second"], torch.zeros(1, 3, 4, 4), runs=3)
    assert {
        (layer, name): round(taken.best_ms, 6)
        for layer, times in found.items()
        for name, taken in times.items()
    } == {
        ("first", "slow"): 4.0, ("first", "fast"): 2.0,
        ("second", "slow"): 3.0, ("second", "fast"): 4.0,
    }  # fmt: skip
    assert all(not module._forward_hooks for net in networks.values() for module in net.modules())


def test_hooks_of_a_layer_are_not_its_time(clock):
    layer = Ticking(clock, 0.002)
    network = nn.Sequential(layer)

    def slow(*_):
        clock[0] += 7

    layer.register_forward_hook(slow)
    layer.register_forward_pre_hook(slow)
    found = times_in_networks({"net": network}, ["0"], torch.zeros(1, 3, 4, 4), runs=2)
    assert round(found["0"]["net"].best_ms, 6) == 2.0


def test_a_budget_ends_the_runs(clock):
    network = nn.Sequential(Ticking(clock, 2.0))
    left = []
    times_in_networks(
        {"net": network}, ["0"], torch.zeros(1, 3, 4, 4), runs=100, seconds=8,
        progress=lambda done, total, seconds: left.append((done, total, seconds)),
    )  # fmt: skip
    # After the two runs that warm up; the third begins when eight seconds have passed: the last.
    assert left == [(k, 100, 4.0 - 2 * k) for k in range(3)]


def test_the_forms_of_a_plan_are_chosen_by_times_inside_the_network():
    found = profile(varied(), varied_spec())
    decided = plan(found, 0.4)
    networks = {}
    for form in FORMS:
        networks[form] = compress(varied(), decided).eval()
        use_forms(networks[form], in_one_form(decided, found, form))
    cases = layer_cases(decided, found, batch=2, threads=1)
    images = torch.randn(2, *varied_spec().input_shape)
    measured = profile_in_network(networks, cases, images, runs=2, threads=1)
    fast = with_forms(decided, found, measured, batch=2, threads=1)
    for layer in fast.layers:
        if layer.ranks is not None:
            times = measured.times(cases[layer.name])
            assert {item.form for item in times.forms} == set(FORMS)
            assert layer.form == times.fastest.form


def test_of_layers_alike_the_fastest_counts(clock):
    found = profile(varied(), varied_spec())
    case = next(iter(layer_cases(plan(found, 0.4), found, threads=1).values()))
    networks = {
        form: nn.Sequential(Ticking(clock, 0.004), Ticking(clock, 0.001 * (k + 1)))
        for k, form in enumerate(FORMS)
    }
    measured = profile_in_network(
        networks, {"0": case, "1": case}, torch.zeros(1, 3, 4, 4), runs=2, threads=1
    )
    (times,) = measured.layers
    assert [round(times.of(form).best_ms, 6) for form in FORMS] == [1.0, 2.0, 3.0, 4.0, 4.0]
