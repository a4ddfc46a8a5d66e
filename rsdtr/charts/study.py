"""The figure of a study."""

from __future__ import annotations

import plotly.graph_objects as go

from rsdtr.charts.style import BLUE, VERMILION, titled
from rsdtr.recovery.study import STARTS, Start, Study

_LOOKS: dict[Start, tuple[str, str, str, str]] = {
    "factors": ("from its factors", BLUE, "circle", "solid"),
    "scratch": ("from random weights", VERMILION, "square", "dash"),
}


def study_figure(study: Study, dense_percent: float | None = None) -> go.Figure:
    """Validation accuracy after each epoch: a thin line per seed, a thick one for their mean.

    dense_percent: of the original network on the same images, as a horizontal line.
    """
    figure = go.Figure()
    for start in STARTS:
        name, colour, symbol, dash = _LOOKS[start]
        curves = [
            [run.untrained.percent, *(epoch.validation.percent for epoch in run.epochs)]
            for run in study.of(start)
        ]
        if not curves:
            continue
        for run, curve in zip(study.of(start), curves, strict=True):
            figure.add_scatter(
                x=list(range(len(curve))),
                y=curve,
                mode="lines",
                line={"color": colour, "width": 1, "dash": dash},
                opacity=0.45,
                showlegend=False,
                hovertemplate=f"{name}, seed {run.seed}, epoch %{{x}}: %{{y:.2f}} %<extra></extra>",
            )
        length = min(map(len, curves))
        mean = [sum(curve[at] for curve in curves) / len(curves) for at in range(length)]
        percent, deviation = study.spread(start)
        figure.add_scatter(
            name=f"{name}: test {percent:.2f} ± {deviation:.2f} %",
            x=list(range(length)),
            y=mean,
            mode="lines+markers",
            marker={"symbol": symbol, "size": 8},
            line={"color": colour, "width": 3, "dash": dash},
            hovertemplate=f"{name}, mean, epoch %{{x}}: %{{y:.2f}} %<extra></extra>",
        )
    if dense_percent is not None:
        figure.add_hline(
            dense_percent, line={"dash": "dot", "color": "grey"},
            annotation_text=f"dense {dense_percent:.2f} %",
        )  # fmt: skip
    figure.update_xaxes(title="epochs trained", dtick=1)
    figure.update_yaxes(title="validation accuracy (%)")
    seeds = len({run.seed for run in study.runs})
    title = (
        f"{study.plan.model}, {study.plan.label}, PCR {study.plan.pcr:.2f}: the same rings from "
        f"their factors and from scratch, {seeds} seed{'s' * (seeds != 1)}"
    )
    return titled(figure, title, height=430)
