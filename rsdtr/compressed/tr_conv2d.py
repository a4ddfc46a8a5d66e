"""A convolution held as a tensor ring: four trainable cores, computed with plain convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsdtr.compressed.ring_layer import RingLayer, check_stands_for
from rsdtr.errors import RingError
from rsdtr.models.surgery import ConvReplacement
from rsdtr.ring.forms import Form, Sublayer
from rsdtr.ring.tensor_ring import TensorRing

Pair = tuple[int, int]
PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]
PADDING_MODES = get_args(PaddingMode)


class TRConv2d(RingLayer, ConvReplacement):
    """`nn.Conv2d` whose kernel (O, I/groups, KH, KW) is a ring (arXiv 2405.10802, sec. 3.2).

    Same arguments as `nn.Conv2d`, plus `ranks` (R_0…R_3, in the mode order O, I, KH, KW), the
    `shift` the ring came from and the `form` it is computed in, which may be set at any time:
    `pipeline`, the paper's four sublayers with the ring index R_1 folded into the batch; `O|IHW`, a
    KH×KW convolution to R0·R1 channels and a 1×1; `I|HWO`, a 1×1 to R1·R2 channels and a KH×KW;
    `IH|WO`, a KH×1 to R3·R1 channels and a 1×KW; `dense`, one convolution with the rebuilt kernel.
    The groups of a grouped convolution share the cores of I, KH and KW: each runs through the same
    kernels, up to the last one, where it has its own part of the O core.
    Input (B, I, H, W) or (I, H, W), output as `nn.Conv2d`. RingError for arguments that make no
    convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Pair,
        ranks: Sequence[int],
        *,
        stride: int | Pair = 1,
        padding: int | Pair | str = 0,
        dilation: int | Pair = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        groups: int = 1,
        shift: int = 0,
        form: Form = "pipeline",
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if padding_mode not in PADDING_MODES:
            raise RingError(
                f"padding_mode is {padding_mode!r}, expected one of {', '.join(PADDING_MODES)}"
            )
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise RingError(
                f"groups is {groups}, expected a number that divides both {in_channels} input and "
                f"{out_channels} output channels"
            )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = _pair(kernel_size)
        self.stride = _pair(stride)
        self.padding = padding
        self.dilation = _pair(dilation)
        self.padding_mode: PaddingMode = padding_mode
        self.groups = groups
        self.margins = margins(padding, self.kernel_size, self.dilation, self.stride)
        self._hold(
            (out_channels, in_channels // groups, *self.kernel_size), ranks,
            bias=bias, shift=shift, form=form, device=device, dtype=dtype,
        )  # fmt: skip

    @classmethod
    def from_conv(cls, conv: nn.Conv2d, ring: TensorRing, *, form: Form = "pipeline") -> TRConv2d:
        """The layer that computes `conv` with `ring` for its kernel, on conv's device and dtype.

        Its cores train if the kernel did, and its bias if that did. Hooks stay with `conv`:
        `surgery.replaced` moves them when it puts the layer in its place. RingError for one in half
        precision, or a ring of another shape; `conv` is not changed.
        """
        check_stands_for(conv, ring, conv.weight.shape, "convolution")
        layer = cls(
            conv.in_channels, conv.out_channels, _pair(conv.kernel_size), ring.ranks,
            stride=_pair(conv.stride), padding=_padding(conv.padding),
            dilation=_pair(conv.dilation), bias=conv.bias is not None,
            padding_mode=conv.padding_mode, groups=conv.groups, shift=ring.shift, form=form,
            device=conv.weight.device, dtype=conv.weight.dtype,
        )  # fmt: skip
        layer._take(conv, ring)
        return layer

    def to_dense(self) -> nn.Conv2d:
        """A plain convolution with the rebuilt kernel."""
        conv = nn.Conv2d(
            self.in_channels, self.out_channels, self.kernel_size,
            stride=self.stride, padding=self.padding, dilation=self.dilation,
            bias=self.bias is not None, padding_mode=self.padding_mode, groups=self.groups,
            device=self.cores[0].device, dtype=self.cores[0].dtype,
        )  # fmt: skip
        with torch.no_grad():
            conv.weight.copy_(self.kernel())
            if conv.bias is not None and self.bias is not None:
                conv.bias.copy_(self.bias)
        return conv.train(self.training)

    def forward(self, input: Tensor) -> Tensor:
        if input.ndim == 3:
            return self.forward(input.unsqueeze(0)).squeeze(0)
        x, batch, folded = input, input.shape[0], 1
        kernels = self.kernels()
        for step, kernel in zip(self._steps, kernels, strict=True):
            if step.copies != folded:
                x = x.reshape(batch * step.copies, step.channels, *x.shape[2:])
                folded = step.copies
            if step.margins is not None:
                x = F.pad(x, step.margins, mode=step.mode)
            bias = self.bias if kernel is kernels[-1] else None
            x = F.conv2d(
                x, kernel, bias, step.stride, step.padding, step.dilation, step.groups
            )  # (B·copies, out, H', W')
        return x

    def _prepare(self) -> None:
        self._steps = tuple(self._step(sublayer) for sublayer in self.sublayers)

    def _step(self, sublayer: Sublayer) -> _Step:
        """How a sublayer strides, dilates and pads: along its own axes, as the layer does.

        Padding waits for the sublayer of its axis: it moves pixels, a 1×1 moves channels.
        """
        rows, columns = (self.margins[axis] if axis in sublayer.axes else (0, 0) for axis in (0, 1))
        even = rows[0] == rows[1] and columns[0] == columns[1]
        by_conv = even and self.padding_mode == "zeros"
        padded = any((*rows, *columns)) and not by_conv
        return _Step(
            copies=sublayer.copies,
            groups=sublayer.groups,
            channels=sublayer.kernel[1] * sublayer.groups,
            stride=along(self.stride, sublayer.axes, 1),
            dilation=along(self.dilation, sublayer.axes, 1),
            padding=(rows[0], columns[0]) if by_conv else (0, 0),
            margins=(*columns, *rows) if padded else None,
            mode="constant" if self.padding_mode == "zeros" else self.padding_mode,
        )

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"ranks={self.ranks}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, padding_mode={self.padding_mode!r}, "
            + (f"groups={self.groups}, " if self.groups > 1 else "")
            + f"form={self.form!r}"
        )


class _Step(NamedTuple):
    """One convolution of the layer: what F.conv2d needs beside its kernel, and what F.pad does
    before it (None: nothing).
    """

    copies: int
    groups: int
    channels: int
    stride: Pair
    dilation: Pair
    padding: Pair
    margins: tuple[int, int, int, int] | None
    mode: str


def along(values: Pair, axes: Sequence[int], elsewhere: int) -> Pair:
    """The values on the given spatial axes, and `elsewhere` on the others."""
    rows, columns = (values[axis] if axis in axes else elsewhere for axis in (0, 1))
    return rows, columns


def _pair(value: int | Sequence[int]) -> Pair:
    if isinstance(value, int):
        return value, value
    first, second = value
    return first, second


def _padding(padding: str | Sequence[int]) -> str | Pair:
    return padding if isinstance(padding, str) else _pair(padding)


def margins(
    padding: int | Sequence[int] | str, kernel_size: Pair, dilation: Pair, stride: Pair
) -> tuple[Pair, Pair]:
    """Pixels added (before, after) each spatial axis, as nn.Conv2d reads `padding`."""
    if padding == "valid":
        return (0, 0), (0, 0)
    if padding == "same":
        if stride != (1, 1):
            raise RingError(f"padding='same' needs stride 1, got {stride}: give the padding")
        rows, columns = (d * (k - 1) for d, k in zip(dilation, kernel_size, strict=True))
        return (rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2)
    if isinstance(padding, str):
        raise RingError(f"padding is {padding!r}, expected numbers, 'same' or 'valid'")
    rows, columns = _pair(padding)
    return (rows, rows), (columns, columns)
