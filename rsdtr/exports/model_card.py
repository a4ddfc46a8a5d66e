"""The model card: what a compressed network is, what it reaches, and how to have it again."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from rsdtr.measuring.accuracy import Accuracy
from rsdtr.measuring.fidelity import Fidelity
from rsdtr.measuring.latency import NetworkLatency
from rsdtr.planning.choices import Asked
from rsdtr.planning.model_profile import ModelProfile
from rsdtr.planning.plan import CompressionPlan, Ratio, planned_bytes
from rsdtr.system.safetensors_format import safetensors_bytes
from rsdtr.typing import Frozen


class StageAccuracy(Frozen):
    """Top-1 accuracy of one stage in percent, its 95 % interval, and the test images it is of.

    assumed: what their labels take for granted, if anything.
    """

    stage: str
    percent: float
    interval: tuple[float, float]
    n: int = Field(ge=1)
    assumed: str | None = Field(default=None, exclude_if=lambda value: value is None)


class CardLatency(Frozen):
    """Sums of the best times of all convolutions in ms, dense and as they run; ratio: runs/dense.

    machine, batch, threads: what they were measured on and for.
    """

    machine: str
    batch: int
    threads: int
    dense_ms: float
    runs_ms: float
    ratio: float


class ModelCard(Frozen):
    """One configuration of a network and what is known of it.

    bytes: of the safetensors file; accuracy: of the stages that were measured; fidelity, lost:
    of a network without classes, what its answers have in common with the dense network's, and
    whether what it does is gone, in words; latency: None where
    it was not; command, python: what makes the same plan again.
    """

    weights_sha256: str
    plan: CompressionPlan
    bytes: Ratio
    accuracy: tuple[StageAccuracy, ...] = ()
    fidelity: str | None = None
    lost: str | None = None
    latency: CardLatency | None = None
    command: str
    python: str

    def with_accuracies(self, stages: Sequence[tuple[str, Accuracy]]) -> ModelCard:
        """The same card with what was measured since; stages: from dense to the last one."""
        return self.model_copy(update={"accuracy": _stages(stages)}) if stages else self

    @property
    def label(self) -> str:
        """The model and what was asked of it, in words."""
        return f"{self.plan.model}, {self.plan.label}"

    @property
    def reached(self) -> StageAccuracy | None:
        """The accuracy of the last stage, if it was measured."""
        return self.accuracy[-1] if self.accuracy else None


def model_card(
    profile: ModelProfile,
    decided: CompressionPlan,
    *,
    size: Ratio | None = None,
    accuracies: Sequence[tuple[str, Accuracy]] = (),
    fidelity: Fidelity | None = None,
    latency: NetworkLatency | None = None,
    asked: Asked,
) -> ModelCard:
    """The card of the plan that answers what was asked.

    size: bytes of the safetensors file, if known already; accuracies: (stage, accuracy), from dense
    to the last one.
    """
    return ModelCard(
        weights_sha256=profile.weights_sha256,
        plan=decided,
        bytes=size
        or Ratio(
            original=safetensors_bytes(profile.entries),
            compressed=planned_bytes(profile, decided),
        ),
        accuracy=_stages(accuracies),
        fidelity=None if fidelity is None else f"{fidelity} ({fidelity.n:,} images)",
        lost=None if fidelity is None else fidelity.warning,
        latency=_latency(latency),
        command=asked.command(),
        python=asked.python(),
    )


def _stages(accuracies: Sequence[tuple[str, Accuracy]]) -> tuple[StageAccuracy, ...]:
    return tuple(
        StageAccuracy(stage=stage, percent=a.percent, interval=a.interval, n=a.n, assumed=a.assumed)
        for stage, a in accuracies
    )


def _latency(measured: NetworkLatency | None) -> CardLatency | None:
    if measured is None:
        return None
    dense, runs, ratio = measured.dense_ms, measured.runs_ms, measured.ratio
    if dense is None or runs is None or ratio is None:
        return None
    return CardLatency(
        machine=measured.machine,
        batch=measured.batch,
        threads=measured.threads,
        dense_ms=dense,
        runs_ms=runs,
        ratio=ratio,
    )
