"""The figures of one layer: its candidates, its spectra, its ring."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots
from torch import Tensor

from rsdtr.charts.style import GREEN, GREY, ORANGE, PINK, VERMILION, titled
from rsdtr.ring.rank_selection import equal_split, rank_of
from rsdtr.ring.tensor_ring import MODES
from rsdtr.search.candidate import Candidate, Objective, Pruned
from rsdtr.search.paper_rule import KernelSpectra

MODE_COLOURS = ("#56B4E9", ORANGE, GREEN, PINK)
PRUNED = "#B8BCC2"  # no colour of the scale
MOST_TEXTS = 12  # divisors; more leave no room for a number in each cell
MODE_SYMBOLS = ("circle", "square", "diamond", "triangle-up")


@dataclass(frozen=True)
class Spectrum:
    """The first unfolding of one circular shift: mode `shift` against the other three.

    values: singular values over the largest one, descending, n of them; losses[r]: relative error
    of keeping r of them, r = 0 … n; squared: their squares, unscaled, from which ranks are decided.
    """

    shift: int
    values: tuple[float, ...]
    losses: tuple[float, ...]
    squared: Tensor

    def rank(self, eps: float) -> int:
        """The rank that the first truncation keeps at ε_p."""
        return rank_of(self.squared, equal_split(eps))


def spectra(kernel: KernelSpectra) -> tuple[Spectrum, ...]:
    """The first unfoldings of a kernel's four circular shifts, as data to draw."""
    found = []
    for first in kernel.unfoldings:
        values = first.squared.sqrt()
        losses = np.sqrt(first.tails / first.tails[0])
        scaled = tuple((values / values[0]).tolist())
        found.append(Spectrum(first.shift, scaled, tuple(losses.tolist()), first.squared))
    return tuple(found)


def candidates_figure(
    found: Sequence[Candidate],
    winner: Candidate,
    dense_storage: int,
    pruned: Sequence[Pruned] = (),
    unit: Objective = "storage",
) -> go.Figure:
    """Storage of every computed candidate, shift down, divisor r0 across; ★ marks the winner.

    pruned: candidates that were ruled out, drawn grey with their floor: storage, or the layer's
    MACs for one input, as `unit` says. A heat map tells of no click: on the cells that were
    computed lie markers that cannot be seen, with [shift, r0] as their `customdata`.
    """
    cells: dict[tuple[int, int], Candidate | Pruned] = {(p.shift, p.r0): p for p in pruned}
    cells |= {(candidate.shift, candidate.r0): candidate for candidate in found}
    divisors = sorted({r0 for _, r0 in cells})
    shifts = sorted({shift for shift, _ in cells})
    size = 12 if len(divisors) <= 4 else 10 if len(divisors) <= 8 else 9
    style = {
        "x": [str(r0) for r0 in divisors],
        "y": [_shift_label(shift) for shift in shifts],
        "hovertemplate": "%{hovertext}<extra></extra>",
        "hoverongaps": False,
        "xgap": 2,
        "ygap": 2,
    }
    low = math.log10(min(candidate.storage for candidate in found))
    high = math.log10(max(candidate.storage for candidate in found))
    ticks = [low + (high - low) * step / 4 for step in range(5)] if high > low else [low]
    colour = _Layer(cells, shifts, divisors, Candidate)
    figure = go.Figure(
        go.Heatmap(
            name="computed",
            z=colour.each(lambda cell: math.log10(cell.storage)),
            hovertext=colour.each(lambda cell: _candidate_story(cell, dense_storage), ""),
            colorscale="Viridis",
            colorbar={
                "title": {"text": "Storage (scalars, log)", "side": "top"},
                # Under the map: beside it, it would take the room of the numbers in the cells.
                "orientation": "h",
                "y": -0.28,
                "yanchor": "top",
                "thickness": 14,
                "tickvals": ticks,
                "ticktext": [f"{10**tick:,.0f}" for tick in ticks],
            },
            **style,
        )
    )
    if pruned:
        after = "" if unit == "storage" else "<br>MACs"
        grey = _Layer(cells, shifts, divisors, Pruned)
        figure.add_heatmap(
            name="ruled out",
            z=grey.each(lambda cell: 1),
            text=grey.each(lambda cell: f"≥{_compact(cell.floor)}{after}", ""),
            texttemplate="%{text}" if len(divisors) <= MOST_TEXTS else "",
            textfont={"size": size},
            hovertext=grey.each(lambda cell: _pruned_story(cell, unit), ""),
            colorscale=[[0, PRUNED], [1, PRUNED]],
            showscale=False,
            **style,
        )
    figure.add_scatter(
        name="to click",
        x=[str(ring.r0) for ring in found],
        y=[_shift_label(ring.shift) for ring in found],
        mode="markers",
        marker={"symbol": "square", "size": 30, "opacity": 0},
        selected={"marker": {"opacity": 0}},
        unselected={"marker": {"opacity": 0}},
        customdata=[[ring.shift, ring.r0] for ring in found],
        hovertext=[_candidate_story(ring, dense_storage) for ring in found],
        hovertemplate="%{hovertext}<extra></extra>",
    )
    for ring in found if len(divisors) <= MOST_TEXTS else ():
        # Plotly's own texts are one grey for all of the scale, hard to read in its middle.
        light = high == low or math.log10(ring.storage) > low + 0.45 * (high - low)
        figure.add_annotation(
            x=divisors.index(ring.r0),
            y=shifts.index(ring.shift),
            text=_cell_text(ring, winner, dense_storage),
            showarrow=False,
            font={"size": size, "color": "black" if light else "white"},
        )
    column, line = divisors.index(winner.r0), shifts.index(winner.shift)
    figure.add_shape(
        type="rect",
        x0=column - 0.5,
        x1=column + 0.5,
        y0=line - 0.5,
        y1=line + 0.5,
        line={"color": VERMILION, "width": 4},
    )
    figure.update_xaxes(
        title="Divisor r<sub>0</sub> (rank that closes the ring)", type="category", showgrid=False
    )
    figure.update_yaxes(
        title="Circular shift: mode order", type="category", autorange="reversed", showgrid=False
    )
    figure.update_layout(showlegend=False)
    return titled(figure, "Storage of the candidate rings, shift × r<sub>0</sub>", height=390)


def spectra_figure(found: Sequence[Spectrum], eps: float) -> go.Figure:
    """Singular values of the four first unfoldings, and what is lost by keeping r of them."""
    figure = make_subplots(cols=2, horizontal_spacing=0.12)
    share = equal_split(eps)
    for spectrum in found:
        rank = spectrum.rank(eps)
        count = len(spectrum.values)
        colour, symbol = MODE_COLOURS[spectrum.shift], MODE_SYMBOLS[spectrum.shift]
        name = f"{_shift_label(spectrum.shift)}: keeps {rank} of {count}"
        style = {
            "mode": "lines+markers",
            "legendgroup": name,
            "line": {"color": colour, "width": 2},
            "x": list(range(1, count + 1)),
        }
        # The last kept rank is drawn large: there the curve on the right first passes the line.
        sizes = [13 if index == rank else 5 for index in range(1, count + 1)]
        marker = {"symbol": symbol, "size": sizes, "color": colour}
        figure.add_scatter(
            name=name,
            y=list(spectrum.values),
            marker=marker,
            hovertemplate="σ %{x}: %{y:.3g} σ₁<extra></extra>",
            row=1,
            col=1,
            **style,
        )
        figure.add_scatter(
            name=name,
            y=list(spectrum.losses[1:]),
            marker=marker,
            showlegend=False,
            hovertemplate="rank %{x}: error %{y:.3f}<extra></extra>",
            row=1,
            col=2,
            **style,
        )
    widest = max(len(spectrum.values) for spectrum in found)
    figure.add_scatter(
        name=f"ε<sub>p</sub>/√3 = {share:.3f}",
        x=[1, widest],
        y=[share, share],
        mode="lines",
        line={"color": VERMILION, "dash": "dash", "width": 2},
        hoverinfo="skip",
        row=1,
        col=2,
    )
    ticks = [tick for tick in (1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000, 2000) if tick <= widest]
    figure.update_xaxes(type="log", tickvals=ticks)
    figure.update_xaxes(title="Index of the singular value (log)", row=1, col=1)
    figure.update_xaxes(title="Rank kept (log)", row=1, col=2)
    figure.update_yaxes(title="Singular value / largest", rangemode="tozero", row=1, col=1)
    figure.update_yaxes(title="Relative error of the cut", rangemode="tozero", row=1, col=2)
    titled(figure, "Spectra of the four first unfoldings, and the first truncation", height=460)
    return figure.update_layout(margin={"t": 120})  # five names need three lines in a narrow window


def ring_figure(
    shape: Sequence[int], ranks: Sequence[int], storage: int, name: str = "The ring"
) -> go.Figure:
    """A ring: four cores as nodes, area by their scalars; bonds as edges, width by their rank."""
    corners = ((-1.0, 1.0), (1.0, 1.0), (1.0, -1.0), (-1.0, -1.0))
    sizes = [ranks[k] * shape[k] * ranks[(k + 1) % 4] for k in range(4)]
    figure = go.Figure()
    for k, mode in enumerate(MODES):
        (x0, y0), (x1, y1) = corners[k - 1], corners[k]
        figure.add_scatter(
            name=f"R_{k}",
            x=[x0, x1],
            y=[y0, y1],
            mode="lines",
            line={"color": GREY, "width": 2 + 16 * ranks[k] / max(ranks)},
            hovertemplate=f"bond {MODES[k - 1]} – {mode}: rank {ranks[k]}<extra></extra>",
        )
        figure.add_annotation(
            x=(x0 + x1) / 2,
            y=(y0 + y1) / 2,
            text=f"<b>R<sub>{k}</sub> = {ranks[k]}</b>",
            showarrow=False,
            xshift=(-40, 0, 40, 0)[k],
            yshift=(0, 20, 0, -20)[k],
        )
    for k, mode in enumerate(MODES):
        x, y = corners[k]
        core = f"{ranks[k]} × {shape[k]} × {ranks[(k + 1) % 4]}"
        figure.add_scatter(
            name=f"core {mode}",
            x=[x],
            y=[y],
            mode="markers+text",
            marker={
                "color": MODE_COLOURS[k],
                "symbol": MODE_SYMBOLS[k],
                "size": 26 + 44 * math.sqrt(sizes[k] / max(sizes)),
                "line": {"color": "black", "width": 1},
                "opacity": 1,
            },
            text=[f"<b>{mode}</b>"],
            textfont={"color": "black", "size": 14},
            hovertemplate=f"core {mode}: {core} = {sizes[k]:,} scalars<extra></extra>",
        )
        figure.add_annotation(
            x=x,
            y=y,
            text=f"{core}<br>{sizes[k]:,} scalars",
            showarrow=False,
            yshift=64 if y > 0 else -64,  # a diamond is 1.3 times as high as its size
        )
    figure.update_xaxes(visible=False, range=[-2.1, 2.1])
    figure.update_yaxes(visible=False, range=[-1.9, 1.9])
    figure.update_layout(showlegend=False)
    title = f"{name}: {storage:,} scalars instead of {math.prod(shape):,}"
    return titled(figure, title, height=430)


@dataclass(frozen=True)
class _Layer:
    """The cells of one kind in the map of shift × r0, as rows; the others are gaps."""

    cells: Mapping[tuple[int, int], Candidate | Pruned]
    shifts: Sequence[int]
    divisors: Sequence[int]
    kind: type[Candidate | Pruned]

    def each(self, value: Callable[[Any], object], gap: object = None) -> list[list[object]]:
        """The value of every cell of this kind."""
        rows = [[self.cells.get((shift, r0)) for r0 in self.divisors] for shift in self.shifts]
        return [
            [value(cell) if isinstance(cell, self.kind) else gap for cell in row] for row in rows
        ]


def _shift_label(shift: int) -> str:
    """A shift with the mode order it stands for, such as `1: I·KH·KW·O`."""
    return f"{shift}: " + "·".join(MODES[(shift + k) % 4] for k in range(4))


def _cell_text(candidate: Candidate, winner: Candidate, dense_storage: int) -> str:
    if candidate == winner:
        return f"★ {candidate.storage:,}"
    return f"{'✕ ' if candidate.storage >= dense_storage else ''}{candidate.storage:,}"


def _candidate_story(candidate: Candidate, dense_storage: int) -> str:
    ranks = ", ".join(map(str, candidate.ranks))
    return (
        f"shift {candidate.shift}, r<sub>0</sub> {candidate.r0}, ranks [{ranks}]"
        f"<br>{candidate.storage:,} scalars ({dense_storage / candidate.storage:.2f} × smaller)"
        f"<br>{candidate.macs:,} MACs per pixel<br>relative error {candidate.relative_error:.3f}"
    )


def _pruned_story(cell: Pruned, unit: Objective) -> str:
    counted = "scalars" if unit == "storage" else "MACs for one input"
    return (
        f"shift {cell.shift}, r<sub>0</sub> {cell.r0}<br>ruled out: whatever its ranks, it needs "
        f"at least<br>{cell.floor:,} {counted}"
    )


def _compact(number: float) -> str:
    """About three digits, as short as a cell needs them: 950, 1.24k, 2.36M."""
    for factor, unit in ((1e6, "M"), (1e3, "k")):
        if number >= factor:
            return f"{number / factor:.3g}{unit}"
    return f"{number:.0f}"
