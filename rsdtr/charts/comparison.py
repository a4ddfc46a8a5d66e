"""The figures of a comparison, and ρ over channels and ranks and layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from rsdtr.baselines.comparison import Cell, front
from rsdtr.baselines.costs import CHANNELS, LayerRatio, curve
from rsdtr.charts.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PINK,
    RATIO_TICKS,
    VERMILION,
    hang_legend,
    in_html,
    titled,
)

_INT8 = "+int8"  # ends the name of another method
Value = Callable[[Cell], float | None]
# What accuracy is drawn against: the axis, the value, and the cost that is small where it is good.
AXES: tuple[tuple[str, Value, Value], ...] = (
    ("PCR (×)", lambda cell: cell.pcr, lambda cell: None if cell.pcr is None else -cell.pcr),
    ("FCR (×)", lambda cell: cell.fcr, lambda cell: None if cell.fcr is None else -cell.fcr),
    (
        "Latency, compressed / dense (×)",
        lambda cell: cell.latency_ratio,
        lambda cell: cell.latency_ratio,
    ),
)
_FAMILIES = (
    ("rsdtr", BLUE), ("ring", ORANGE), ("prune", GREY), ("mpo", PINK), ("trn", PINK),
)  # fmt: skip
_SYMBOLS = (
    "circle", "square", "diamond", "triangle-up", "x", "cross", "triangle-down", "pentagon",
    "star", "hourglass", "triangle-left", "bowtie", "hexagon", "triangle-right", "star-diamond",
    "diamond-tall", "hexagram", "star-triangle-up", "star-square", "diamond-wide", "octagon",
    "star-triangle-down",
)  # fmt: skip


def comparison_figure(
    cells: Sequence[Cell], model: str, title_of: Callable[[str], str] = str
) -> go.Figure:
    """Accuracy of every cell against PCR, FCR and latency; the Pareto front of each as a line.

    Failed cells are left out. A method has the colour of its family and a symbol of its own, in
    8 bits as an outline; `customdata` holds its name and the PCR that was asked for. title_of: a
    method in words, of which the legend has those before a colon.
    """
    shown = tuple(cell for cell in cells if cell.accuracy is not None)
    figure = make_subplots(rows=len(AXES), cols=1, vertical_spacing=0.07)
    titles = {cell.method: _short(cell.method, title_of) for cell in shown}
    for row, (title, value, cost) in enumerate(AXES, start=1):
        best = sorted(front(shown, cost), key=lambda cell: value(cell) or 0.0)
        figure.add_scatter(
            name="Pareto front", legendgroup="front", showlegend=row == 1,
            x=[value(cell) for cell in best], y=[cell.accuracy for cell in best],
            mode="lines", line={"color": GREEN, "width": 6}, opacity=0.35, hoverinfo="skip",
            row=row, col=1,
        )  # fmt: skip
        for name, short in titles.items():
            own = [cell for cell in shown if cell.method == name and value(cell) is not None]
            figure.add_scatter(
                name=short, legendgroup=name, showlegend=row == 1,
                x=[value(cell) for cell in own], y=[cell.accuracy for cell in own],
                mode="markers",
                marker={
                    "color": _colour(name), "symbol": _symbol(tuple(titles), name), "size": 10,
                    "line": {"color": _colour(name), "width": 1},
                },
                customdata=[[cell.method, cell.asked] for cell in own],
                hovertemplate="%{customdata[0]} at PCR %{customdata[1]}: %{x:.3g}, "
                "%{y:.2f} %<extra></extra>",
                row=row, col=1,
            )  # fmt: skip
        figure.update_xaxes(title=title, row=row, col=1)
        figure.update_yaxes(title="Top-1 accuracy (%)", row=row, col=1)
    assumed = next((cell.assumed for cell in shown if cell.assumed), None)
    titled(figure, f"{model}: accuracy against size, FLOPs and latency", note=assumed)
    return hang_legend(figure, 1040)


def pair_figure(table: pd.DataFrame, names: tuple[str, str]) -> go.Figure:
    """Storage and relative error of every layer of two networks; table: `tables.pair_table`."""
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.08)
    bars = [("as trained", "dense", GREY)]
    bars += [(name, f"storage {end}", colour) for name, end, colour in _pair(names)]
    for name, column, colour in bars:
        figure.add_bar(
            name=name, legendgroup=name, x=table["layer"], y=table[column].astype(float),
            marker={"color": colour}, row=1, col=1,
            hovertemplate="%{x}, " + name + ": %{y:,} scalars<extra></extra>",
        )  # fmt: skip
    for name, end, colour in _pair(names):
        figure.add_bar(
            name=name, legendgroup=name, showlegend=False, x=table["layer"],
            y=table[f"error {end}"].astype(float), marker={"color": colour}, row=2, col=1,
            hovertemplate="%{x}, " + name + ": error %{y:.3f}<extra></extra>",
        )  # fmt: skip
    figure.update_yaxes(title="Storage (scalars)", row=1, col=1)
    figure.update_yaxes(title="Relative error", row=2, col=1)
    titled(figure, "Storage and relative error of each convolution")
    return hang_legend(figure, 560)


def _pair(names: tuple[str, str]) -> tuple[tuple[str, str, str], ...]:
    return (f"A: {names[0]}", "A", BLUE), (f"B: {names[1]}", "B", ORANGE)


def _short(name: str, title_of: Callable[[str], str]) -> str:
    """What the legend calls a method: its title, without what layers it is made of."""
    title, colon, _ = title_of(name).partition(":")
    return in_html(f"{title}, int8" if colon and name.endswith(_INT8) else title)


def _colour(name: str) -> str:
    if name.endswith("int8"):
        return VERMILION
    return next((colour for start, colour in _FAMILIES if name.startswith(start)), GREEN)


def _symbol(names: Sequence[str], name: str) -> str:
    alone = list(dict.fromkeys(other.removesuffix(_INT8) for other in names))
    symbol = _SYMBOLS[alone.index(name.removesuffix(_INT8)) % len(_SYMBOLS)]
    return f"{symbol}-open" if name.endswith(_INT8) else symbol


_COLOURS = (GREY, ORANGE, GREEN, BLUE, VERMILION, PINK)
_CHANNEL_SYMBOLS = ("circle", "square", "diamond", "cross", "x", "triangle-up")
_RHO = "ρ: FLOPs, tensorized / RSDTR"


def ratio_figure(kernel: int = 3) -> go.Figure:
    """ρ against the rank R of all four bonds, a line for every number of channels, k×k kernels."""
    figure = go.Figure()
    for channels, colour, symbol in zip(CHANNELS, _COLOURS, _CHANNEL_SYMBOLS, strict=True):
        points = curve(channels, kernel)
        figure.add_scatter(
            name=f"{channels} channels",
            x=[rank for rank, _ in points],
            y=[rho for _, rho in points],
            mode="lines+markers",
            line={"color": colour},
            marker={"symbol": symbol, "size": 8},
            hovertemplate=f"{channels} channels, R = %{{x}}: ρ = %{{y:.3g}}<extra></extra>",
        )
    _one(figure)
    figure.update_xaxes(title="Rank R of the four cores (log)", type="log", tickvals=RATIO_TICKS)
    figure.update_yaxes(title=f"{_RHO} (log)", type="log", tickvals=RATIO_TICKS)
    titled(figure, f"ρ at equal storage, {kernel}×{kernel} kernels")
    return hang_legend(figure, 360)


def layer_ratio_figure(ratios: Sequence[LayerRatio], model: str) -> go.Figure:
    """ρ of every ring of a plan as a bar from 1: blue above, grey below."""
    figure = go.Figure(
        go.Bar(
            x=[ratio.name for ratio in ratios],
            y=[ratio.rho for ratio in ratios],
            marker={"color": [BLUE if ratio.rho > 1 else GREY for ratio in ratios]},
            hovertext=[_story(ratio) for ratio in ratios],
            hovertemplate="%{hovertext}<extra></extra>",
            showlegend=False,
        )
    )
    _one(figure)
    figure.update_layout(showlegend=False)
    figure.update_xaxes(tickangle=-45)
    figure.update_yaxes(title=_RHO, rangemode="tozero")
    return titled(figure, f"ρ of every ring of {model}", height=440)


def _one(figure: go.Figure) -> None:
    figure.add_hline(y=1, line={"color": GREY, "dash": "dot"})


def _story(ratio: LayerRatio) -> str:
    return (
        f"{ratio.name}: ρ = {ratio.rho:.3g}<br>RSDTR {ratio.ranks}: {ratio.storage:,} scalars, "
        f"{ratio.macs:,} MACs<br>tensorized, R = {ratio.rank}: {ratio.tensorized_storage:,} "
        f"scalars, {ratio.tensorized_macs:,} MACs"
    )
