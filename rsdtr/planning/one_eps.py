"""One ε_p for all layers that reaches a target, found by few plans.

`solve` asks every layer for its rings at many ε_p. Where only the size of the network matters, as
for its latency, one ε_p serves as well, and three to five plans find it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log

from rsdtr.errors import PlanError
from rsdtr.planning.model_profile import ModelProfile
from rsdtr.planning.plan import CompressionPlan, Target, plan, planned_bytes
from rsdtr.search.candidate import GRID, Objective, Rule
from rsdtr.system.safetensors_format import safetensors_bytes
from rsdtr.typing import Progress

FIRST = 0.5
NEAR = log(1.03)  # by how much a plan may surpass the target, as a logarithm, and be near enough


def one_eps(
    profile: ModelProfile,
    target: Target,
    *,
    rule: Rule = "paper",
    objective: Objective = "storage",
    layers: str | Sequence[str] | None = None,
    own: Mapping[str, float | None] | None = None,
    progress: Progress | None = None,
) -> CompressionPlan:
    """The plan at an ε_p of the grid that reaches the target and surpasses it by at most 3 %, or
    else at the smallest ε_p that reaches it.

    What is reached rises with ε_p, its logarithm nearly along a line: the next ε_p is where the
    line through the two nearest plans meets the target. layers, own, progress: as in `plan`.
    PlanError if the largest ε_p does not reach the target.
    """
    surplus = {-1: -_asked_of_dense(profile, target)}  # by place in the grid; -1: nothing a ring
    reaching: dict[int, CompressionPlan] = {}
    place = GRID.index(FIRST)
    while True:
        decided = plan(
            profile, GRID[place], rule=rule, objective=objective, layers=layers, own=own,
            progress=progress,
        )  # fmt: skip
        surplus[place] = _surplus(profile, decided, target)
        if surplus[place] >= 0:
            reaching[place] = decided
        elif place == len(GRID) - 1 and not reaching:
            raise PlanError(
                f"{profile.model} does not reach {target} by one ε_p: at {GRID[-1]:g} it has PCR "
                f"{decided.pcr:.3g} and FCR {decided.fcr:.3g}; ask for less, or give it more layers"
            )
        low = max((at for at, by in surplus.items() if by < 0), default=-1)
        high = min(reaching, default=len(GRID))
        if high - low <= 1 or 0 <= surplus[place] <= NEAR:
            return reaching[min(reaching)].model_copy(update={"target": target})
        place = min(max(_crossing(surplus), low + 1), high - 1)


def _crossing(surplus: Mapping[int, float]) -> int:
    """Where the line through the two places of least surplus comes to half of NEAR."""
    (at, by), (other, its) = sorted(surplus.items(), key=lambda item: abs(item[1]))[:2]
    if by == its:
        return max(surplus) + 1
    return round(at + (NEAR / 2 - by) * (other - at) / (its - by))


def _asked_of_dense(profile: ModelProfile, target: Target) -> float:
    """The logarithm of how much smaller than the dense network the target is."""
    if target.kind == "mb":
        return log(safetensors_bytes(profile.entries) / (target.value * 1e6))
    return log(target.value)


def _surplus(profile: ModelProfile, decided: CompressionPlan, target: Target) -> float:
    """The logarithm of what is reached over what is asked for: at least 0 where it is reached."""
    if target.kind == "mb":
        return log(target.value * 1e6 / planned_bytes(profile, decided))
    return log((decided.pcr if target.kind == "pcr" else decided.fcr) / target.value)
