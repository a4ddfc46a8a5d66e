"""The figures and the table of trainings, as data."""

import pytest

from rsdtr.charts.accuracy import Stage
from rsdtr.charts.recovery import MOST_POINTS, runs_figure, training_figure
from rsdtr.charts.tables import runs_table
from rsdtr.measuring.accuracy import Accuracy
from rsdtr.recovery.checkpoint import Curve, EpochResult, TrainingRun
from rsdtr.recovery.options import FinetuneOptions


def epoch(number: int, correct: int, best: bool) -> EpochResult:
    return EpochResult(number, 3, 0.5, Accuracy.of(correct, 100), 0.01, 2.0, best)


EPOCHS = (epoch(1, 80, True), epoch(2, 90, True), epoch(3, 85, False))


def test_every_step_and_epoch_is_drawn_with_the_dense_band():
    dense, start = Stage("dense", Accuracy.of(95, 100)), Stage("start", Accuracy.of(20, 100))
    figure = training_figure([2.0, 1.0], [0.1, 0.05], EPOCHS, references=(dense, start))
    losses, rates, reached, line, other = figure.data
    assert (losses.x, losses.y) == ((1, 2), (2.0, 1.0))
    assert rates.y == (0.1, 0.05)
    assert reached.y == (80, 90, 85)
    assert reached.marker.symbol == ("star", "star", "circle")
    assert reached.error_y.array[0] == pytest.approx(Accuracy.of(80, 100).interval[1] - 80)
    assert line.name == "dense: 95.0 %"
    assert line.y == (95, 95)
    assert other.name == "start: 20.0 %"
    (band,) = figure.layout.shapes
    assert (band.y0, band.y1) == Accuracy.of(95, 100).interval


def test_a_training_that_has_only_begun_has_a_figure():
    figure = training_figure([], [], ())
    assert figure.data[0].x == ()


def test_many_steps_are_drawn_as_means():
    values = [float(step) for step in range(2 * MOST_POINTS + 1)]  # in threes
    figure = training_figure(values, values, ())
    assert len(figure.data[0].x) == 667
    assert figure.data[0].y[:2] == (1.0, 4.0)
    assert figure.data[0].x[:2] == (3, 6)
    assert figure.data[0].x[-1] == len(values)
    assert figure.data[0].y[-1] == pytest.approx(sum(values[1998:]) / 3)


def test_runs_are_told_apart_without_colours():
    figure = runs_figure({"a": EPOCHS, "b": EPOCHS[:1], "c": EPOCHS[2:]})
    assert [trace.name for trace in figure.data] == ["a", "b", "c"]
    assert figure.data[0].marker.symbol[2] != figure.data[2].marker.symbol[0]


def test_the_table_of_runs():
    options = FinetuneOptions(distill=0.5)
    runs = [
        TrainingRun("0123456789abcdef", "done", options, Curve((), (), EPOCHS, ())),
        TrainingRun("0123456789abcdef", "done", options, Curve((), (), (), ())),
    ]
    first, second = runs_table(runs).to_dict("records")
    assert (first["epochs"], first["best validation (%)"], first["epoch (s)"]) == ("3 of 3", 90, 2)
    assert (first["from (%)"], first["to (%)"]) == Accuracy.of(90, 100).interval
    assert first["distillation"] == 0.5
    assert second["epochs"] == "0 of 3"
    assert second["best validation (%)"] != second["best validation (%)"]  # not a number: no epoch
