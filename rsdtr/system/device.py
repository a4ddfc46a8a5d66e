"""What computes: the device that a word means on this machine, and the precision that suits it."""

from __future__ import annotations

import torch

from rsdtr.errors import RsdtrError


def chosen_device(word: str) -> torch.device:
    """What `auto`, `cpu`, `cuda`, `cuda:1` or `mps` means here; auto is the accelerator there is.

    RsdtrError for a device that is not there, or no device.
    """
    there = torch.accelerator.current_accelerator(check_available=True)
    if word == "auto":
        return there or torch.device("cpu")
    try:
        device = torch.device(word)
    except RuntimeError:
        raise RsdtrError(f"the device is {word!r}: give auto, cpu, cuda, cuda:N or mps") from None
    if device.type == "cpu":
        return device
    count = torch.accelerator.device_count() if there and there.type == device.type else 0
    if (device.index or 0) >= count:
        here = f"{count} of {device.type}" if count else f"{there.type if there else 'cpu'} alone"
        raise RsdtrError(f"the device is {word} and this machine has {here}: give auto or cpu")
    return device


def usual_precision(device: torch.device) -> str:
    """`bfloat16` where the device has instructions for it, which is faster; else `float32`."""
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    if device.type == "cpu":
        return "bfloat16" if torch.cpu.get_capabilities().get("avx512_bf16") else "float32"
    return "float32"
