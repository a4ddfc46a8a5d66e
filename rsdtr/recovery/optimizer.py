"""The optimiser of a training: which weights it moves, and its state as tensors with names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from rsdtr.compressed.ring_layer import RingLayer
from rsdtr.recovery.options import FinetuneOptions


def optimizer_of(trained: list[nn.Parameter], options: FinetuneOptions) -> torch.optim.Optimizer:
    """The optimiser of a recipe for these weights."""
    if options.optimizer == "adamw":
        return torch.optim.AdamW(
            trained, lr=options.lr, betas=(options.momentum, 0.999),
            weight_decay=options.weight_decay,
        )  # fmt: skip
    return torch.optim.SGD(
        trained, lr=options.lr, momentum=options.momentum, weight_decay=options.weight_decay
    )


def dense_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Of the convolutions and linear layers that are no rings and would be trained."""
    inside = {m for ring in model.modules() if isinstance(ring, RingLayer) for m in ring.modules()}
    layers = (
        m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear) and m not in inside
    )
    return [p for layer in layers for p in layer.parameters(recurse=False) if p.requires_grad]


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Its state, `NUMBER.NAME` of a parameter each."""
    return {
        f"{number}.{name}": value
        for number, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
        if value is not None
    }


def fill_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], rates: Sequence[float] = ()
) -> None:
    """Give an optimiser such a state; rates: the learning rate of each group, as it is if none."""
    states: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        number, _, key = name.partition(".")
        states.setdefault(int(number), {})[key] = value
    groups = optimizer.state_dict()["param_groups"]
    for group, rate in zip(groups, rates, strict=False):
        group["lr"] = rate
    optimizer.load_state_dict({"state": states, "param_groups": groups})
