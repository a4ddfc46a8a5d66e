"""The trade-off curve: every point against the same steps taken one by one."""

from dataclasses import replace

import pytest

from rsdtr.compressed.compress import compress
from rsdtr.data.datasets import data_identity
from rsdtr.measuring.accuracy import Accuracy, accuracy
from rsdtr.measuring.fidelity import fidelity
from rsdtr.models.zoo import model_spec
from rsdtr.planning.choices import Choices
from rsdtr.planning.plan import Target, planned_bytes
from rsdtr.recovery import tradeoff_curve
from rsdtr.recovery.recalibrate import recalibrate
from rsdtr.recovery.recover import CALIBRATION_IMAGES
from rsdtr.recovery.tradeoff_curve import (
    Accuracies,
    CurveKey,
    coarse_questions,
    dense_curve,
    every_question,
    measure_curve,
)
from rsdtr.search.candidate import COARSE, GRID
from tests.support.curves import digits, made_up_curve, point

IMAGES = 60


@pytest.fixture(scope="module")
def network():
    dense, costs, data = digits()
    return dense, costs, replace(data, train=data.train.subset(100))


@pytest.fixture(scope="module")
def begun(network):
    dense, costs, data = network
    key = CurveKey.of(costs, Choices(), data_identity(None, model_spec(costs.model)), IMAGES)
    return dense_curve(dense, costs, data, key)


def test_a_point_is_the_plan_compressed_recalibrated_and_tested(network, begun):
    dense, costs, data = network
    asked = Choices(eps=0.7)
    *_, curve = measure_curve(dense, costs, data, begun, [asked])
    found = curve.at(asked)
    decided = asked.decide(costs)
    small = compress(dense, decided)
    test = data.test.subset(IMAGES)
    again = recalibrate(small, data.train, CALIBRATION_IMAGES, reference=dense)
    assert (found.pcr, found.fcr, found.bytes) == (
        decided.pcr, decided.fcr, planned_bytes(costs, decided),
    )  # fmt: skip
    assert found.accuracy.compressed == accuracy(small, test)
    assert found.accuracy.recalibrated == accuracy(again, test)
    assert found.accuracy.refit is None
    assert curve.dense == accuracy(dense, test)


def test_without_labels_a_point_is_how_far_it_answers_as_the_dense_network(network):
    dense, costs, data = network
    key = CurveKey.of(costs, Choices(), "unlabelled", 20, "fidelity")
    asked = Choices(eps=0.9)
    begun = dense_curve(dense, costs, data, key)
    assert (begun.dense.percent, begun.dense.n) == (100.0, 20)
    *_, curve = measure_curve(dense, costs, data, begun, [asked], "none")
    found = fidelity(compress(dense, asked.decide(costs)), dense, data.test.subset(20))
    reached = curve.at(asked).accuracy.compressed
    assert (reached.percent, reached.interval, reached.n) == (found.percent, found.interval, 20)


def test_a_point_without_a_ring_is_the_dense_network(network, begun, monkeypatch):
    dense, costs, data = network
    monkeypatch.setattr(tradeoff_curve, "compress", lambda *_: pytest.fail("computed a ring"))
    *_, curve = measure_curve(dense, costs, data, begun, [Choices(eps=0.02)])
    (only,) = curve.points
    assert only.pcr == 1.0
    assert {found for _, found in only.accuracy.stages} == {curve.dense}


def test_what_is_there_is_not_measured_again_and_a_missing_stage_is_added(
    network, begun, monkeypatch
):
    dense, costs, data = network
    asked = Choices(eps=0.7)
    *_, compressed = measure_curve(dense, costs, data, begun, [asked], "none")
    assert compressed.at(asked).accuracy.recalibrated is None
    *_, recalibrated = measure_curve(dense, costs, data, compressed, [asked])
    before, after = compressed.at(asked).accuracy, recalibrated.at(asked).accuracy
    assert after.compressed == before.compressed
    assert after.recalibrated is not None
    assert len(recalibrated.points) == 1
    assert list(measure_curve(dense, costs, data, recalibrated, [asked])) == []


def test_a_target_out_of_reach_has_no_point_and_the_others_are_measured(network, begun):
    dense, costs, data = network
    reachable, beyond = (Choices(target=Target(kind="pcr", value=v)) for v in (4.0, 9999.0))
    told = []
    *_, curve = measure_curve(
        dense, costs, data, begun, [beyond, reachable], "none",
        progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    assert [p.label for p in curve.points] == ["PCR ≥ 4"]
    assert curve.at(reachable).pcr >= 4
    assert told == [(0, 2), (1, 2), (2, 2)]


def test_it_stops_between_two_points(network, begun):
    dense, costs, data = network
    stop = iter((False, True))
    questions = [Choices(eps=0.02), Choices(eps=0.03)]
    curves = list(
        measure_curve(dense, costs, data, begun, questions, should_stop=lambda: next(stop))
    )
    assert [len(curve.points) for curve in curves] == [1]


def test_questions_cover_the_slider_and_keep_the_rule():
    like = Choices(rule="tight", target=Target(kind="fcr", value=2), own=(("conv1", None),))
    coarse, every = coarse_questions(like), every_question(like)
    assert sorted(q.eps for q in coarse if q.target is None) == list(COARSE)
    assert {q.eps for q in every if q.target is None} == set(GRID)
    # The objective that goes with an FCR is the curve's, so that all its points have one key.
    assert {(q.rule, q.objective, q.own) for q in every} == {("tight", "macs", ())}


def test_a_question_is_answered_by_its_own_point_alone():
    curve = made_up_curve(point(0.4, 3.0, 99.0), point(0.6, 8.0, 97.0))
    assert curve.at(Choices(eps=0.4)).pcr == 3.0
    assert curve.at(Choices(eps=0.5)) is None
    assert curve.at(Choices(eps=0.4, own=(("conv1", None),))) is None
    assert curve.at(Choices(eps=0.4, objective="latency")) is None
    assert curve.at(Choices(target=Target(kind="pcr", value=3.0))) is None
    below, above = curve.around(Choices(eps=0.5))
    assert (below.eps, above.eps) == (0.4, 0.6)
    assert curve.around(Choices(eps=0.7)) is None
    assert curve.around(Choices(target=Target(kind="pcr", value=5.0))) is None


def test_the_smallest_within_a_drop_is_by_the_best_stage():
    curve = made_up_curve(point(0.4, 3.0, 98.9), point(0.6, 8.0, 50.0, refit=98.0), dense=99.0)
    assert curve.smallest(1.0).eps == 0.6
    assert curve.smallest(0.5).eps == 0.4
    assert curve.smallest(0.05) is None
    assert curve.smallest(1.0).accuracy.best[0] == "refit"
    assert curve.smallest(0.5).accuracy.best[0] == "compressed"  # of equals, the least work


def test_two_measurements_add_up_and_more_stages_win():
    short = made_up_curve(point(0.4, 3.0, 98.0), point(0.5, 5.0, 97.0))
    long = made_up_curve(point(0.4, 3.0, 98.0, refit=99.0), point(0.6, 8.0, 96.0))
    for merged in (short.merged(long), long.merged(short)):
        assert sorted(p.eps for p in merged.points) == [0.4, 0.5, 0.6]
        assert merged.at(Choices(eps=0.4)).accuracy.refit.percent == 99.0


def test_stages_come_in_the_order_of_the_work():
    one = Accuracy(90.0, (80.0, 95.0), 100)
    assert [name for name, _ in Accuracies(refit=one, compressed=one).stages] == [
        "compressed", "refit",
    ]  # fmt: skip
