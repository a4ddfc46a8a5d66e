"""The figures of latency, tested as data."""

import pytest

from rsdtr.charts.latency import LatencyPoint, forms_figure, latency_figure
from rsdtr.measuring.layer_times import LayerCase
from tests.support.made_up import layer_times

CASE = LayerCase(
    shape=(6, 4, 3, 3), ranks=(1, 2, 3, 2), stride=(1, 1), padding=(1, 1), input_size=(9, 8),
    batch=16, threads=2,
)  # fmt: skip
POINTS = [LatencyPoint("ε_p 0.6", 4.0, 2.0, 0.7), LatencyPoint("ε_p 0.3", 1.5, 0.8, 0.95)]


def test_forms_figure_draws_the_medians_and_marks_what_runs():
    figure = forms_figure(layer_times(CASE, dense=4.0, O_IHW=1.5, pipeline=6.0))
    medians, best = figure.data
    assert list(medians.y) == [5.0, 7.0, 2.5, 11.0, 11.0]
    assert list(medians.error_y.array) == [0.25] * 5
    assert list(best.y) == [4.0, 6.0, 1.5, 10.0, 10.0]
    forms = ["dense", "pipeline", "O|IHW", "I|HWO", "IH|WO"]
    assert [name.removeprefix("★ ").split("<br>")[0] for name in medians.x] == forms
    assert [name.startswith("★") for name in medians.x] == [form == "O|IHW" for form in forms]
    assert [bool(shape) for shape in medians.marker.pattern.shape] == [
        form != "O|IHW" for form in forms
    ]
    assert "paper's sublayers" in medians.x[1]
    assert "2.5 ms" in medians.x[2]
    assert "batch 16, 2 threads" in figure.layout.title.text
    assert "(ms)" in figure.layout.yaxis.title.text


def test_a_slower_ring_leaves_the_star_to_dense():
    medians = forms_figure(layer_times(CASE, dense=3.0)).data[0]
    assert [name.startswith("★") for name in medians.x] == [True] + 4 * [False]


def test_of_a_layer_that_stays_dense_only_that_is_drawn():
    medians = forms_figure(layer_times(CASE, O_IHW=1.0), kept_dense=True).data[0]
    assert list(medians.y) == [11.0]
    assert medians.x[0].startswith("★ dense")


def test_latency_figure_draws_what_was_measured_and_no_more():
    figure = latency_figure([("batch 1", POINTS), ("batch 16", POINTS[:1])], POINTS[0])
    lines = {trace.name: (list(trace.x), list(trace.y)) for trace in figure.data}
    assert lines["batch 1"] == ([1.5, 4.0], [0.95, 0.7])
    assert lines["batch 16"] == ([4.0], [0.7])
    assert lines["now"] == ([4.0], [0.7])
    promised = lines["promised by MACs"]
    assert promised[0] == [1.5, 4.0]
    assert promised[1] == pytest.approx([1 / 0.8, 1 / 2.0])
    hovers = [text for trace in figure.data for text in trace.customdata or ()]
    assert hovers == ["ε<sub>p</sub> 0.3", "ε<sub>p</sub> 0.6", "ε<sub>p</sub> 0.6"]


def test_without_a_present_point_there_is_no_star():
    assert "now" not in {trace.name for trace in latency_figure([("b", POINTS)], None).data}


def test_what_a_browser_ran_is_drawn_beside_the_curves_and_promised_as_well():
    here = LatencyPoint("εₚ 0.6", 4.0, 2.0, 0.7)
    figure = latency_figure([("batch 1", [LatencyPoint("εₚ 0.3", 2.0, 1.25, 0.9)])], None, [here])
    (square,) = [trace for trace in figure.data if trace.name == "your browser"]
    assert (list(square.x), list(square.y)) == ([4.0], [0.7])
    promised = figure.data[0]
    assert (list(promised.x), list(promised.y)) == ([2.0, 4.0], [0.8, 0.5])
    assert not any(t.name == "your browser" for t in latency_figure([], None).data)
