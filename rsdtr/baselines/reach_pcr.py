"""From a method and a PCR to a whole network: one knob for all layers, found by bisection."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import cast

from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from rsdtr.baselines.conv_chain import FactoredConv2d
from rsdtr.baselines.lowrank import (
    LayerChoice,
    LowRank,
    Prepared,
    Ranks,
    Uniform,
    chosen,
    fitting,
    storage,
)
from rsdtr.errors import PlanError
from rsdtr.models.surgery import replaced
from rsdtr.planning.layer_profile import LayerProfile
from rsdtr.planning.model_profile import ModelProfile
from rsdtr.planning.plan import policy_layers
from rsdtr.ring.rank_selection import checked_eps

STEPS = (20, 980)  # the ε_p that are tried, in thousandths
_OUTSIDE = "outside the layer policy"


class LayerDecision(BaseModel):
    """What one convolution becomes; kept_dense: why it stays, or None. macs: for one input."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    kept_dense: str | None = None
    choice: LayerChoice | None = None
    macs: int = Field(ge=0)


class NetworkDecision(BaseModel):
    """What a whole network becomes: JSON-able, without a tensor.

    eps: the ε_p of every layer, None where one rank was asked for; pcr, fcr: original / compressed
    of the network's parameters and MACs (MACs for one input; convolutions and linear layers).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    model: str
    method: str
    eps: float | None
    pcr: float
    fcr: float
    layers: tuple[LayerDecision, ...]


_GROUPED = "grouped convolution: the other methods mix all channels"


def convolutions_of(profile: ModelProfile) -> ModelProfile:
    """The profile as every method that is compared can use it: no linear layer, no grouped ring."""
    layers = [
        replace(layer, obstacle=layer.obstacle or _GROUPED) if layer.groups > 1 else layer
        for layer in profile.layers
        if layer.kind == "conv"
    ]
    return replace(profile, layers=tuple(layers), usual_layers="paper")


@dataclass
class Kernels:
    """The kernels of one network as one method prepares them, each prepared once."""

    profile: ModelProfile
    method: LowRank
    layers: str = "paper"
    prepared: dict[str, Prepared] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.profile = convolutions_of(self.profile)

    def of(self, layer: LayerProfile) -> Prepared:
        """The prepared kernel of a layer."""
        if layer.name not in self.prepared:
            self.prepared[layer.name] = self.method.prepare(layer.kernel)
        return self.prepared[layer.name]

    def ranks(self, eps: float) -> dict[str, Ranks | str]:
        """For every layer its ranks at ε_p, or why it stays dense."""
        return self._each(lambda layer: self.of(layer).ranks(checked_eps(eps)))

    def uniform_ranks(self, rank: int) -> dict[str, Ranks | str]:
        """The same at one rank for all layers; for a method that is `uniform`."""
        return self.each_rank(lambda _: rank)

    def each_rank(self, rank_of: Callable[[str], int]) -> dict[str, Ranks | str]:
        """The same at a rank for each layer, by its name; for a method that is `uniform`."""
        return self._each(lambda layer: cast(Uniform, self.of(layer)).of_rank(rank_of(layer.name)))

    def _each(self, ranks_of: Callable[[LayerProfile], Ranks | None]) -> dict[str, Ranks | str]:
        names = policy_layers(self.profile, self.layers)
        return {
            layer.name: _OUTSIDE
            if layer.name not in names
            else layer.obstacle or fitting(self.of(layer), layer.kernel, ranks_of(layer))
            for layer in self.profile.layers
        }

    def pcr(self, ranks: Mapping[str, Ranks | str]) -> float:
        """The network's PCR at these ranks."""
        saved = sum(
            layer.kernel.numel() - storage(self.of(layer), found)
            for layer in self.profile.layers
            if not isinstance(found := ranks[layer.name], str)
        )
        return self.profile.params / (self.profile.params - saved)


def eps_for(pcr_of: Callable[[float], float], target: float, what: str) -> float:
    """The smallest ε_p, in thousandths, whose PCR is at least the target, by bisection.

    PlanError if the largest does not reach it.
    """
    low, high = STEPS
    if pcr_of(high / 1000) < target:
        raise PlanError(
            f"{what} does not reach PCR {target:g}: it is {pcr_of(high / 1000):.3g} at ε_p "
            f"{high / 1000:g}"
        )
    while high - low > 1:
        middle = (low + high) // 2
        if pcr_of(middle / 1000) >= target:
            high = middle
        else:
            low = middle
    return high / 1000


def _rank_for(kernels: Kernels, pcr: float) -> int:
    """The largest rank whose PCR is at least this; PlanError if 1 is too large."""
    rank = 0
    largest = max(layer.kernel.numel() for layer in kernels.profile.layers)
    while rank < largest and kernels.pcr(found := kernels.uniform_ranks(rank + 1)) >= pcr:
        if all(isinstance(each, str) for each in found.values()):
            break
        rank += 1
    if rank == 0:
        raise PlanError(f"{kernels.method.title} of rank 1 does not reach PCR {pcr:g}")
    return rank


def network_of(
    kernels: Kernels, model: nn.Module | None = None, *,
    eps: float | None = None, pcr: float | None = None,
    ranks: Mapping[str, Ranks | str] | None = None,
) -> tuple[NetworkDecision, nn.Module | None]:  # fmt: skip
    """What every layer becomes at one ε_p, at the smallest ε_p (largest rank) for a PCR, or at
    these ranks.

    And the network that obeys it, where a model is given (it is not changed). PlanError where
    nothing reaches the PCR; RingError for ε_p out of range.
    """
    profile, method = kernels.profile, kernels.method
    if ranks is not None:
        pass  # they were chosen elsewhere
    elif pcr is not None and method.uniform:
        ranks = kernels.uniform_ranks(_rank_for(kernels, pcr))
    else:
        if pcr is not None:
            eps = eps_for(lambda e: kernels.pcr(kernels.ranks(e)), pcr, method.title)
        assert eps is not None  # one of the three is given
        ranks = kernels.ranks(eps)
    chains: dict[nn.Module, nn.Module] = {}
    layers, macs = [], profile.macs
    for layer in profile.layers:
        found = ranks[layer.name]
        if isinstance(found, str):
            layers.append(LayerDecision(name=layer.name, kept_dense=found, macs=layer.macs))
            continue
        choice, cores = chosen(method.name, kernels.of(layer), layer.kernel, found)
        cost = layer.over_runs(partial(kernels.of(layer).macs, found))
        macs += cost - layer.macs
        layers.append(LayerDecision(name=layer.name, choice=choice, macs=cost))
        if model is not None:
            conv = model.get_submodule(layer.name)
            assert isinstance(conv, nn.Conv2d)  # the profile is of this model
            chains[conv] = FactoredConv2d(conv, choice.stages, cores)
    decision = NetworkDecision(
        model=profile.model, method=method.name, eps=eps, pcr=kernels.pcr(ranks),
        fcr=profile.macs / macs, layers=tuple(layers),
    )  # fmt: skip
    return decision, None if model is None else replaced(model, chains)
