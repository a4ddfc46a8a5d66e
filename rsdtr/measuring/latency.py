"""What a plan's layers take on a machine, from its device profile: nothing is measured here.

Times of single layers are added up. A network takes longer than that sum: it also normalises,
activates, adds and pools.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rsdtr.measuring.fastest_forms import layer_cases, with_forms
from rsdtr.measuring.layer_times import DeviceProfile, FormTime, LayerCase, LayerTimes
from rsdtr.planning.model_profile import ModelProfile
from rsdtr.planning.plan import CompressionPlan, LayerPlan

Status = Literal["gains", "runs dense", "kept dense", "not measured"]
_SMALLEST_RING = (1, 1, 1, 1)


@dataclass(frozen=True)
class LayerLatency:
    """One convolution of a plan, and what was measured of it: None if nothing was."""

    layer: LayerPlan
    times: LayerTimes | None

    @property
    def dense(self) -> FormTime | None:
        """Its convolution as trained."""
        return self.times.of("dense") if self.times else None

    @property
    def ring(self) -> FormTime | None:
        """Its ring in the fastest form; None too where the layer stays dense."""
        return self.times.fastest_ring if self.times and self.layer.ranks else None

    @property
    def runs(self) -> FormTime | None:
        """What runs: the ring in its fastest form, or dense if that is no slower."""
        return self.times.fastest if self.times and self.layer.ranks else self.dense

    @property
    def ratio(self) -> float | None:
        """Best time of the ring over the best time of its dense convolution."""
        return self.ring.best_ms / self.dense.best_ms if self.ring and self.dense else None

    @property
    def status(self) -> Status:
        """Whether the layer gains time, and if not, what it is instead."""
        if self.layer.kept_dense is not None:
            return "kept dense"
        if self.runs is None:
            return "not measured"
        return "runs dense" if self.runs.form == "dense" else "gains"

    @property
    def reason(self) -> str:
        """Why it has that status, in words; empty where it was not measured."""
        if self.layer.kept_dense is not None:
            return self.layer.kept_dense
        if self.ratio is None or self.ring is None:
            return ""
        if self.status == "gains":
            return f"{self.ring.form} takes {self.ratio:.2f} × the dense time"
        # From the number as it is written: "slower (1.00 ×)" would contradict itself.
        comparison = "slower" if round(self.ratio, 2) > 1 else "no faster"
        return f"the ring is {comparison} here ({self.ratio:.2f} ×)"


@dataclass(frozen=True)
class NetworkLatency:
    """All convolutions of a plan in network order, as measured for one batch on one machine.

    lacking: layers that could be measured and were not; left_out: those that cannot be, such as
    grouped ones; fcr_run: FCR with the MACs of the forms that run, None while something lacks.
    """

    machine: str
    batch: int
    threads: int
    layers: tuple[LayerLatency, ...]
    lacking: tuple[str, ...]
    left_out: tuple[str, ...]
    fcr_run: float | None

    @property
    def dense_ms(self) -> float | None:
        """Sum of the best times of all runs of the measured layers, dense; None while one lacks.

        A layer that runs at several sizes counts as if each were the dearest of them.
        """
        return self._sum([item.dense for item in self.layers])

    @property
    def runs_ms(self) -> float | None:
        """The same sum for what runs after compression."""
        return self._sum([item.runs for item in self.layers])

    @property
    def ratio(self) -> float | None:
        """runs_ms / dense_ms: below 1 it got faster. None while a layer lacks."""
        return self.runs_ms / self.dense_ms if self.runs_ms and self.dense_ms else None

    def of(self, name: str) -> LayerLatency:
        """The layer of that name, which the plan has."""
        return next(item for item in self.layers if item.layer.name == name)

    def _sum(self, times: Sequence[FormTime | None]) -> float | None:
        if self.lacking:
            return None
        each = zip(self.layers, times, strict=True)
        return sum(item.layer.runs * time.best_ms for item, time in each if time is not None)


def network_cases(
    plan: CompressionPlan, profile: ModelProfile, *, batch: int = 1, threads: int = 2
) -> dict[str, LayerCase]:
    """What has to be measured for `network_latency`, by layer: rings, and what stays dense.

    Of a layer that stays dense only the dense time is of interest, so that any ring does: it gets
    the smallest. Layers that cannot be a ring have no case. PlanError as `fast.layer_cases`.
    """
    rings = layer_cases(plan, profile, batch=batch, threads=threads)
    cases = {}
    for layer in plan.layers:
        found = profile.layer(layer.name)
        if layer.name in rings:
            cases[layer.name] = rings[layer.name]
        elif found.obstacle is None:
            cases[layer.name] = LayerCase.model_validate(
                {
                    "shape": layer.shape,
                    "ranks": _SMALLEST_RING,
                    "stride": layer.stride,
                    "padding": found.padding,
                    "dilation": found.dilation,
                    "padding_mode": found.padding_mode,
                    "input_size": found.input_size,
                    "batch": batch,
                    "threads": threads,
                    "kind": found.kind,
                    "groups": found.groups,
                }
            )
    return cases


def network_latency(
    plan: CompressionPlan,
    profile: ModelProfile,
    measured: DeviceProfile,
    *,
    batch: int = 1,
    threads: int = 2,
) -> NetworkLatency:
    """What `measured` tells about every convolution of the plan. PlanError as `network_cases`."""
    cases = network_cases(plan, profile, batch=batch, threads=threads)
    times = {name: measured.times(case) for name, case in cases.items()}
    lacking = tuple(name for name, found in times.items() if found is None)
    fast = None if lacking else with_forms(plan, profile, measured, batch=batch, threads=threads)
    return NetworkLatency(
        machine=measured.machine,
        batch=batch,
        threads=threads,
        layers=tuple(LayerLatency(layer, times.get(layer.name)) for layer in plan.layers),
        lacking=lacking,
        left_out=tuple(layer.name for layer in plan.layers if layer.name not in cases),
        fcr_run=fast.fcr_run if fast else None,
    )
