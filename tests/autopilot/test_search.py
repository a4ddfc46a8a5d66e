"""The autopilot: what holds and what does not, told on images that nothing was chosen on."""

from dataclasses import replace

import pytest
import torch

from rsdtr.autopilot import search, trials_on_disk
from rsdtr.autopilot.budget import STEP, Budget
from rsdtr.autopilot.search import smallest_within
from rsdtr.baselines.comparison import OnnxNetwork, int8_file
from rsdtr.compressed.ring_layer import RingLayer
from rsdtr.data.datasets import stratified
from rsdtr.errors import DataError, RsdtrError
from rsdtr.measuring.accuracy import accuracy, right_answers
from rsdtr.measuring.paired import Z84, paired_drop
from tests.support.curves import digits


@pytest.fixture(scope="module")
def network():
    dense, costs, data = digits()
    return dense, costs, replace(data, train=data.train.subset(200))


@pytest.fixture(autouse=True)
def no_trials_of_before(tmp_path, monkeypatch):
    monkeypatch.setattr(trials_on_disk, "cache_folder", lambda: tmp_path)


@pytest.fixture(scope="module")
def found(network):
    dense, costs, data = network
    before = {name: value.clone() for name, value in dense.state_dict().items()}
    told = []
    answer = smallest_within(
        dense, costs, data, Budget(4.0, recover="recalibrate"),
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


def test_a_budget_that_does_not_hold_on_the_other_half_says_so(found):
    within = replace(found, max_drop=max(found.drop.points, 0.1))
    assert str(within).endswith("nothing was chosen on), recalibrated")
    over = replace(found, max_drop=found.drop.points - 0.5)
    assert str(over).startswith(str(within))
    assert f"; that is more than the {over.max_drop:g} of the budget, which held on the 180" in str(
        over
    )


def test_a_larger_budget_finds_a_network_that_is_no_larger(network, found):
    dense, costs, data = network
    more = smallest_within(dense, costs, data, Budget(12.0, recover="recalibrate"))
    assert more.plan.pcr >= found.plan.pcr


def test_nothing_is_refit_where_recalibration_holds_and_the_refit_follows_where_not(
    network, monkeypatch
):
    dense, costs, data = network
    tried = []

    def recovered(small, reference, images, how, progress):
        tried.append(how)
        return small if how == "recalibrate" else reference

    monkeypatch.setattr(search, "recovered", recovered)
    found = smallest_within(dense, costs, data, Budget(4.0))
    assert found.stage == "refit"  # that of the dense network always holds
    assert found.plan.pcr == max(t.plan.pcr for t in found.trials)
    by_size = {}
    for trial in found.trials:
        by_size.setdefault(trial.plan.pcr, []).append((trial.stage, trial.held))
    for rows in by_size.values():
        assert [how for how, _ in rows] == ["recalibrated", "refit"][: len(rows)]
        assert (len(rows) == 1) == rows[0][1]


def test_stopped_it_answers_with_the_best_so_far(network):
    dense, costs, data = network
    seen = []
    found = smallest_within(
        dense, costs, data, Budget(12.0, recover="recalibrate"),
        should_stop=lambda: any(t.held for t in seen), on_trial=lambda t, *_: seen.append(t),
    )  # fmt: skip
    assert found.trials == tuple(seen)
    assert found.plan == seen[-1].plan


def test_too_few_images_say_how_many_it_takes(network):
    dense, costs, data = network
    few = replace(data, test=data.test.subset(40))
    with pytest.raises(DataError, match="cannot tell 1 points from none: give about") as caught:
        smallest_within(dense, costs, few, Budget(1.0))
    asked = int(str(caught.value).partition("give about ")[2].partition(",")[0].replace(",", ""))
    right = torch.ones(asked // 2, dtype=torch.bool)
    assert paired_drop(right, right, Z84).interval[1] <= 1.0


def test_a_budget_that_nothing_holds_is_one_sentence(network, monkeypatch):
    dense, costs, data = network
    monkeypatch.setattr(search, "recovered", lambda small, *_: torch.nn.Sequential(small, Wrong()))
    with pytest.raises(RsdtrError, match="allow more points, more recovery or more time"):
        smallest_within(dense, costs, data, Budget(4.0, recover="recalibrate"))


class Wrong(torch.nn.Module):
    sign = -1

    def forward(self, logits):
        return self.sign * logits


@pytest.mark.parametrize("points", [0.0, -1.0, float("nan")])
def test_a_budget_of_nothing_is_refused(points):
    with pytest.raises(RsdtrError, match="give a number of points above 0"):
        Budget(points)


def test_a_second_budget_makes_nothing_anew_that_was_tried(network, monkeypatch):
    dense, costs, data = network
    first = smallest_within(dense, costs, data, Budget(4.0, recover="recalibrate"))
    assert not any(trial.known for trial in first.trials)

    def again(*_):
        raise AssertionError("it was known")

    monkeypatch.setattr(search, "recovered", again)
    second = smallest_within(dense, costs, data, Budget(4.0, recover="recalibrate"))
    assert all(trial.known for trial in second.trials)
    assert second.drop == first.drop
    assert second.plan.layers == first.plan.layers
    state = second.model.state_dict()
    assert all(torch.equal(value, state[n]) for n, value in first.model.state_dict().items())


def test_the_guess_is_tried_first_and_its_neighbour_next(network):
    dense, costs, data = network
    tried = []
    smallest_within(
        dense, costs, data, Budget(4.0, recover="recalibrate"), guess=6.0,
        on_trial=lambda trial, *_: tried.append(trial),
    )  # fmt: skip
    assert 6.0 / STEP < tried[0].plan.pcr < 6.0 * STEP
    if tried[0].held:
        assert tried[1].plan.pcr / tried[0].plan.pcr == pytest.approx(STEP, rel=0.06)


def test_without_labels_the_dense_networks_answers_are_what_counts(network):
    dense, costs, data = network
    found = smallest_within(dense, costs, data.without_labels(), Budget(4.0, recover="recalibrate"))
    assert found.measure == "fidelity"
    assert found.dense.percent == 100.0
    assert found.drop.points == pytest.approx(100 - found.reached.percent)
    assert "another answer than the dense network's for " in str(found)
    with pytest.raises(DataError, match="fine-tuning needs labels"):
        smallest_within(dense, costs, data.without_labels(), Budget(4.0, epochs=1))


def test_what_is_judged_by_its_int8_file_is_reported_by_it(network):
    dense, costs, data = network
    stopped = []
    found = smallest_within(
        dense, costs, data, Budget(20.0, recover="recalibrate", int8=True), guess=3.0,
        should_stop=lambda: bool(stopped), on_trial=lambda trial, *_: stopped.append(trial.held),
    )  # fmt: skip
    half = data.test.select(stratified(data.test.labels, 2)[1])
    file = int8_file(found.model, half.spec, data.train)
    assert found.reached == accuracy(OnnxNetwork(file), half)
    assert found.int8
    assert str(found).endswith("recalibrated, int8")


def test_for_speed_times_are_those_of_the_network_that_is_given(network):
    dense, costs, data = network
    seen = []
    found = smallest_within(
        dense, costs, data, Budget(20.0, "speed", recover="recalibrate", threads=1), guess=3.0,
        should_stop=lambda: any(seen), on_trial=lambda trial, *_: seen.append(trial.held),
    )  # fmt: skip
    assert found.plan.target.kind == "fcr"
    assert found.speed.dense == "dense, folded"
    assert found.speed.milliseconds > 0
    assert found.speed.ratio == found.speed.milliseconds / found.speed.dense_milliseconds
    assert str(found).startswith(f"{found.speed.ratio:.2f} of the time of the best dense network")
    forms = {layer.form for layer in found.plan.layers if layer.ranks}
    assert len(forms - {"dense"}) == 1
    rings = {m.form for m in found.model.modules() if isinstance(m, RingLayer)}
    assert rings == forms
    assert found.drop.n == len(stratified(data.test.labels, 2)[1])


def test_a_refit_that_does_not_hold_is_trained_and_the_time_ends_it(network, monkeypatch):
    dense, costs, data = network
    monkeypatch.setattr(search, "recovered", lambda small, *_: torch.nn.Sequential(small, Wrong()))
    trained = []

    def finetune(model, splits, options, *, teacher, should_stop):
        trained.append((options.epochs, teacher is dense))
        model[1].sign = 1
        yield from ()

    monkeypatch.setattr(search, "finetune", finetune)
    monkeypatch.setattr(search.KeptTrials, "write", lambda *_: None)
    found = smallest_within(
        dense, costs, data, Budget(30.0, epochs=3), guess=2.0,
        should_stop=lambda: bool(len(trained) > 1),
    )  # fmt: skip
    assert found.stage == "fine-tuned"
    assert set(trained) == {(3, True)}
    with pytest.raises(RsdtrError, match="or more time"):
        smallest_within(dense, costs, data, Budget(30.0, seconds=1e-9))


@pytest.mark.parametrize(
    ("means", "expected"),
    [
        ({"seconds": 0}, "the time is 0 s: give more than 0"),
        ({"epochs": -1}, "epochs is -1: give at least 0"),
        ({"batch": 0}, "batch is 0: give at least 1"),
        ({"purpose": "beauty"}, "give one of size, speed"),
        ({"recover": "pray"}, "give one of none, recalibrate"),
        ({"engine": "steam"}, "is no engine"),
        ({"engine": "eager", "int8": True}, "its files run in onnxruntime"),
    ],
)
def test_an_impossible_budget_is_one_sentence(means, expected):
    with pytest.raises(RsdtrError, match=expected):
        Budget(**means)
