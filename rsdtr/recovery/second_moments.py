"""Second moments of a layer: what goes in, what should come out, summed over images.

A layer is linear in its kernel, so the squared error over any number of images is a quadratic
function of the kernel, known from three sums: ‖Y − 𝓦X‖² = c − 2⟨B, 𝓦⟩ + ⟨𝓦A, 𝓦⟩ with A = XXᵀ,
B = YXᵀ, c = ‖Y‖². The images themselves need not be kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from rsdtr.compressed.ring_layer import RingLayer
from rsdtr.compressed.tr_conv2d import TRConv2d

Pair = tuple[int, int]


class Window(Protocol):
    """How a kernel moves over its input; margins: rows above and below, columns left and right."""

    @property
    def kernel_size(self) -> Pair: ...
    @property
    def stride(self) -> Pair: ...
    @property
    def dilation(self) -> Pair: ...
    @property
    def margins(self) -> tuple[Pair, Pair]: ...
    @property
    def padding_mode(self) -> str: ...


@dataclass(frozen=True, eq=False)
class Patches:
    """What a layer's kernel meets at P output pixels, the same ones of all B images.

    columns: (B·P, I·KH·KW), modes in the kernel's order; drawn: (P,), the output pixels, row by
    row; channels_last: whether the layer answers (B, …, O), as a linear one does.
    """

    columns: Tensor
    drawn: Tensor
    channels_last: bool = False

    @classmethod
    def of(
        cls, layer: RingLayer | Window, x: Tensor, pixels: int, generator: torch.Generator
    ) -> Patches:
        """Of the layer's input x, (B, I, H, W) or (B, …, I), at so many pixels, or positions of a
        linear layer, drawn at random; at most all.
        """
        if isinstance(layer, RingLayer) and not isinstance(layer, TRConv2d):
            rows = x.reshape(len(x), -1, x.shape[-1])  # (B, positions, I)
            drawn = torch.randperm(rows.shape[1], generator=generator)[:pixels].sort().values
            return cls(rows[:, drawn].flatten(0, 1), drawn, channels_last=True)
        (top, bottom), (left, right) = layer.margins
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        x = F.pad(x, (left, right, top, bottom), mode=mode)
        for axis in (0, 1):
            reach = layer.dilation[axis] * (layer.kernel_size[axis] - 1) + 1
            x = x.unfold(2 + axis, reach, layer.stride[axis])
        x = x[..., :: layer.dilation[0], :: layer.dilation[1]]  # (B, I, H', W', KH, KW)
        height, width = x.shape[2:4]
        drawn = torch.randperm(height * width, generator=generator)[:pixels].sort().values
        rows, cols = drawn // width, drawn % width
        taken = x[:, :, rows, cols].transpose(1, 2)  # (B, P, I, KH, KW)
        return cls(taken.flatten(0, 1).flatten(1), drawn)

    def at(self, output: Tensor) -> Tensor:
        """The layer's output, (B, O, H', W') or (B, …, O) -> (B·P, O) at these pixels."""
        if self.channels_last:
            rows = output.reshape(len(output), -1, output.shape[-1])
            return rows[:, self.drawn].flatten(0, 1)
        return output.flatten(2)[:, :, self.drawn].transpose(1, 2).flatten(0, 1)


@dataclass(frozen=True, eq=False)
class Inputs:
    """Sums over `count` columns x (D,), in float64: gram Σxxᵀ (D, D), total Σx (D,).

    D = I·KH·KW in the order of the kernel's modes.
    """

    gram: Tensor
    total: Tensor
    count: int

    @classmethod
    def of(cls, columns: Tensor) -> Inputs:
        """Of columns (N, D): products in their dtype, sums in float64."""
        return cls(
            (columns.T @ columns).double(), columns.sum(0, dtype=torch.float64), len(columns)
        )

    def __add__(self, other: Inputs) -> Inputs:
        return Inputs(self.gram + other.gram, self.total + other.total, self.count + other.count)


@dataclass(frozen=True, eq=False)
class Targets:
    """Sums over columns x (D,) and targets y (O,), in float64: cross Σyxᵀ (O, D), total Σy (O,),
    power Σ‖y‖².
    """

    cross: Tensor
    total: Tensor
    power: float

    @classmethod
    def of(cls, columns: Tensor, targets: Tensor) -> Targets:
        """Of columns (N, D) and targets (N, O): products in their dtype, kept in float64."""
        power = float(targets.double().square().sum())
        return cls((targets.T @ columns).double(), targets.double().sum(0), power)

    def __add__(self, other: Targets) -> Targets:
        return Targets(self.cross + other.cross, self.total + other.total, self.power + other.power)


@dataclass(frozen=True, eq=False)
class Moments:
    """What a layer's squared error depends on, beside its kernel and bias."""

    inputs: Inputs
    targets: Targets

    @property
    def finite(self) -> bool:
        """Whether no sum overflowed or is NaN; each shows in one of these two."""
        power = self.targets.power + float(self.inputs.gram.diagonal().sum())
        return math.isfinite(power)

    def centred(self) -> Moments:
        """The moments about the means: what is left for the kernel when the bias is the best."""
        x, y = self.inputs.total / self.inputs.count, self.targets.total / self.inputs.count
        gram = self.inputs.gram - torch.outer(self.inputs.total, x)
        cross = self.targets.cross - torch.outer(self.targets.total, x)
        power = self.targets.power - float(self.targets.total @ y)
        return Moments(
            Inputs(gram, torch.zeros_like(x), self.inputs.count),
            Targets(cross, torch.zeros_like(y), power),
        )

    def with_prior(self, kernel: Tensor, weight: float) -> Moments:
        """A ridge: as if white noise of `weight` times the mean input power had met `kernel`."""
        ridge = weight * float(self.inputs.gram.diagonal().mean())
        flat = kernel.double().flatten(1)
        gram = self.inputs.gram.clone()
        gram.diagonal().add_(ridge)
        cross = self.targets.cross + ridge * flat
        power = self.targets.power + ridge * float(flat.square().sum())
        return Moments(
            replace(self.inputs, gram=gram), replace(self.targets, cross=cross, power=power)
        )

    def error(self, kernel: Tensor, bias: Tensor) -> float:
        """Σ‖y − 𝓦x − b‖² for a kernel (O, I, KH, KW) and a bias b (O,)."""
        flat, b = kernel.double().flatten(1), bias.double()
        missed = self.targets.power - 2 * float((self.targets.cross * flat).sum())
        missed += float(((flat @ self.inputs.gram) * flat).sum())
        return missed + self.inputs.count * float(b @ b) - 2 * float(b @ self._left(flat))

    def best_bias(self, kernel: Tensor) -> Tensor:
        """The bias (O,) of least error beside a kernel."""
        return self._left(kernel.double().flatten(1)) / self.inputs.count

    def _left(self, flat: Tensor) -> Tensor:
        return self.targets.total - flat @ self.inputs.total
