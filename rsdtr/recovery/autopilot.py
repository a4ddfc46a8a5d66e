"""Autopilot: the smallest network that loses at most so many points, found by bisection.

The labelled evaluation images are split in two halves, the classes in proportion: one chooses, the
other reports, so that what is told was not picked for looking good. Networks are solved targets by
the tight rule, each a step smaller than the one before; the bisection takes a size to hold where
the drop on the choosing half, by the upper end of its interval, is within the budget. Cheap
recoveries come first: where recalibration holds, nothing is refit. No label is used to recover.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from torch import nn

from rsdtr.compressed.compress import compress
from rsdtr.data.datasets import DataSplits, stratified
from rsdtr.errors import DataError, PlanError, RsdtrError
from rsdtr.measuring.accuracy import Accuracy, right_answers
from rsdtr.measuring.paired import Z84, Drop, paired_drop
from rsdtr.planning.choices import Choices
from rsdtr.planning.model_profile import ModelProfile
from rsdtr.planning.plan import CompressionPlan, Target
from rsdtr.recovery.recalibrate import nothing_to_recalibrate
from rsdtr.recovery.recover import STAGES, Recover, recovered
from rsdtr.search.candidate import GRID

STEP = 1.15  # PCR of a size over that of the one before


@dataclass(frozen=True, eq=False)
class Trial:
    """One network that was tried.

    drop: on the choosing half, with the interval that decides; held: whether its upper end is
    within the budget; seconds: to recover and test it.
    """

    plan: CompressionPlan
    recover: Recover
    drop: Drop
    held: bool
    seconds: float


@dataclass(frozen=True, eq=False)
class Found:
    """The smallest network within the budget, and how it was found.

    model, plan: the recovered network; dense, reached, drop: on the reporting half, which no trial
    was chosen on.
    """

    model: nn.Module
    plan: CompressionPlan
    recover: Recover
    dense: Accuracy
    reached: Accuracy
    drop: Drop
    trials: tuple[Trial, ...]

    def __str__(self) -> str:
        """What was found, in one sentence."""
        low, high = self.drop.interval
        return (
            f"{self.plan.pcr:.1f} times fewer parameters, {self.drop.points:.1f} points lost "
            f"(95 % interval {low:.1f} to {high:.1f}, {self.drop.n:,} images that nothing was "
            f"chosen on), {STAGES[self.recover]}"
        )


def smallest_within(
    dense: nn.Module,
    costs: ModelProfile,
    data: DataSplits,
    max_drop: float = 1.0,
    *,
    layers: str | tuple[str, ...] | None = None,
    recovers: Sequence[Recover] = ("recalibrate", "refit"),
    should_stop: Callable[[], bool] = lambda: False,
    on_trial: Callable[[Trial, int, int], None] | None = None,
) -> Found:
    """The network of the highest PCR that loses at most max_drop percentage points of accuracy.

    dense: is not changed; costs: its profile; data: test images choose and report, training images
    are what recoveries look at; layers: as in `plan`; recovers: what a network is brought through,
    the cheapest first. on_trial: called after each trial, with how many sizes are decided and how
    many are to be. Where should_stop says so, the best so far is the answer. RsdtrError where no
    network holds; DataError without labels, or with too few to tell the budget from none.
    """
    if not max_drop > 0:
        raise RsdtrError(f"max_drop is {max_drop}: give a number of points above 0")
    data.test.check_labelled("an accuracy budget")
    search = _Search(dense, costs, data, max_drop, layers, recovers)
    search.check_images()
    plans = search.plans()
    held, beyond, decided = -1, len(plans), 0
    best: tuple[Trial, nn.Module] | None = None
    trials: list[Trial] = []
    while beyond - held > 1 and not should_stop():
        middle = (held + beyond) // 2
        decided, holds = decided + 1, False
        for trial, model in search.tried(plans[middle]):
            trials.append(trial)
            holds = trial.held
            if holds:
                best = trial, model
            if on_trial:
                on_trial(trial, decided, len(plans).bit_length())
            if holds or should_stop():
                break
        held, beyond = (middle, beyond) if holds else (held, middle)
    if best is None:
        raise RsdtrError(
            f"no network smaller than {costs.model} was found to lose at most {max_drop:g} points: "
            "allow more points, or give more test images"
        )
    return search.found(*best, tuple(trials))


class _Search:
    """What every trial needs: the dense network's answers, the halves, the questions."""

    def __init__(
        self,
        dense: nn.Module,
        costs: ModelProfile,
        data: DataSplits,
        max_drop: float,
        layers: str | tuple[str, ...] | None,
        recovers: Sequence[Recover],
    ) -> None:
        self.dense, self.costs, self.train, self.max_drop = dense, costs, data.train, max_drop
        self.like = Choices(rule="tight", layers=layers)
        bare = nothing_to_recalibrate(dense) is not None
        possible = [how for how in recovers if not (bare and how == "recalibrate")]
        self.recovers: list[Recover] = possible or ["none"]
        chosen, reported = stratified(data.test.labels, 2)
        self.choosing, self.reporting = data.test.select(chosen), data.test.select(reported)
        self.right = right_answers(dense, self.choosing)

    def check_images(self) -> None:
        """DataError where not even a network that is right wherever the dense one is would hold."""
        right, n = self.right, len(self.right)
        while paired_drop(right, right, Z84).interval[1] > self.max_drop:
            right = right.repeat(2)
        if len(right) > n:
            raise DataError(
                f"{2 * n:,} labelled test images cannot tell {self.max_drop:g} points from none: "
                f"give about {2 * len(right):,}, or allow more points"
            )

    def plans(self) -> list[CompressionPlan]:
        """Solved targets from the first that is smaller than the dense network to the smallest."""
        smallest = replace(self.like, eps=GRID[-1]).decide(self.costs).pcr
        found, pcr = [], STEP
        while pcr <= smallest:
            target = Target(kind="pcr", value=round(pcr, 2))
            with suppress(PlanError):
                found.append(replace(self.like, target=target).decide(self.costs))
            pcr *= STEP
        return found

    def tried(self, plan: CompressionPlan) -> Iterator[tuple[Trial, nn.Module]]:
        """The network of a plan after each of the recoveries, each from the compressed one."""
        small = compress(self.dense, plan)
        for how in self.recovers:
            began = time.monotonic()
            model = recovered(small, self.dense, self.train, how)
            drop = paired_drop(self.right, right_answers(model, self.choosing), Z84)
            held = drop.interval[1] <= self.max_drop
            yield Trial(plan, how, drop, held, time.monotonic() - began), model

    def found(self, trial: Trial, model: nn.Module, trials: tuple[Trial, ...]) -> Found:
        """What is told of the best one, on the half that nothing was chosen on."""
        before, after = (right_answers(net, self.reporting) for net in (self.dense, model))
        assumed = self.reporting.assumed
        dense, reached = (
            Accuracy.of(int(right.sum()), len(right), assumed) for right in (before, after)
        )
        drop = paired_drop(before, after)
        return Found(model, trial.plan, trial.recover, dense, reached, drop, trials)
