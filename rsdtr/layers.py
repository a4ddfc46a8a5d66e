"""A convolution held as a tensor ring: four trainable cores, computed with plain convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsdtr.errors import RingError
from rsdtr.ring import TensorRing

Form = Literal["pipeline", "dense"]
FORMS = get_args(Form)
Pair = tuple[int, int]
PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]
PADDING_MODES = get_args(PaddingMode)


class TRConv2d(nn.Module):
    """`nn.Conv2d` whose kernel (O, I, KH, KW) is a ring of four cores (arXiv 2405.10802, sec. 3.2).

    Same arguments as `nn.Conv2d` without groups, plus `ranks` (R_0…R_3, in the mode order
    O, I, KH, KW), the `shift` the ring came from and the `form` it is computed in: `pipeline`,
    the paper's four sublayers with the ring index R_1 folded into the batch, or `dense`, one
    convolution with the rebuilt kernel. Input (B, I, H, W) or (I, H, W), output as `nn.Conv2d`.

    Parameters that train and save: `cores.0` … `cores.3`, core k of shape (R_k, n_k, R_{k+1}),
    and `bias` (O,) or None. RingError for arguments that make no convolution.
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
        shift: int = 0,
        form: Form = "pipeline",
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if form not in FORMS:
            raise RingError(f"form is {form!r}, expected one of {', '.join(FORMS)}")
        if len(ranks) != 4 or min(ranks) < 1:
            raise RingError(f"ranks are {tuple(ranks)}, expected four whole numbers of at least 1")
        if padding_mode not in PADDING_MODES:
            raise RingError(
                f"padding_mode is {padding_mode!r}, expected one of {', '.join(PADDING_MODES)}"
            )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = _pair(kernel_size)
        self.stride = _pair(stride)
        self.padding = padding
        self.dilation = _pair(dilation)
        self.padding_mode: PaddingMode = padding_mode
        self.shift = shift
        self.form: Form = form
        self._margins = _margins(padding, self.kernel_size, self.dilation, self.stride)
        shape = (out_channels, in_channels, *self.kernel_size)
        self.cores = nn.ParameterList(
            torch.empty(ranks[k], shape[k], ranks[(k + 1) % 4], device=device, dtype=dtype)
            for k in range(4)
        )
        self.bias = (
            nn.Parameter(torch.empty(out_channels, device=device, dtype=dtype)) if bias else None
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Random cores whose kernel has the variance of nn.Conv2d's default, 1 / (3·fan-in)."""
        r0, r1, r2, r3 = self.ranks
        fan_in = self.in_channels * self.kernel_size[0] * self.kernel_size[1]
        # An entry of the kernel is a sum of r0·r1·r2·r3 products of four core entries.
        deviation = (3 * fan_in * r0 * r1 * r2 * r3) ** (-1 / 8)
        for core in self.cores:
            nn.init.normal_(core, std=deviation)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -(fan_in**-0.5), fan_in**-0.5)

    @classmethod
    def from_conv(cls, conv: nn.Conv2d, ring: TensorRing, *, form: Form = "pipeline") -> TRConv2d:
        """The layer that computes `conv` with `ring` for its kernel, on conv's device and dtype.

        RingError for a grouped convolution or a ring of another shape; `conv` is not changed.
        """
        if conv.groups != 1:
            raise RingError(
                f"the convolution has groups={conv.groups}: a ring mixes all channels, "
                "keep it dense"
            )
        if ring.shape != tuple(conv.weight.shape):
            raise RingError(
                f"the ring stands for a kernel {ring.shape}, the convolution's is "
                f"{tuple(conv.weight.shape)}: decompose this convolution's own kernel"
            )
        o, i, kh, kw = ring.shape
        layer = cls(
            i, o, (kh, kw), ring.ranks,
            stride=_pair(conv.stride), padding=_padding(conv.padding),
            dilation=_pair(conv.dilation), bias=conv.bias is not None,
            padding_mode=conv.padding_mode, shift=ring.shift, form=form,
            device=conv.weight.device, dtype=conv.weight.dtype,
        )  # fmt: skip
        with torch.no_grad():
            for parameter, core in zip(layer.cores, ring.cores, strict=True):
                parameter.copy_(core)
            if layer.bias is not None and conv.bias is not None:
                layer.bias.copy_(conv.bias)
        return layer.train(conv.training)

    @property
    def ranks(self) -> tuple[int, int, int, int]:
        """R_0…R_3 in the mode order O, I, KH, KW."""
        r0, r1, r2, r3 = (core.shape[0] for core in self.cores)
        return r0, r1, r2, r3

    @property
    def ring(self) -> TensorRing:
        """A detached copy of the cores as a value."""
        c0, c1, c2, c3 = (core.detach().clone() for core in self.cores)
        return TensorRing((c0, c1, c2, c3), self.shift)

    def kernel(self) -> Tensor:
        """The kernel (O, I, KH, KW) the cores stand for; gradients flow to the cores."""
        g0, g1, g2, g3 = self.cores
        head = torch.einsum("aob,bic->aoic", g0, g1)
        tail = torch.einsum("chd,dwa->chwa", g2, g3)
        return torch.einsum("aoic,chwa->oihw", head, tail)

    def to_dense(self) -> nn.Conv2d:
        """A plain convolution with the rebuilt kernel."""
        conv = nn.Conv2d(
            self.in_channels, self.out_channels, self.kernel_size,
            stride=self.stride, padding=self.padding, dilation=self.dilation,
            bias=self.bias is not None, padding_mode=self.padding_mode,
            device=self.cores[0].device, dtype=self.cores[0].dtype,
        )  # fmt: skip
        with torch.no_grad():
            conv.weight.copy_(self.kernel())
            if conv.bias is not None and self.bias is not None:
                conv.bias.copy_(self.bias)
        return conv.train(self.training)

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim == 3:
            return self.forward(x.unsqueeze(0)).squeeze(0)
        if self.form == "dense":
            return self._dense(x)
        return self._pipeline(x)

    def _dense(self, x: Tensor) -> Tensor:
        x, rows = self._padded(x, axis=0)
        x, columns = self._padded(x, axis=1)
        return F.conv2d(
            x, self.kernel(), self.bias, self.stride, (rows, columns), self.dilation
        )  # (B, O, H', W')

    def _pipeline(self, x: Tensor) -> Tensor:
        g0, g1, g2, g3 = self.cores
        r0, r1, r2, _ = self.ranks
        (sh, sw), (dh, dw) = self.stride, self.dilation
        batch, _, height, width = x.shape

        # Padding waits until the channels are mixed: it moves pixels, the 1×1 moves channels.
        x = F.conv2d(x, g1.permute(0, 2, 1).reshape(r1 * r2, -1, 1, 1))  # (B, R1·R2, H, W)
        x = x.reshape(batch * r1, r2, height, width)  # (B·R1, R2, H, W)
        x, margin = self._padded(x, axis=0)
        x = F.conv2d(
            x, g2.permute(2, 0, 1).unsqueeze(3), None, (sh, 1), (margin, 0), (dh, 1)
        )  # (B·R1, R3, H', W)
        x, margin = self._padded(x, axis=1)
        x = F.conv2d(
            x, g3.permute(2, 0, 1).unsqueeze(2), None, (1, sw), (0, margin), (1, dw)
        )  # (B·R1, R0, H', W')
        x = x.reshape(batch, r1 * r0, *x.shape[2:])  # (B, R1·R0, H', W')
        return F.conv2d(x, g0.permute(1, 2, 0).reshape(-1, r1 * r0, 1, 1), self.bias)

    def _padded(self, x: Tensor, axis: int) -> tuple[Tensor, int]:
        """x padded along one spatial axis, and the zero padding left for the convolution to do."""
        before, after = self._margins[axis]
        if self.padding_mode == "zeros" and before == after:
            return x, before
        mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
        margins = (0, 0, before, after) if axis == 0 else (before, after, 0, 0)
        return F.pad(x, margins, mode=mode), 0

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"ranks={self.ranks}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, padding_mode={self.padding_mode!r}, form={self.form!r}"
        )


def _pair(value: int | Sequence[int]) -> Pair:
    if isinstance(value, int):
        return value, value
    first, second = value
    return first, second


def _padding(padding: str | Sequence[int]) -> str | Pair:
    return padding if isinstance(padding, str) else _pair(padding)


def _margins(
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
