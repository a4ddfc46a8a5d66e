"""The figure of a network's parts: what becomes of stages, blocks and convolutions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import plotly.graph_objects as go

from rsdtr.charts.style import RATIO_TICKS, Trace, drawn
from rsdtr.planning.network_parts import LEVELS, Part

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
    size = f"{len(part.layers)} convolutions<br>" if len(part.layers) > 1 else ""
    return (
        f"{part.name} ({part.level})<br>{size}"
        f"{part.before:,} parameters before, {part.after:,} after: {part.gain:.2f} ×"
        f"<br>relative error {part.relative_error:.3f}"
    )
