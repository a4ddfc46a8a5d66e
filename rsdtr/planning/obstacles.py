"""Why a layer cannot be a ring, in words that say what frees it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from rsdtr.models.surgery import Weighted, attributes_of_user, replacement_of
from rsdtr.planning.layer_calls import Call
from rsdtr.ring.tensor_ring import too_coarse
from rsdtr.search.paper_rule import LARGEST, SMALLEST

# What computes a kernel before each pass, by the hook that it leaves, and what takes it away.
_COMPUTED_BY = {
    WeightNorm: "torch.nn.utils.remove_weight_norm(layer)",
    SpectralNorm: "torch.nn.utils.remove_spectral_norm(layer)",
    prune.BasePruningMethod: "torch.nn.utils.prune.remove(layer, 'weight')",
}
UNMET = "the network does not run another kind of layer in its place"


def of_place(model: nn.Module, conv: Weighted) -> str | None:
    """Why no ring could stand where this layer stands, whatever its values, or None."""
    if parametrize.is_parametrized(conv):
        names = ", ".join(
            f"{key} by {type(part).__name__}"
            for key, parts in cast(nn.ModuleDict, conv.parametrizations).items()
            for part in cast(nn.ModuleList, parts)
        )
        return f"computes its {names}: torch.nn.utils.parametrize.remove_parametrizations frees it"
    plain = nn.Linear if isinstance(conv, nn.Linear) else nn.Conv2d
    if type(conv) is not plain and not _computes_as(plain, conv):
        return f"{type(conv).__name__} is not a plain nn.{plain.__name__}"
    if isinstance(conv, nn.Conv2d) and conv.groups == conv.in_channels > 1:
        return (
            f"depthwise convolution (groups={conv.groups}): its kernels have one channel each, "
            "which a ring could only share at the price of more multiplications"
        )
    if conv._parameters.get("weight") is None:
        return _computed(conv)
    if conv.weight.is_inference():
        return (
            "its kernel was made in torch.inference_mode: layer.weight = "
            "nn.Parameter(layer.weight.clone()) frees it"
        )
    return _shared(model, conv) or _beside(conv)


def _computes_as(plain: type[nn.Conv2d] | type[nn.Linear], layer: Weighted) -> bool:
    """Whether a layer of a subclass answers noise, in both modes, bit for bit as its base does."""
    try:
        other: Any = copy.deepcopy(layer)
        base: Any = plain
        with torch.inference_mode(), torch.random.fork_rng(devices=[]):
            noise = _noise(other)
            return all(
                torch.equal(
                    type(other).forward(other.train(mode), noise.clone()),
                    base.forward(other, noise.clone()),
                )
                for mode in (True, False)
            )
    except Exception:  # whatever the code of a stranger's class raises
        return False


def _noise(layer: Weighted) -> Tensor:
    """What a layer takes, in its kernel's type: two inputs of a few pixels more than its kernel."""
    if isinstance(layer, nn.Linear):
        shape: tuple[int, ...] = (2, layer.in_features)
    else:
        pairs = zip(layer.kernel_size, layer.dilation, strict=True)
        shape = (2, layer.in_channels, *(size * step + 3 for size, step in pairs))
    return torch.randn(shape).to(layer.weight)


def of_use(calls: Sequence[Call], past: int) -> str | None:
    """Why not, from how it runs; past: MACs with its kernel outside of its calls."""
    if not any(call.regions for call in calls):
        return "nothing of the example input reaches it: its cost as a ring is not known"
    if past:
        return "its kernel is used by other code as well, outside of a call of the layer"
    return None


def of_values(kernel: Tensor) -> str | None:
    """Why not, from its kernel (O, I, KH, KW)."""
    if reason := too_coarse(kernel):
        return reason
    if not bool(torch.isfinite(kernel).all()):
        return "the kernel contains NaN or Inf"
    if not bool(kernel.any()):
        return "the kernel is zero everywhere"
    if not SMALLEST <= (largest := float(kernel.abs().max())) <= LARGEST:
        return f"the kernel's largest entry is {largest:.2g}: single precision is too coarse for it"
    return None


def _computed(conv: Weighted) -> str:
    for hook in conv._forward_pre_hooks.values():
        for kind, word in _COMPUTED_BY.items():
            if isinstance(hook, kind):
                return f"its kernel is computed by {type(hook).__name__}: {word} frees it"
    return "its kernel is no parameter: layer.weight = nn.Parameter(…) frees it"


def _shared(model: nn.Module, conv: Weighted) -> str | None:
    """Who else holds its kernel."""
    for name, module in model.named_modules():
        for key, other in module._parameters.items():
            if other is conv.weight and module is not conv:
                return (
                    f"shares its kernel with {name or type(module).__name__}.{key}: "
                    "layer.weight = nn.Parameter(layer.weight.detach().clone()) frees it"
                )
    return None


def _beside(conv: Weighted) -> str | None:
    """What was put on the layer that a ring has no place for."""
    more = [
        name
        for held in (conv._parameters, conv._buffers, conv._modules)
        for name in held
        if name not in ("weight", "bias")
    ]
    if more:
        return f"holds {', '.join(more)} beside its kernel and bias"
    set_on_it = attributes_of_user(conv)
    if replaced := [name for name in set_on_it if hasattr(type(conv), name)]:
        return f"its {replaced[0]} was replaced by another"
    if clashing := [name for name in set_on_it if hasattr(replacement_of(conv), name)]:
        return f"has an attribute {clashing[0]}, which means something else in a ring"
    if conv._state_dict_hooks or conv._state_dict_pre_hooks:
        return "has hooks on its state_dict, which is another in a ring"
    if conv.weight._backward_hooks:
        return "its kernel has hooks on its gradient"
    return None
