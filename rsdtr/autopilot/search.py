"""The search: by bisection, the smallest network that loses at most so many points.

The evaluation images are split in two halves, the classes in proportion: one chooses, the other
reports, so that what is told was not picked for looking good. Networks are solved targets by the
tight rule, each a step smaller than the one before; the bisection takes a size to hold where the
drop on the choosing half, by the upper end of its interval, is within the budget. Cheap recoveries
come first: where recalibration holds, nothing is refit, and where the refit holds, nothing is
trained. Without labels the dense network's own answers take their place: fidelity, not accuracy.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal

from torch import nn

from rsdtr.autopilot.budget import STEP, UNLABELLED, Budget, Unlabelled
from rsdtr.autopilot.half import Half, Measure
from rsdtr.autopilot.speed import Speed, fastest_of
from rsdtr.autopilot.trials_on_disk import KeptTrials, Record
from rsdtr.baselines.comparison import OnnxNetwork, int8_file
from rsdtr.compressed.compress import compress
from rsdtr.data.datasets import DataSplits, stratified
from rsdtr.data.image_sets import fingerprint
from rsdtr.errors import DataError, PlanError, RsdtrError
from rsdtr.measuring.accuracy import Accuracy
from rsdtr.measuring.paired import Z84, Drop, paired_drop
from rsdtr.models.surgery import copied
from rsdtr.planning.choices import Choices
from rsdtr.planning.model_profile import ModelProfile
from rsdtr.planning.plan import CompressionPlan
from rsdtr.recovery.distill import distill
from rsdtr.recovery.finetune import finetune
from rsdtr.recovery.recalibrate import nothing_to_recalibrate
from rsdtr.recovery.recover import DISTILL_IMAGES, STAGES, recovered
from rsdtr.search.candidate import GRID

_Way = Unlabelled | Literal["fine-tune"]
_STAGES: dict[_Way, str] = {
    "none": STAGES["none"],
    "recalibrate": STAGES["recalibrate"],
    "refit": STAGES["refit"],
    "distill-unlabelled": "distilled",
    "fine-tune": "fine-tuned",
}
Doing = Callable[[str, int, int], None]  # what, and how much of how much


@dataclass(frozen=True, eq=False)
class Trial:
    """One network that was tried.

    stage: what it was brought through; drop: on the choosing half, with the interval that decides;
    held: whether its upper end is within the budget; seconds: to recover and test it, once; known:
    whether an earlier search had done so.
    """

    plan: CompressionPlan
    stage: str
    drop: Drop
    held: bool
    seconds: float
    known: bool


@dataclass(frozen=True, eq=False)
class Found:
    """The network that was searched for, and how it was found.

    model, plan: the recovered network; dense, reached, drop: on the reporting half, which no trial
    was chosen on, so that the drop may be above max_drop, the budget. Where measure is "fidelity"
    they count the dense network's answers. speed: where the budget is for speed.
    """

    model: nn.Module
    plan: CompressionPlan
    stage: str
    measure: Measure
    dense: Accuracy
    reached: Accuracy
    drop: Drop
    max_drop: float
    trials: tuple[Trial, ...]
    int8: bool
    speed: Speed | None = None

    def __str__(self) -> str:
        """What was found, in one sentence."""
        low, high = self.drop.interval
        lost = f"{self.drop.points:.1f} points lost"
        if self.measure == "fidelity":
            lost = f"another answer than the dense network's for {self.drop.points:.1f} % of images"
        fast = f"{self.speed}, " if self.speed else ""
        stage = f"{self.stage}, int8" if self.int8 else self.stage
        told = (
            f"{fast}{self.plan.pcr:.1f} times fewer parameters, {lost} (95 % interval {low:.1f} to "
            f"{high:.1f}, {self.drop.n:,} images that nothing was chosen on), {stage}"
        )
        if self.drop.points <= self.max_drop:
            return told
        return (
            f"{told}; that is more than the {self.max_drop:g} of the budget, which held on the "
            f"{self.trials[-1].drop.n:,} images that chose: more test images tell it better"
        )


def smallest_within(
    dense: nn.Module,
    costs: ModelProfile,
    data: DataSplits,
    budget: Budget | None = None,
    *,
    guess: float | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    on_trial: Callable[[Trial, int, int], None] | None = None,
    doing: Doing | None = None,
) -> Found:
    """The network of the highest PCR that loses at most budget.max_drop points; of those that
    hold, the fastest, where the budget is for speed.

    dense: is not changed; costs: its profile; data: test images choose and report, training images
    are what recoveries look at. guess: the ratio that is tried first. on_trial: called after each
    trial, with how many sizes are decided and about how many are to be; doing: within trials. Where
    should_stop says so, or the budget's time is over, the best so far is the answer. RsdtrError
    where no network holds; DataError for too few images to tell the budget from none, and where
    fine-tuning has no labels.
    """
    search = _Search(dense, costs, data, budget or Budget(), should_stop, doing)
    search.check_images()
    ratios = search.ratios()
    held, beyond, decided = -1, len(ratios), 0
    best: list[tuple[Trial, nn.Module]] = []  # of each size that holds, from the largest on
    trials: list[Trial] = []
    with suppress(_Stopped):
        while beyond - held > 1:
            middle = _next(ratios, held, beyond, guess if decided < 2 else None)
            decided, holds = decided + 1, False
            for trial, model in search.tried(ratios[middle]):
                trials.append(trial)
                if on_trial:
                    on_trial(trial, decided, max(decided, len(ratios).bit_length()))
                if model is not None:
                    best.append((trial, model))
                    holds = True
            held, beyond = (middle, beyond) if holds else (held, middle)
    if not best:
        raise RsdtrError(
            f"no network smaller than {costs.model} was found to lose at most "
            f"{search.budget.max_drop:g} points: allow more points, more recovery or more time, or "
            "give more test images"
        )
    return search.found(best, tuple(trials))


def _next(ratios: list[float], held: int, beyond: int, guess: float | None) -> int:
    """Which size is tried: the one that is guessed, else its neighbour, else the middle one."""
    if guess is not None:
        near = min(range(len(ratios)), key=lambda index: abs(ratios[index] - guess))
        for index in (near, near + 1, near - 1):
            if held < index < beyond:
                return index
    return (held + beyond) // 2


class _Stopped(Exception):
    """The search is to end with what it has."""


class _Search:
    """What every trial needs: the dense network's answers, the halves, the questions."""

    def __init__(
        self,
        dense: nn.Module,
        costs: ModelProfile,
        data: DataSplits,
        budget: Budget,
        should_stop: Callable[[], bool],
        doing: Doing | None,
    ) -> None:
        self.dense, self.costs, self.data, self.budget = dense, costs, data, budget
        self.doing = doing or (lambda what, done, total: None)
        self.ends = math.inf if budget.seconds is None else time.monotonic() + budget.seconds
        self.told_to_stop = should_stop
        self.training = budget.training
        self.like = Choices(rule="tight", layers=budget.layers, objective=budget.objective)
        self.measure: Measure = "accuracy" if data.test.means_outputs else "fidelity"
        if self.training is not None:
            data.train.check_labelled("fine-tuning")
        chosen, reported = stratified(data.test.labels, 2, budget.seed)
        self.reporting = data.test.select(reported)
        self.choosing = Half(data.test.select(chosen), dense, self.measure)
        self.kept = KeptTrials.of(json.dumps([
            costs.weights_sha256, data.test.spec.name, fingerprint(self.choosing.images),
            fingerprint(data.train), budget.layers, budget.purpose,
        ]))  # fmt: skip

    def should_stop(self) -> bool:
        """Whether somebody said so, or the time is over."""
        return self.told_to_stop() or time.monotonic() > self.ends

    def _step(self, what: str) -> Callable[[int, int], None]:
        """Progress of one step, which ends the search where it is to stop."""

        def show(done: int, total: int) -> None:
            if self.should_stop():
                raise _Stopped
            self.doing(what, done, total)

        return show

    def check_images(self) -> None:
        """DataError where not even a network that is right wherever the dense one is would hold."""
        right, n, points = self.choosing.before, len(self.choosing.before), self.budget.max_drop
        while paired_drop(right, right, Z84).interval[1] > points:
            right = right.repeat(2)
        if len(right) > n:
            kind = "labelled " if self.measure == "accuracy" else ""
            raise DataError(
                f"{2 * n:,} {kind}test images cannot tell {points:g} points from none: "
                f"give about {2 * len(right):,}, or allow more points"
            )

    def ratios(self) -> list[float]:
        """How much smaller networks are tried, from the first that is to the smallest there is."""
        smallest = replace(self.like, eps=GRID[-1]).decide(self.costs)
        most = smallest.pcr if self.budget.purpose == "size" else smallest.fcr
        return [STEP**step for step in range(1, 1 + int(math.log(max(most, 1.0), STEP)))]

    def tried(self, ratio: float) -> Iterator[tuple[Trial, nn.Module | None]]:
        """The network that is so much smaller, after each recovery until one holds; only that one
        is given; nothing where no plan reaches it.

        Recalibration and refit start from the compressed network, what has gradients from the last
        of them.
        """
        try:
            plan = replace(self.like, target=self.budget.target(ratio)).decide(self.costs)
        except PlanError:
            return
        small, last = None, None
        for how in self._ways():
            name = json.dumps([str(plan.target), how, self.budget.epochs, self.budget.int8])
            known = self.kept.read(name)
            if known is not None:
                record, state = known
                last = compress(self.dense, plan)
                last.load_state_dict(state)
            else:
                began = time.monotonic()
                small = small or compress(self.dense, plan)
                last = self._brought_through(how, small, last or small)
                record = Record(drop=self._drop(last), seconds=time.monotonic() - began)
                self.kept.write(name, record, last)
            held = record.drop.interval[1] <= self.budget.max_drop
            trial = Trial(plan, _STAGES[how], record.drop, held, record.seconds, known is not None)
            yield trial, last if held else None
            if held:
                return

    def _ways(self) -> list[_Way]:
        """What a network is brought through, the cheapest first."""
        most = UNLABELLED.index(self.budget.recover)
        bare = nothing_to_recalibrate(self.dense) is not None
        free = [how for how in UNLABELLED[1 : most + 1] if not (bare and how == "recalibrate")]
        return [*(free or UNLABELLED[:1]), *(["fine-tune"] if self.training else [])]

    def _brought_through(self, how: _Way, small: nn.Module, last: nn.Module) -> nn.Module:
        """The compressed network recovered in one way, or what came last trained further."""
        if how == "fine-tune":
            return self._trained(last)
        if how != "distill-unlabelled":
            show = self._step(f"{STAGES[how]}, steps")
            return recovered(small, self.dense, self.data.train, how, show)
        show = self._step("distilling, steps")
        return distill(
            last, self.dense, self.data.train, DISTILL_IMAGES,
            on_step=lambda step: show(step.number, step.total),
        ).model  # fmt: skip

    def _trained(self, model: nn.Module) -> nn.Module:
        """A copy that is fine-tuned; stopped before its first epoch it ends the search."""
        if self.training is None:
            return model
        new, show = copied(model), self._step("fine-tuning, epochs")
        show(0, self.training.epochs)
        for epoch in finetune(
            new, self.data, self.training, teacher=self.dense, should_stop=self.should_stop
        ):
            self.doing("fine-tuning, epochs", epoch.epoch, epoch.epochs)
        show(self.training.epochs, self.training.epochs)
        return new

    def _drop(self, model: nn.Module) -> Drop:
        half = self.choosing
        return paired_drop(half.before, half.right(self._as_it_runs(model)), Z84)

    def _as_it_runs(self, model: nn.Module) -> nn.Module:
        """The network that is judged: the int8 file of it where that is what will be written."""
        if not self.budget.int8:
            return model
        self.doing("quantising", 0, 1)
        return OnnxNetwork(int8_file(model, self.data.test.spec, self.data.train))

    def found(self, best: list[tuple[Trial, nn.Module]], trials: tuple[Trial, ...]) -> Found:
        """What is told of the best one, on the half that nothing was chosen on."""
        trial, model = max(best, key=lambda pair: pair[0].plan.pcr)
        plan, speed = trial.plan, None
        if self.budget.purpose == "speed":
            self.doing("taking times", 0, 1)
            fastest = fastest_of(
                [(network, one.plan) for one, network in best], self.dense, self.costs,
                self.data.test.spec, self.data.train, self.budget,
            )  # fmt: skip
            trial, model = best[fastest.index][0], fastest.model
            plan, speed = fastest.plan, fastest.speed
        self.doing("testing on the other half", 0, 1)
        half = Half(self.reporting, self.dense, self.measure)
        after = half.right(self._as_it_runs(model))
        dense, reached = (
            Accuracy.of(int(right.sum()), len(right), self.reporting.assumed)
            for right in (half.before, after)
        )
        drop = paired_drop(half.before, after)
        return Found(
            model, plan, trial.stage, self.measure, dense, reached, drop, self.budget.max_drop,
            trials, self.budget.int8, speed,
        )  # fmt: skip
