"""The autopilot: what holds and what does not, told on images that nothing was chosen on."""

from dataclasses import replace

import pytest
import torch

from rsdtr.data.datasets import stratified
from rsdtr.errors import DataError, RsdtrError
from rsdtr.measuring.accuracy import right_answers
from rsdtr.measuring.paired import Z84, paired_drop
from rsdtr.recovery import autopilot
from rsdtr.recovery.autopilot import STEP, smallest_within
from tests.support.curves import digits


@pytest.fixture(scope="module")
def network():
    dense, costs, data = digits()
    return dense, costs, replace(data, train=data.train.subset(200))


@pytest.fixture(scope="module")
def found(network):
    dense, costs, data = network
    before = {name: value.clone() for name, value in dense.state_dict().items()}
    told = []
    answer = smallest_within(
        dense, costs, data, 4.0, recovers=("recalibrate",),
        on_trial=lambda trial, decided, about: told.append((decided, about)),
    )  # fmt: skip
    assert all(torch.equal(value, before[name]) for name, value in dense.state_dict().items())
    assert [decided for decided, _ in told] == list(range(1, len(told) + 1))
    assert all(decided <= about for decided, about in told)
    return answer


def test_it_holds_and_the_next_size_that_was_tried_does_not(found):
    held = [t.plan.pcr for t in found.trials if t.held]
    failed = [t.plan.pcr for t in found.trials if not t.held]
    assert found.plan.pcr == max(held)
    assert min(failed) > max(held)
    assert min(failed) / max(held) < STEP * 1.05  # neighbours of the ladder
    assert all((t.drop.interval[1] <= 4.0) == t.held for t in found.trials)


def test_what_is_told_is_of_images_that_nothing_was_chosen_on(network, found):
    dense, _, data = network
    chosen, reported = stratified(data.test.labels, 2)
    assert not set(chosen.tolist()) & set(reported.tolist())
    half = data.test.select(reported)
    before, after = (right_answers(net, half) for net in (dense, found.model))
    assert found.drop == paired_drop(before, after)
    assert found.drop.n == found.reached.n == len(reported)
    assert found.dense.percent - found.reached.percent == pytest.approx(found.drop.points)
    assert str(found).startswith(f"{found.plan.pcr:.1f} times fewer parameters, ")


def test_a_larger_budget_finds_a_network_that_is_no_larger(network, found):
    dense, costs, data = network
    more = smallest_within(dense, costs, data, 12.0, recovers=("recalibrate",))
    assert more.plan.pcr >= found.plan.pcr


def test_nothing_is_refit_where_recalibration_holds_and_the_refit_follows_where_not(
    network, monkeypatch
):
    dense, costs, data = network
    tried = []

    def recovered(small, reference, images, how):
        tried.append(how)
        return small if how == "recalibrate" else reference

    monkeypatch.setattr(autopilot, "recovered", recovered)
    found = smallest_within(dense, costs, data, 4.0)
    assert found.recover == "refit"  # that of the dense network always holds
    assert found.plan.pcr == max(t.plan.pcr for t in found.trials)
    by_size = {}
    for trial in found.trials:
        by_size.setdefault(trial.plan.pcr, []).append((trial.recover, trial.held))
    for rows in by_size.values():
        assert [how for how, _ in rows] == ["recalibrate", "refit"][: len(rows)]
        assert (len(rows) == 1) == rows[0][1]


def test_stopped_it_answers_with_the_best_so_far(network):
    dense, costs, data = network
    seen = []
    found = smallest_within(
        dense, costs, data, 12.0, recovers=("recalibrate",),
        should_stop=lambda: any(t.held for t in seen), on_trial=lambda t, *_: seen.append(t),
    )  # fmt: skip
    assert found.trials == tuple(seen)
    assert found.plan == seen[-1].plan


def test_too_few_images_say_how_many_it_takes(network):
    dense, costs, data = network
    few = replace(data, test=data.test.subset(40))
    with pytest.raises(DataError, match="cannot tell 1 points from none: give about") as caught:
        smallest_within(dense, costs, few, 1.0)
    asked = int(str(caught.value).partition("give about ")[2].partition(",")[0].replace(",", ""))
    right = torch.ones(asked // 2, dtype=torch.bool)
    assert paired_drop(right, right, Z84).interval[1] <= 1.0


def test_a_budget_that_nothing_holds_is_one_sentence(network, monkeypatch):
    dense, costs, data = network
    monkeypatch.setattr(
        autopilot, "recovered", lambda small, *_: torch.nn.Sequential(small, Wrong())
    )
    with pytest.raises(RsdtrError, match="allow more points, or give more test images"):
        smallest_within(dense, costs, data, 4.0, recovers=("recalibrate",))


class Wrong(torch.nn.Module):
    def forward(self, logits):
        return -logits


@pytest.mark.parametrize("points", [0.0, -1.0, float("nan")])
def test_a_budget_of_nothing_is_refused(network, points):
    with pytest.raises(RsdtrError, match="give a number of points above 0"):
        smallest_within(*network, points)


def test_without_labels_there_is_no_accuracy_to_spare(network):
    dense, costs, data = network
    with pytest.raises(DataError, match="an accuracy budget needs labels"):
        smallest_within(dense, costs, data.without_labels(), 1.0)
