"""Carrying out a plan: a new model in which the planned convolutions are rings."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from rsdtr.compressed.tr_conv2d import TRConv2d
from rsdtr.errors import PlanError
from rsdtr.models.surgery import replaced
from rsdtr.planning import obstacles
from rsdtr.planning.plan import CompressionPlan, LayerPlan
from rsdtr.ring.tensor_ring import TensorRing, ring_shapes
from rsdtr.search.ring_svd import ring_svd

Ranks = tuple[int, int, int, int]


def compress(model: nn.Module, plan: CompressionPlan) -> nn.Module:
    """A new model that obeys the plan; the given one is not changed.

    Each ring takes over the hooks of its convolution and what else its user has set on it.
    PlanError if the plan names a layer that is missing, grouped, or of another shape, or where no
    ring can stand; RingError if such a layer is in half precision.
    """

    def decompose(conv: nn.Conv2d, shift: int, ranks: Ranks) -> TensorRing:
        return ring_svd(conv.weight, shift, ranks)

    return _rebuilt(model, plan, decompose)


def skeleton(model: nn.Module, plan: CompressionPlan) -> nn.Module:
    """The same structure with zero cores, to load a saved state_dict into; errors as `compress`."""

    def blank(conv: nn.Conv2d, shift: int, ranks: Ranks) -> TensorRing:
        c0, c1, c2, c3 = (torch.zeros(core) for core in ring_shapes(conv.weight.shape, ranks))
        return TensorRing((c0, c1, c2, c3), shift)

    return _rebuilt(model, plan, blank)


def _rebuilt(
    model: nn.Module,
    plan: CompressionPlan,
    ring_of: Callable[[nn.Conv2d, int, Ranks], TensorRing],
) -> nn.Module:
    rings: dict[nn.Module, nn.Module] = {}
    for layer in plan.layers:
        if layer.shift is None or layer.ranks is None:
            continue
        conv = _planned_conv(model, plan, layer)
        ring = ring_of(conv, layer.shift, layer.ranks)
        rings[conv] = TRConv2d.from_conv(conv, ring, form=layer.form)
    return replaced(model, rings)


def _planned_conv(model: nn.Module, plan: CompressionPlan, layer: LayerPlan) -> nn.Conv2d:
    try:
        conv = model.get_submodule(layer.name)
    except AttributeError:
        raise PlanError(
            f"the plan for {plan.model} names a layer {layer.name!r} that this model lacks: "
            "use the model the plan was made for"
        ) from None
    if not isinstance(conv, nn.Conv2d) or conv.groups != 1:
        raise PlanError(
            f"layer {layer.name} is {type(conv).__name__}, expected an ungrouped nn.Conv2d: "
            "use the model the plan was made for"
        )
    if tuple(conv.weight.shape) != layer.shape:
        raise PlanError(
            f"layer {layer.name} has a kernel {tuple(conv.weight.shape)}, the plan expects "
            f"{layer.shape}: use the model the plan was made for"
        )
    if reason := obstacles.of_place(model, conv):
        raise PlanError(f"layer {layer.name} cannot be a ring: {reason}")
    return conv
