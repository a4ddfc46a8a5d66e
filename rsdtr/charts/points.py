"""The table behind a figure: the points that it draws."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pandas as pd
import plotly.graph_objects as go

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
