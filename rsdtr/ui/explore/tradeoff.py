"""The trade-off of a whole network: what compression costs, over all it could be asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rsdtr.charts.plan import FrontPoint, RatioPoint
from rsdtr.errors import PlanError
from rsdtr.planning.choices import Choices
from rsdtr.planning.plan import CompressionPlan, Target, TargetKind
from rsdtr.planning.target_solver import total_damage
from rsdtr.search.candidate import COARSE
from rsdtr.typing import Progress
from rsdtr.ui.plan import latency, networks
from rsdtr.ui.plan.networks import Network
from rsdtr.ui.shared.cache import Memo
from rsdtr.ui.shared.markdown import plain

AXES: dict[TargetKind, str] = {
    "pcr": "PCR, parameters original / compressed (×, log)",
    "fcr": "FCR, FLOPs original / compressed (×, log)",
    "mb": "Size of the file (MB, log)",
}
BY_MEASURE = "Damage: Σ ‖z − ẑ‖² / ‖z‖² (log)"
BY_ERROR = "Damage: Σ e² · √entries (log)"

_fronts: Memo[Fronts] = Memo(64)


@dataclass(frozen=True)
class Fronts:
    """Plans of one ε_p for all layers, and those of least damage that reach as much."""

    uniform: Sequence[FrontPoint]
    solved: Sequence[FrontPoint]


def kind_of(asked: Choices) -> TargetKind:
    """What the trade-off is about: what the target is about, otherwise parameters."""
    return asked.target.kind if asked.target else "pcr"


def ratios(
    of: Network, asked: Choices, batch: int, progress: Progress | None = None
) -> list[RatioPoint]:
    """PCR and FCR of one ε_p for all layers, over those of a coarse grid that are ready, and how
    much faster its layers are where they were measured for the batch.
    """
    points = []
    for done, eps in enumerate(COARSE):
        if progress:
            progress(done, len(COARSE))
        trial = replace(asked, eps=eps, target=None)
        if networks.is_ready(of, trial):
            point = ratio_point(of, networks.planned(of, trial), batch)
            points += [] if point is None else [point]
    return points


def known_fronts(of: Network, asked: Choices) -> Fronts | None:
    """Both fronts if they have been solved."""
    return _fronts.known(_key(of, asked))


def can_be_solved(of: Network, asked: Choices) -> bool:
    """Whether all rings that a target is solved with are known, or searched in no time."""
    if known_fronts(of, asked) is not None:
        return True
    return networks.is_ready(of, replace(asked, target=Target(kind=kind_of(asked), value=1.5)))


def fronts(of: Network, asked: Choices, progress: Progress | None = None) -> Fronts:
    """Both fronts, solved now where they are not known yet."""

    def solve() -> Fronts:
        uniform, solved = [], []
        for done, eps in enumerate(COARSE):
            if progress:
                progress(done, len(COARSE))
            one = networks.planned(of, replace(asked, eps=eps, target=None))
            reached = reaches(of, asked, one)
            if one.params.compressed == one.params.original or reached <= 0:
                continue
            uniform.append(point(of, asked, one))
            try:
                target = Target(kind=kind_of(asked), value=reached)
                solved.append(point(of, asked, networks.planned(of, replace(asked, target=target))))
            except PlanError:  # by a byte: a file's header is bounded, not known, while solving
                continue
        return Fronts(tuple(uniform), tuple(solved))

    return _fronts.of(_key(of, asked), solve)


def point(of: Network, asked: Choices, plan: CompressionPlan) -> FrontPoint:
    """A plan's place in the trade-off."""
    measured = networks.known_damage(of, asked)
    damage = total_damage(of.profile, plan, measured.damage if measured else None)
    return FrontPoint(plan.label, reaches(of, asked, plan), damage, plan.eps)


def axes(of: Network, asked: Choices) -> tuple[str, str]:
    """Titles of the two axes."""
    measured = networks.known_damage(of, asked) is not None
    return AXES[kind_of(asked)], BY_MEASURE if measured else BY_ERROR


def explained(of: Network, asked: Choices) -> str:
    """How to read the fronts, and which damage they are about."""
    measured = networks.known_damage(of, asked)
    damage = (
        f"Damage was measured on {measured.images:,} images of {plain(measured.data)}: how far "
        "the output z moves when one layer becomes a ring, summed over the layers."
        if measured
        else "Damage is a guess from the kernels alone: the relative error e of each layer, "
        "squared, times the root of its number of entries. It can be measured."
    )
    return (
        "Lower is better. At equal compression, the distance from dashes to line is what an εₚ "
        f"for each layer spares; the star is the present plan. {damage}"
    )


def ratio_point(of: Network, plan: CompressionPlan, batch: int) -> RatioPoint | None:
    """The plan's place among those of one ε_p for all layers, if it is such a one."""
    if plan.eps is None:
        return None
    return RatioPoint(plan.eps, plan.pcr, plan.fcr, time_ratio(of, plan, batch))


def reaches(of: Network, asked: Choices, plan: CompressionPlan) -> float:
    """PCR, FCR or MB of the plan."""
    kind = kind_of(asked)
    if kind == "mb":
        return file_mb(of, plan)
    return plan.fcr if kind == "fcr" else plan.pcr


def file_mb(of: Network, plan: CompressionPlan) -> float:
    """MB of the compressed network's file; 1 MB = 1,000,000 bytes."""
    return networks.compressed_bytes(of, plan) / 1e6


def time_ratio(of: Network, plan: CompressionPlan, batch: int) -> float | None:
    """Dense / compressed times of its layers; None where they were not all measured."""
    ratio = latency.known(of, plan, batch).ratio
    return None if ratio is None else 1 / ratio


def _key(of: Network, asked: Choices) -> tuple[object, ...]:
    measured = networks.known_damage(of, asked) is not None
    general = replace(networks.searched(asked), eps=COARSE[0], target=None)
    return of.spec.name, of.profile.weights_sha256, general, kind_of(asked), measured
