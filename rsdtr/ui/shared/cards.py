"""The cards of numbers: of a plan, of its latency, of a layer."""

from __future__ import annotations

from typing import Literal

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from rsdtr.exports.model_card import ModelCard
from rsdtr.learn.glossary import meaning
from rsdtr.measuring.accuracy import Accuracy
from rsdtr.measuring.latency import NetworkLatency
from rsdtr.planning.layer_profile import LayerProfile
from rsdtr.planning.plan import CompressionPlan
from rsdtr.recovery.tradeoff_curve import CurvePoint, Measure
from rsdtr.search.candidate import Candidate
from rsdtr.ui.shared.markdown import plain
from rsdtr.ui.shared.numbers import count, size

_MEASURED: dict[Measure, str] = {
    "accuracy": "Top-1 on test images after BatchNorm recalibration, no training, with its 95 % "
    "interval.",
    "fidelity": "What is left of the dense network's answers to test images after BatchNorm "
    "recalibration, no training, with its 95 % interval.",
}
LAYER_CARD = 220  # pixels: two beside each other in a window of 800


def show(
    now: ModelCard,
    latency: NetworkLatency,
    pinned: ModelCard | None = None,
    between: tuple[CurvePoint, CurvePoint] | None = None,
    measure: Measure = "accuracy",
    fidelity: Accuracy | None = None,
) -> None:
    """PCR, FCR, parameters, file size, and accuracy and latency once they are measured; fidelity in
    accuracy's place where that is what is measured.

    pinned: the configuration since which each tells its change; between: measured points on both
    sides of this one, which is not measured itself.
    """
    plan = now.plan
    params, macs = plan.params, plan.macs
    before, after = now.bytes.original, now.bytes.compressed
    row = st.container(horizontal=True, key="figures")
    then = pinned.plan if pinned else None
    _card(
        row,
        "PCR, parameters",
        f"{plan.pcr:.2f} ×",
        f"{count(params.original)} → {count(params.compressed)}",
        meaning("PCR"),
        change=_change(plan.pcr, then.pcr if then else None, "{:.2f} ×"),
    )
    _card(
        row,
        "FCR, MACs",
        f"{plan.fcr:.2f} ×",
        f"{count(macs.original)} → {count(macs.compressed)}",
        meaning("FCR"),
        change=_change(plan.fcr, then.fcr if then else None, "{:.2f} ×"),
    )
    _card(
        row,
        "File size",
        size(after),
        f"dense {size(before)}",
        "Size of the safetensors file with all weights and buffers; 1 kB = 1,000 bytes.",
        change=_change(
            after / 1000, pinned.bytes.compressed / 1000 if pinned else None, "{:,.0f} kB"
        ),
        good="inverse",
    )
    rings = [layer for layer in plan.layers if layer.kept_dense is None]
    worst = max((layer.relative_error for layer in rings), default=0.0)
    _card(
        row,
        "Rings",
        f"{len(rings)} of {len(plan.layers)}",
        f"largest error {worst:.3f}",
        "Layers that become a ring, and the largest relative error ‖𝓦 − 𝓦̂‖ / ‖𝓦‖ among them.",
    )
    reached = now.reached if measure == "accuracy" else fidelity
    change = None
    if reached is not None:
        low, high = reached.interval
        value, note = f"{reached.percent:.1f} %", f"{low:.1f} to {high:.1f} %, n = {reached.n:,}"
        was = pinned.reached if pinned and measure == "accuracy" else None
        change = _change(reached.percent, was.percent if was else None, "{:.1f} points")
    elif between is not None:
        ends = sorted(point.accuracy.stages[-1][1].percent for point in between)
        value = f"{ends[0]:.1f} – {ends[1]:.1f} %" if ends[0] < ends[1] else f"≈ {ends[0]:.1f} %"
        note = f"measured at {between[0].label} and {between[1].eps:.2f}"
    else:
        value, note = "–", "not measured yet"
    _card(
        row,
        measure.capitalize(),
        value,
        note,
        _MEASURED[measure],
        change=change,
    )
    _latency_card(row, latency, pinned)
    if plan.not_counted:
        parts = "; ".join(str(part) for part in plan.not_counted)
        st.caption(plain(f"Not counted in MACs and FCR: {parts}."))


def show_latency(plan: CompressionPlan, latency: NetworkLatency) -> None:
    """Time, and both FCR, where every layer is measured."""
    row = st.container(horizontal=True)
    _latency_card(row, latency)
    _card(
        row,
        "FCR as it runs",
        f"{latency.fcr_run:.2f} ×" if latency.fcr_run else "–",
        "in the fastest forms",
        "FLOP compression ratio of the whole network with every ring in the form that is fastest "
        "here; a ring that runs dense saves nothing.",
    )
    _card(
        row,
        "FCR of the four sublayers",
        f"{plan.fcr:.2f} ×",
        "as the paper counts",
        "FLOP compression ratio of the whole network with every ring computed as the paper's four "
        "sublayers.",
    )
    rings = [item for item in latency.layers if item.layer.ranks is not None]
    _card(
        row,
        "Rings that gain time",
        f"{sum(item.status == 'gains' for item in rings)} of {len(rings)}",
        f"{sum(item.status == 'runs dense' for item in rings)} run dense",
        "A ring that is no faster than its dense convolution stores as little, and runs dense.",
    )


def _latency_card(
    row: DeltaGenerator, latency: NetworkLatency, pinned: ModelCard | None = None
) -> None:
    dense, runs, ratio = latency.dense_ms, latency.runs_ms, latency.ratio
    was = pinned.latency if pinned else None
    same = was is not None and was.batch == latency.batch
    measured = dense is not None and runs is not None and ratio is not None
    _card(
        row,
        f"Latency, batch {latency.batch}",
        f"{ratio:.2f} ×" if measured else "–",
        f"Σ {dense:.3g} → {runs:.3g} ms" if measured else "not measured yet",
        "Sum of the times of its layers, each in the form that is fastest, over the sum of "
        "the dense ones: below 1 it got faster. Best times of single layers, measured on this "
        f"machine for a batch of {latency.batch} with {latency.threads} threads; what lies between "
        "convolutions is not in it.",
        change=_change(ratio, was.ratio if was and same else None, "{:.2f} ×"),
        good="inverse",
    )


def show_layer(layer: LayerProfile, winner: Candidate) -> None:
    """What the winning ring of one layer stores, costs and loses."""
    dense = layer.kernel.numel()
    row = st.container(horizontal=True)
    _card(
        row,
        "Storage of the best ring",
        f"{winner.storage:,}",
        f"kernel {dense:,} scalars",
        meaning("storage"),
        LAYER_CARD,
    )
    _card(
        row,
        "Ratio",
        f"{dense / winner.storage:.2f} ×",
        "kernel / ring",
        "Compression ratio of this layer.",
        LAYER_CARD,
    )
    _card(
        row,
        "Ranks R0, R1, R2, R3",
        ", ".join(map(str, winner.ranks)),
        f"shift {winner.shift}, r0 = {winner.r0}",
        meaning("ranks"),
        LAYER_CARD,
    )
    _card(
        row,
        "Relative error",
        f"{winner.relative_error:.3f}",
        f"input {layer.input_size[0]} × {layer.input_size[1]} pixels"
        + (f", runs {layer.runs} times" if layer.runs != 1 else ""),
        meaning("relative error"),
        LAYER_CARD,
    )


def _card(
    row: DeltaGenerator,
    label: str,
    value: str,
    note: str,
    help: str,
    width: int | Literal["stretch"] = "stretch",
    change: str | None = None,
    good: Literal["normal", "inverse"] = "normal",
) -> None:
    """One figure that matters, in a row that wraps where the window is narrow.

    change: since the configuration that was pinned, shown in place of the note; good: whether it is
    good that the figure rises (normal).
    """
    row.metric(
        label,
        value,
        delta=note if change is None else change,
        delta_arrow="off" if change is None or change.startswith("no") else "auto",
        delta_color="off" if change is None or change.startswith("no") else good,
        help=help,
        border=True,
        width=width,
    )


def _change(now: float | None, then: float | None, form: str) -> str | None:
    """By how much a figure differs from the pinned one, in words; None if one is not known."""
    if now is None or then is None:
        return None
    size = form.format(abs(now - then))
    if size == form.format(0.0):
        return "no change since A"
    return f"{'-' if now < then else '+'}{size} since A"
