"""The figures of trainings, refits and studies, running or ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from rsdtr.charts.accuracy import Stage, interval_of
from rsdtr.charts.style import BLUE, GREEN, GREY, ORANGE, VERMILION, titled
from rsdtr.recovery.checkpoint import EpochResult
from rsdtr.recovery.refit import Step
from rsdtr.recovery.study import STARTS, Start, Study

if TYPE_CHECKING:  # importing them would load the ONNX stack
    pass

MOST = 1.5  # of the error before: how bad a step that was not kept is drawn at most
_STYLES = {
    "relative error": (BLUE, "circle"),
    "rectified error": (ORANGE, "square"),
    "divergence": (GREEN, "diamond"),
}


def steps_figure(steps: Sequence[Step]) -> go.Figure:
    """What each step left of the error before it, on held-out images; 1 is no change.

    Filled symbols are steps that were kept, open ones those that were not; these are drawn at
    MOST where they left more. A layer that was skipped is not drawn.
    """
    figure = go.Figure()
    for measure, (colour, symbol) in _STYLES.items():
        chosen = [step for step in steps if step.measure == measure and step.skipped is None]
        if not chosen:
            continue
        figure.add_scatter(
            name=measure,
            x=[step.name for step in chosen],
            y=[min(1 - step.gained / 100, MOST) for step in chosen],
            mode="markers",
            marker={
                "symbol": [symbol if step.kept else f"{symbol}-open" for step in chosen],
                "size": 11,
                "color": colour,
                "line": {"width": 2, "color": colour},
            },
            customdata=[
                (step.before, step.after, "kept" if step.kept else "not kept") for step in chosen
            ],
            hovertemplate="%{x}<br>%{fullData.name}: %{customdata[0]:.4g} → "
            "%{customdata[1]:.4g}<br>%{customdata[2]}<extra></extra>",
            cliponaxis=False,
        )
    figure.add_hline(y=1, line={"color": GREY, "dash": "dash", "width": 2})
    order = list(dict.fromkeys(step.name for step in steps if step.skipped is None))
    figure.update_xaxes(categoryorder="array", categoryarray=order, tickangle=-45)
    figure.update_yaxes(
        title="Error left (after / before)",
        range=[0, MOST + 0.05],
        tickvals=[0, 0.25, 0.5, 0.75, 1, 1.25, MOST],
        ticktext=["0", "0.25", "0.5", "0.75", "1", "1.25", f"≥ {MOST:g}"],
    )
    return titled(figure, "Refit: what each step left of its error, on held-out images")


_LOOKS: dict[Start, tuple[str, str, str, str]] = {
    "factors": ("from its factors", BLUE, "circle", "solid"),
    "scratch": ("from random weights", VERMILION, "square", "dash"),
}


def study_figure(study: Study, dense_percent: float | None = None) -> go.Figure:
    """Validation accuracy after each epoch: a thin line per seed, a thick one for their mean.

    dense_percent: of the original network on the same images, as a horizontal line.
    """
    figure = go.Figure()
    for start in STARTS:
        name, colour, symbol, dash = _LOOKS[start]
        curves = [
            [run.untrained.percent, *(epoch.validation.percent for epoch in run.epochs)]
            for run in study.of(start)
        ]
        if not curves:
            continue
        for run, curve in zip(study.of(start), curves, strict=True):
            figure.add_scatter(
                x=list(range(len(curve))),
                y=curve,
                mode="lines",
                line={"color": colour, "width": 1, "dash": dash},
                opacity=0.45,
                showlegend=False,
                hovertemplate=f"{name}, seed {run.seed}, epoch %{{x}}: %{{y:.2f}} %<extra></extra>",
            )
        length = min(map(len, curves))
        mean = [sum(curve[at] for curve in curves) / len(curves) for at in range(length)]
        percent, deviation = study.spread(start)
        figure.add_scatter(
            name=f"{name}: test {percent:.2f} ± {deviation:.2f} %",
            x=list(range(length)),
            y=mean,
            mode="lines+markers",
            marker={"symbol": symbol, "size": 8},
            line={"color": colour, "width": 3, "dash": dash},
            hovertemplate=f"{name}, mean, epoch %{{x}}: %{{y:.2f}} %<extra></extra>",
        )
    if dense_percent is not None:
        figure.add_hline(
            dense_percent, line={"dash": "dot", "color": "grey"},
            annotation_text=f"dense {dense_percent:.2f} %",
        )  # fmt: skip
    figure.update_xaxes(title="epochs trained", dtick=1)
    figure.update_yaxes(title="validation accuracy (%)")
    seeds = len({run.seed for run in study.runs})
    title = (
        f"{study.plan.model}, {study.plan.label}, PCR {study.plan.pcr:.2f}: the same rings from "
        f"their factors and from scratch, {seeds} seed{'s' * (seeds != 1)}"
    )
    return titled(figure, title, height=430, note=study.assumed)


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
    assumed = next((each.validation.assumed for each in epochs if each.validation.assumed), None)
    title = "Fine-tuning: loss, learning rate, validation accuracy"
    return titled(figure, title, note=assumed)


def distillation_figure(losses: Sequence[float]) -> go.Figure:
    """The loss of every step of a distillation without labels, on a logarithmic axis."""
    figure = go.Figure()
    figure.add_scatter(
        name="loss",
        **_thinned(losses),
        mode="lines",
        line={"color": BLUE, "width": 1.5},
        hovertemplate="step %{x}: loss %{y:.3g}<extra></extra>",
    )
    figure.update_xaxes(title="Optimiser step", rangemode="tozero")
    figure.update_yaxes(title="Loss", type="log")
    return titled(figure, "Distillation: how far the network is from the dense one")


def runs_figure(runs: Mapping[str, Sequence[EpochResult]]) -> go.Figure:
    """Validation accuracy by epoch of several trainings, each under its name, with intervals."""
    figure = make_subplots()
    for place, (name, epochs) in enumerate(runs.items()):
        symbol = _RUN_SYMBOLS[place % len(_RUN_SYMBOLS)]
        _add_epochs(figure, name, epochs, _RUN_COLOURS[place % len(_RUN_COLOURS)], 1, symbol)
    figure.update_xaxes(title="Epoch")
    figure.update_yaxes(title="Validation top-1 (%)")
    assumed = (each.validation.assumed for epochs in runs.values() for each in epochs)
    return titled(figure, "Runs from this plan", note=next(filter(None, assumed), None))


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
