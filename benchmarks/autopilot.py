"""The autopilot: what it finds within a budget, and how often what it promises holds.

    python benchmarks/autopilot.py found [MODEL] [--data DIR] [--drops 2,1,0.5] [--epochs N]
    python benchmarks/autopilot.py promise [MODEL] [--data DIR] [--drop 2] [--runs 30]

found: for each budget the smallest network, its time in ONNX Runtime beside the best dense network,
and int8 alone on the same images. promise: the same search with another split of the test images
each time: in how many is the drop on the reporting half within the budget? What was tried is kept,
so that a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import torch
from torch import nn

import rsdtr
from rsdtr.autopilot import Budget, Trial, search, smallest_within
from rsdtr.autopilot.half import Half
from rsdtr.autopilot.speed import fastest_of
from rsdtr.baselines.comparison import OnnxNetwork, int8_file
from rsdtr.compressed import compress
from rsdtr.data import DataSplits
from rsdtr.data.image_sets import stratified
from rsdtr.measuring.paired import paired_drop
from rsdtr.measuring.stopwatch import machine
from rsdtr.planning import ModelProfile
from rsdtr.planning.winners_on_disk import fill_store
from rsdtr.recovery.recover import recovered


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("what", choices=["found", "promise"])
    words.add_argument("model", nargs="?", default="digits_resnet20")
    words.add_argument("--data")
    words.add_argument("--drops", default="2,1,0.5")
    words.add_argument("--drop", type=float, default=2.0)
    words.add_argument("--runs", type=int, default=30)
    words.add_argument("--epochs", type=int, default=0)
    words.add_argument("--recover", default="refit")
    asked = words.parse_args()
    print(f"{asked.model} on {machine()}, torch {torch.__version__}")
    spec, dense = rsdtr.model_spec(asked.model), rsdtr.load_model(asked.model)
    data, costs = rsdtr.load_data(asked.data, spec), rsdtr.profile(dense, spec)
    fill_store(costs)
    if asked.what == "found":
        found(dense, costs, data, asked)
    else:
        promise(dense, costs, data, asked)


def found(
    dense: nn.Module, costs: ModelProfile, data: DataSplits, asked: argparse.Namespace
) -> None:
    print("| budget | PCR | FCR | brought through | points lost (95 % interval) | images | "
          "ONNX Runtime, of the best dense network, batch 1 | seconds |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|")
    for text in asked.drops.split(","):
        budget = Budget(float(text), recover=asked.recover, epochs=asked.epochs)
        began = time.monotonic()
        best = smallest_within(dense, costs, data, budget, on_trial=told)
        seconds = time.monotonic() - began
        fast = fastest_of(
            [(best.model, best.plan)], dense, costs, data.test.spec, data.train, budget
        )
        low, high = best.drop.interval
        print(
            f"| {text} | {best.plan.pcr:.2f} | {best.plan.fcr:.2f} | {best.stage} | "
            f"{best.drop.points:.2f} ({low:.2f} to {high:.2f}) | {best.drop.n:,} | "
            f"{fast.speed.ratio:.2f} | {seconds:.0f} |",
            flush=True,
        )
    half = Half(data.test.select(stratified(data.test.labels, 2)[1]), dense, "accuracy")
    network = OnnxNetwork(int8_file(dense, data.test.spec, data.train))
    drop = paired_drop(half.before, half.right(network))
    low, high = drop.interval
    print(f"int8 alone: {drop.points:.2f} points lost ({low:.2f} to {high:.2f}), PCR 1")


def told(trial: Trial, decided: int, about: int) -> None:
    print(
        f"  PCR {trial.plan.pcr:.2f}, {trial.stage}: {trial.drop.points:.2f} points, "
        f"{'holds' if trial.held else 'does not hold'} ({trial.seconds:.0f} s)",
        flush=True,
    )


def once(function: Callable[..., Any], key: Callable[..., object]) -> Callable[..., Any]:
    """The function, called once for each key of its arguments."""
    known: dict[object, Any] = {}

    def called(*given: Any) -> Any:
        if key(*given) not in known:
            known[key(*given)] = function(*given)
        return known[key(*given)]

    return called


def promise(
    dense: nn.Module, costs: ModelProfile, data: DataSplits, asked: argparse.Namespace
) -> None:
    # A network does not depend on how the test images are split: it is made once.
    made = once(recovered, lambda small, _, __, how, *___: (id(small), how))
    small = once(compress, lambda _, plan: str(plan.target))
    with patch.object(search, "recovered", made), patch.object(search, "compress", small):
        count(dense, costs, data, asked)


def count(
    dense: nn.Module, costs: ModelProfile, data: DataSplits, asked: argparse.Namespace
) -> None:
    within = inside = 0
    for seed in range(asked.runs):
        budget = Budget(asked.drop, recover=asked.recover, seed=seed)
        best = smallest_within(dense, costs, data, budget)
        low, high = best.drop.interval
        within += best.drop.points <= asked.drop
        inside += low <= asked.drop
        print(
            f"seed {seed}: PCR {best.plan.pcr:.2f}, {best.stage}, {best.drop.points:.2f} points "
            f"lost ({low:.2f} to {high:.2f}) on {best.drop.n:,} images",
            flush=True,
        )
    print(
        f"{within} of {asked.runs} reported halves are within {asked.drop:g} points; the 95 % "
        f"interval reaches into the budget in {inside}"
    )


if __name__ == "__main__":
    main()
