"""The figures of what was measured: one layer in each form, a network over its compression."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from rsdtr.charts.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    VERMILION,
    Trace,
    drawn,
    in_html,
    line,
    star,
    titled,
)
from rsdtr.measuring.layer_times import FormTime, LayerTimes
from rsdtr.ring.forms import Form

ORDER: tuple[Form, ...] = ("dense", "pipeline", "O|IHW", "I|HWO", "IH|WO")
_COLOURS: dict[Form, str] = {"dense": GREY, "pipeline": VERMILION}
_PCR_TICKS = (1, 1.5, 2, 3, 4, 5, 7, 10, 15, 20, 30, 50, 100, 200, 500, 1000)
_SERIES = ((GREEN, "diamond", "solid"), (BLUE, "circle", "dot"))


@dataclass(frozen=True)
class LatencyPoint:
    """A plan whose layers were measured; label: what was asked for.

    ratio: sum of its layers' times over the sum of the dense ones; fcr: of the four sublayers.
    """

    label: str
    pcr: float
    fcr: float
    ratio: float


def forms_figure(times: LayerTimes, *, kept_dense: bool = False) -> go.Figure:
    """Milliseconds of one layer, dense and in every form: medians with their interquartile range.

    ★ and the bar without stripes are what runs: the form with the best time, which is the diamond.
    kept_dense: there is no ring to draw.
    """
    shown = [times.of(form) for form in ORDER if form == "dense" or not kept_dense]
    runs = "dense" if kept_dense else times.fastest.form
    names = [_name(item, runs) for item in shown]
    figure = go.Figure(
        go.Bar(
            name="median",
            x=names,
            y=[item.median_ms for item in shown],
            error_y={
                "type": "data",
                "array": [item.iqr_ms / 2 for item in shown],
                "color": GREY,
                "thickness": 2,
            },
            marker={
                "color": [_COLOURS.get(item.form, BLUE) for item in shown],
                "pattern": {"shape": ["" if item.form == runs else "/" for item in shown]},
            },
            customdata=[[item.form, item.iqr_ms, item.best_ms] for item in shown],
            hovertemplate="%{customdata[0]}<br>median %{y:.3g} ms, IQR %{customdata[1]:.2g} ms"
            "<br>best %{customdata[2]:.3g} ms<extra></extra>",
        )
    )
    figure.add_scatter(
        name="best",
        x=names,
        y=[item.best_ms for item in shown],
        mode="markers",
        marker={
            "symbol": "diamond",
            "size": 9,
            "color": "white",
            "line": {"color": "black", "width": 1},
        },
        hoverinfo="skip",
    )
    figure.update_layout(showlegend=False, bargap=0.35)
    figure.update_yaxes(title="Time of the layer (ms)", rangemode="tozero")
    case = times.case
    return titled(figure, f"Measured: batch {case.batch}, {case.threads} threads")


def latency_figure(
    series: Sequence[tuple[str, Sequence[LatencyPoint]]],
    current: LatencyPoint | None,
    in_browser: Sequence[LatencyPoint] = (),
) -> go.Figure:
    """Time over dense time against PCR, a curve for each of a few series by name; ★ is now.

    The grey line is what the multiplications of the paper's four sublayers promise, 1 / FCR.
    in_browser: whole networks, timed on the reader's own device; their ratios are not of layers.
    """
    every = {(p.pcr, p.fcr) for _, points in (*series, ("", in_browser)) for p in points}
    promised = sorted(every)
    traces: list[Trace] = [
        {
            "type": "scatter",
            "name": "promised by MACs",
            "x": [pcr for pcr, _ in promised],
            "y": [1 / fcr for _, fcr in promised],
            "mode": "lines",
            "line": {"color": GREY, "dash": "dash", "width": 2},
            "hovertemplate": "PCR %{x:.2f}: MACs %{y:.2f} × dense<extra></extra>",
        }
    ]
    for (name, points), (colour, symbol, dash) in zip(series, _SERIES, strict=False):
        ordered = sorted(points, key=lambda point: point.pcr)
        hover = "%{customdata}<br>PCR %{x:.2f}: time %{y:.2f} × dense<extra></extra>"
        x, y = [point.pcr for point in ordered], [point.ratio for point in ordered]
        traces.append(
            line(name, x, y, colour, symbol, dash, hover)
            | {
                "customdata": [in_html(point.label) for point in ordered],
                "ids": [point.label for point in ordered],
            }
        )
    if in_browser:
        traces.append(
            {
                "type": "scatter",
                "name": "your browser",
                "showlegend": True,
                "x": [point.pcr for point in in_browser],
                "y": [point.ratio for point in in_browser],
                "mode": "markers",
                "marker": {"symbol": "square", "size": 11, "color": ORANGE},
                "customdata": [in_html(point.label) for point in in_browser],
                "ids": [point.label for point in in_browser],
                "hovertemplate": "%{customdata}, in your browser<br>PCR %{x:.2f}: "
                "time %{y:.2f} × dense<extra></extra>",
            }
        )
    if current is not None:
        traces.append(_star(current))
    one = {"color": GREY, "dash": "dot", "width": 1}
    return drawn(
        traces,
        "Measured time against compression",
        {
            "title": {"text": "PCR, parameters original / compressed (×, log)"},
            "type": "log",
            "tickvals": _PCR_TICKS,
        },
        {"title": {"text": "Compressed / dense (×)"}, "rangemode": "tozero"},
        shapes=[{"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": 1, "y1": 1, "line": one}],
    )


def _star(current: LatencyPoint) -> Trace:
    hover = (
        f"now: {in_html(current.label)}<br>PCR %{{x:.2f}}: time %{{y:.2f}} × dense<extra></extra>"
    )
    return star(current.pcr, current.ratio, hover) | {
        "mode": "markers+text",
        "text": [f"{current.ratio:.2f} ×"],
        "textposition": "top center",
    }


def _name(item: FormTime, runs: Form) -> str:
    star = "★ " if item.form == runs else ""
    note = "<br>(paper's sublayers)" if item.form == "pipeline" else ""
    return f"{star}{item.form}<br><b>{item.median_ms:.3g} ms</b>{note}"
