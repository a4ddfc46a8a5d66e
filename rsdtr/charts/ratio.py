"""ρ as figures: over channels and ranks, and layer by layer."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from rsdtr.baselines.costs import CHANNELS, LayerRatio, curve
from rsdtr.charts.style import BLUE, GREEN, GREY, ORANGE, PINK, RATIO_TICKS, VERMILION, titled

_COLOURS = (GREY, ORANGE, GREEN, BLUE, VERMILION, PINK)
_SYMBOLS = ("circle", "square", "diamond", "cross", "x", "triangle-up")
_RHO = "ρ: FLOPs, tensorized / RSDTR"


def ratio_figure(kernel: int = 3) -> go.Figure:
    """ρ against the rank R of all four bonds, a line for every number of channels, k×k kernels."""
    figure = go.Figure()
    for channels, colour, symbol in zip(CHANNELS, _COLOURS, _SYMBOLS, strict=True):
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
    return titled(figure, f"ρ at equal storage, {kernel}×{kernel} kernels", height=440)


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
