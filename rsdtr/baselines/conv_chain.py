"""A convolution as a chain of ordinary convolutions, whose kernels are contracted from cores.

Whatever the decomposition, its layer is described by stages, without a tensor in them, and its
cores. A stage that reads one core is that core; one that reads several rebuilds its kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from rsdtr.compressed.tr_conv2d import along, margins
from rsdtr.errors import RingError
from rsdtr.models.surgery import ConvReplacement
from rsdtr.ring.cost import Size


class Stage(BaseModel):
    """One convolution of a chain.

    kernel: its shape (out, in / groups, kh, kw); axes: the spatial axes (0 rows, 1 columns) that it
    strides, dilates and pads; cores: which cores its kernel is contracted from, by `equation`, an
    einsum whose result is reshaped to `kernel`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kernel: tuple[int, int, int, int]
    axes: tuple[int, ...]
    equation: str
    cores: tuple[int, ...]
    groups: int = 1


class FactoredConv2d(ConvReplacement):
    """`nn.Conv2d` without groups as a chain of stages (O, I, KH, KW being the kernel they make up).

    Made from the convolution that it stands for, whose stride, dilation, padding, padding_mode and
    bias it takes: each spatial axis belongs to one stage, which strides, dilates and pads it.
    Input (B, I, H, W), output as the convolution's. Parameters: `cores.0` …, and `bias` or None.
    RingError where the stages are no chain for this convolution.
    """

    def __init__(self, conv: nn.Conv2d, stages: Sequence[Stage], cores: Sequence[Tensor]) -> None:
        super().__init__()
        self.in_channels, self.out_channels = conv.in_channels, conv.out_channels
        _check(conv, stages)
        self.stages = tuple(stages)
        self.stride = (conv.stride[0], conv.stride[1])
        self.dilation = (conv.dilation[0], conv.dilation[1])
        self.padding, self.padding_mode = conv.padding, conv.padding_mode
        size = (conv.kernel_size[0], conv.kernel_size[1])
        self.kernel_size = size
        self.margins = margins(conv.padding, size, self.dilation, self.stride)
        self.cores = nn.ParameterList(
            nn.Parameter(core.detach().to(conv.weight, copy=True).contiguous()) for core in cores
        )
        self.bias = None if conv.bias is None else nn.Parameter(conv.bias.detach().clone())
        self.train(conv.training)

    def kernels(self) -> list[Tensor]:
        """The kernel of each stage; gradients flow to the cores."""
        return stage_kernels(self.stages, list(self.cores))

    def kernel(self) -> Tensor:
        """The kernel (O, I, KH, KW) that the chain stands for."""
        return composed(self.stages, self.kernels())

    def forward(self, input: Tensor) -> Tensor:
        x, kernels = input, self.kernels()
        for position, (stage, kernel) in enumerate(zip(self.stages, kernels, strict=True)):
            rows, columns = (
                self.margins[axis] if axis in stage.axes else (0, 0) for axis in (0, 1)
            )
            if any((*rows, *columns)):
                mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
                x = F.pad(x, (*columns, *rows), mode=mode)
            x = F.conv2d(
                x, kernel, self.bias if position == len(kernels) - 1 else None,
                along(self.stride, stage.axes, 1), 0, along(self.dilation, stage.axes, 1),
                stage.groups,
            )  # fmt: skip
        return x

    @torch.no_grad()
    def plain(self) -> nn.Sequential:
        """The chain as plain convolutions, to run and to export; only the last one has a bias."""
        last = self.stages[-1]
        steps = zip(self.stages, self.kernels(), strict=True)
        return nn.Sequential(
            *(self._convolution(s.kernel, s.axes, s.groups, k, s is last) for s, k in steps)
        ).train(self.training)

    @torch.no_grad()
    def to_dense(self) -> nn.Conv2d:
        """One plain convolution with the rebuilt kernel."""
        kernel = self.kernel()
        shape = (self.out_channels, self.in_channels, *self.kernel_size)
        return self._convolution(shape, (0, 1), 1, kernel, True).train(self.training)

    def _convolution(
        self, shape: Sequence[int], axes: Sequence[int], groups: int, kernel: Tensor, last: bool
    ) -> nn.Conv2d:
        padding = self.padding
        if not isinstance(padding, str):
            padding = along((padding[0], padding[1]), axes, 0)
        conv = nn.Conv2d(
            shape[1] * groups, shape[0], (shape[2], shape[3]),
            stride=along(self.stride, axes, 1), padding=padding,
            dilation=along(self.dilation, axes, 1), groups=groups,
            bias=last and self.bias is not None, padding_mode=self.padding_mode,
            device=kernel.device, dtype=kernel.dtype,
        )  # fmt: skip
        conv.weight.copy_(kernel)
        if conv.bias is not None and self.bias is not None:
            conv.bias.copy_(self.bias)
        return conv

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, {[stage.kernel for stage in self.stages]}"


def stage_kernels(stages: Sequence[Stage], cores: Sequence[Tensor]) -> list[Tensor]:
    """The kernels of a chain, contracted from its cores."""
    return [
        torch.einsum(stage.equation, *(cores[k] for k in stage.cores)).reshape(stage.kernel)
        for stage in stages
    ]


def composed(stages: Sequence[Stage], kernels: Sequence[Tensor]) -> Tensor:
    """The kernel (O, I, KH, KW) of the one convolution that equals the chain."""
    whole, *others = (
        _ungrouped(kernel, stage.groups) for stage, kernel in zip(stages, kernels, strict=True)
    )
    for kernel in others:
        # Each axis has its size in one stage, and 1 in the others.
        both = torch.einsum("ocxy,cihw->oihxwy", kernel, whole)
        whole = both.flatten(4).flatten(2, 3)
    return whole


def stage_macs(stages: Sequence[Stage], input_size: Size, output_size: Size) -> int:
    """MACs of a chain for one input, sizes (H, W); its kernels being contracted already."""
    height, width = input_size
    macs = 0
    for stage in stages:
        height = output_size[0] if 0 in stage.axes else height
        width = output_size[1] if 1 in stage.axes else width
        macs += prod(stage.kernel) * height * width
    return macs


def _ungrouped(kernel: Tensor, groups: int) -> Tensor:
    """The kernel of the ungrouped convolution that computes the same, (out, in, kh, kw)."""
    if groups == 1:
        return kernel
    out, inner, kh, kw = kernel.shape
    whole = kernel.new_zeros(groups, out // groups, groups, inner, kh, kw)
    each = torch.arange(groups)
    whole[each, :, each] = kernel.reshape(groups, out // groups, inner, kh, kw)
    return whole.reshape(out, groups * inner, kh, kw)


def _check(conv: nn.Conv2d, stages: Sequence[Stage]) -> None:
    if conv.groups != 1:
        raise RingError(f"the convolution has groups={conv.groups}: keep it dense")
    channels = [conv.in_channels]
    for stage in stages:
        if stage.kernel[1] * stage.groups != channels[-1]:
            raise RingError(
                f"a stage takes {stage.kernel[1] * stage.groups} channels and gets "
                f"{channels[-1]}: give stages in the order they run"
            )
        channels.append(stage.kernel[0])
    sizes = [prod(stage.kernel[2 + axis] for stage in stages) for axis in (0, 1)]
    axes = sorted(axis for stage in stages for axis in stage.axes)
    if (channels[-1], *sizes) != (conv.out_channels, *conv.kernel_size) or axes != [0, 1]:
        raise RingError(
            f"the stages make a convolution to {channels[-1]} channels of size {tuple(sizes)} with "
            f"axes {axes}, expected {conv.out_channels}, {tuple(conv.kernel_size)} and each axis "
            "once: decompose this convolution's own kernel"
        )
