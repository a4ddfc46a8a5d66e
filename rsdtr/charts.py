"""Plain data in, Plotly figures out: the figures of a whole network, for the app and notebooks.

Colours are those of Okabe and Ito, told apart by people who do not see all hues; symbols and line
styles say the same again. Backgrounds are transparent, so that figures fit a light and a dark page.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from rsdtr.evaluate import Accuracy
from rsdtr.plan import CompressionPlan, LayerPlan
from rsdtr.recover import EpochResult

BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
GREY = "#8C8C8C"


@dataclass(frozen=True)
class RatioPoint:
    """One point of the trade-off: whole-network ratios original / compressed at an ε_p."""

    eps: float
    pcr: float
    fcr: float


@dataclass(frozen=True)
class FrontPoint:
    """A plan in the trade-off: what it was asked for, what it reaches, and the damage it does.

    reached: PCR or FCR (×), or MB of the file, whichever the figure is about.
    """

    label: str
    reached: float
    damage: float


@dataclass(frozen=True)
class Stage:
    """A step from the dense network to the recovered one, with its measured top-1 accuracy."""

    label: str
    accuracy: Accuracy


def layers_figure(plan: CompressionPlan) -> go.Figure:
    """Parameters of every convolution before and after, with what the search chose on hover."""
    names = [layer.name for layer in plan.layers]
    rings = [layer for layer in plan.layers if layer.kept_dense is None]
    dense = [layer for layer in plan.layers if layer.kept_dense is not None]
    before = [math.prod(layer.shape) for layer in plan.layers]
    figure = go.Figure()
    figure.add_bar(
        name="before",
        x=names,
        y=before,
        marker={"color": GREY},
        hovertemplate="%{x}<br>before: %{y:,} parameters<extra></extra>",
    )
    figure.add_bar(
        name="after, as a ring",
        x=[layer.name for layer in rings],
        y=[layer.storage for layer in rings],
        marker={"color": BLUE},
        customdata=[layer.name for layer in rings],
        hovertext=[_layer_story(layer) for layer in rings],
        hovertemplate="%{hovertext}<extra></extra>",
    )
    figure.add_bar(
        name="after, kept dense",
        x=[layer.name for layer in dense],
        y=[math.prod(layer.shape) for layer in dense],
        marker={"color": ORANGE, "pattern": {"shape": "/", "bgcolor": ORANGE, "fgcolor": "black"}},
        customdata=[layer.name for layer in dense],
        hovertext=[f"{layer.name}<br>kept dense: {layer.kept_dense}" for layer in dense],
        hovertemplate="%{hovertext}<extra></extra>",
    )
    figure.update_layout(barmode="group", bargap=0.25, bargroupgap=0.05)
    figure.update_xaxes(categoryorder="array", categoryarray=names, tickangle=-45)
    figure.update_yaxes(title="Kernel parameters (scalars)", rangemode="tozero")
    return titled(
        figure, f"Parameters of each convolution, before and after: {in_html(plan.label)}"
    )


def ratios_figure(points: Sequence[RatioPoint], current: RatioPoint | None) -> go.Figure:
    """PCR and FCR against ε_p; the current choice, if it is one ε_p, is the large star."""
    figure = go.Figure()
    eps = [point.eps for point in points]
    series = (
        ("PCR (parameters)", BLUE, "circle", "solid", [p.pcr for p in points]),
        ("FCR (FLOPs)", VERMILION, "square", "dash", [p.fcr for p in points]),
    )
    for name, colour, symbol, dash, ratios in series:
        hover = f"{name}<br>ε<sub>p</sub> %{{x:.2f}}: %{{y:.2f}} ×<extra></extra>"
        figure.add_scatter(
            name=name,
            x=eps,
            y=ratios,
            mode="lines+markers",
            line={"color": colour, "dash": dash, "width": 2},
            marker={"symbol": symbol, "size": 6},
            hovertemplate=hover,
        )
        if current is None:
            continue
        now = current.pcr if name.startswith("PCR") else current.fcr
        figure.add_scatter(
            name=f"{name} now",
            x=[current.eps],
            y=[now],
            mode="markers+text",
            marker={"symbol": "star", "size": 15, "color": colour},
            text=[f"{now:.2f}"],
            textposition="middle right" if current.eps < 0.85 else "middle left",
            showlegend=False,
            hovertemplate=hover,
        )
    figure.add_hline(y=1, line={"color": GREY, "dash": "dot", "width": 1})
    figure.update_xaxes(title="Prescribed relative error ε<sub>p</sub> (no unit)", range=[0, 1])
    figure.update_yaxes(
        title="Original / compressed (×, log)",
        type="log",
        tickvals=(0.25, 0.5, 1, 2, 5, 10, 20, 50, 100),
    )
    return titled(figure, "Compression of the whole network against ε<sub>p</sub>")


def fronts_figure(
    uniform: Sequence[FrontPoint],
    solved: Sequence[FrontPoint],
    current: FrontPoint,
    *,
    reached: str,
    damage: str,
) -> go.Figure:
    """Damage against what is reached: one ε_p for all layers, and an ε_p for each.

    reached, damage: titles of the axes, with their units. The star is the current plan.
    """
    figure = go.Figure()
    series = (
        ("one ε<sub>p</sub> for all layers", uniform, VERMILION, "square", "dash"),
        ("an ε<sub>p</sub> for each layer", solved, BLUE, "circle", "solid"),
    )
    for name, points, colour, symbol, dash in series:
        figure.add_scatter(
            name=name,
            x=[point.reached for point in points],
            y=[point.damage for point in points],
            mode="lines+markers",
            line={"color": colour, "dash": dash, "width": 2},
            marker={"symbol": symbol, "size": 6},
            customdata=[in_html(point.label) for point in points],
            hovertemplate="%{customdata}<br>%{x:.3g}, damage %{y:.3g}<extra></extra>",
        )
    figure.add_scatter(
        name="now",
        x=[current.reached],
        y=[current.damage],
        mode="markers",
        marker={"symbol": "star", "size": 17, "color": ORANGE, "line": {"color": GREY, "width": 1}},
        hovertemplate=f"now: {in_html(current.label)}<br>%{{x:.3g}}, damage %{{y:.3g}}"
        "<extra></extra>",
    )
    figure.update_xaxes(title=reached, type="log")
    figure.update_yaxes(title=damage, type="log")
    return titled(figure, "What compression costs")


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


def titled(figure: go.Figure, title: str, *, height: int = 420) -> go.Figure:
    """What every figure shares: a title on the left, the legend under it, nothing behind."""
    figure.update_layout(
        title={"text": title, "x": 0, "xanchor": "left", "y": 0.98, "yanchor": "top"},
        legend={"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"},
        height=height,
        margin={"l": 8, "r": 8, "t": 80 if figure.layout.showlegend is not False else 48, "b": 8},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
    )
    figure.update_xaxes(automargin=True)
    figure.update_yaxes(automargin=True)
    return figure


def in_html(label: str) -> str:
    """A plan's label as Plotly writes it."""
    return label.replace("ε_p", "ε<sub>p</sub>")


def _interval(accuracies: Sequence[Accuracy]) -> dict[str, object]:
    return {
        "type": "data",
        "symmetric": False,
        "array": [accuracy.interval[1] - accuracy.percent for accuracy in accuracies],
        "arrayminus": [accuracy.percent - accuracy.interval[0] for accuracy in accuracies],
        "thickness": 1.5,
        "color": GREY,  # seen on a light and on a dark page
    }


def _layer_story(layer: LayerPlan) -> str:
    ranks = ", ".join(map(str, layer.ranks or ()))
    return (
        f"{layer.name}<br>after: {layer.storage:,} parameters"
        f"<br>ranks [{ranks}], shift {layer.shift}, r0 {layer.r0}"
        f"<br>relative error {layer.relative_error:.3f}"
    )
