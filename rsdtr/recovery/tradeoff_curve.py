"""The trade-off curve of a network: what it still gets right, over how small it was made.

Every point is the plan of one ε_p for all layers, or of one target, measured on test images: as it
was compressed, with recalibrated BatchNorm statistics, and with refit cores. What is measured is
top-1 accuracy, or, where there are no labels or no classes, fidelity to the dense network. No point
has seen a label. Points are measured one after the other, coarse ones first, and each is worth
keeping.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Literal

from torch import nn

from rsdtr.compressed.compress import compress
from rsdtr.data.image_sets import DataSplits, LabelledImages
from rsdtr.errors import PlanError
from rsdtr.measuring.accuracy import Accuracy, accuracy
from rsdtr.measuring.fidelity import fidelity
from rsdtr.planning.choices import Choices
from rsdtr.planning.model_profile import ModelProfile
from rsdtr.planning.plan import CompressionPlan, Target, planned_bytes
from rsdtr.recovery.recalibrate import nothing_to_recalibrate
from rsdtr.recovery.recover import STAGES, Recover, recovered
from rsdtr.search.candidate import COARSE, GRID, Objective, Rule
from rsdtr.typing import Frozen

Measure = Literal["accuracy", "fidelity"]
TEST_IMAGES = 2000  # at most, where nobody says otherwise: curves of one key are found again
TARGET_PCRS = (1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)


class Accuracies(Frozen):
    """Top-1 accuracy, or fidelity in percent, at each stage of one plan; None where a stage was not
    measured, or changes nothing.
    """

    compressed: Accuracy
    recalibrated: Accuracy | None = None
    refit: Accuracy | None = None

    @property
    def stages(self) -> tuple[tuple[str, Accuracy], ...]:
        """What was measured, by name, in the order of the work."""
        named = (
            ("compressed", self.compressed),
            ("recalibrated", self.recalibrated),
            ("refit", self.refit),
        )
        return tuple((name, found) for name, found in named if found is not None)

    @property
    def best(self) -> tuple[str, Accuracy]:
        """The highest of them, by name; of equals the one that took least work."""
        return max(self.stages, key=lambda stage: stage[1].percent)


class CurvePoint(Frozen):
    """A plan of the curve: the one question that it answers, its costs, and its accuracies.

    pcr, fcr: original / compressed; bytes: of the safetensors file.
    """

    eps: float | None
    target: Target | None
    pcr: float
    fcr: float
    bytes: int
    accuracy: Accuracies

    @property
    def label(self) -> str:
        """What it was asked for, in words."""
        return str(self.target) if self.target else f"εₚ {self.eps:.2f}"


class CurveKey(Frozen):
    """What a curve belongs to.

    data: the identity of the images, see `datasets.data_identity`; images: test images at most;
    measure: what is measured on them, fidelity as in `Fidelity.percent`.
    """

    weights_sha256: str
    data: str
    images: int
    rule: Rule
    objective: Objective
    layers: str | tuple[str, ...]
    measure: Measure = "accuracy"

    @classmethod
    def of(
        cls, costs: ModelProfile, asked: Choices, data: str, images: int,
        measure: Measure = "accuracy",
    ) -> CurveKey:  # fmt: skip
        """The curve that a question lies on."""
        layers = costs.usual_layers if asked.layers is None else asked.layers
        return cls(
            weights_sha256=costs.weights_sha256, data=data, images=images, rule=asked.rule,
            objective=asked.solved_objective, layers=layers, measure=measure,
        )  # fmt: skip


class TradeoffCurve(Frozen):
    """The measured points of one network, beside the accuracy of the dense one, whose fidelity to
    itself is 100 %.
    """

    model: str
    data: str
    key: CurveKey
    dense: Accuracy
    points: tuple[CurvePoint, ...] = ()

    def at(self, asked: Choices) -> CurvePoint | None:
        """The point that answers a question; None where it was not measured, has layers with an
        ε_p of their own, or rings chosen by their times.
        """
        if asked.own or asked.objective == "latency":
            return None
        return next((p for p in self.points if _answers(p, asked)), None)

    def around(self, asked: Choices) -> tuple[CurvePoint, CurvePoint] | None:
        """The measured points of one ε_p just below and above the one that is asked for."""
        if asked.own or asked.target is not None or asked.objective == "latency":
            return None
        uniform = sorted(
            ((point.eps, point) for point in self.points if point.eps is not None),
            key=lambda pair: pair[0],
        )
        below = [point for eps, point in uniform if eps < asked.eps]
        above = [point for eps, point in uniform if eps > asked.eps]
        return (below[-1], above[0]) if below and above else None

    def smallest(self, drop: float) -> CurvePoint | None:
        """The point of the highest PCR whose best stage is within `drop` percentage points of the
        dense network; None if no measured one is.
        """
        held = [p for p in self.points if p.accuracy.best[1].percent >= self.dense.percent - drop]
        return max(held, key=lambda point: point.pcr, default=None)

    def with_point(self, new: CurvePoint) -> TradeoffCurve:
        """The curve with a point added, or taking the place of the one that asked the same."""
        others = tuple(p for p in self.points if (p.eps, p.target) != (new.eps, new.target))
        return self.model_copy(update={"points": (*others, new)})

    def merged(self, other: TradeoffCurve) -> TradeoffCurve:
        """The points of two measurements of one curve; of a point in both, the one with more
        stages.
        """
        result = self
        for point in other.points:
            same = next((p for p in self.points if (p.eps, p.target) == (point.eps, point.target)),
                        None)  # fmt: skip
            if same is None or len(point.accuracy.stages) > len(same.accuracy.stages):
                result = result.with_point(point)
        return result


def _answers(point: CurvePoint, asked: Choices) -> bool:
    if asked.target is not None:
        return point.target == asked.target
    return point.eps is not None and round(point.eps, 2) == round(asked.eps, 2)


def coarse_questions(like: Choices) -> list[Choices]:
    """What a curve is made of: uniform ε_p from the coarse grid, every other one first, then
    targets.
    """
    general = _general(like)
    uniform = [replace(general, eps=eps) for eps in (*COARSE[1::2], *COARSE[::2])]
    targets = [Target(kind="pcr", value=pcr) for pcr in TARGET_PCRS]
    return uniform + [replace(general, target=target) for target in targets]


def every_question(like: Choices) -> list[Choices]:
    """The same, and every ε_p that the slider can be moved to."""
    fine = (eps for eps in GRID if eps not in COARSE)
    return coarse_questions(like) + [replace(_general(like), eps=eps) for eps in fine]


def _general(like: Choices) -> Choices:
    """The same rule, objective and layers, and nothing of its own."""
    return replace(like, target=None, objective=like.solved_objective, own=())


def measure_curve(
    dense: nn.Module,
    costs: ModelProfile,
    data: DataSplits,
    begun: TradeoffCurve,
    questions: Sequence[Choices],
    recover: Recover = "recalibrate",
    *,
    should_stop: Callable[[], bool] = lambda: False,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[TradeoffCurve]:
    """Measure what `begun` lacks, and yield the curve after each point.

    dense: is not changed; costs: its profile; data: test images are those of `begun.key`, and
    training images, without their labels, are what recalibration and refit look at. A target that
    is out of reach has no point. progress: (questions done, in all).
    """
    curve = begun
    for done, asked in enumerate(questions):
        if should_stop():
            return
        if progress:
            progress(done, len(questions))
        before = curve.at(asked)
        missing = _missing(dense, before, recover)
        if not missing:
            continue
        try:
            decided = asked.decide(costs)
        except PlanError:
            continue
        point = _measured(dense, costs, decided, data, curve, before, missing)
        curve = curve.with_point(point)
        yield curve
    if progress:
        progress(len(questions), len(questions))


def dense_curve(
    dense: nn.Module, costs: ModelProfile, data: DataSplits, key: CurveKey
) -> TradeoffCurve:
    """The curve without a point: the accuracy of the dense network on the same images."""
    test = data.test.subset(key.images)
    if key.measure == "accuracy":
        reached = accuracy(dense, test)
    else:
        reached = Accuracy(100.0, (100.0, 100.0), len(test))
    return TradeoffCurve(model=costs.model, data=data.test.name, key=key, dense=reached)


def _missing(dense: nn.Module, before: CurvePoint | None, recover: Recover) -> list[Recover]:
    """What leads to the stages that are still to be measured."""
    wanted: list[Recover] = ["none"]
    if recover != "none" and nothing_to_recalibrate(dense) is None:
        wanted.append("recalibrate")
    if recover == "refit":
        wanted.append("refit")
    known = {name for name, _ in before.accuracy.stages} if before else set()
    return [step for step in wanted if STAGES[step] not in known]


def _measured(
    dense: nn.Module,
    costs: ModelProfile,
    decided: CompressionPlan,
    data: DataSplits,
    curve: TradeoffCurve,
    before: CurvePoint | None,
    missing: Sequence[Recover],
) -> CurvePoint:
    test = data.test.subset(curve.key.images)
    found = dict(before.accuracy.stages) if before else {}
    if not any(layer.ranks for layer in decided.layers):
        found |= dict.fromkeys((STAGES[step] for step in missing), curve.dense)  # it is dense
    else:
        small = compress(dense, decided)
        for step in missing:
            network = recovered(small, dense, data.train, step)
            found[STAGES[step]] = _reached(network, dense, test, curve.key.measure)
    target = decided.target
    return CurvePoint(
        eps=None if target else decided.eps,
        target=target,
        pcr=decided.pcr,
        fcr=decided.fcr,
        bytes=planned_bytes(costs, decided),
        accuracy=Accuracies.model_validate(found),
    )


def _reached(
    network: nn.Module, dense: nn.Module, test: LabelledImages, measure: Measure
) -> Accuracy:
    if measure == "accuracy":
        return accuracy(network, test)
    found = fidelity(network, dense, test)
    return Accuracy(found.percent, found.interval or (0.0, 100.0), found.n)
