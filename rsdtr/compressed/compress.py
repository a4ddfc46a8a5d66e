"""Carrying out a plan: a new model in which the planned layers are rings."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import torch
from torch import Tensor, nn

from rsdtr.compressed.tr_conv2d import TRConv2d
from rsdtr.compressed.tr_linear import TRLinear
from rsdtr.errors import PlanError
from rsdtr.models.surgery import Weighted, replaced
from rsdtr.planning import obstacles
from rsdtr.planning.plan import CompressionPlan, LayerPlan
from rsdtr.ring.tensor_ring import TensorRing, ring_shapes
from rsdtr.search.ring_svd import ring_svd

Ranks = tuple[int, int, int, int]


def compress(model: nn.Module, plan: CompressionPlan) -> nn.Module:
    """A new model that obeys the plan; the given one is not changed.

    Each ring takes over the hooks of its layer and what else its user has set on it.
    PlanError if the plan names a layer that is missing, of another shape or number of groups, or
    where no ring can stand; RingError if such a layer is in half precision.
    """

    def decompose(kernel: Tensor, shift: int, ranks: Ranks) -> TensorRing:
        return ring_svd(kernel, shift, ranks)

    return _rebuilt(model, plan, decompose)


def skeleton(model: nn.Module, plan: CompressionPlan) -> nn.Module:
    """The same structure with zero cores, to load a saved state_dict into; errors as `compress`."""

    def blank(kernel: Tensor, shift: int, ranks: Ranks) -> TensorRing:
        c0, c1, c2, c3 = (torch.zeros(core) for core in ring_shapes(kernel.shape, ranks))
        return TensorRing((c0, c1, c2, c3), shift)

    return _rebuilt(model, plan, blank)


def _rebuilt(
    model: nn.Module,
    plan: CompressionPlan,
    ring_of: Callable[[Tensor, int, Ranks], TensorRing],
) -> nn.Module:
    rings: dict[nn.Module, nn.Module] = {}
    for layer in plan.layers:
        if layer.shift is None or layer.ranks is None:
            continue
        module = _planned(model, plan, layer)
        ring = ring_of(module.weight.detach().reshape(layer.shape), layer.shift, layer.ranks)
        rings[module] = (
            TRLinear.from_linear(module, ring, form=layer.form)
            if isinstance(module, nn.Linear)
            else TRConv2d.from_conv(module, ring, form=layer.form)
        )
    return replaced(model, rings)


def _planned(model: nn.Module, plan: CompressionPlan, layer: LayerPlan) -> Weighted:
    try:
        module = model.get_submodule(layer.name)
    except AttributeError:
        raise PlanError(
            f"the plan for {plan.model} names a layer {layer.name!r} that this model lacks: "
            "use the model the plan was made for"
        ) from None
    kind = nn.Linear if layer.kind == "linear" else nn.Conv2d
    if not isinstance(module, kind) or getattr(module, "groups", 1) != layer.groups:
        groups = "" if layer.kind == "linear" else f" of groups={layer.groups}"
        raise PlanError(
            f"layer {layer.name} is {type(module).__name__}, expected an nn.{kind.__name__}"
            f"{groups}: use the model the plan was made for"
        )
    if reason := obstacles.of_place(model, module):
        raise PlanError(f"layer {layer.name} cannot be a ring: {reason}")
    o, *inner = layer.shape
    expected = (o, prod(inner)) if layer.kind == "linear" else layer.shape
    if tuple(module.weight.shape) != expected:
        raise PlanError(
            f"layer {layer.name} has a kernel {tuple(module.weight.shape)}, the plan expects "
            f"{expected}: use the model the plan was made for"
        )
    return module
