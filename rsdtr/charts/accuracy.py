"""The figures of what accuracy is left and won back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from rsdtr.charts.style import GREEN, GREY, VERMILION, titled
from rsdtr.measuring.accuracy import Accuracy


@dataclass(frozen=True)
class Stage:
    """A step from the dense network to the recovered one, with its measured top-1 accuracy."""

    label: str
    accuracy: Accuracy


def stages_figure(stages: Sequence[Stage]) -> go.Figure:
    """Test accuracy of each stage with its 95 % interval; the first stage is the dashed line."""
    accuracies = [stage.accuracy for stage in stages]
    others = len(stages) - 2
    figure = go.Figure(
        go.Scatter(
            x=[accuracy.percent for accuracy in accuracies],
            y=[f"{stage.label}<br><b>{stage.accuracy.percent:.1f} %</b>" for stage in stages],
            error_x=interval_of(accuracies),
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


def interval_of(accuracies: Sequence[Accuracy]) -> dict[str, object]:
    """Plotly's error bars for 95 % intervals."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [accuracy.interval[1] - accuracy.percent for accuracy in accuracies],
        "arrayminus": [accuracy.percent - accuracy.interval[0] for accuracy in accuracies],
        "thickness": 1.5,
        "color": GREY,  # seen on a light and on a dark page
    }
