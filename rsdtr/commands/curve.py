"""rsdtr curve: accuracy, or fidelity, over compression, measured point by point and kept."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain

import click

from rsdtr.commands import options
from rsdtr.commands.console import emit, progress, table
from rsdtr.commands.inputs import profiled
from rsdtr.commands.options import Layers
from rsdtr.data.datasets import data_identity, load_data
from rsdtr.measuring.latency import NetworkLatency, network_cases, network_latency
from rsdtr.measuring.layer_times import DeviceProfile, measured_profile
from rsdtr.models.weights_source import WeightsSource
from rsdtr.planning.choices import Choices
from rsdtr.planning.model_profile import ModelProfile
from rsdtr.recovery.curves_on_disk import load_curve, save_curve
from rsdtr.recovery.recover import RECOVERS, Recover
from rsdtr.recovery.tradeoff_curve import (
    TEST_IMAGES,
    CurveKey,
    CurvePoint,
    Measure,
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
@click.option(
    "--latency", "timed", is_flag=True, help="Time the layers of every point too, on this machine."
)
@options.json
def curve(
    model: str, weights: WeightsSource, data: str | None, recover: Recover, rule: Rule,
    layers: Layers, limit: int, fine: bool, timed: bool, as_json: bool,
) -> None:  # fmt: skip
    """Measure accuracy over compression: one ε_p for all layers, and solved targets. Where the
    images have no labels, or the network no classes, it is fidelity to the dense network.

    Every point is kept as it is measured, for the explorer too: asked again, only what is missing
    is measured. Ctrl-C keeps what is there.
    """
    dense, spec, costs = profiled(model, weights)
    like = Choices(rule=rule, layers=layers)
    identity, splits = data_identity(data, spec), load_data(data, spec)
    measure: Measure = "accuracy" if splits.test.labelled else "fidelity"
    key = CurveKey.of(costs, like, identity, limit, measure)
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
    times = latencies(costs, found, measure=timed)
    if as_json:
        emit(told(found, times))
        return
    stages = ("compressed", "recalibrated", "refit")
    heads = ("asked", "PCR", "FCR", "bytes", *stages, "95 % interval of the last", "time")
    click.echo(table(heads, [_row(point, stages, times) for point in in_order(found)]))
    if measure == "fidelity":
        click.echo(f"fidelity to the dense network on {found.dense.n:,} images of {found.data}")
        return
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


def latencies(
    costs: ModelProfile, found: TradeoffCurve, *, measure: bool = False
) -> dict[str, NetworkLatency]:
    """What this machine's device profile knows of every point, by its label; measure: what it lacks
    is measured first.
    """
    key = found.key
    like = Choices(rule=key.rule, objective=key.objective, layers=key.layers)
    plans = {
        point.label: replace(like, eps=point.eps or like.eps, target=point.target).decide(costs)
        for point in found.points
    }
    if measure:
        cases = (network_cases(decided, costs).values() for decided in plans.values())
        with progress(f"timing {found.model}", "layers") as show:
            table = measured_profile(tuple(dict.fromkeys(chain(*cases))), progress=show)
    else:
        table = DeviceProfile.own()
    return {label: network_latency(decided, costs, table) for label, decided in plans.items()}


def told(found: TradeoffCurve, times: Mapping[str, NetworkLatency]) -> dict[str, object]:
    """The object of `curve --json`; times: by the labels of points."""
    reached = {"dense_accuracy": found.dense.percent, "dense_interval": list(found.dense.interval)}
    return {
        "model": found.model,
        "data": found.data,
        "n": found.dense.n,
        **(reached if found.key.measure == "accuracy" else {}),
        "points": [_told(point, found, times[point.label]) for point in in_order(found)],
    } | ({} if found.dense.assumed is None else {"assumed": found.dense.assumed})


def _told(point: CurvePoint, found: TradeoffCurve, at: NetworkLatency) -> dict[str, object]:
    asked = {"eps": point.eps} if point.target is None else {"target": point.target.model_dump()}
    stages = dict(point.accuracy.stages)
    last = point.accuracy.stages[-1][1]
    return asked | {
        "rule": found.key.rule,
        "pcr": point.pcr,
        "fcr": point.fcr,
        "bytes": point.bytes,
        found.key.measure: {
            name: stages[name].percent if name in stages else None
            for name in ("compressed", "recalibrated", "refit")
        },
        "interval": list(last.interval),
        "latency": None
        if at.ratio is None
        else {"engine": "torch", "batch": at.batch, "ratio": at.ratio},
    }


def _row(
    point: CurvePoint, stages: Sequence[str], times: Mapping[str, NetworkLatency]
) -> tuple[str, ...]:
    found = dict(point.accuracy.stages)
    low, high = point.accuracy.stages[-1][1].interval
    return (
        point.label,
        f"{point.pcr:.2f}",
        f"{point.fcr:.2f}",
        f"{point.bytes:,}",
        *(f"{found[name].percent:.2f} %" if name in found else "" for name in stages),
        f"{low:.2f} to {high:.2f}",
        "" if (ratio := times[point.label].ratio) is None else f"{ratio:.2f} ×",
    )
