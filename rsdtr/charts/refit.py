"""The figure of a refit, running or ended."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from rsdtr.charts.style import BLUE, GREEN, GREY, ORANGE, titled
from rsdtr.refit import Step
from rsdtr.tables import gained

MOST = 1.5  # of the error before: how bad a step that was not kept is drawn at most
_STYLES = {
    "relative error": (BLUE, "circle"),
    "rectified error": (ORANGE, "square"),
    "divergence": (GREEN, "diamond"),
}


def steps_figure(steps: Sequence[Step]) -> go.Figure:
    """What each step left of the error before it, on held-out images; 1 is no change.

    Filled symbols are steps that were kept, open ones those that were not; these are drawn at
    MOST where they left more. A layer that was skipped is not drawn.
    """
    figure = go.Figure()
    for measure, (colour, symbol) in _STYLES.items():
        chosen = [step for step in steps if step.measure == measure and step.skipped is None]
        if not chosen:
            continue
        figure.add_scatter(
            name=measure,
            x=[step.name for step in chosen],
            y=[min(1 - gained(step) / 100, MOST) for step in chosen],
            mode="markers",
            marker={
                "symbol": [symbol if step.kept else f"{symbol}-open" for step in chosen],
                "size": 11,
                "color": colour,
                "line": {"width": 2, "color": colour},
            },
            customdata=[
                (step.before, step.after, "kept" if step.kept else "not kept") for step in chosen
            ],
            hovertemplate="%{x}<br>%{fullData.name}: %{customdata[0]:.4g} → "
            "%{customdata[1]:.4g}<br>%{customdata[2]}<extra></extra>",
            cliponaxis=False,
        )
    figure.add_hline(y=1, line={"color": GREY, "dash": "dash", "width": 2})
    order = list(dict.fromkeys(step.name for step in steps if step.skipped is None))
    figure.update_xaxes(categoryorder="array", categoryarray=order, tickangle=-45)
    figure.update_yaxes(
        title="Error left (after / before)",
        range=[0, MOST + 0.05],
        tickvals=[0, 0.25, 0.5, 0.75, 1, 1.25, MOST],
        ticktext=["0", "0.25", "0.5", "0.75", "1", "1.25", f"≥ {MOST:g}"],
    )
    return titled(figure, "Refit: what each step left of its error, on held-out images")
