"""The figures of what accuracy is left and won back. Style as in rsdtr/charts.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from rsdtr.charts import BLUE, GREEN, GREY, VERMILION, titled
from rsdtr.checkpoint import EpochResult
from rsdtr.evaluate import Accuracy


@dataclass(frozen=True)
class Stage:
    """A step from the dense network to the recovered one, with its measured top-1 accuracy."""

    label: str
    accuracy: Accuracy


def training_figure(
    losses: Sequence[float],
    epochs: Sequence[EpochResult],
    *,
    references: Sequence[Stage] = (),
) -> go.Figure:
    """Training loss of every step, and validation accuracy of every epoch with its 95 % interval.

    references: accuracies on the same validation images, drawn as horizontal lines.
    """
    figure = make_subplots(cols=2, horizontal_spacing=0.12)
    figure.add_scatter(
        name="training loss",
        x=list(range(1, len(losses) + 1)),
        y=list(losses),
        mode="lines",
        line={"color": BLUE, "width": 1.5},
        hovertemplate="step %{x}: loss %{y:.3f}<extra></extra>",
        row=1,
        col=1,
    )
    measured = [result.validation for result in epochs]
    figure.add_scatter(
        name="validation accuracy",
        x=list(range(1, len(epochs) + 1)),
        y=[accuracy.percent for accuracy in measured],
        error_y=_interval(measured),
        mode="lines+markers",
        line={"color": GREEN, "width": 2},
        marker={
            "symbol": ["star" if result.best else "circle" for result in epochs],
            "size": [14 if result.best else 8 for result in epochs],
        },
        hovertemplate="epoch %{x}: %{y:.2f} %<extra></extra>",
        row=1,
        col=2,
    )
    for stage, colour, dash in zip(references, (GREY, VERMILION), ("dash", "dot"), strict=False):
        figure.add_scatter(
            name=f"{stage.label}: {stage.accuracy.percent:.1f} %",
            x=[0.5, max(len(epochs), 1) + 0.5],
            y=[stage.accuracy.percent] * 2,
            mode="lines",
            line={"color": colour, "dash": dash, "width": 2},
            hovertemplate=f"{stage.label}: %{{y:.2f}} %<extra></extra>",
            row=1,
            col=2,
        )
    figure.update_xaxes(title="Optimiser step", rangemode="tozero", row=1, col=1)
    figure.update_yaxes(title="Cross-entropy (nats)", rangemode="tozero", row=1, col=1)
    figure.update_xaxes(title="Epoch", dtick=1 if len(epochs) <= 20 else None, row=1, col=2)
    figure.update_yaxes(title="Validation top-1 (%)", row=1, col=2)
    return titled(figure, "Fine-tuning: training loss and validation accuracy")


def stages_figure(stages: Sequence[Stage]) -> go.Figure:
    """Test accuracy of each stage with its 95 % interval; the first stage is the dashed line."""
    accuracies = [stage.accuracy for stage in stages]
    others = len(stages) - 2
    figure = go.Figure(
        go.Scatter(
            x=[accuracy.percent for accuracy in accuracies],
            y=[f"{stage.label}<br><b>{stage.accuracy.percent:.1f} %</b>" for stage in stages],
            error_x=_interval(accuracies),
            mode="markers",
            marker={
                "size": 13,
                "color": [GREY, VERMILION, *[GREEN] * others][: len(stages)],
                "symbol": ["diamond", "x", *["circle"] * others][: len(stages)],
            },
            customdata=[(*accuracy.interval, accuracy.n) for accuracy in accuracies],
            hovertemplate="%{x:.2f} %<br>95 % interval %{customdata[0]:.1f} to "
            "%{customdata[1]:.1f} %<br>%{customdata[2]:,} images<extra></extra>",
            cliponaxis=False,
        )
    )
    figure.add_vline(x=accuracies[0].percent, line={"color": GREY, "dash": "dash", "width": 2})
    # Intervals, not bars from zero: the axis may begin just below the worst of them.
    lowest = min(accuracy.interval[0] for accuracy in accuracies)
    figure.update_xaxes(
        title="Top-1 accuracy on test images (%)", range=[max(lowest - 4, 0), 100.5]
    )
    figure.update_yaxes(autorange="reversed")
    figure.update_layout(showlegend=False)
    return titled(figure, "Accuracy of each stage", height=120 + 70 * len(stages))


def _interval(accuracies: Sequence[Accuracy]) -> dict[str, object]:
    return {
        "type": "data",
        "symmetric": False,
        "array": [accuracy.interval[1] - accuracy.percent for accuracy in accuracies],
        "arrayminus": [accuracy.percent - accuracy.interval[0] for accuracy in accuracies],
        "thickness": 1.5,
        "color": GREY,  # seen on a light and on a dark page
    }
