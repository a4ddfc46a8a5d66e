"""Which of several recovered networks is the fastest, beside the best dense one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from rsdtr.autopilot.budget import Budget
from rsdtr.baselines.benchmark import dense_variants, in_forms, network_rows
from rsdtr.baselines.comparison import int8_file
from rsdtr.compressed.fuse import fuse
from rsdtr.data.image_sets import LabelledImages
from rsdtr.measuring.fastest_forms import in_one_form
from rsdtr.models.spec import ModelSpec
from rsdtr.planning.model_profile import ModelProfile
from rsdtr.planning.plan import CompressionPlan
from rsdtr.ring.forms import FORMS

_RUNS, _SECONDS = 20, 90.0


@dataclass(frozen=True)
class Speed:
    """Median milliseconds of one batch in an engine, and those of the best dense network there.

    dense: which of the dense ones is the fastest, in words.
    """

    engine: str
    batch: int
    milliseconds: float
    dense_milliseconds: float
    dense: str

    @property
    def ratio(self) -> float:
        """Of the best dense network's time: below 1 is faster."""
        return self.milliseconds / self.dense_milliseconds

    def __str__(self) -> str:
        gained = "" if self.ratio < 1 else ", which is not faster"
        return (
            f"{self.ratio:.2f} of the time of the best dense network ({self.dense}) in "
            f"{self.engine} at batch {self.batch}{gained}"
        )


@dataclass(frozen=True, eq=False)
class Fastest:
    """The fastest of several: which one, in the forms that make it so."""

    index: int
    model: nn.Module
    plan: CompressionPlan
    speed: Speed


def fastest_of(
    networks: Sequence[tuple[nn.Module, CompressionPlan]],
    dense: nn.Module,
    costs: ModelProfile,
    spec: ModelSpec,
    images: LabelledImages,
    budget: Budget,
) -> Fastest:
    """Time every network in every form, in turns with the dense ones; none is changed.

    images: unlabelled ones set the ranges of int8, where the budget asks for it: the dense network
    runs in int8 as well then.
    """
    made: dict[str, tuple[int, nn.Module, CompressionPlan]] = {}
    for index, (network, plan) in enumerate(networks):
        for form in FORMS:
            if form != "dense":
                formed = in_one_form(plan, costs, form)
                made[f"{index} {form}"] = index, in_forms(network, formed), formed
    baselines = dense_variants(dense)
    if budget.engine != "eager":  # what is written there is folded, and laid out by the engine
        baselines = {"dense, folded": baselines["dense, folded"]}
    running: dict[str, nn.Module] = baselines | {
        name: fuse(network) for name, (_, network, _) in made.items()
    }
    written: dict[nn.Module, bytes] = {}
    if budget.int8:
        written = {network: int8_file(network, spec, images) for network in running.values()}
        running["dense, float32"] = next(iter(dense_variants(dense).values()))
    rows = network_rows(
        running, spec, budget.engine, batch=budget.batch, runs=_RUNS, threads=budget.threads,
        seconds=_SECONDS, written=written,
    )  # fmt: skip
    times = {row.variant: row.median_ms for row in rows}
    name = _least(times, made)
    baseline = _least(times, {n: None for n in times if n not in made})
    index, network, formed = made[name]
    dense_name = f"{baseline}, int8" if running[baseline] in written and budget.int8 else baseline
    speed = Speed(budget.engine, budget.batch, times[name], times[baseline], dense_name)
    return Fastest(index, network, formed, speed)


def _least(times: Mapping[str, float], names: Mapping[str, object]) -> str:
    return min((name for name in times if name in names), key=times.__getitem__)
