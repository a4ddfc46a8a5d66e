"""The report: one HTML file that needs nothing else, with figures that answer to the pointer."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import plotly.graph_objects as go
import plotly.io as pio
from markupsafe import Markup
from pydantic import ValidationError

from rsdtr.charts.accuracy import Stage, stages_figure
from rsdtr.charts.plan import layers_figure
from rsdtr.charts.tables import layers_table
from rsdtr.compressed.saved import Saved
from rsdtr.exports.model_card import ModelCard, StageAccuracy
from rsdtr.measuring.accuracy import Accuracy
from rsdtr.models.weights import weights_sha256
from rsdtr.planning.plan import Ratio
from rsdtr.system.safetensors_format import saved_bytes
from rsdtr.system.templates import html_template

_TEMPLATE = html_template(Path(__file__).with_name("templates") / "report.html.j2")
_MEASURED = {"percent": "accuracy", "interval": "interval", "n": "n", "assumed": "assumed"}
COLUMNS = (
    "layer", "kernel (O × I × KH × KW)", "before (scalars)", "after (scalars)", "ratio (×)",
    "ranks R0…R3", "shift", "r0", "relative error", "before (MACs)", "after (MACs)",
)  # fmt: skip


def report_html(card: ModelCard) -> str:
    """The report of a card. Everything is in the text, Plotly's program (about 5 MB) included.

    The same card and version of Plotly give the same text.
    """
    figures: list[tuple[go.Figure, str]] = [
        (
            layers_figure(card.plan),
            (
                "Grey is the kernel as trained, blue the ring that replaces it; hatched layers "
                "stay dense. Point at a bar to read what the search chose."
            ),
        )
    ]
    if card.accuracy:
        figures.append((stages_figure(_stages(card)), "Bars are 95 % intervals."))
    return _TEMPLATE.render(
        title=card.label.replace("ε_p", "εₚ"),  # as on the pages
        facts=_facts(card),
        figures=[(_figure(figure, k), text) for k, (figure, text) in enumerate(figures)],
        columns=(*_columns(card), "kept dense because"),
        layers=_layers(card),
        card=card,
    )


def saved_report(saved: Saved) -> str:
    """The report of a model read back from a folder; accuracy, if its metrics know it."""
    accuracy: tuple[StageAccuracy, ...] = ()
    with suppress(ValidationError):  # metrics are anything that is worth keeping
        chosen = {name: saved.metrics.get(from_) for name, from_ in _MEASURED.items()}
        accuracy = (StageAccuracy.model_validate({"stage": "as exported"} | chosen),)
    card = ModelCard(
        weights_sha256=weights_sha256(saved.model),
        plan=saved.plan,
        bytes=Ratio(original=saved_bytes(saved.spec.build()), compressed=saved_bytes(saved.model)),
        accuracy=accuracy,
        command="python -m rsdtr verify .",
        python='from rsdtr import load\n\nsaved = load(".")  # saved.model, saved.plan\n',
    )
    return report_html(card)


def _facts(card: ModelCard) -> list[tuple[str, str]]:
    plan, size = card.plan, card.bytes
    params, macs = plan.params, plan.macs
    facts = [
        ("PCR, parameters original / compressed", f"{plan.pcr:.2f} ×"),
        ("Parameters", f"{params.original:,} → {params.compressed:,}"),
        ("FCR, FLOPs original / compressed", f"{plan.fcr:.2f} ×"),
        ("MACs for one input", f"{macs.original:,} → {macs.compressed:,}"),
        *(("Not counted in MACs and FCR", str(part)) for part in plan.not_counted),
        ("safetensors file (bytes)", f"{size.original:,} → {size.compressed:,}"),
    ]
    for stage in card.accuracy:
        low, high = stage.interval
        facts.append(
            (
                f"Accuracy, {stage.stage}",
                f"{stage.percent:.2f} % ({low:.2f} to {high:.2f}, n = {stage.n:,})"
                + (f"; {stage.assumed}" if stage.assumed else ""),
            )
        )
    if card.fidelity is not None:
        facts.append(("Fidelity of the compressed network", card.fidelity))
    if card.lost is not None:
        facts.append(("Warning", card.lost))
    if (times := card.latency) is not None:
        facts.append(
            (
                f"Latency at batch {times.batch}, {times.threads} threads, {times.machine}",
                f"{times.dense_ms:.3g} → {times.runs_ms:.3g} ms, {times.ratio:.2f} ×",
            )
        )
    return [*facts, ("SHA-256 of the weights", card.weights_sha256)]


def _columns(card: ModelCard) -> tuple[str, ...]:
    name, kernel, *costs = COLUMNS
    return (name, kernel, "runs", *costs) if card.plan.runs_several_times else COLUMNS


def _layers(card: ModelCard) -> list[tuple[list[str], str]]:
    """The cells of each layer, and why it stays dense, if it does."""
    rows = layers_table(card.plan)[list(_columns(card))].itertuples(index=False)
    return [
        ([_cell(cell) for cell in row], layer.kept_dense or "")
        for row, layer in zip(rows, card.plan.layers, strict=True)
    ]


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, str):
        return value
    text = str(value)
    return f"{int(text):,}" if text.isdigit() else ""  # nothing, where a dense layer has none


def _figure(figure: go.Figure, position: int) -> Markup:
    return Markup(
        pio.to_html(
            figure,
            full_html=False,
            include_plotlyjs=position == 0,
            div_id=f"figure-{position}",  # a random one would make each report another file
            config={"displaylogo": False},
        )
    )


def _stages(card: ModelCard) -> Sequence[Stage]:
    return [Stage(a.stage, Accuracy(a.percent, a.interval, a.n)) for a in card.accuracy]
