"""What all figures share: colours, titles, legends, the table of their points, and common traces.

Colours are those of Okabe and Ito, told apart by people who do not see all hues; symbols and line
styles say the same again. Backgrounds are transparent, so that figures fit a light and a dark page.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterator, Sequence

import pandas as pd
import plotly.graph_objects as go

BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PINK, GREY = "#CC79A7", "#8C8C8C"
RATIO_TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
Trace = dict[str, object]
_NOTE = 20  # pixels of a line under the title
_NARROW, _LINE = 420, 21  # pixels of a legend's line in a narrow window: its width and height


def titled(
    figure: go.Figure, title: str, *, height: int = 420, note: str | None = None
) -> go.Figure:
    """What every figure shares: a title on the left, the legend under it, nothing behind.

    note: what belongs beside its numbers, in a smaller line under the title.
    """
    figure.update_layout(_shared(title, height, figure.layout.showlegend is not False))
    if note is not None:
        figure.update_layout(
            title={"subtitle": {"text": html.escape(note), "font": {"size": 11}}},
            margin={"t": figure.layout.margin.t + _NOTE},
        )
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


_LOG = re.compile(r",? \(log\)|, log(?=\))")
_TAG = re.compile(r"<[^>]*>")


def points_table(figure: go.Figure) -> pd.DataFrame:
    """One row per point of the figure's lines, markers and bars, in the order they are drawn.

    Columns: `series`, and the titles of the axes with their units; an axis of names has `name`.
    Intervals are two columns more, and so is `plan` where the points are plans, by their ids. A
    figure of several panels has the columns of each.
    """
    drawn = [trace for trace in figure.data if trace.type in ("scatter", "bar")]
    rows = [row for trace in drawn for row in _rows(figure, trace)]
    return pd.DataFrame(rows).convert_dtypes()


def _rows(figure: go.Figure, trace: go.Scatter | go.Bar) -> Iterator[dict[str, object]]:
    titles = [_title(figure, trace, direction) for direction in "xy"]
    values = [trace.x, trace.y]
    for place, point in enumerate(zip(*values, strict=True)):
        row: dict[str, object] = {"series": _plain(trace.name or "")}
        if trace.ids is not None:
            row["plan"] = _plain(trace.ids[place])
        for title, value, bars in zip(titles, point, (trace.error_x, trace.error_y), strict=True):
            row[title] = _plain(value) if isinstance(value, str) else value
            if bars.array is not None:
                less = bars.array if bars.arrayminus is None else bars.arrayminus
                row[f"{title}, from"] = value - less[place]
                row[f"{title}, to"] = value + bars.array[place]
        yield row


def _title(figure: go.Figure, trace: go.Scatter | go.Bar, direction: str) -> str:
    axis = (trace[f"{direction}axis"] or direction).replace(direction, f"{direction}axis", 1)
    title = figure.layout[axis].title.text
    if title:
        return _LOG.sub("", _plain(title))
    values = trace[direction]
    return "name" if len(values) and isinstance(values[0], str) else direction


def _plain(text: str) -> str:
    """Without Plotly's tags; of two lines, the first says what it is."""
    first = text.partition("<br>")[0]
    return _TAG.sub("", first.replace("ε<sub>p</sub>", "εₚ").replace("ε_p", "εₚ"))
