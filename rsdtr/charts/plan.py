"""The figures of a whole network's plan: its layers, its parts, and its trade-offs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import plotly.graph_objects as go

from rsdtr.charts.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    RATIO_TICKS,
    VERMILION,
    Trace,
    drawn,
    in_html,
    line,
    star,
)
from rsdtr.planning.network_parts import LEVELS, Part
from rsdtr.planning.plan import CompressionPlan, LayerPlan


@dataclass(frozen=True)
class RatioPoint:
    """One point of the trade-off: whole-network ratios original / compressed at an ε_p.

    time: the same ratio of the measured times of its layers; None where they were not measured.
    """

    eps: float
    pcr: float
    fcr: float
    time: float | None = None


@dataclass(frozen=True)
class FrontPoint:
    """A plan in the trade-off: what it was asked for, what it reaches, and the damage it does.

    reached: PCR or FCR (×), or MB of the file, whichever the figure is about; eps: the ε_p of all
    its layers, None where each has its own.
    """

    label: str
    reached: float
    damage: float
    eps: float | None = None


def layers_figure(plan: CompressionPlan, height: int = 420) -> go.Figure:
    """Parameters of every layer before and after, with what the search chose on hover."""
    names = [layer.name for layer in plan.layers]
    rings = [layer for layer in plan.layers if layer.kept_dense is None]
    dense = [layer for layer in plan.layers if layer.kept_dense is not None]
    traces: list[Trace] = [
        {
            "type": "bar",
            "name": "before",
            "x": names,
            "y": [math.prod(layer.shape) for layer in plan.layers],
            "marker": {"color": GREY},
            "customdata": names,
            "hovertemplate": "%{x}<br>before: %{y:,} parameters<extra></extra>",
        },
        {
            "type": "bar",
            "name": "after, as a ring",
            "x": [layer.name for layer in rings],
            "y": [layer.storage for layer in rings],
            "marker": {"color": BLUE},
            "customdata": [layer.name for layer in rings],
            "hovertext": [_layer_story(layer) for layer in rings],
            "hovertemplate": "%{hovertext}<extra></extra>",
        },
        {
            "type": "bar",
            "name": "after, kept dense",
            "x": [layer.name for layer in dense],
            "y": [math.prod(layer.shape) for layer in dense],
            "marker": {
                "color": ORANGE,
                "pattern": {"shape": "/", "bgcolor": ORANGE, "fgcolor": "black"},
            },
            "customdata": [layer.name for layer in dense],
            "hovertext": [f"{layer.name}<br>kept dense: {layer.kept_dense}" for layer in dense],
            "hovertemplate": "%{hovertext}<extra></extra>",
        },
    ]
    return drawn(
        traces,
        f"Parameters of each layer: {in_html(plan.label)}",
        {"categoryorder": "array", "categoryarray": names, "tickangle": -45},
        {"title": {"text": "Kernel parameters (scalars)"}, "rangemode": "tozero"},
        barmode="group",
        bargap=0.25,
        bargroupgap=0.05,
        height=height,
    )


def ratios_figure(points: Sequence[RatioPoint], current: RatioPoint | None) -> go.Figure:
    """PCR, FCR and measured time against ε_p; the current choice, if one ε_p, is the large star.

    Points that were not measured are not on the line of times, which is left out if none was.
    `customdata` of a point of the lines holds its ε_p.
    """
    now = (None, None, None) if current is None else (current.pcr, current.fcr, current.time)
    measured = [(p.eps, p.time) for p in points if p.time is not None]
    series = (
        ("PCR (parameters)", BLUE, "circle", "solid", [(p.eps, p.pcr) for p in points], now[0]),
        ("FCR (FLOPs)", VERMILION, "square", "dash", [(p.eps, p.fcr) for p in points], now[1]),
        ("time (measured)", GREEN, "diamond", "dot", measured, now[2]),
    )
    traces: list[Trace] = []
    for name, colour, symbol, dash, drawn_points, reached in series:
        hover = f"{name}<br>ε<sub>p</sub> %{{x:.2f}}: %{{y:.2f}} ×<extra></extra>"
        if drawn_points:
            eps, ratios = zip(*drawn_points, strict=True)
            curve = line(name, eps, ratios, colour, symbol, dash, hover)
            traces.append(curve | {"customdata": list(eps)})
        if current is not None and reached is not None:
            traces.append(
                {
                    "type": "scatter",
                    "name": f"{name} now",
                    "x": [current.eps],
                    "y": [reached],
                    "mode": "markers+text",
                    "marker": {"symbol": "star", "size": 15, "color": colour},
                    "text": [f"{reached:.2f}"],
                    # Beside curves that rise, not on them.
                    "textposition": "top left" if colour == BLUE else "bottom right",
                    "showlegend": False,
                    "hovertemplate": hover,
                }
            )
    one = {"color": GREY, "dash": "dot", "width": 1}
    return drawn(
        traces,
        "Compression against ε<sub>p</sub>",
        {"title": {"text": "Prescribed relative error ε<sub>p</sub>"}, "range": [0, 1]},
        {
            "title": {"text": "Original / compressed (×, log)"},
            "type": "log",
            "tickvals": RATIO_TICKS,
        },
        shapes=[{"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": 1, "y1": 1, "line": one}],
    )


def fronts_figure(
    uniform: Sequence[FrontPoint],
    solved: Sequence[FrontPoint],
    current: FrontPoint,
    *,
    reached: str,
    damage: str,
) -> go.Figure:
    """Damage against what is reached: one ε_p for all layers, and an ε_p for each.

    reached, damage: titles of the axes, with their units. The star is the current plan;
    `customdata` of the other points holds their label, their ε_p or None, and what they reach.
    """
    series = (
        ("one ε<sub>p</sub> for all", uniform, VERMILION, "square", "dash"),
        ("one for each layer", solved, BLUE, "circle", "solid"),
    )
    traces: list[Trace] = [
        line(
            name,
            [point.reached for point in points],
            [point.damage for point in points],
            colour,
            symbol,
            dash,
            "%{customdata[0]}<br>%{x:.3g}, damage %{y:.3g}<extra></extra>",
        )
        | {
            "customdata": [[in_html(at.label), at.eps, at.reached] for at in points],
            "ids": [at.label for at in points],
        }
        for name, points, colour, symbol, dash in series
    ]
    hover = f"now: {in_html(current.label)}<br>%{{x:.3g}}, damage %{{y:.3g}}<extra></extra>"
    traces.append(star(current.reached, current.damage, hover))
    return drawn(
        traces,
        "What compression costs",
        {"title": {"text": reached}, "type": "log", "tickvals": RATIO_TICKS},
        {"title": {"text": damage}, "type": "log", "dtick": 1},
    )


def _layer_story(layer: LayerPlan) -> str:
    ranks = ", ".join(map(str, layer.ranks or ()))
    return (
        f"{layer.name}<br>after: {layer.storage:,} parameters"
        f"<br>ranks [{ranks}], shift {layer.shift}, r0 {layer.r0}"
        f"<br>relative error {layer.relative_error:.3f}"
    )


Colour = Literal["gain", "error"]
SCALE = "Cividis"  # read by its lightness alone, in any sight of colours
_PANELS = ("before", "after")


def parts_figure(found: Sequence[Part], model: str, colour: Colour) -> go.Figure:
    """Every part as long as it has parameters, before above after, at one scale.

    colour: gain (original / compressed, log) or the relative error, of the same part in both
    panels. `customdata` holds the name of a convolution, and nothing for what is more than one.
    """
    values = [math.log10(part.gain) if colour == "gain" else part.relative_error for part in found]
    traces: list[Trace] = [
        {
            "type": "bar",
            "name": panel,
            "orientation": "h",
            "x": [(part.before, part.after)[which] for part in found],
            "base": [part.starts[which] for part in found],
            "y": [part.level for part in found],
            "yaxis": ("y", "y2")[which],
            "marker": {
                "color": values,
                "coloraxis": "coloraxis",
                "line": {"color": "white", "width": 1},
            },
            "text": [_label(part) for part in found],
            "textposition": "inside",
            "insidetextanchor": "middle",
            "textangle": 0,
            "customdata": [part.name if part.level == "convolution" else None for part in found],
            "hovertext": [_story(part) for part in found],
            "hovertemplate": "%{hovertext}<extra></extra>",
        }
        for which, panel in enumerate(_PANELS)
    ]
    rows = {"categoryorder": "array", "categoryarray": LEVELS[::-1], "showgrid": False}
    return drawn(
        traces,
        f"{model} before and after: every part as long as it has parameters",
        {"title": {"text": "Kernel parameters, in network order (scalars)"}, "anchor": "y2"},
        rows | {"title": {"text": "before"}, "domain": [0.54, 1]},
        yaxis2=rows | {"title": {"text": "after"}, "domain": [0, 0.46], "automargin": True},
        margin={"l": 8, "r": 8, "t": 48, "b": 8},
        barmode="overlay",
        bargap=0.05,
        showlegend=False,
        uniformtext={"mode": "hide", "minsize": 9},
        coloraxis=_colour_axis(values, colour),
    )


def _colour_axis(values: Sequence[float], colour: Colour) -> Trace:
    # A scale of one value only, as of a plan without rings, would be drawn around it.
    axis: Trace = {
        "colorscale": SCALE,
        "cmin": min(values),
        "cmax": max(*values, min(values) + 0.01),
    }
    if colour == "error":
        return axis | {"colorbar": {"title": {"text": "Relative<br>error"}}}
    title = {"text": "Gain (×, log):<br>original /<br>compressed"}
    ticks = [tick for tick in RATIO_TICKS if tick >= 1] + [1.5, 3]
    return axis | {
        "colorbar": {
            "title": title,
            "tickvals": [math.log10(tick) for tick in ticks],
            "ticktext": [f"{tick:g}" for tick in ticks],
        }
    }


def _label(part: Part) -> str:
    # The block above has the first two words of a convolution's name.
    words = part.name.split(".")
    return ".".join(words[2:]) if len(words) > 2 else part.name


def _story(part: Part) -> str:
    size = f"{len(part.layers)} layers<br>" if len(part.layers) > 1 else ""
    return (
        f"{part.name} ({part.level})<br>{size}"
        f"{part.before:,} parameters before, {part.after:,} after: {part.gain:.2f} ×"
        f"<br>relative error {part.relative_error:.3f}"
    )
