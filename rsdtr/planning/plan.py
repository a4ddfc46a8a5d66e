"""The decision for a whole model, without a tensor in it: what each layer becomes, and why."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from rsdtr.errors import PlanError, first_problem
from rsdtr.planning.layer_profile import Kind, LayerProfile
from rsdtr.planning.model_profile import ModelProfile, NotCounted
from rsdtr.ring.forms import FORMS, Form
from rsdtr.ring.rank_selection import MINIMUM_EPS, checked_eps
from rsdtr.ring.tensor_ring import ring_shapes, ring_storage
from rsdtr.search.candidate import Candidate, Objective, Question, Rule
from rsdtr.system.safetensors_format import safetensors_bytes, with_ring
from rsdtr.typing import Frozen, Progress

TargetKind = Literal["pcr", "fcr", "mb"]
Positive = Field(ge=1)
_ASKED = "asked to stay dense"
_NOT_NEEDED = "the target does without it, or it was asked to stay dense"


class Ratio(Frozen):
    """A cost before and after compression: parameters (scalars) or MACs for one input."""

    original: int = Field(ge=0)
    compressed: int = Field(ge=0)


class Target(Frozen):
    """What a whole network should reach: a PCR or FCR at least, or a file of at most so many MB.

    1 MB = 1,000,000 bytes of the safetensors file.
    """

    kind: TargetKind
    value: float = Field(gt=0)

    def __str__(self) -> str:
        if self.kind == "mb":
            return f"file ≤ {self.value:g} MB"
        return f"{self.kind.upper()} ≥ {self.value:g}"


_KINDS = {"conv": "convolution", "linear": "linear layer"}


class Milliseconds(Frozen):
    """Best measured time of one pass before and after compression, in ms."""

    original: float = Field(gt=0)
    compressed: float = Field(gt=0)


class MeasuredOn(Frozen):
    """What the forms of a plan were chosen for: a machine in words, its device and threads, the
    images in a batch, and forward passes (`inference`) or training steps.
    """

    machine: str
    device: str
    threads: int = Positive
    batch: int = Positive
    mode: Literal["inference", "training"]


class LayerPlan(Frozen):
    """What one convolution, or linear layer, becomes.

    A ring: its own ε_p, shift, r0, ranks R_0…R_3 (mode order O, I, KH, KW), its storage in scalars,
    form, MACs for one input and ‖𝓦 − 𝓦̂‖_F/‖𝓦‖_F. Left alone: `kept_dense` says why, in words.
    macs counts the paper's four sublayers, of a grouped convolution those of the form that it is
    planned in, and all runs of a layer that runs several times for one input. kind, groups, runs:
    what the layer is, and how often it runs; they are not written where it is a convolution of one
    group that runs once. Once a form was chosen by its time: macs_run, MACs for
    one input in that form; latency_ms, as measured, of one run at the dearest of its sizes;
    runs_dense, why a stored ring runs dense.
    """

    name: str
    shape: tuple[int, int, int, int]
    stride: tuple[int, int]
    kept_dense: str | None = None
    shift: int | None = Field(default=None, ge=0, le=3)
    r0: int | None = Field(default=None, ge=1)
    ranks: tuple[int, int, int, int] | None = None
    storage: int = Positive
    form: Form = "dense"
    macs: Ratio
    relative_error: float = Field(default=0.0, ge=0)
    eps: float | None = Field(default=None, ge=MINIMUM_EPS, lt=1)
    macs_run: int | None = Field(default=None, ge=0)
    latency_ms: Milliseconds | None = None
    runs_dense: str | None = None
    kind: Kind = Field(default="conv", exclude_if=lambda kind: kind == "conv")
    groups: int = Field(default=1, ge=1, exclude_if=lambda groups: groups == 1)
    runs: int = Field(default=1, ge=0, exclude_if=lambda runs: runs == 1)

    @model_validator(mode="after")
    def _either_ring_or_dense(self) -> LayerPlan:
        ring = (self.shift, self.r0, self.ranks)
        if self.kept_dense is not None:
            if any(value is not None for value in ring):
                raise ValueError(f"layer {self.name} is kept dense but has a ring")
            return self
        if self.shift is None or self.r0 is None or self.ranks is None:
            raise ValueError(f"layer {self.name} needs shift, r0 and ranks, or kept_dense")
        if min(self.ranks) < 1 or self.ranks[self.shift] != self.r0:
            raise ValueError(f"layer {self.name}: r0 and ranks do not agree")
        if self.storage != ring_storage(self.shape, self.ranks):
            raise ValueError(f"layer {self.name}: storage and ranks do not agree")
        return self


class CompressionPlan(Frozen):
    """The decision for a model: JSON-able, and all that `compress` obeys.

    eps: the ε_p of every layer that has none of its own, or None where a target gave each its own;
    pcr, fcr: whole-network ratios original/compressed of parameters and of FLOPs (the paper's four
    sublayers; 1 MAC = 2 FLOPs; convolutions and linear layers are counted); not_counted: what they
    leave out. Once forms were chosen by their times: fcr_run, the same ratio of FLOPs for the forms
    that run; measured_on, where.
    """

    model: str
    eps: float | None = Field(ge=MINIMUM_EPS, lt=1)
    rule: Rule = "paper"
    objective: Objective | Literal["latency"] = "storage"
    pcr: float
    fcr: float
    params: Ratio
    macs: Ratio
    seconds: float
    layers: tuple[LayerPlan, ...]
    not_counted: tuple[NotCounted, ...] = ()
    target: Target | None = None
    fcr_run: float | None = None
    measured_on: MeasuredOn | None = None

    @property
    def label(self) -> str:
        """What was asked for, in words: an ε_p or a target, and the rule if not the paper's."""
        asked = str(self.target) if self.target else f"ε_p {self.eps:g}"
        own = sum(layer.eps not in (None, self.eps) for layer in self.layers)
        return (
            asked
            + (f" with {own} layers pinned" if own and not self.target else "")
            + (", tight" if self.rule == "tight" else "")
        )

    def __str__(self) -> str:
        """What was decided, in one line."""
        return (
            f"{self.model} at {self.label}: PCR {self.pcr:.2f} ({self.params.original:,} → "
            f"{self.params.compressed:,} parameters), FCR {self.fcr:.2f}; {self.counted} are rings"
        )

    @property
    def runs_several_times(self) -> bool:
        """Whether there is a layer that runs several times for one input, or never."""
        return any(layer.runs != 1 for layer in self.layers)

    @property
    def counted(self) -> str:
        """How many of the listed layers of each kind are rings, in words."""
        counts = []
        for kind, name in _KINDS.items():
            layers = [layer for layer in self.layers if layer.kind == kind]
            rings = sum(layer.ranks is not None for layer in layers)
            if layers:
                counts.append(f"{rings} of {len(layers)} {name}{'s' * (len(layers) > 1)}")
        return " and ".join(counts)

    @classmethod
    def from_json(cls, text: str | bytes) -> CompressionPlan:
        """Parse what `model_dump_json` wrote; PlanError names the first thing that is wrong."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise PlanError(
                f"this is no compression plan: {first_problem(error)} "
                f"({error.error_count()} problems in all): make the plan again"
            ) from None


def plan(
    profile: ModelProfile,
    eps: float | None,
    *,
    rule: Rule = "paper",
    objective: Objective = "storage",
    layers: str | Sequence[str] | None = None,
    own: Mapping[str, float | None] | None = None,
    target: Target | None = None,
    progress: Progress | None = None,
) -> CompressionPlan:
    """Choose for every layer the best ring at relative error ε_p.

    rule: `paper`, the published procedure, or `tight`, which stores less at the same ε_p;
    objective: what the choice among rings makes small, `storage` or `macs`; layers: `paper` (every
    k×k convolution but the first, as the program behind the paper does), `auto` (every convolution
    and linear layer whose ring stores less), `all` (every convolution), or glob patterns over layer
    names, by default profile.usual_layers; own: layers that have an ε_p of their own, or None to
    stay dense (eps may be None if these are all); target: what they were solved for; progress:
    called with (layers done, layers in all). The plan has a line for every convolution, and for
    those linear layers that `layers` or `own` takes in. RingError for ε_p out of range, PlanError
    for a pattern or name without a layer.
    """
    started = time.perf_counter()
    policy = profile.usual_layers if layers is None else layers
    chosen = policy_layers(profile, policy)
    each = _each_eps(profile, chosen, eps, own or {})
    listed = [layer for layer in profile.layers if layer.kind == "conv" or layer.name in each]
    planned = []
    for done, layer in enumerate(listed):
        if progress:
            progress(done, len(listed))
        if layer.name not in each:
            named = policy if isinstance(policy, str) else " ".join(policy)
            planned.append(_dense(layer, f"outside the layer policy {named!r}"))
        elif layer.obstacle is not None:
            planned.append(_dense(layer, layer.obstacle))
        elif (asked := each[layer.name]) is None:
            planned.append(_dense(layer, _ASKED if target is None else _NOT_NEEDED))
        else:
            planned.append(_layer_plan(profile, layer, Question(rule, objective, asked)))
    if progress:
        progress(len(listed), len(listed))
    return CompressionPlan(
        model=profile.model,
        eps=eps,
        target=target,
        rule=rule,
        objective=objective,
        seconds=time.perf_counter() - started,
        layers=tuple(planned),
        not_counted=profile.not_counted,
        **_costs(profile, planned),
    )


def with_layers(
    decided: CompressionPlan, profile: ModelProfile, layers: Sequence[LayerPlan]
) -> CompressionPlan:
    """The plan with other rings in its layers, and the whole network's costs that follow."""
    return decided.model_copy(update={"layers": tuple(layers)} | _costs(profile, layers))


def _costs(profile: ModelProfile, layers: Sequence[LayerPlan]) -> dict[str, Any]:
    params = profile.params - sum(math.prod(layer.shape) - layer.storage for layer in layers)
    macs = profile.macs - sum(layer.macs.original - layer.macs.compressed for layer in layers)
    return {
        "pcr": profile.params / params,
        "fcr": profile.macs / macs,
        "params": Ratio(original=profile.params, compressed=params),
        "macs": Ratio(original=profile.macs, compressed=macs),
    }


def planned_bytes(profile: ModelProfile, decided: CompressionPlan) -> int:
    """Bytes of the compressed model's safetensors file, before any is written."""
    entries = dict(profile.entries)
    for layer in decided.layers:
        if layer.ranks is not None:
            entries = with_ring(entries, layer.name, ring_shapes(layer.shape, layer.ranks))
    return safetensors_bytes(entries)


def _each_eps(
    profile: ModelProfile, chosen: set[str], eps: float | None, own: Mapping[str, float | None]
) -> dict[str, float | None]:
    """The ε_p of every layer that is to be compressed; None: it stays dense."""
    for name in own:
        profile.layer(name)  # UnknownName says which there are
    each = dict.fromkeys(chosen, eps) | dict(own)
    possible = {layer.name for layer in profile.layers if layer.obstacle is None}
    if eps is None and (missing := sorted((chosen & possible) - own.keys())):
        raise PlanError(
            f"there is no ε_p for {', '.join(missing[:3])}: give one for the whole network or for "
            "each layer"
        )
    return {name: None if value is None else checked_eps(value) for name, value in each.items()}


def policy_layers(profile: ModelProfile, layers: str | Sequence[str] | None) -> set[str]:
    """Names of the layers that the policy wants compressed; PlanError as `plan`.

    layers: as in `plan`.
    """
    layers = profile.usual_layers if layers is None else layers
    if layers == "paper":
        return {layer.name for layer in profile.layers if layer.in_paper_policy}
    names = {layer.name for layer in profile.layers}
    if layers == "auto":
        return names
    if layers == "all":
        return {layer.name for layer in profile.layers if layer.kind == "conv"}
    patterns = [layers] if isinstance(layers, str) else list(layers)
    chosen: set[str] = set()
    for pattern in patterns:
        matching = {name for name in names if fnmatchcase(name, pattern)}
        if not matching:
            raise PlanError(
                f"no layer of {profile.model} matches {pattern!r}: give `paper`, `auto`, `all` or "
                f"a glob over names such as {profile.layers[-1].name}"
            )
        chosen |= matching
    return chosen


def _layer_plan(profile: ModelProfile, layer: LayerProfile, question: Question) -> LayerPlan:
    best = profile.winner(layer, question)
    if best.storage >= layer.kernel.numel():
        return _dense(
            layer,
            f"the smallest ring at this ε_p stores {best.storage:,} scalars, "
            f"the kernel {layer.kernel.numel():,}",
        )
    return ring_plan(layer, question.eps, best)


def ring_plan(layer: LayerProfile, eps: float | None, best: Candidate) -> LayerPlan:
    """A layer that becomes this ring; eps: what it was chosen for, None if by its ranks."""
    form = layer.planned_form(best.ranks)
    macs = layer.form_macs(form, best.ranks)
    return LayerPlan(
        name=layer.name,
        shape=layer.shape,
        stride=layer.stride,
        eps=eps,
        shift=best.shift,
        r0=best.r0,
        ranks=best.ranks,
        storage=best.storage,
        form=form,
        kind=layer.kind,
        groups=layer.groups,
        runs=layer.runs,
        runs_dense=None if form != "dense" else _shared_kernels(layer, best),
        macs=Ratio(original=layer.macs, compressed=macs),
        relative_error=best.relative_error,
    )


def _shared_kernels(layer: LayerProfile, best: Candidate) -> str:
    least = min(layer.form_macs(form, best.ranks) for form in FORMS if form != "dense")
    return (
        f"each of its {layer.groups} groups would run through the shared kernels, which takes "
        f"{least:,} MACs at least, the grouped convolution {layer.macs:,}"
    )


def _dense(layer: LayerProfile, reason: str) -> LayerPlan:
    return LayerPlan(
        name=layer.name,
        shape=layer.shape,
        stride=layer.stride,
        kept_dense=reason,
        storage=layer.kernel.numel(),
        kind=layer.kind,
        groups=layer.groups,
        runs=layer.runs,
        macs=Ratio(original=layer.macs, compressed=layer.macs),
    )
