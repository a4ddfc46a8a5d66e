"""All methods by name, and what each makes of one network at one PCR."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from pydantic import BaseModel, ConfigDict
from torch import nn

from rsdtr.baselines import pruning, ring_ablations
from rsdtr.baselines.cp import CP
from rsdtr.baselines.factorizations import FACTORIZATIONS
from rsdtr.baselines.lowrank import LowRank
from rsdtr.baselines.mpo import MPO
from rsdtr.baselines.reach_pcr import Kernels, convolutions_of, network_of
from rsdtr.baselines.tensorized_ring import PSTRN, SEARCHED, TRN, searched_ranks
from rsdtr.compressed.compress import compress
from rsdtr.data.datasets import DataSplits
from rsdtr.errors import UnknownName
from rsdtr.models.zoo import ModelSpec
from rsdtr.planning.model_profile import ModelProfile, profile
from rsdtr.planning.plan import CompressionPlan
from rsdtr.planning.target_solver import Damage

INT8 = "int8"  # alone, or after another method: NAME+int8
AFTER = f"+{INT8}"


@dataclass(eq=False)
class Subject:
    """One dense network as the methods meet it; what several of them need is computed once."""

    model: nn.Module
    spec: ModelSpec
    data: DataSplits
    profile: ModelProfile = field(init=False)
    prepared: dict[str, Kernels] = field(default_factory=dict, init=False)
    _damage: Damage | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.profile = convolutions_of(profile(self.model, self.spec))

    def kernels(self, method: LowRank) -> Kernels:
        """The kernels as this method prepares them."""
        return self.prepared.setdefault(method.name, Kernels(self.profile, method))

    @property
    def damage(self) -> Damage:
        """What an error of each layer does, on a few unlabelled training images."""
        if self._damage is None:
            self._damage = ring_ablations.target_damage(self.model, self.profile, self.data.train)
        return self._damage


class LayerCores(BaseModel):
    """What one layer is stored as: scalars, and its ranks; no ranks where channels were pruned."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    layer: str
    storage: int
    ranks: tuple[int, ...] = ()


@dataclass(frozen=True)
class Made:
    """A smaller network: pcr, fcr of the whole network; eps: of every layer where it has one.

    relative_errors: ‖𝓦 − 𝓦̂‖_F/‖𝓦‖_F by layer name, for the layers that are no longer dense.
    cores: of the same layers, and of those that lost channels.
    repeat: where channels went, makes the same go from another copy of the dense network.
    """

    model: nn.Module
    pcr: float
    fcr: float
    eps: float | None = None
    relative_errors: tuple[tuple[str, float], ...] = ()
    cores: tuple[LayerCores, ...] = ()
    repeat: Callable[[nn.Module], nn.Module] | None = None


@dataclass(frozen=True)
class Method:
    """A method by its name, in words, and as a function of a network and a PCR."""

    name: str
    title: str
    make: Callable[[Subject, float], Made]


def method(name: str) -> Method:
    """The method of that name; UnknownName lists those there are."""
    if name not in METHODS:
        raise UnknownName(
            f"there is no method {name!r}: choose from {', '.join(METHODS)}, {INT8}, or one of "
            f"them followed by {AFTER}"
        )
    return METHODS[name]


def check_methods(names: tuple[str, ...]) -> None:
    """UnknownName for a name that is no method, nor one followed by +int8."""
    for name in names:
        if name != INT8:
            method(name.removesuffix(AFTER))


def title_of(name: str) -> str:
    """A method's name in words, int8 included."""
    if name == INT8:
        return "int8 alone"
    return method(name.removesuffix(AFTER)).title + (", int8" if name.endswith(AFTER) else "")


def _ring(
    plan_of: Callable[[Subject, float], CompressionPlan], subject: Subject, pcr: float
) -> Made:
    decided = plan_of(subject, pcr)
    return Made(
        compress(subject.model, decided), decided.pcr, decided.fcr, decided.eps,
        tuple((r.name, r.relative_error) for r in decided.layers if r.ranks is not None),
        tuple(
            LayerCores(layer=r.name, storage=r.storage, ranks=r.ranks)
            for r in decided.layers
            if r.ranks is not None
        ),
    )  # fmt: skip


def _low_rank(kind: LowRank, subject: Subject, pcr: float) -> Made:
    kernels = subject.kernels(kind)
    ranks = searched_ranks(kernels, pcr) if kind is PSTRN else None
    decision, network = network_of(kernels, subject.model, pcr=pcr, ranks=ranks)
    assert network is not None  # a model was given
    chosen = [(r.name, r.choice) for r in decision.layers if r.choice is not None]
    return Made(
        network, decision.pcr, decision.fcr, decision.eps,
        tuple((name, choice.relative_error) for name, choice in chosen),
        tuple(
            LayerCores(layer=name, storage=choice.storage, ranks=choice.ranks)
            for name, choice in chosen
        ),
    )  # fmt: skip


def _pruned(importance: pruning.Importance, subject: Subject, pcr: float) -> Made:
    found = pruning.pruned(subject.model, subject.spec, importance, pcr, subject.data.train)
    whole, smaller = subject.profile, convolutions_of(found.profile)
    return Made(
        found.model, whole.params / smaller.params, whole.macs / smaller.macs,
        cores=tuple(
            LayerCores(layer=layer.name, storage=layer.kernel.numel())
            for layer, before in zip(smaller.layers, whole.layers, strict=True)
            if layer.shape != before.shape
        ),
        repeat=lambda dense: found.repeated(dense, subject.spec),
    )  # fmt: skip


def _methods() -> list[Method]:
    ring: list[tuple[str, str, Callable[[Subject, float], CompressionPlan]]] = [
        (
            "rsdtr-paper",
            "RSDTR as published",
            lambda s, p: ring_ablations.by_rule(s.profile, "paper", p),
        ),
        ("rsdtr-tight", "RSDTR, tight", lambda s, p: ring_ablations.by_rule(s.profile, "tight", p)),
        (
            "rsdtr-target",
            "RSDTR, an ε_p for each layer",
            lambda s, p: ring_ablations.by_target(s.profile, p, s.damage),
        ),
        (
            "ring-no-shift",
            "ring, shift off",
            lambda s, p: ring_ablations.ablated(s.profile, "ring-no-shift", p),
        ),
        (
            "ring-no-divisor",
            "ring, divisor off",
            lambda s, p: ring_ablations.ablated(s.profile, "ring-no-divisor", p),
        ),
        (
            "ring-plain",
            "TR-SVD: both off",
            lambda s, p: ring_ablations.ablated(s.profile, "ring-plain", p),
        ),
        ("ring-fixed", "ring of one rank", lambda s, p: ring_ablations.fixed_rank(s.profile, p)),
    ]
    return [
        *(Method(name, title, partial(_ring, plan_of)) for name, title, plan_of in ring),
        *(
            Method(m.name, m.title, partial(_low_rank, m))
            for m in (*FACTORIZATIONS, MPO, CP, TRN, PSTRN)
        ),
        Method("prune-l2", "channel pruning, L2", partial(_pruned, "l2")),
        Method("prune-taylor", "channel pruning, Taylor", partial(_pruned, "taylor")),
    ]


METHODS = {each.name: each for each in _methods()}


def methods_for(model: str) -> tuple[str, ...]:
    """The names of the methods that can make this model smaller, int8 not among them."""
    return tuple(name for name in METHODS if name != PSTRN.name or model in SEARCHED)
