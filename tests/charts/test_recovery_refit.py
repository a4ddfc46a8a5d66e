"""The figure and the table of a refit, as data."""

import pytest

from rsdtr.charts.recovery import MOST, steps_figure
from rsdtr.charts.tables import steps_table
from rsdtr.recovery.refit import Step

STEPS = (
    Step("layer1.conv1", "relative error", 0.5, 0.125),
    Step("layer1.conv1", "rectified error", 0.25, 0.2),
    Step("layer2.conv1", "relative error", 0.1, 0.7),
    Step("cores", "divergence", 2.0, 0.5),
    Step("BatchNorm", "divergence", 0.5, float("inf")),
)


def test_every_step_is_drawn_with_what_it_left_and_whether_it_was_kept():
    figure = steps_figure(STEPS)
    relative, rectified, divergence = figure.data
    assert relative.x == ("layer1.conv1", "layer2.conv1")
    assert relative.y == (0.25, MOST)
    assert relative.marker.symbol == ("circle", "circle-open")
    assert list(relative.customdata[1]) == [0.1, 0.7, "not kept"]
    assert rectified.y == pytest.approx((0.8,))
    assert divergence.x == ("cores", "BatchNorm")
    assert divergence.y == (0.25, MOST)
    assert divergence.marker.symbol == ("diamond", "diamond-open")
    order = ("layer1.conv1", "layer2.conv1", "cores", "BatchNorm")
    assert figure.layout.xaxis.categoryarray == order


def test_a_refit_that_has_only_begun_has_a_figure():
    figure = steps_figure(STEPS[:1])
    assert [trace.name for trace in figure.data] == ["relative error"]


def test_the_table_of_steps():
    table = steps_table(STEPS)
    assert table["step"].tolist() == [step.name for step in STEPS]
    assert table["gained (%)"].tolist()[:4] == pytest.approx([75, 20, -600, 75])
    assert table["kept"].tolist() == [True, True, False, True, False]
    assert list(steps_table(())) == list(table)


def test_nothing_is_gained_where_nothing_was_wrong():
    assert Step("layer1.conv1", "relative error", 0.0, 0.0).gained == 0
