"""The precision that a device computes a training in."""

from __future__ import annotations

import torch


def usual_precision(device: torch.device) -> str:
    """`bfloat16` where the device has instructions for it, which is faster; else `float32`."""
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    if device.type == "cpu":
        return "bfloat16" if torch.cpu.get_capabilities().get("avx512_bf16") else "float32"
    return "float32"
