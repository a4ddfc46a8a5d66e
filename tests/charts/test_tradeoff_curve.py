"""The figure of accuracy over compression: what is drawn where."""

import pytest

from rsdtr.charts.tradeoff_curve import WINDOW, Place, tradeoff_figure
from rsdtr.planning.plan import Target
from tests.support.curves import made_up_curve, percent, point

CURVE = made_up_curve(
    point(0.6, 8.0, 97.0, refit=98.5),
    point(0.4, 3.0, 98.0),
    point(0.9, 20.0, 40.0),
    point(0.5, 4.0, 96.0).model_copy(update={"eps": None, "target": Target(kind="pcr", value=4)}),
)


def drawn(figure):
    return {trace.name: trace for trace in figure.data}


@pytest.mark.parametrize(
    ("axis", "expected"),
    [
        ("pcr", (3.0, 8.0, 20.0)),
        ("fcr", (1.5, 4.0, 10.0)),
        ("mb", (0.05, 0.125, 0.333333)),
    ],
)
def test_each_axis_has_the_points_in_its_own_unit(axis, expected):
    trace = drawn(tradeoff_figure(CURVE, axis))["recalibrated, one ε<sub>p</sub>"]
    assert trace.x == expected
    assert sorted(trace.y) == [40.0, 97.0, 98.0]


def test_time_has_the_points_that_were_measured():
    trace = drawn(tradeoff_figure(CURVE, "time", times={0.6: 1.7}))
    assert trace["recalibrated, one ε<sub>p</sub>"].x == (1.7,)
    assert "recalibrated, solved for a target" not in trace


def test_targets_and_refits_are_lines_of_their_own_and_a_point_says_what_it_asks_for():
    traces = drawn(tradeoff_figure(CURVE, "pcr"))
    assert traces["recalibrated, solved for a target"].x == (4.0,)
    assert traces["refit"].y == (98.5,)
    assert list(traces["refit"].customdata[0]) == ["εₚ 0.60", 0.6, 8.0, 96.5, 100.0]
    assert traces["recalibrated, solved for a target"].customdata[0][1] is None


def test_the_front_holds_what_no_other_point_beats():
    # 3.0: 98.0 is beaten by 8.0: 98.5 after its refit; 4.0: 96.0 as well; 20.0 is the smallest.
    front = drawn(tradeoff_figure(CURVE, "pcr"))["Pareto front"]
    assert list(zip(front.x, front.y, strict=True)) == [(20.0, 40.0), (8.0, 98.5)]


def test_a_network_without_batchnorm_has_one_line_of_what_was_compressed():
    bare = [
        p.model_copy(update={"accuracy": p.accuracy.model_copy(update={"recalibrated": None})})
        for p in CURVE.points
    ]
    names = set(drawn(tradeoff_figure(made_up_curve(*bare), "pcr")))
    assert "compressed, one ε<sub>p</sub>" in names
    assert not names & {"as compressed", "recalibrated, one ε<sub>p</sub>"}


def test_dense_is_a_dashed_line_with_its_interval_and_the_rest_is_cut_off_below():
    figure = tradeoff_figure(CURVE, "pcr")
    line, band = figure.layout.shapes
    assert (line.y0, line.y1, line.line.dash) == (99.0, 99.0, "dash")
    assert (band.y0, band.y1) == (97.0, 100.0)
    assert figure.layout.yaxis.range[0] == 99.0 - WINDOW


def test_the_present_plan_is_a_star_or_a_line_where_nobody_measured_it():
    places = [Place("now", 5.0, percent(97.5)), Place("A", 2.0, percent(99.0))]
    traces = drawn(tradeoff_figure(CURVE, "pcr", places))
    assert (traces["now"].x, traces["now"].y, traces["now"].marker.symbol) == (
        (5.0,), (97.5,), "star",
    )  # fmt: skip
    assert traces["A"].marker.symbol == "star-diamond"
    figure = tradeoff_figure(CURVE, "pcr", [Place("now", 5.0, None)])
    assert "now" not in drawn(figure)
    assert figure.layout.shapes[-1].x0 == 5.0


def test_a_curve_without_points_is_the_dense_line_alone():
    figure = tradeoff_figure(made_up_curve(), "pcr")
    assert len(figure.data) == 0
    assert figure.layout.yaxis.range[0] == 98.0
