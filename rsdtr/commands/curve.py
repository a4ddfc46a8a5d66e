"""rsdtr curve: accuracy over compression, measured point by point and kept."""

from __future__ import annotations

import time
from collections.abc import Sequence

import click

from rsdtr.commands import options
from rsdtr.commands.console import emit, progress, table
from rsdtr.commands.inputs import profiled
from rsdtr.commands.options import Layers
from rsdtr.data.datasets import data_identity, load_data
from rsdtr.models.weights_source import WeightsSource
from rsdtr.planning.choices import Choices
from rsdtr.recovery.curves_on_disk import load_curve, save_curve
from rsdtr.recovery.recover import RECOVERS, Recover
from rsdtr.recovery.tradeoff_curve import (
    TEST_IMAGES,
    CurveKey,
    CurvePoint,
    TradeoffCurve,
    coarse_questions,
    dense_curve,
    every_question,
    measure_curve,
)
from rsdtr.search.candidate import RULES, Rule


@click.command()
@click.argument("model")
@options.weights
@options.data
@click.option(
    "--recover",
    type=click.Choice(RECOVERS),
    default="recalibrate",
    show_default=True,
    help="What every point is brought through, without labels.",
)
@click.option("--rule", type=click.Choice(RULES), default="paper", show_default=True)
@options.layers
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=TEST_IMAGES,
    show_default=True,
    help="Test images at most.",
)
@click.option("--fine", is_flag=True, help="Every ε_p of the slider, not every fifth.")
@options.json
def curve(
    model: str, weights: WeightsSource, data: str | None, recover: Recover, rule: Rule,
    layers: Layers, limit: int, fine: bool, as_json: bool,
) -> None:  # fmt: skip
    """Measure accuracy over compression: one ε_p for all layers, and solved targets.

    Every point is kept as it is measured, for the explorer too: asked again, only what is missing
    is measured. Ctrl-C keeps what is there.
    """
    dense, spec, costs = profiled(model, weights)
    like = Choices(rule=rule, layers=layers)
    key = CurveKey.of(costs, like, data_identity(data, spec), limit)
    splits = load_data(data, spec)
    found = load_curve(key)
    if found is None:
        found = dense_curve(dense, costs, splits, key)
    began = time.monotonic()
    questions = every_question(like) if fine else coarse_questions(like)
    measured = 0
    with progress(f"measuring {model} on {splits.test.name}", "points") as show:

        def note(done: int, total: int) -> None:
            spent = time.monotonic() - began
            show(done, total, spent / measured * (total - done) if measured else None)

        begun = found
        for found in measure_curve(dense, costs, splits, begun, questions, recover, progress=note):
            measured += 1
            save_curve(found)
    if as_json:
        emit(told(found))
        return
    stages = ("compressed", "recalibrated", "refit")
    click.echo(table(("asked", "PCR", "FCR", "bytes", *stages, "95 % interval of the last"),
                     [_row(point, stages) for point in in_order(found)]))  # fmt: skip
    low, high = found.dense.interval
    click.echo(
        f"dense: {found.dense.percent:.2f} % of {found.dense.n:,} images of {found.data} "
        f"(95 % interval {low:.2f} to {high:.2f})"
    )
    if found.dense.assumed is not None:
        click.echo(f"warning: {found.dense.assumed}", err=True)


def in_order(found: TradeoffCurve) -> list[CurvePoint]:
    """The points of one ε_p first, then targets, each from the largest network to the smallest."""
    return sorted(found.points, key=lambda p: (p.eps is None, p.eps or 0.0, p.pcr))


def told(found: TradeoffCurve) -> dict[str, object]:
    """The object of `curve --json`."""
    return {
        "model": found.model,
        "data": found.data,
        "n": found.dense.n,
        "dense_accuracy": found.dense.percent,
        "dense_interval": list(found.dense.interval),
        "points": [_told(point, found) for point in in_order(found)],
    } | ({} if found.dense.assumed is None else {"assumed": found.dense.assumed})


def _told(point: CurvePoint, found: TradeoffCurve) -> dict[str, object]:
    asked = {"eps": point.eps} if point.target is None else {"target": point.target.model_dump()}
    stages = dict(point.accuracy.stages)
    last = point.accuracy.stages[-1][1]
    return asked | {
        "rule": found.key.rule,
        "pcr": point.pcr,
        "fcr": point.fcr,
        "bytes": point.bytes,
        "accuracy": {
            name: stages[name].percent if name in stages else None
            for name in ("compressed", "recalibrated", "refit")
        },
        "interval": list(last.interval),
        "latency": None,
    }


def _row(point: CurvePoint, stages: Sequence[str]) -> tuple[str, ...]:
    found = dict(point.accuracy.stages)
    low, high = point.accuracy.stages[-1][1].interval
    return (
        point.label,
        f"{point.pcr:.2f}",
        f"{point.fcr:.2f}",
        f"{point.bytes:,}",
        *(f"{found[name].percent:.2f} %" if name in found else "" for name in stages),
        f"{low:.2f} to {high:.2f}",
    )
