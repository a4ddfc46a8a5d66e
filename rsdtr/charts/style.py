"""What all figures share: colours, titles, legends, and traces that several of them draw.

Colours are those of Okabe and Ito, told apart by people who do not see all hues; symbols and line
styles say the same again. Backgrounds are transparent, so that figures fit a light and a dark page.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import plotly.graph_objects as go

BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PINK, GREY = "#CC79A7", "#8C8C8C"
RATIO_TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
Trace = dict[str, object]
_NARROW, _LINE = 420, 21  # pixels of a legend's line in a narrow window: its width and height


def titled(figure: go.Figure, title: str, *, height: int = 420) -> go.Figure:
    """What every figure shares: a title on the left, the legend under it, nothing behind."""
    figure.update_layout(_shared(title, height, figure.layout.showlegend is not False))
    figure.update_xaxes(automargin=True)
    figure.update_yaxes(automargin=True)
    return figure


def _shared(title: str, height: int, legend: bool) -> dict[str, object]:
    return {
        "title": {"text": title, "x": 0, "xanchor": "left", "y": 0.98, "yanchor": "top"},
        "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"},
        "height": height,
        "margin": {"l": 8, "r": 8, "t": 80 if legend else 48, "b": 8},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
    }


def hang_legend(figure: go.Figure, below: int) -> go.Figure:
    """Put a long legend right under the title, with room for it in a narrow window too.

    below: pixels for all that is under the legend.
    """
    names = [trace.name for trace in figure.data if trace.showlegend is not False]
    width = sum(45 + 6.5 * len(name) for name in names)
    top = 60 + _LINE * math.ceil(width / _NARROW)
    legend = {"yref": "container", "y": 1 - 44 / (below + top), "yanchor": "top"}
    return figure.update_layout(height=below + top, margin={"t": top}, legend=legend)


def drawn(
    traces: Sequence[Trace], title: str, xaxis: Trace, yaxis: Trace, **layout: object
) -> go.Figure:
    """A figure in one piece: for those that follow a slider, ten times as fast as step by step."""
    axes = {"xaxis": {"automargin": True} | xaxis, "yaxis": {"automargin": True} | yaxis}
    shared = _shared(title, 420, layout.get("showlegend") is not False)
    return go.Figure(data=traces, layout=shared | axes | layout)


def star(x: float, y: float, hover: str) -> Trace:
    """The trace of the present plan among others; hover: as Plotly writes it."""
    return {
        "type": "scatter",
        "name": "now",
        "x": [x],
        "y": [y],
        "mode": "markers",
        "marker": {
            "symbol": "star",
            "size": 17,
            "color": ORANGE,
            "line": {"color": GREY, "width": 1},
        },
        "hovertemplate": hover,
    }


def line(
    name: str,
    x: Sequence[float],
    y: Sequence[float],
    colour: str,
    symbol: str,
    dash: str,
    hover: str,
) -> Trace:
    """The trace of one curve; hover: as Plotly writes it."""
    return {
        "type": "scatter",
        "name": name,
        "x": list(x),
        "y": list(y),
        "mode": "lines+markers",
        "line": {"color": colour, "dash": dash, "width": 2},
        "marker": {"symbol": symbol, "size": 6},
        "hovertemplate": hover,
    }


def in_html(label: str) -> str:
    """A plan's label as Plotly writes it."""
    return label.replace("ε_p", "ε<sub>p</sub>")
