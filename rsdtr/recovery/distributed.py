"""Several processes that train one network together, as torchrun starts them.

Every process draws the same batches and the same augmentation, computes its part of each batch,
and adds its gradient to the others'. The result is that of one process with `accumulate` parts.
Without torchrun there is one process, and nothing here does anything.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import distributed, nn

from rsdtr.errors import RsdtrError


@dataclass(frozen=True)
class World:
    """Which of how many processes this is, counted from 0."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes files and speaks."""
        return self.rank == 0


def world() -> World:
    """The processes of the group that was joined; only this one if none was."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return World()
    return World(distributed.get_rank(), distributed.get_world_size())


@contextmanager
def joined() -> Iterator[World]:
    """Join the group that torchrun names in the environment, and leave it at the end.

    Gradients go over gloo, on the CPU. RsdtrError if the group cannot be joined.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield World()
        return
    try:
        distributed.init_process_group("gloo")
    except (RuntimeError, ValueError) as error:
        raise RsdtrError(
            f"the other processes were not found ({str(error).splitlines()[0]}): start this one "
            "with torchrun, or without WORLD_SIZE"
        ) from error
    try:
        yield world()
    finally:
        distributed.destroy_process_group()


def sum_gradients(parameters: Iterable[nn.Parameter], value: float) -> float:
    """Give every process the sum of all gradients, in place, and of `value`.

    A parameter without a gradient counts as zero: a process may have had no part of a batch.
    """
    if world().size == 1:
        return value
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    for parameter in trained:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    parts = [parameter.grad for parameter in trained if parameter.grad is not None]
    flat = torch.cat([*(part.reshape(-1) for part in parts), parts[0].new_tensor([value])])
    distributed.all_reduce(flat)
    at = 0
    for part in parts:
        part.copy_(flat[at : at + part.numel()].view_as(part))
        at += part.numel()
    return float(flat[-1])


def average_buffers(model: nn.Module) -> None:
    """Give every process the mean of all processes' floating-point buffers, in place."""
    size = world().size
    if size == 1:
        return
    for buffer in model.buffers():
        if buffer.is_floating_point():
            distributed.all_reduce(buffer)
            buffer.div_(size)
