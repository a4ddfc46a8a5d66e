"""Copies of networks, and modules put where others were: a network that is given never changes."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.parameter import UninitializedBuffer

from rsdtr.errors import RsdtrError, first_line

_HOOKS = (
    "_forward_pre_hooks", "_forward_pre_hooks_with_kwargs",
    "_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called",
    "_backward_pre_hooks", "_backward_hooks", "_is_full_backward_hook", "_non_full_backward_hooks",
)  # fmt: skip
# What a convolution says of itself, and a layer in its place as well.
CONVOLUTION = (
    "in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "padding_mode",
    "groups",
)  # fmt: skip
Weighted = nn.Conv2d | nn.Linear  # the layers that something else can stand for
_ITS_OWN: dict[type[nn.Module], frozenset[str]] = {
    nn.Conv2d: frozenset(nn.Conv2d(1, 1, 1, device="meta").__dict__),
    nn.Linear: frozenset(nn.Linear(1, 1, device="meta").__dict__),
}


class Replacement(nn.Module):
    """What can stand where a layer stood; those who derive from it say what `kernel` is."""

    def __init__(self) -> None:
        super().__init__()
        self.attributes_of_user: tuple[str, ...] = ()

    def kernel(self) -> Tensor:
        """The weight that the layer computes with, as the layer before had it."""
        raise NotImplementedError

    @property
    def weight(self) -> Tensor:
        """The same."""
        return self.kernel()


class ConvReplacement(Replacement):
    """What can stand where an `nn.Conv2d` stood: it answers what a forward may ask of one.

    Those who derive from it set in_channels to padding_mode as the convolution has them; `kernel`
    is (O, I/groups, KH, KW).
    """

    in_channels: int
    out_channels: int
    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    groups: int = 1
    transposed = False
    output_padding = (0, 0)


class LinearReplacement(Replacement):
    """The same for an `nn.Linear`, whose in_features and out_features it has."""

    in_features: int
    out_features: int


def replacement_of(layer: nn.Module) -> type[Replacement]:
    """The kind of what can stand where such a layer stood."""
    return LinearReplacement if isinstance(layer, nn.Linear) else ConvReplacement


def copied(model: nn.Module) -> nn.Module:
    """A copy that shares no tensor with the model, its gradients left out.

    Unlike `copy.deepcopy` it copies a module that keeps a computed tensor, such as a kernel of
    `weight_norm` or the activation of an earlier pass. RsdtrError for what cannot be copied.
    """
    return replaced(model, {})


def replaced(
    model: nn.Module,
    new: Mapping[nn.Module, nn.Module],
    tensors: Iterable[tuple[Tensor, Tensor]] = (),
) -> nn.Module:
    """A copy as `copied` makes it, with new modules wherever some of its modules are referred to.

    Not only where they are registered: in lists, tuples, dicts and bound hooks as well. A new
    module takes over the hooks of the one before, what its user has set on it, and, as a
    Replacement, its bias, which stays shared where it was. Functions are not copied: a closure
    goes on with the module that it saw. tensors: pairs of one of the model's, and what stands
    wherever it is referred to.
    """
    memo: dict[int, Any] = {id(tensor): tensor.detach().clone() for tensor in _computed(model)}
    # deepcopy knows how to copy a parameter without a shape, and not a buffer.
    memo |= {
        id(buffer): UninitializedBuffer(  # type: ignore[call-arg]  # torch's stub lacks them
            device=buffer.device, dtype=buffer.dtype
        )
        for buffer in model.buffers()
        if isinstance(buffer, UninitializedBuffer)
    }
    memo |= {id(old): module for old, module in new.items()}
    memo |= {id(old): tensor for old, tensor in tensors}
    try:
        other: nn.Module = copy.deepcopy(model, memo)
        for old, module in new.items():
            _take_over(old, module, memo)
    except (RuntimeError, TypeError, NotImplementedError, AttributeError) as error:
        first = first_line(error)
        raise RsdtrError(
            f"{type(model).__name__} cannot be copied ({first}): keep files, locks and the like "
            "outside of the network"
        ) from error
    return other


def sharing(model: nn.Module, identities: Iterable[nn.Module] = ()) -> nn.Module:
    """A copy that shares all tensors with the model, whose modes and forms are its own.

    identities: modules that an nn.Identity takes the place of, wherever they are referred to.
    """
    memo: dict[int, Any] = {
        id(tensor): tensor for tensor in (*model.parameters(), *model.buffers(), *_computed(model))
    }
    memo |= {id(module): nn.Identity() for module in identities}
    other: nn.Module = copy.deepcopy(model, memo)
    return other


def made_by(model: nn.Module) -> str | None:
    """What made a network with no nn.Conv2d: `torch.jit`, `torch.export`, or None for neither."""
    modules = list(model.modules())
    if any(isinstance(module, nn.Conv2d) for module in modules):
        return None
    if any(isinstance(module, torch.jit.ScriptModule) for module in modules):
        return "torch.jit"
    exported = any(
        isinstance(module, fx.GraphModule) or type(module).__module__.startswith("torch.export.")
        for module in modules
    )
    return "torch.export" if exported else None


def attributes_of_user(module: nn.Module) -> tuple[str, ...]:
    """Names of the plain attributes that such a layer does not have by itself."""
    if isinstance(module, Replacement):
        return module.attributes_of_user
    own = _ITS_OWN.get(type(module))
    return () if own is None else tuple(name for name in module.__dict__ if name not in own)


def _take_over(old: nn.Module, new: nn.Module, memo: dict[int, Any]) -> None:
    for name in _HOOKS:
        if name in old.__dict__:
            new.__dict__[name] = copy.deepcopy(old.__dict__[name], memo)
    for name in attributes_of_user(old):
        setattr(new, name, copy.deepcopy(getattr(old, name), memo))
    if isinstance(new, Replacement):
        new.attributes_of_user = attributes_of_user(old)
        bias = old._parameters.get("bias")
        if bias is not None and new._parameters.get("bias") is not None:
            new._parameters["bias"] = copy.deepcopy(bias, memo)


def _computed(model: nn.Module) -> Iterator[Tensor]:
    """Tensors with a history among the attributes of all modules: deepcopy refuses those."""
    seen: set[int] = set()
    todo: list[object] = [list(module.__dict__.values()) for module in model.modules()]
    while todo:
        value = todo.pop()
        if isinstance(value, Tensor):
            if value.grad_fn is not None:
                yield value
        elif isinstance(value, list | tuple | set | frozenset | dict) and id(value) not in seen:
            seen.add(id(value))
            todo += value.values() if isinstance(value, dict) else value
