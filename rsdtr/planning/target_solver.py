"""From a target for the whole network to an ε_p for each layer, at the smallest damage.

One ε_p for all layers is not one damage: some layers bear an error of 0.7 that would ruin others.
Every layer has a front of rings, each with a cost and a damage; the sum of the damages is minimised
under the target by a Lagrangian, λ·cost + damage layer by layer, and what the last ring leaves
unused is spent where it helps most.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rsdtr.errors import PlanError
from rsdtr.planning.layer_profile import LayerProfile
from rsdtr.planning.model_profile import ModelProfile
from rsdtr.planning.plan import (
    CompressionPlan,
    Target,
    plan,
    planned_bytes,
    policy_layers,
)
from rsdtr.search.candidate import GRID, Objective, Question, Rule
from rsdtr.typing import Progress

Numbers = NDArray[np.float64]
# Damage of a layer's relative error e, where nothing was measured: e² times this power of the
# number of kernel entries. On ResNet-20, equal weights sacrifice the many small layers, and
# weights in proportion to the entries spare the large ones too much.
ENTRIES_POWER = 0.5


@dataclass(frozen=True)
class Damage:
    """How much the network's output moves when one layer has a relative error.

    curves: for each layer's name measured (relative error, damage) points, errors ascending; damage
    is ‖z − ẑ‖²/‖z‖² of the outputs, averaged over images (see `damage.measure_damage`).
    """

    curves: Mapping[str, Sequence[tuple[float, float]]]

    def at(self, name: str, errors: Numbers) -> Numbers:
        """Damage at relative errors > 0: log-linear between the points, quadratic below them."""
        points = np.log(np.maximum(np.array(self.curves[name]), 1e-12))
        x, y = points[:, 0], np.maximum.accumulate(points[:, 1])
        asked = np.log(np.maximum(errors, 1e-12))
        inside = np.interp(asked, x, y)
        beyond = np.where(asked < x[0], 2 * (asked - x[0]), 2 * np.maximum(asked - x[-1], 0))
        return np.exp(inside + beyond)


@dataclass(frozen=True, eq=False)
class Front:
    """What one layer may become: dense first, then its rings, dearest first.

    eps: ε_p of each option, None for dense; params, macs: what it costs, macs for one input;
    damage: what it does to the output, 0 for dense.
    """

    name: str
    eps: tuple[float | None, ...]
    params: Numbers
    macs: Numbers
    damage: Numbers


def solve(
    profile: ModelProfile,
    target: Target,
    *,
    rule: Rule = "paper",
    objective: Objective = "storage",
    layers: str | Sequence[str] | None = None,
    own: Mapping[str, float | None] | None = None,
    damage: Damage | None = None,
    progress: Progress | None = None,
) -> CompressionPlan:
    """The plan of least damage that reaches the target, each layer with an ε_p of its own.

    objective: among the rings of a layer (macs is better for
    an FCR, storage otherwise); layers, own: as in `plan`; damage: as measured, by default
    e²·√entries; progress: called with (layers done, layers in all). By its own
    measure never worse than the uniform ε_p that reaches the target. PlanError if no plan does: it
    says what can be reached.
    """
    names = policy_layers(profile, layers)
    pinned = dict(own or {})
    free = [
        layer
        for layer in profile.layers
        if layer.name in names - pinned.keys() and layer.obstacle is None
    ]
    fronts = []
    for done, layer in enumerate(free):
        if progress:
            progress(done, len(free))
        fronts.append(_front(profile, layer, rule, objective, damage))
    each: dict[str, float | None] = dict.fromkeys(names) | pinned
    # First with every free layer dense: what the network costs besides them.
    fixed = plan(profile, None, rule=rule, objective=objective, layers=layers, own=each)
    picked = _Problem(profile, target, fixed, fronts).best()
    each |= {front.name: front.eps[k] for front, k in zip(fronts, picked, strict=True)}
    return plan(
        profile, None, rule=rule, objective=objective, layers=layers, own=each, target=target
    )


def uniform_front(
    profile: ModelProfile,
    *,
    rule: Rule = "paper",
    objective: Objective = "storage",
    layers: str | Sequence[str] | None = None,
    grid: Sequence[float] = GRID,
) -> list[CompressionPlan]:
    """Plans of one ε_p for all layers, over a grid of ε_p."""
    return [plan(profile, eps, rule=rule, objective=objective, layers=layers) for eps in grid]


def total_damage(
    profile: ModelProfile, decided: CompressionPlan, damage: Damage | None = None
) -> float:
    """The sum of a plan's damages by the measure that `solve` minimises."""
    return sum(layer_damages(profile, decided, damage).values())


def layer_damages(
    profile: ModelProfile, decided: CompressionPlan, damage: Damage | None = None
) -> dict[str, float]:
    """Damage of every ring of a plan, by layer name."""
    return {
        layer.name: float(
            _damage_of(profile.layer(layer.name), np.array([layer.relative_error]), damage)[0]
        )
        for layer in decided.layers
        if layer.kept_dense is None
    }


def _front(
    profile: ModelProfile,
    layer: LayerProfile,
    rule: Rule,
    objective: Objective,
    damage: Damage | None,
) -> Front:
    """The layer's options over its grid of ε_p, without rings that store more than the kernel."""
    found = [(eps, profile.winner(layer, Question(rule, objective, eps))) for eps in layer.grid]
    found = [(eps, ring) for eps, ring in found if ring.storage < layer.kernel.numel()]
    return Front(
        name=layer.name,
        eps=(None, *(eps for eps, _ in found)),
        params=np.array([layer.kernel.numel(), *(ring.storage for _, ring in found)], float),
        macs=np.array(
            [layer.macs, *(layer.planned_macs(ring.ranks) for _, ring in found)],
            float,
        ),
        damage=np.concatenate(
            [
                [0.0],
                _damage_of(layer, np.array([ring.relative_error for _, ring in found]), damage),
            ]
        ),
    )


def _damage_of(layer: LayerProfile, errors: Numbers, damage: Damage | None) -> Numbers:
    if damage is None or not len(errors):
        found: Numbers = errors**2 * layer.kernel.numel() ** ENTRIES_POWER
        return found
    if not damage.curves.get(layer.name):
        raise PlanError(
            f"the damage of layer {layer.name} was not measured: measure it for the same layers"
        )
    return damage.at(layer.name, errors)


class _Problem:
    """Least damage under a target: options by layer, and what the network costs besides them."""

    def __init__(
        self,
        profile: ModelProfile,
        target: Target,
        fixed: CompressionPlan,
        fronts: Sequence[Front],
    ) -> None:
        self.profile, self.target, self.fronts = profile, target, fronts
        self.costs = [self._costs(front) for front in fronts]
        # In bytes or in scalars or MACs: what the layers without a choice, and all else, cost.
        if target.kind == "mb":
            self.whole, self.budget = planned_bytes(profile, fixed), target.value * 1e6
        elif target.kind == "fcr":
            self.whole, self.budget = fixed.macs.compressed, profile.macs / target.value
        else:
            self.whole, self.budget = fixed.params.compressed, profile.params / target.value
        self.rest = self.whole - sum(costs[0] for costs in self.costs)

    def best(self) -> list[int]:
        """One option for each layer, by position; PlanError if no choice reaches the target."""
        smallest = [int(costs.argmin()) for costs in self.costs]
        if self._cost(smallest) > self.budget:
            raise PlanError(self._out_of_reach(smallest))
        candidates = [self._filled(self._lagrangian())]
        if (uniform := self._uniform()) is not None:
            candidates.append(self._filled(uniform))
        return min(candidates, key=self._damage)

    def _costs(self, front: Front) -> Numbers:
        if self.target.kind == "fcr":
            return front.macs
        if self.target.kind == "pcr":
            return front.params
        # A ring has four names where the kernel had one: at most so many bytes of header more.
        names = np.full(len(front.eps), 4.0 * (len(front.name) + 90))
        names[0] = 0
        return 4 * front.params + names

    def _cost(self, picked: Sequence[int]) -> float:
        return self.rest + sum(float(c[k]) for c, k in zip(self.costs, picked, strict=True))

    def _damage(self, picked: Sequence[int]) -> float:
        return sum(float(front.damage[k]) for front, k in zip(self.fronts, picked, strict=True))

    def _lagrangian(self) -> list[int]:
        """The choice at the smallest λ that reaches the target, by bisection."""
        picked = [int(costs.argmin()) for costs in self.costs]
        low, high = -30.0, 10.0  # log10 of λ
        for _ in range(80):
            middle = (low + high) / 2
            trial = [
                int((front.damage + 10**middle * costs).argmin())
                for front, costs in zip(self.fronts, self.costs, strict=True)
            ]
            if self._cost(trial) <= self.budget:
                picked, high = trial, middle
            else:
                low = middle
        return picked

    def _uniform(self) -> list[int] | None:
        """The smallest ε_p of the grid that reaches the target when all layers share it."""
        for eps in GRID:
            picked = [front.eps.index(eps) if eps in front.eps else 0 for front in self.fronts]
            if self._cost(picked) <= self.budget:
                return picked
        return None

    def _filled(self, picked: list[int]) -> list[int]:
        """Spend what is left of the budget on the options that spare most damage per cost."""
        picked = list(picked)
        while True:
            left = self.budget - self._cost(picked)
            best, gain = None, 0.0
            for at, (front, costs) in enumerate(zip(self.fronts, self.costs, strict=True)):
                dearer = costs - costs[picked[at]]
                spared = front.damage[picked[at]] - front.damage
                rate = np.where((dearer <= left) & (spared > 0), spared / np.maximum(dearer, 1), 0)
                if rate.max() > gain:
                    best, gain = (at, int(rate.argmax())), float(rate.max())
            if best is None:
                return picked
            picked[best[0]] = best[1]

    def _out_of_reach(self, smallest: Sequence[int]) -> str:
        least = self._cost(smallest)
        whole = self.profile.macs if self.target.kind == "fcr" else self.profile.params
        reached = (
            f"{least / 1e6:.3g} MB at least"
            if self.target.kind == "mb"
            else f"{self.target.kind.upper()} {whole / least:.3g} at most"
        )
        return (
            f"{self.profile.model} cannot reach {self.target}: with these layers and ε_p up to "
            f"{GRID[-1]} it is {reached}; ask for less, or give it more layers"
        )
