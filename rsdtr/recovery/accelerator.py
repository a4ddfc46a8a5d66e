"""Where a training runs: its device, its precision, and the processes that share it.

All of it is Hugging Face's accelerate: autocast and the scaling of gradients, and the averaging of
gradients between processes that torchrun or `accelerate launch` has started (NCCL on GPUs, gloo on
CPUs). Without them there is one process, and nothing is sent.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs
from torch import nn

from rsdtr.errors import RsdtrError, first_line

_WORDS = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}


def accelerator_on(device: torch.device, precision: str) -> Accelerator:
    """accelerate's view of this process: what trains on `device` in such a precision.

    RsdtrError for a precision that the device has not, and for processes that do not find each
    other.
    """
    if precision == "float16" and device.type == "cpu":
        raise RsdtrError("float16 is for GPUs: give bfloat16, or float32, on the CPU")
    # accelerate remembers the first training of a process, and refuses another precision.
    AcceleratorState._reset_state()
    if not _is_shared():
        PartialState._reset_state()
    return Accelerator(
        cpu=device.type == "cpu",
        mixed_precision=_WORDS[precision],
        device_placement=False,
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
    )


@contextmanager
def processes(device: torch.device) -> Iterator[bool]:
    """Join the processes that were started together, and leave them at the end.

    Answers whether this is the one that writes files and speaks. RsdtrError if the others are not
    found.
    """
    if not _is_shared():
        yield True
        return
    PartialState._reset_state()
    try:
        state = PartialState(cpu=device.type == "cpu")
    except (RuntimeError, ValueError) as error:
        PartialState._reset_state()
        raise RsdtrError(
            f"the other processes were not found ({first_line(error)}): start this one with "
            "torchrun, or without WORLD_SIZE"
        ) from error
    try:
        yield bool(state.is_main_process)
    finally:
        state.destroy_process_group()
        PartialState._reset_state()


def average_buffers(accelerator: Accelerator, model: nn.Module) -> None:
    """Give every process the mean of all processes' floating-point buffers, in place."""
    if accelerator.num_processes == 1:
        return
    for buffer in model.buffers():
        if buffer.is_floating_point():
            buffer.copy_(accelerator.reduce(buffer, reduction="mean"))


def _is_shared() -> bool:
    return int(os.environ.get("WORLD_SIZE", "1")) > 1
