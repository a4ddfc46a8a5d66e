"""The figures of trainings, running or ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from rsdtr.charts.accuracy import Stage, interval_of
from rsdtr.charts.style import BLUE, GREEN, GREY, ORANGE, VERMILION, titled
from rsdtr.recovery.checkpoint import EpochResult

MOST_POINTS = 1000  # of a line: a figure that is drawn again every second must stay small
_RUN_COLOURS = (BLUE, ORANGE, GREEN, VERMILION)
_RUN_SYMBOLS = ("circle", "square", "diamond", "triangle-up")


def training_figure(
    losses: Sequence[float],
    learning_rates: Sequence[float],
    epochs: Sequence[EpochResult],
    *,
    references: Sequence[Stage] = (),
) -> go.Figure:
    """Loss and learning rate of every step, validation accuracy of every epoch with 95 % intervals.

    references: accuracies on the same validation images, as horizontal lines; the first one, of the
    dense network, with its interval as a band.
    """
    figure = make_subplots(cols=3, horizontal_spacing=0.09)
    figure.add_scatter(
        name="training loss",
        **_thinned(losses),
        mode="lines",
        line={"color": BLUE, "width": 1.5},
        hovertemplate="step %{x}: loss %{y:.3f}<extra></extra>",
        row=1,
        col=1,
    )
    figure.add_scatter(
        name="learning rate",
        **_thinned(learning_rates),
        mode="lines",
        line={"color": ORANGE, "width": 1.5, "dash": "dashdot"},
        hovertemplate="step %{x}: learning rate %{y:.4f}<extra></extra>",
        row=1,
        col=2,
    )
    _add_epochs(figure, "validation accuracy", epochs, GREEN, 3)
    ends = [0.5, max(len(epochs), 1) + 0.5]
    for stage, colour, dash in zip(references, (GREY, VERMILION), ("dash", "dot"), strict=False):
        figure.add_scatter(
            name=f"{stage.label}: {stage.accuracy.percent:.1f} %",
            x=ends,
            y=[stage.accuracy.percent] * 2,
            mode="lines",
            line={"color": colour, "dash": dash, "width": 2},
            hovertemplate=f"{stage.label}: %{{y:.2f}} %<extra></extra>",
            row=1,
            col=3,
        )
    for stage in references[:1]:
        low, high = stage.accuracy.interval
        figure.add_hrect(y0=low, y1=high, fillcolor=GREY, opacity=0.2, line_width=0, row=1, col=3)
    figure.update_xaxes(title="Optimiser step", rangemode="tozero", row=1, col=1)
    figure.update_yaxes(title="Loss", rangemode="tozero", row=1, col=1)
    figure.update_xaxes(title="Optimiser step", rangemode="tozero", row=1, col=2)
    figure.update_yaxes(title="Learning rate", rangemode="tozero", row=1, col=2)
    figure.update_xaxes(title="Epoch", dtick=1 if len(epochs) <= 20 else None, row=1, col=3)
    figure.update_yaxes(title="Validation top-1 (%)", row=1, col=3)
    return titled(figure, "Fine-tuning: loss, learning rate, validation accuracy")


def runs_figure(runs: Mapping[str, Sequence[EpochResult]]) -> go.Figure:
    """Validation accuracy by epoch of several trainings, each under its name, with intervals."""
    figure = make_subplots()
    for place, (name, epochs) in enumerate(runs.items()):
        symbol = _RUN_SYMBOLS[place % len(_RUN_SYMBOLS)]
        _add_epochs(figure, name, epochs, _RUN_COLOURS[place % len(_RUN_COLOURS)], 1, symbol)
    figure.update_xaxes(title="Epoch")
    figure.update_yaxes(title="Validation top-1 (%)")
    return titled(figure, "Runs from this plan")


def _thinned(values: Sequence[float]) -> dict[str, list[float]]:
    """x and y of a line: every value, or the means of equal stretches of many."""
    stretch = -(-len(values) // MOST_POINTS) or 1
    parts = [values[start : start + stretch] for start in range(0, len(values), stretch)]
    return {
        "x": [min((place + 1) * stretch, len(values)) for place in range(len(parts))],
        "y": [sum(part) / len(part) for part in parts],
    }


def _add_epochs(
    figure: go.Figure,
    name: str,
    epochs: Sequence[EpochResult],
    colour: str,
    column: int,
    symbol: str = "circle",
) -> None:
    """A line of accuracies; stars mark epochs that were the best so far."""
    measured = [result.validation for result in epochs]
    figure.add_scatter(
        name=name,
        x=[result.epoch for result in epochs],
        y=[accuracy.percent for accuracy in measured],
        error_y=interval_of(measured),
        mode="lines+markers",
        line={"color": colour, "width": 2},
        marker={
            "symbol": ["star" if result.best else symbol for result in epochs],
            "size": [14 if result.best else 8 for result in epochs],
        },
        hovertemplate="epoch %{x}: %{y:.2f} %<extra></extra>",
        row=1,
        col=column,
    )
