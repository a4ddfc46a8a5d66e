"""The tables behind the figures: data frames with their units in the headers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from rsdtr.exports.model_card import ModelCard
from rsdtr.measuring.latency import LayerLatency, NetworkLatency
from rsdtr.planning.layer_profile import LayerProfile
from rsdtr.planning.model_profile import ModelProfile
from rsdtr.planning.network_parts import Part
from rsdtr.planning.plan import CompressionPlan
from rsdtr.recovery.checkpoint import TrainingRun
from rsdtr.recovery.refit import Step
from rsdtr.search.candidate import Candidate, Pruned

if TYPE_CHECKING:  # importing them would load the ONNX stack
    from rsdtr.baselines.comparison import Cell

MEASURED = ("in time", "ring / dense (×)", "dense (ms)", "ring (ms)", "fastest form")


def layers_table(
    plan: CompressionPlan,
    own: Mapping[str, float | None] | None = None,
    latency: NetworkLatency | None = None,
) -> pd.DataFrame:
    """One row per layer: what the plan makes of it, before and after.

    own: layers with an ε_p of their own, or None to stay dense; latency: of this plan, for the
    columns of MEASURED; without it nothing is measured. There is a column `runs` where a layer runs
    several times for one input.
    """
    own = own or {}
    several = plan.runs_several_times
    measured = [latency.of(la.name) if latency else LayerLatency(la, None) for la in plan.layers]
    rows = [
        {
            "layer": layer.name,
            "εₚ": layer.eps if layer.eps is not None else own.get(layer.name),
            "keep dense": layer.name in own and own[layer.name] is None,
            "kernel (O × I × KH × KW)": " × ".join(map(str, layer.shape)),
            "stride": " × ".join(map(str, layer.stride)),
            **({"runs": layer.runs} if several else {}),
            "before (scalars)": math.prod(layer.shape),
            "after (scalars)": layer.storage,
            "ratio (×)": math.prod(layer.shape) / layer.storage,
            "in time": times.status,
            "ring / dense (×)": times.ratio,
            "dense (ms)": times.dense.best_ms if times.dense else None,
            "ring (ms)": times.ring.best_ms if times.ring else None,
            "fastest form": times.ring.form if times.ring else "",
            "ranks R0…R3": ", ".join(map(str, layer.ranks or ())),
            "shift": layer.shift,
            "r0": layer.r0,
            "relative error": layer.relative_error,
            "before (MACs)": layer.macs.original,
            "after (MACs)": layer.macs.compressed,
            "because": times.reason,
        }
        for layer, times in zip(plan.layers, measured, strict=True)
    ]
    # Typed column by column: guessing, and converting afterwards, takes most of a slider's move.
    whole = ("shift", "r0")
    real = ("εₚ", "dense (ms)", "ring (ms)", "ring / dense (×)")
    return pd.DataFrame(
        {
            name: pd.array([row[name] for row in rows], "Int64")
            if name in whole
            else pd.array([row[name] for row in rows], "Float64")
            if name in real
            else [row[name] for row in rows]
            for name in rows[0]
        }
    )


def parts_table(found: Sequence[Part]) -> pd.DataFrame:
    """One row per stage, block and layer: parameters before and after, and the error."""
    return pd.DataFrame(
        [
            {
                "part": part.name,
                "level": part.level,
                "convolutions": len(part.layers),
                "before (scalars)": part.before,
                "after (scalars)": part.after,
                "ratio (×)": part.gain,
                "relative error": part.relative_error,
            }
            for part in found
        ]
    )


def candidates_table(
    found: Sequence[Candidate], winner: Candidate, dense: int, pruned: Sequence[Pruned] = ()
) -> pd.DataFrame:
    """One row per candidate of a layer, by shift and r0; dense: scalars of the kernel.

    pruned: candidates that were ruled out, with nothing known but a floor on their cost.
    """
    rows = [
        {
            "chosen": candidate == winner,
            "shift": candidate.shift,
            "r0": candidate.r0,
            "ranks R0…R3": ", ".join(map(str, candidate.ranks)),
            "storage (scalars)": candidate.storage,
            "ratio (×)": dense / candidate.storage,
            "MACs per pixel": candidate.macs,
            "relative error": candidate.relative_error,
        }
        for candidate in found
    ] + [
        {"chosen": False, "shift": cell.shift, "r0": cell.r0, "ruled out: at least": cell.floor}
        for cell in pruned
    ]
    whole = ("storage (scalars)", "MACs per pixel", "ruled out: at least")
    table = pd.DataFrame(rows).sort_values(["shift", "r0"], ignore_index=True)
    return table.astype({name: "Int64" for name in whole if name in table})


def pins_table(pinned: ModelCard, now: ModelCard) -> pd.DataFrame:
    """Two configurations, A and B, side by side: one row per figure, and by how much B differs."""
    rows = []
    for (name, a), (_, b) in zip(_figures(pinned), _figures(now), strict=True):
        change = None if a is None or b is None else b - a
        rows.append({"figure": name, "A": a, "B": b, "B − A": change})
    return pd.DataFrame(rows)


def _figures(card: ModelCard) -> list[tuple[str, float | None]]:
    plan, reached, latency = card.plan, card.reached, card.latency
    return [
        ("PCR (×)", plan.pcr),
        ("FCR (×)", plan.fcr),
        ("parameters", plan.params.compressed),
        ("MACs", plan.macs.compressed),
        ("file (bytes)", card.bytes.compressed),
        ("accuracy (%)", reached.percent if reached else None),
        ("its interval from (%)", reached.interval[0] if reached else None),
        ("to (%)", reached.interval[1] if reached else None),
        ("latency, compressed / dense (×)", latency.ratio if latency else None),
    ]


_STEP_COLUMNS = ["step", "judged by", "before", "after", "gained (%)", "kept", "skipped because"]


def steps_table(steps: Sequence[Step]) -> pd.DataFrame:
    """One row per step of a refit: by what it was judged on held-out images, and the verdict."""
    return pd.DataFrame(
        [
            {
                "step": step.name,
                "judged by": step.measure,
                "before": step.before,
                "after": step.after,
                "gained (%)": step.gained,
                "kept": step.kept,
                "skipped because": step.skipped or "",
            }
            for step in steps
        ],
        columns=_STEP_COLUMNS,
    )


def runs_table(runs: Sequence[TrainingRun]) -> pd.DataFrame:
    """One row per fine-tuning: how it was asked for, how it ended, and the best it reached."""
    rows = []
    for run in runs:
        epochs, options = run.curve.epochs, run.options
        best = max((epoch.validation for epoch in epochs), key=lambda v: v.percent, default=None)
        seconds = sum(epoch.seconds for epoch in epochs)
        rows.append(
            {
                "job": run.job_id,
                "state": run.state,
                "epochs": f"{len(epochs)} of {options.epochs}",
                "best validation (%)": None if best is None else best.percent,
                "from (%)": None if best is None else best.interval[0],
                "to (%)": None if best is None else best.interval[1],
                "epoch (s)": seconds / len(epochs) if epochs else None,
                "optimiser": options.optimizer,
                "learning rate": options.lr,
                "batch": options.batch_size,
                "distillation": options.distill,
                "averaging": options.ema,
                "seed": options.seed,
            }
        )
    return pd.DataFrame(rows)


def cells_table(cells: Sequence[Cell]) -> pd.DataFrame:
    """One row per method and PCR: what was reached, or why nothing was.

    What labels take for granted has a column where they do.
    """
    assuming = any(cell.assumed for cell in cells)
    return pd.DataFrame(
        [
            {
                "method": cell.method,
                "asked PCR": cell.asked,
                "PCR": cell.pcr,
                "FCR": cell.fcr,
                "latency ratio": cell.latency_ratio,
                "bytes": cell.bytes,
                "accuracy (%)": cell.accuracy,
                "from (%)": None if cell.interval is None else cell.interval[0],
                "to (%)": None if cell.interval is None else cell.interval[1],
                "images": cell.n,
                "seconds": cell.seconds,
                "failed": cell.failed,
            }
            | ({"assumed": cell.assumed} if assuming else {})
            for cell in cells
        ]
    ).astype({"bytes": "Int64", "images": "Int64"})


def pair_table(cells: tuple[Cell, Cell], profile: ModelProfile) -> pd.DataFrame:
    """Two cells of one network layer by layer: storage in scalars, ranks, ‖𝓦 − 𝓦̂‖_F/‖𝓦‖_F.

    Columns of the first cell end in A, of the second in B. A layer that stayed as it was has the
    storage of its kernel, `dense` for ranks, and no error; what a cell does not hold is empty.
    """
    rows = []
    for layer in profile.layers:
        row: dict[str, object] = {"layer": layer.name, "dense": layer.kernel.numel()}
        for cell, end in zip(cells, "AB", strict=True):
            row |= _stored(cell, layer, end)
        rows.append(row)
    return pd.DataFrame(rows).astype({"storage A": "Int64", "storage B": "Int64"})


def _stored(cell: Cell, layer: LayerProfile, end: str) -> dict[str, object]:
    cores = {each.layer: each for each in cell.cores}
    error = dict(cell.relative_errors).get(layer.name)
    if layer.name in cores:
        storage, ranks = cores[layer.name].storage, " ".join(map(str, cores[layer.name].ranks))
    elif error is not None:
        storage, ranks = None, ""  # a cell of before cores were kept
    else:
        storage, ranks = layer.kernel.numel(), "dense"
    return {f"storage {end}": storage, f"ranks {end}": ranks, f"error {end}": error}
