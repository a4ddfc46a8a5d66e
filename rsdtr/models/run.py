"""A network as it is run: in eval mode, on its device, on inputs of its own."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

Example = Tensor | Sequence[Any] | Mapping[str, Any]


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in eval mode without gradients; afterwards every module has its mode back."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module, training in modes.items():
            module.training = training


def device_of(model: nn.Module) -> torch.device:
    """Where the first parameter lies; the CPU for a model without parameters."""
    first = next(model.parameters(), None)
    return torch.device("cpu") if first is None else first.device


def fresh_input(model: nn.Module, images: Tensor) -> Tensor:
    """A copy of the images for this model alone, which may write into it: on its device, and in its
    precision where both are floating-point numbers.
    """
    first = next((p for p in model.parameters() if p.is_floating_point()), None)
    dtype = first.dtype if first is not None and images.is_floating_point() else images.dtype
    return images.to(device_of(model), dtype, copy=True)


def called(model: nn.Module, example: Example) -> object:
    """The answer to a copy of inputs as torch.export has them: a tensor, a sequence of positional
    arguments, or a mapping of keyword arguments.
    """
    given = copy.deepcopy(example)
    if isinstance(given, Tensor):
        return model(given)
    if isinstance(given, Mapping):
        return model(**given)
    return model(*given)


def tensors_in(value: object) -> Iterator[Tensor]:
    """The tensors in nested mappings, lists and tuples, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)


def first_of_each(example: Example) -> Example:
    """The first input of a batch of them: every tensor as long as the first one is cut to one."""
    sizes = [len(tensor) for tensor in tensors_in(example) if tensor.ndim > 1]

    def cut(value: Any) -> Any:
        if isinstance(value, Tensor):
            long = value.ndim > 0 and len(value) == sizes[0]
            return (value[:1] if long else value).detach().clone()
        if isinstance(value, Mapping):
            return {name: cut(item) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(cut(item) for item in value)
        return value

    result: Example = cut(example) if sizes else example
    return result


def give_lazy_layers_weights(model: nn.Module, example: Example) -> None:
    """Run a network that has layers without weights once, in place: so torch makes them."""
    if any(is_lazy(parameter) for parameter in model.parameters()):
        # Not inference tensors: they are to train afterwards.
        with evaluating(model), torch.inference_mode(False), torch.no_grad():
            called(model, example)
