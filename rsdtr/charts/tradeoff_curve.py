"""The figure of accuracy, or of fidelity, over compression."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import plotly.graph_objects as go

from rsdtr.charts.accuracy import interval_of
from rsdtr.charts.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PINK,
    RATIO_TICKS,
    VERMILION,
    Trace,
    drawn,
    in_html,
)
from rsdtr.measuring.accuracy import Accuracy
from rsdtr.recovery.tradeoff_curve import CurvePoint, Measure, TradeoffCurve

Axis = Literal["pcr", "fcr", "mb", "time"]
AXES: dict[Axis, str] = {
    "pcr": "PCR: parameters, original / compressed (×, log)",
    "fcr": "FCR: FLOPs, original / compressed (×, log)",
    "mb": "Size of the file (MB, log)",
    "time": "Time of its layers, dense / compressed, measured (×, log)",
}
MEASURES: dict[Measure, str] = {
    "accuracy": "Top-1 accuracy on test images (%)",
    "fidelity": "Fidelity to the dense network (%)",
}
WINDOW = 20  # percentage points below dense that are drawn at first
# In the corner that a curve leaves free: it begins high, and falls to the right.
_LEGEND = {
    "orientation": "v", "x": 0.01, "xanchor": "left", "y": 0.01, "yanchor": "bottom",
    "bgcolor": "rgba(0,0,0,0)",
}  # fmt: skip
_SYMBOLS = {"now": "star", "A": "star-diamond"}


@dataclass(frozen=True)
class Place:
    """A network beside the curve: the present plan, the pinned one, another method.

    x: in the unit of the axis; accuracy: None where it was not measured.
    """

    name: str
    x: float
    accuracy: Accuracy | None


def tradeoff_figure(
    curve: TradeoffCurve,
    axis: Axis,
    places: Sequence[Place] = (),
    times: Mapping[float, float] | None = None,
    height: int = 420,
) -> go.Figure:
    """What every measured point reaches, dense as a dashed line with its interval.

    places: stars, and the points of other methods; one without an accuracy is a line up the figure.
    times: dense / compressed by ε_p, for the axis `time`. `customdata` of a point of the curve
    holds its label, its ε_p or None, and the PCR that it reaches.
    """

    def x(point: CurvePoint) -> float | None:
        if axis == "mb":
            return point.bytes / 1e6
        if axis == "time":
            return None if point.eps is None else (times or {}).get(point.eps)
        return point.pcr if axis == "pcr" else point.fcr

    uniform = [point for point in curve.points if point.eps is not None]
    solved = [point for point in curve.points if point.eps is None]
    recalibrates = any(point.accuracy.recalibrated for point in curve.points)
    main: Callable[[CurvePoint], Accuracy | None] = lambda point: (  # noqa: E731
        point.accuracy.recalibrated if recalibrates else point.accuracy.compressed
    )
    said = "recalibrated" if recalibrates else "compressed"
    series: list[tuple[str, list[CurvePoint], Callable[[CurvePoint], Accuracy | None], Trace]] = [
        (f"{said}, one ε<sub>p</sub>", uniform, main, _style(BLUE, "circle", "solid")),
        (f"{said}, solved for a target", solved, main, _style(GREEN, "diamond", "dash")),
        ("refit", uniform, lambda p: p.accuracy.refit, _style(VERMILION, "square", "dot")),
    ]
    if recalibrates:
        compressed = _style(GREY, "x", "dot")
        series.append(("as compressed", uniform, lambda p: p.accuracy.compressed, compressed))
    traces = [
        trace
        for name, points, stage, style in series
        if (trace := _line(name, points, x, stage, style)) is not None
    ]
    front = _front(curve.points, x, smaller=axis == "mb")
    if front is not None:
        traces.append(front)
    traces += [_place(place) for place in places if place.accuracy is not None]
    shapes = [_dense_line(curve.dense), _dense_band(curve.dense)]
    shapes += [_upright(place.x) for place in places if place.accuracy is None]
    lowest = min((p.accuracy.best[1].percent for p in curve.points), default=curve.dense.percent)
    bottom = max(lowest - 1, curve.dense.percent - WINDOW, 0)
    return drawn(
        traces,
        f"{curve.key.measure.capitalize()} over {'size' if axis in ('pcr', 'mb') else 'speed'}",
        _across(axis),
        {"title": {"text": MEASURES[curve.key.measure]}, "range": [bottom, 100.5]},
        shapes=shapes,
        height=height,
        legend=_LEGEND,
        margin={"l": 8, "r": 8, "t": 40, "b": 8},
        annotations=[
            {
                "text": f"dense {curve.dense.percent:.1f} %",
                "xref": "paper",
                "x": 1,
                "xanchor": "right",
                "y": curve.dense.percent,
                "yanchor": "bottom",
                "showarrow": False,
            }
        ],
    )


def _across(axis: Axis) -> Trace:
    """The axis from the dense network at the left to the smallest, or fastest, at the right."""
    ticks = {*RATIO_TICKS, 0.01, 0.02, 0.05} if axis == "mb" else {*RATIO_TICKS, 1.5, 3, 4, 6, 8}
    across: Trace = {"title": {"text": AXES[axis]}, "type": "log", "tickvals": sorted(ticks)}
    return across | ({"autorange": "reversed"} if axis == "mb" else {})


def _style(colour: str, symbol: str, dash: str) -> Trace:
    return {
        "mode": "lines+markers",
        "line": {"color": colour, "dash": dash, "width": 2},
        "marker": {"symbol": symbol, "size": 6, "color": colour},
    }


def _line(
    name: str,
    points: Sequence[CurvePoint],
    x: Callable[[CurvePoint], float | None],
    stage: Callable[[CurvePoint], Accuracy | None],
    style: Trace,
) -> Trace | None:
    found = sorted(
        (
            (at, accuracy, point)
            for point in points
            if (at := x(point)) is not None and (accuracy := stage(point)) is not None
        ),
        key=lambda row: row[0],
    )
    if not found:
        return None
    return style | {
        "type": "scatter",
        "name": name,
        "x": [at for at, _, _ in found],
        "y": [accuracy.percent for _, accuracy, _ in found],
        "ids": [point.label for _, _, point in found],
        "customdata": [
            [in_html(point.label), point.eps, point.pcr, *accuracy.interval]
            for _, accuracy, point in found
        ],
        "hovertemplate": f"{name}<br>%{{customdata[0]}}, PCR %{{customdata[2]:.2f}}<br>"
        "<b>%{y:.2f} %</b> (%{customdata[3]:.1f} to %{customdata[4]:.1f})<extra></extra>",
    }


def _front(
    points: Sequence[CurvePoint], x: Callable[[CurvePoint], float | None], smaller: bool
) -> Trace | None:
    """The points that no other beats in both, by their best stage."""
    placed = [(at, p.accuracy.best[1].percent) for p in points if (at := x(p)) is not None]
    placed.sort(key=lambda row: (row[0] if smaller else -row[0], -row[1]))
    front: list[tuple[float, float]] = []
    for at, percent in placed:  # from the best compressed to the least
        if not front or percent > front[-1][1]:
            front.append((at, percent))
    if len(front) < 2:
        return None
    return {
        "type": "scatter",
        "name": "Pareto front",
        "x": [at for at, _ in front],
        "y": [percent for _, percent in front],
        "mode": "markers",
        "marker": {"symbol": "circle-open", "size": 12, "color": PINK, "line": {"width": 1.5}},
        "hoverinfo": "skip",
    }


def _place(place: Place) -> Trace:
    assert place.accuracy is not None
    return {
        "type": "scatter",
        "name": place.name,
        "x": [place.x],
        "y": [place.accuracy.percent],
        "error_y": interval_of([place.accuracy]),
        "mode": "markers",
        "marker": {
            "symbol": _SYMBOLS.get(place.name, "triangle-up"),
            "size": 17 if place.name in _SYMBOLS else 11,
            "color": ORANGE if place.name in _SYMBOLS else PINK,
            "line": {"color": GREY, "width": 1},
        },
        "hovertemplate": f"{place.name}: %{{x:.3g}}, <b>%{{y:.2f}} %</b><extra></extra>",
    }


def _dense_line(dense: Accuracy) -> Trace:
    at = {"xref": "paper", "x0": 0, "x1": 1, "y0": dense.percent, "y1": dense.percent}
    return at | {"type": "line", "line": {"color": GREY, "dash": "dash", "width": 2}}


def _dense_band(dense: Accuracy) -> Trace:
    low, high = dense.interval
    at = {"xref": "paper", "x0": 0, "x1": 1, "y0": low, "y1": high}
    return at | {"type": "rect", "fillcolor": GREY, "opacity": 0.12, "line": {"width": 0}}


def _upright(x: float) -> Trace:
    at = {"yref": "paper", "x0": x, "x1": x, "y0": 0, "y1": 1}
    return at | {"type": "line", "line": {"color": ORANGE, "dash": "dot", "width": 2}}
