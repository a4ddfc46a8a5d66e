"""Rings of four cores as methods: RSDTR's rules and target, and its search with parts off.

- shift off: the ring SVD always begins with the mode O;
- divisor off: the first rank r = r0·r1 is split as evenly as it can be, as TR-SVD does (Zhao et al.
  2016); r0 = 1 would be a tensor train, a method of its own;
- both off: plain TR-SVD; and one rank R for every bond, as far as the kernel has it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from math import isqrt, prod

from rsdtr.baselines.reach_pcr import eps_for
from rsdtr.data.datasets import LabelledImages
from rsdtr.errors import PlanError
from rsdtr.planning.damage import measure_damage
from rsdtr.planning.layer_profile import LayerProfile
from rsdtr.planning.model_profile import ModelProfile
from rsdtr.planning.plan import (
    CompressionPlan,
    LayerPlan,
    Target,
    plan,
    policy_layers,
    ring_plan,
    with_layers,
)
from rsdtr.planning.target_solver import Damage, solve
from rsdtr.ring.tensor_ring import ring_storage
from rsdtr.search.candidate import Candidate, Rule
from rsdtr.search.paper_rule import smallest
from rsdtr.search.ring_svd import ring_svd

Pick = Callable[[Sequence[Candidate]], Sequence[Candidate]]
DAMAGE_IMAGES = 512


def no_shift(found: Sequence[Candidate]) -> list[Candidate]:
    """The candidates that begin with the mode O."""
    return [candidate for candidate in found if candidate.shift == 0]


def no_divisor(found: Sequence[Candidate]) -> list[Candidate]:
    """Of each shift the candidate of the most even split, the smaller r0 on a tie."""

    def unevenness(candidate: Candidate) -> tuple[int, int]:
        r1 = candidate.ranks[(candidate.shift + 1) % 4]
        return abs(candidate.r0 - r1), candidate.r0

    shifts = sorted({candidate.shift for candidate in found})
    return [min((c for c in found if c.shift == s), key=unevenness) for s in shifts]


def plain(found: Sequence[Candidate]) -> list[Candidate]:
    """TR-SVD: the one candidate that begins with O and splits its first rank most evenly."""
    return no_divisor(no_shift(found))


ABLATIONS: dict[str, Pick] = {
    "ring-no-shift": no_shift,
    "ring-no-divisor": no_divisor,
    "ring-plain": plain,
}


def by_rule(profile: ModelProfile, rule: Rule, pcr: float) -> CompressionPlan:
    """One ε_p for all layers by a rule of RSDTR, the smallest that reaches the PCR."""
    eps = eps_for(lambda e: plan(profile, e, rule=rule).pcr, pcr, f"RSDTR ({rule})")
    return plan(profile, eps, rule=rule)


def by_target(profile: ModelProfile, pcr: float, damage: Damage | None = None) -> CompressionPlan:
    """An ε_p for each layer, by the tight rule, at the least damage."""
    return solve(profile, Target(kind="pcr", value=pcr), rule="tight", damage=damage)


def target_damage(model: object, profile: ModelProfile, images: LabelledImages) -> Damage:
    """Damage as `by_target` weighs it, on a few unlabelled images."""
    return measure_damage(model, profile, images, DAMAGE_IMAGES, rule="tight")  # type: ignore[arg-type]


def ablated(profile: ModelProfile, name: str, pcr: float) -> CompressionPlan:
    """RSDTR's published rule with a part of its search off, at the smallest ε_p for the PCR."""
    pick = ABLATIONS[name]

    def at(eps: float) -> CompressionPlan:
        return _of_rings(profile, eps, lambda layer: smallest(pick(_candidates(layer, eps))))

    return at(eps_for(lambda e: at(e).pcr, pcr, name))


def fixed_rank(profile: ModelProfile, pcr: float) -> CompressionPlan:
    """One rank R for all bonds and layers, begun with O, the largest R that reaches the PCR.

    A bond that has no R dimensions keeps what it has. PlanError if R = 1 does not reach the PCR.
    """
    best = None
    for rank in range(1, 1 + max(prod(layer.shape) for layer in profile.layers)):
        found = _of_rings(profile, None, lambda layer, rank=rank: _uniform(layer, rank))  # type: ignore[misc]
        if found.pcr < pcr:
            break
        best = rank
    if best is None:
        raise PlanError(f"rings of rank 1 do not reach PCR {pcr:g}: ask for less")

    def measured(layer: LayerProfile) -> Candidate:
        ring = _uniform(layer, best)
        kernel = layer.kernel.double()
        rebuilt = ring_svd(kernel, 0, ring.ranks).to_tensor()
        error = float((kernel - rebuilt).norm() / kernel.norm())
        return Candidate(0, ring.r0, ring.ranks, ring.storage, 0, error)

    return _of_rings(profile, None, measured)


def _uniform(layer: LayerProfile, rank: int) -> Candidate:
    a, b, c, d = layer.shape
    whole = min(a, b * c * d)
    r0 = min(rank, isqrt(whole))
    r1 = min(rank, whole // r0)
    r2 = min(rank, r1 * b, c * d * r0)
    ranks = (r0, r1, r2, min(rank, r2 * c, d * r0))
    return Candidate(0, r0, ranks, ring_storage(layer.shape, ranks), 0, 0.0)


@lru_cache(maxsize=2000)
def _candidates(layer: LayerProfile, eps: float) -> tuple[Candidate, ...]:
    return tuple(layer.spectra.candidates(eps))


def _of_rings(
    profile: ModelProfile, eps: float | None, ring_of: Callable[[LayerProfile], Candidate]
) -> CompressionPlan:
    """The plan in which every layer of the paper's policy becomes the ring that is given for it."""
    names = policy_layers(profile, "paper")
    blank = plan(profile, None, own=dict.fromkeys(names))

    def planned(before: LayerPlan) -> LayerPlan:
        layer = profile.layer(before.name)
        if layer.name not in names or layer.obstacle is not None:
            return before
        ring = ring_of(layer)
        if ring.storage >= layer.kernel.numel():
            return before.model_copy(
                update={"kept_dense": f"its ring would store {ring.storage:,} scalars"}
            )
        return ring_plan(layer, eps, ring)

    decided = with_layers(blank, profile, [planned(layer) for layer in blank.layers])
    return decided.model_copy(update={"eps": eps})
