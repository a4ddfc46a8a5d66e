"""How long a training will take, and whether it fits into memory, before it begins."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import psutil
import torch
from torch import Tensor, nn

from rsdtr.data.datasets import DataSplits
from rsdtr.errors import RsdtrError
from rsdtr.measuring.accuracy import accuracy
from rsdtr.models.run import device_of
from rsdtr.models.surgery import copied
from rsdtr.recovery.finetune import Run
from rsdtr.recovery.options import FinetuneOptions
from rsdtr.system.state_file import stored

TIMED_STEPS = 3
_SLACK = 1.25  # buffers of convolutions and of the allocator, which nothing here can see


@dataclass(frozen=True)
class Estimate:
    """Wall time of an epoch with its validation, and of all of them, in s; memory in bytes."""

    epoch_seconds: float
    seconds: float
    memory_bytes: int


def estimate(
    model: nn.Module,
    data: DataSplits,
    options: FinetuneOptions,
    teacher: nn.Module | None = None,
) -> Estimate:
    """Time a few steps on a copy of the model, which stays as it is.

    RsdtrError if the memory that is free now would not suffice; errors as `finetune` otherwise.
    """
    memory = check_memory(model, data, options, teacher)
    run = Run(copied(model), data, options, teacher)
    device = device_of(run.model)
    batches = run.batches(device)
    times = []
    devices = [device] if device.type == "cuda" else []
    with run.ready(), torch.random.fork_rng(devices=devices):
        run.training_mode()
        for _ in range(TIMED_STEPS + 1):
            start = time.perf_counter()
            batch = next(batches, None)
            if batch is None:
                break
            run.learn(*batch)
            times.append(time.perf_counter() - start)
        seen = data.validation.select(slice(0, options.batch_size))
        start = time.perf_counter()
        accuracy(run.model, seen)
        validation = (time.perf_counter() - start) / len(seen) * len(data.validation)
    step = min(times[1:] or times)  # the first one warms up
    epoch = step * run.steps / options.epochs + validation
    return Estimate(epoch, epoch * options.epochs, memory)


def check_memory(
    model: nn.Module, data: DataSplits, options: FinetuneOptions, teacher: nn.Module | None
) -> int:
    """The bytes that the training needs, unless those that are free now would not suffice:
    RsdtrError, which says what batch size would fit.

    DataError for images without labels, whose training it would be.
    """
    needs = memory_needs(model, data, options, teacher)
    part = -(-options.batch_size // options.accumulate)
    memory, free = needs.bytes(part), free_bytes(device_of(model))
    if memory > free:
        fits = needs.most_pictures(free) * options.accumulate
        advice = (
            f"give a batch size of {fits}, or a larger accumulate (now {options.accumulate})"
            if fits
            else "not even two pictures would fit: free some memory, or take another device"
        )
        raise RsdtrError(
            f"fine-tuning in batches of {options.batch_size} needs about {memory / 1e9:.1f} GB and "
            f"{free / 1e9:.1f} GB are free: {advice}"
        )
    return memory


@dataclass(frozen=True)
class MemoryNeeds:
    """Bytes of a training's own state, of a step on two pictures, and of each picture more."""

    state: int
    two: float
    more: float

    def bytes(self, pictures: int) -> int:
        """What steps on so many pictures at once take."""
        return int(self.state + _SLACK * (self.two + self.more * max(pictures - 2, 0)))

    def most_pictures(self, free: int) -> int:
        """How many pictures at once fit into so many bytes; 0 where two do not."""
        left = free - self.bytes(2)
        return 0 if left < 0 else 2 + int(left / (_SLACK * max(self.more, 1)))


def memory_needs(
    model: nn.Module, data: DataSplits, options: FinetuneOptions, teacher: nn.Module | None
) -> MemoryNeeds:
    """What a step keeps for its gradient is counted for two and for four pictures, and drawn on as
    a straight line.
    """
    data.train.check_labelled("fine-tuning")
    state = _state_bytes(model)
    moments = {"sgd": int(options.momentum > 0), "adamw": 2}[options.optimizer]
    gradients = sum(_bytes(value) for value in model.parameters() if value.requires_grad)
    # Beside the model: the best epoch, the averages with their best, the one being written.
    copies = state * (3 + bool(options.ema)) + gradients * (1 + moments)
    if teacher is not None and options.distill:
        copies += _state_bytes(teacher)
    pictures = data.train.select(slice(0, 4))
    pixels, labels = next(pictures.batches(4))
    whole = replace(options, accumulate=1)
    few, more = (_kept(model, data, whole, pixels[:n], labels[:n]) for n in (2, len(labels)))
    slope = (more - few) / max(len(labels) - 2, 1) if len(labels) > 2 else few / 2
    return MemoryNeeds(copies, few, slope)


def free_bytes(device: torch.device) -> int:
    """Memory that is free on the device now."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return int(psutil.virtual_memory().available)


def _kept(
    model: nn.Module, data: DataSplits, options: FinetuneOptions, pixels: Tensor, labels: Tensor
) -> int:
    """Bytes that autograd keeps of one step, each storage once, the weights left out."""
    run = Run(copied(model), data, replace(options, distill=0.0))
    device = device_of(model)
    kept: dict[int, int] = {}

    def keep(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return value

    devices = [device] if device.type == "cuda" else []
    with (
        run.ready(),
        torch.random.fork_rng(devices=devices),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value),
    ):
        run.training_mode()
        held = stored(run.model.state_dict()).tensors.values()
        weights = {value.untyped_storage().data_ptr() for value in held}
        # Clones: a part of a tensor would count as the whole that it shares its memory with.
        run.learn(pixels.clone().to(device), labels.clone().to(device))
    return sum(kept.values())


def _state_bytes(model: nn.Module) -> int:
    return sum(_bytes(value) for value in stored(model.state_dict()).tensors.values())


def _bytes(value: Tensor) -> int:
    return value.numel() * value.element_size()
