"""The figures of the lesson. Plain data in, Plotly figures out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots
from torch import Tensor

from rsdtr.charts.layer import MODE_COLOURS
from rsdtr.charts.style import BLUE, GREY, ORANGE, VERMILION, Trace, drawn, titled
from rsdtr.learn.numbers import Cut, Rebuilt, Stage, Turn
from rsdtr.planning.plan import CompressionPlan
from rsdtr.ring.forms import Form
from rsdtr.ring.tensor_ring import MODES, TensorRing

FILTERS = 8  # of each channel mode: as many as the eye takes in
MAPS = 16
DIVERGING = "RdBu"  # with zero in the middle: white, red below, blue above
STEP_PATTERNS = ("", "/", ".", "x")
Pixels = NDArray[np.float64]


def slices_figure(kernel: Tensor) -> go.Figure:
    """The first slices 𝓦[o, i, :, :] of a kernel, one below the other for o, across for i."""
    o, i, kh, kw = kernel.shape
    rows, columns = min(o, FILTERS), min(i, FILTERS)
    figure = go.Figure(_kernel_map(kernel, _largest(kernel)))
    figure.update_xaxes(
        title="Input channel i",
        tickvals=[(kw + 1) * k + (kw - 1) / 2 for k in range(columns)],
        ticktext=[str(k) for k in range(columns)],
        showgrid=False,
        zeroline=False,
    )
    figure.update_yaxes(
        title="Output channel o",
        tickvals=[(kh + 1) * k + (kh - 1) / 2 for k in range(rows)],
        ticktext=[str(k) for k in range(rows)],
        autorange="reversed",
        showgrid=False,
        zeroline=False,
    )
    title = f"{rows} × {columns} of the {o} × {i} slices, each {kh} × {kw} weights"
    return titled(figure, title, height=480).update_layout(margin={"t": 48})


def cut_figure(cut: Cut) -> go.Figure:
    """Singular values of one first unfolding: what is kept, and what the truncation leaves out."""
    index = list(range(1, len(cut.values) + 1))
    kept, rest = index[: cut.rank], index[cut.rank :]
    traces = [
        _bars("kept", kept, cut.values[: cut.rank], BLUE, ""),
        _bars("cut away", rest, cut.values[cut.rank :], ORANGE, "/"),
    ]
    mode, others = MODES[cut.shift], "·".join(MODES[(cut.shift + k) % 4] for k in range(1, 4))
    return drawn(
        traces,
        f"Rank r = {cut.rank} of {len(index)}: error {cut.error:.3f} < ε<sub>p</sub>/√3 = "
        f"{cut.bound:.3f}",
        {"title": {"text": f"Index of the singular value of the unfolding {mode} × {others}"}},
        {"title": {"text": "Singular value σ (units of the weights)"}, "rangemode": "tozero"},
        bargap=0.1,
        barmode="overlay",
    )


def splits_figure(turn: Turn, r0: int, dense: int) -> go.Figure:
    """Storage of the ring of every divisor r0 of one first rank; dense: the kernel's scalars."""
    names = [f"{ring.r0} · {turn.rank // ring.r0}" for ring in turn.rings]
    chosen = [ring.r0 == r0 for ring in turn.rings]
    trace: Trace = {
        "type": "bar",
        "x": names,
        "y": [ring.storage for ring in turn.rings],
        "text": [f"{ring.storage:,}" for ring in turn.rings],
        "marker": {
            "color": [BLUE if here else GREY for here in chosen],
            "pattern": {
                "shape": ["" if here else "/" for here in chosen],
                "bgcolor": GREY,
                "fgcolor": "black",
            },
        },
        "textposition": "outside",
        "customdata": [", ".join(map(str, ring.ranks)) for ring in turn.rings],
        "hovertemplate": "r<sub>0</sub> · r<sub>1</sub> = %{x}<br>%{y:,} scalars, "
        "ranks [%{customdata}]<extra></extra>",
    }
    kernel = {"color": VERMILION, "dash": "dash", "width": 2}
    return drawn(
        [trace],
        f"Storage of every split of r = {turn.rank}, and of the kernel",
        {"title": {"text": "Split r<sub>0</sub> · r<sub>1</sub>"}, "type": "category"},
        {"title": {"text": "Storage (scalars)"}, "rangemode": "tozero"},
        showlegend=False,
        shapes=[
            {
                "type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": dense, "y1": dense,
                "line": kernel,
            }
        ],
        annotations=[
            {
                "xref": "paper", "x": 1, "y": dense, "text": f"kernel: {dense:,}",
                "showarrow": False, "xanchor": "right", "yanchor": "bottom",
            }
        ],
    )  # fmt: skip


def cores_figure(ring: TensorRing) -> go.Figure:
    """The four cores as heat maps: mode index down, the two bonds across (left · right rank)."""
    heads = [
        f"G<sub>{k}</sub>: {' × '.join(map(str, core.shape))}" for k, core in enumerate(ring.cores)
    ]
    figure = make_subplots(
        cols=2, rows=2, subplot_titles=heads, vertical_spacing=0.36, horizontal_spacing=0.2
    )
    for k, core in enumerate(ring.cores):
        matrix = core.permute(1, 0, 2).flatten(1).numpy()  # (n, R·R')
        most = float(abs(matrix).max())
        where = {"row": k // 2 + 1, "col": k % 2 + 1}
        figure.add_heatmap(
            z=matrix,
            colorscale=DIVERGING,
            zmin=-most,
            zmax=most,
            showscale=False,
            hovertemplate=f"{MODES[k]} %{{y}}, bond entry %{{x}}: %{{z:.3g}}<extra></extra>",
            **where,
        )
        figure.update_xaxes(
            title=f"bond entries, R<sub>{k}</sub> · R<sub>{(k + 1) % 4}</sub>",
            showgrid=False,
            **where,
        )
        figure.update_yaxes(title=MODES[k], autorange="reversed", showgrid=False, **where)
    return titled(
        figure, "The cores: white is zero, blue above, red below", height=430
    ).update_layout(showlegend=False, margin={"t": 78})


def rebuilt_figure(found: Rebuilt, rank: int) -> go.Figure:
    """Filters of the kernel, of the one rebuilt from q components of a bond, and what differs."""
    heads = ("original 𝓦", "rebuilt", "difference")  # short: beside each other in 480 pixels
    figure = make_subplots(cols=3, subplot_titles=heads, horizontal_spacing=0.03)
    largest = _largest(found.kernel)
    panels = (found.kernel, found.rebuilt, found.kernel - found.rebuilt)
    for column, panel in enumerate(panels, 1):
        figure.add_trace(_kernel_map(panel, largest, scale=column == 3), row=1, col=column)
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False, autorange="reversed")
    title = f"Relative error {found.error:.3f} with {found.q} of {rank} components"
    return titled(figure, title, height=400).update_layout(margin={"t": 84})


def forms_figure(forms: Mapping[Form, Sequence[int]]) -> go.Figure:
    """MACs of every form for one input, sublayer upon sublayer."""
    traces: list[Trace] = []
    for step in range(max(len(costs) for costs in forms.values())):
        with_it = [form for form, costs in forms.items() if len(costs) > step]
        traces.append(
            {
                "type": "bar",
                "name": f"convolution {step + 1}",
                "orientation": "h",
                "y": with_it,
                "x": [forms[form][step] for form in with_it],
                "marker": {
                    "color": MODE_COLOURS[step],
                    "pattern": {
                        "shape": STEP_PATTERNS[step],
                        "bgcolor": MODE_COLOURS[step],
                        "fgcolor": "black",
                    },
                },
                "hovertemplate": f"%{{y}}, convolution {step + 1}: %{{x:,}} MACs<extra></extra>",
            }
        )
    return drawn(
        traces,
        "MACs of each form for one input",
        {"title": {"text": "MACs"}, "rangemode": "tozero"},
        {"title": {"text": "Form"}, "autorange": "reversed", "type": "category"},
        barmode="stack",
    ).update_layout(legend_traceorder="normal")


def picture_figure(pixels: Tensor) -> go.Figure:
    """A picture as the network takes it: uint8 (C, H, W) with one channel or three."""
    shown = pixels.expand(3, -1, -1).permute(1, 2, 0).numpy()
    figure = go.Figure(go.Image(z=shown, hoverinfo="skip"))
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    height, width = pixels.shape[1:]
    return titled(figure, f"The picture, {height} × {width} pixels", height=420).update_layout(
        margin={"t": 48}
    )


def maps_figure(maps: Tensor, title: str) -> go.Figure:
    """The first channels (C, H, W) of what a layer sees or computes, side by side."""
    channels, height, width = maps.shape
    shown = min(channels, MAPS)
    columns = math.ceil(math.sqrt(shown))
    rows = math.ceil(shown / columns)
    canvas = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1), np.nan)
    for k in range(shown):
        top, left = k // columns * (height + 1), k % columns * (width + 1)
        canvas[top : top + height, left : left + width] = maps[k].numpy()
    figure = go.Figure(
        go.Heatmap(
            z=canvas,
            colorscale="Viridis",
            colorbar={"title": {"text": "value"}},
            hovertemplate="%{z:.3g}<extra></extra>",
            hoverongaps=False,
        )
    )
    figure.update_xaxes(visible=False, constrain="domain")
    figure.update_yaxes(visible=False, autorange="reversed", scaleanchor="x")
    text = f"{title}: {shown} of {channels} channels, {height} × {width}"
    return titled(figure, text, height=420).update_layout(margin={"t": 48})


def stage_figure(stage: Stage) -> go.Figure:
    """What one sublayer computes on the picture."""
    return maps_figure(stage.maps, stage.title)


def damages_figure(
    uniform: CompressionPlan,
    solved: CompressionPlan,
    damages: tuple[Mapping[str, float], Mapping[str, float]],
) -> go.Figure:
    """Damage of every ring under one ε_p for all, and under an ε_p for each at the same PCR."""
    series = (
        (
            f"one ε<sub>p</sub>: {sum(damages[0].values()):.3g} in all",
            uniform,
            VERMILION,
            "square-open",
        ),
        (f"one for each: {sum(damages[1].values()):.3g} in all", solved, BLUE, "circle"),
    )
    traces: list[Trace] = []
    for (name, plan, colour, symbol), damage in zip(series, damages, strict=True):
        rings = [layer for layer in plan.layers if layer.name in damage]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": name,
                "x": [layer.name for layer in rings],
                "y": [damage[layer.name] for layer in rings],
                "marker": {
                    "color": colour,
                    "symbol": symbol,
                    "size": 11,
                    "line": {"width": 2, "color": colour},
                },
                "customdata": [(layer.name, layer.eps, layer.relative_error) for layer in rings],
                "hovertemplate": "%{x}: damage %{y:.3g}<br>ε<sub>p</sub> %{customdata[1]:.2f}, "
                "relative error %{customdata[2]:.3f}<extra></extra>",
            }
        )
    return drawn(
        traces,
        f"Damage of each layer at the same PCR of {uniform.pcr:.2f}",
        {
            "categoryorder": "array",
            "categoryarray": [layer.name for layer in uniform.layers],
            "tickangle": -45,
        },
        {"title": {"text": "Damage e² · √entries"}, "rangemode": "tozero"},
    )


def _bars(name: str, x: Sequence[int], y: Sequence[float], colour: str, pattern: str) -> Trace:
    return {
        "type": "bar",
        "name": f"{name} ({len(x)})",
        "x": list(x),
        "y": list(y),
        "marker": {
            "color": colour,
            "pattern": {"shape": pattern, "bgcolor": colour, "fgcolor": "black"},
        },
        "hovertemplate": "σ<sub>%{x}</sub> = %{y:.3g}<extra></extra>",
    }


def _kernel_map(kernel: Tensor, largest: float, scale: bool = True) -> go.Heatmap:
    """The first filters of a kernel as one heat map, a gap between two slices."""
    o, i, kh, kw = kernel.shape
    rows, columns = min(o, FILTERS), min(i, FILTERS)
    canvas: Pixels = np.full((rows * (kh + 1) - 1, columns * (kw + 1) - 1), np.nan)
    for row in range(rows):
        for column in range(columns):
            top, left = row * (kh + 1), column * (kw + 1)
            canvas[top : top + kh, left : left + kw] = kernel[row, column].numpy()
    return go.Heatmap(
        z=canvas,
        colorscale=DIVERGING,
        zmin=-largest,
        zmax=largest,
        showscale=scale,
        colorbar={"title": {"text": "weight"}},
        hovertemplate="%{z:.3g}<extra></extra>",
        hoverongaps=False,
    )


def _largest(kernel: Tensor) -> float:
    return float(kernel[:FILTERS, :FILTERS].abs().max()) or 1.0
