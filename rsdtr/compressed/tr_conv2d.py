"""A convolution held as a tensor ring: four trainable cores, computed with plain convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsdtr.errors import RingError
from rsdtr.models.surgery import ConvReplacement
from rsdtr.ring.forms import (
    FORMS,
    Form,
    Kernels,
    Sublayer,
    sublayer_kernels,
    sublayers,
)
from rsdtr.ring.tensor_ring import TensorRing, too_coarse

Pair = tuple[int, int]
PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]
PADDING_MODES = get_args(PaddingMode)


class TRConv2d(ConvReplacement):
    """`nn.Conv2d` whose kernel (O, I, KH, KW) is a ring of four cores (arXiv 2405.10802, sec. 3.2).

    Same arguments as `nn.Conv2d` without groups, plus `ranks` (R_0…R_3, in the mode order
    O, I, KH, KW), the `shift` the ring came from and the `form` it is computed in, which may be
    set at any time: `pipeline`, the paper's four sublayers with the ring index R_1 folded into the
    batch; `O|IHW`, a KH×KW convolution to R0·R1 channels and a 1×1; `I|HWO`, a 1×1 to R1·R2
    channels and a KH×KW; `IH|WO`, a KH×1 to R3·R1 channels and a 1×KW; `dense`, one convolution
    with the rebuilt kernel. Input (B, I, H, W) or (I, H, W), output as `nn.Conv2d`.

    Sublayer kernels are contracted at every step while gradients are taken. In eval mode without
    gradients they are kept until a core changes; writing through `core.data` goes unnoticed there,
    as it does for autograd. What is kept is neither saved nor copied.

    Parameters that train and save: `cores.0` … `cores.3`, core k of shape (R_k, n_k, R_{k+1}),
    and `bias` (O,) or None; in a state_dict they stand where `weight` and `bias` stood. As all that
    a convolution says of itself `weight` can be read, but it cannot be set. RingError for arguments
    that make no convolution.
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
        self.margins = margins(padding, self.kernel_size, self.dilation, self.stride)
        shape = (out_channels, in_channels, *self.kernel_size)
        self.cores = nn.ParameterList(
            torch.empty(ranks[k], shape[k], ranks[(k + 1) % 4], device=device, dtype=dtype)
            for k in range(4)
        )
        self.bias = (
            nn.Parameter(torch.empty(out_channels, device=device, dtype=dtype)) if bias else None
        )
        self.form = form
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

        Its cores train if the kernel did, and its bias if that did. Hooks stay with `conv`:
        `surgery.replaced` moves them when it puts the layer in its place. RingError for a grouped
        convolution, one in half precision, or a ring of another shape; `conv` is not changed.
        """
        if conv.groups != 1:
            raise RingError(
                f"the convolution has groups={conv.groups}: a ring mixes all channels, "
                "keep it dense"
            )
        if reason := too_coarse(conv.weight):
            raise RingError(reason)
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
                layer.bias.requires_grad_(conv.bias.requires_grad)
        layer.cores.requires_grad_(conv.weight.requires_grad)
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

    @property
    def form(self) -> Form:
        """How the layer is computed; RingError when set to anything else than one of FORMS."""
        return self._form

    @form.setter
    def form(self, form: Form) -> None:
        if form not in FORMS:
            raise RingError(f"form is {form!r}, expected one of {', '.join(FORMS)}")
        self._form: Form = form
        self._steps = tuple(self._step(sublayer) for sublayer in self.sublayers)
        self._kept: dict[Form, _Kept] = {}

    @property
    def sublayers(self) -> tuple[Sublayer, ...]:
        """The convolutions that compute the layer in its form, in the order they run."""
        shape = (self.out_channels, self.in_channels, *self.kernel_size)
        return sublayers(self.form, shape, self.ranks)

    def kernel(self) -> Tensor:
        """The kernel (O, I, KH, KW) the cores stand for; gradients flow to the cores."""
        (kernel,) = sublayer_kernels("dense", list(self.cores))
        return kernel

    @property
    def weight(self) -> Tensor:
        """A copy of the kernel, merged once as `kernels` are; RingError when it is set."""
        (kernel,) = self._merged("dense")
        return kernel if kernel.requires_grad else kernel.clone()

    @weight.setter
    def weight(self, value: Tensor) -> None:
        raise RingError(
            "the kernel of a TRConv2d is merged from its cores and cannot be set: change the "
            "network before it is compressed, or the cores"
        )

    def kernels(self) -> Kernels:
        """The kernels of `sublayers`; gradients flow to the cores where they are taken."""
        return self._merged(self._form)

    def _merged(self, form: Form) -> Kernels:
        # Not list(self.cores): that takes longer than a small convolution.
        cores = cast(list[Tensor], list(self.cores._parameters.values()))
        if not self._may_keep(cores):
            return sublayer_kernels(form, cores)
        kept = self._kept.get(form)  # read once: another thread may replace it
        if kept is None or not kept.valid(cores):
            # Not an inference tensor: it may serve outside of inference mode as well.
            with torch.inference_mode(False), torch.no_grad():
                kernels = tuple(k.contiguous() for k in sublayer_kernels(form, cores))
                versions = [core._version for core in cores]
                kept = _Kept(kernels, [core.detach() for core in cores], versions)
            self._kept[form] = kept
        return kept.kernels

    def _may_keep(self, cores: list[Tensor]) -> bool:
        if self.training or torch.compiler.is_compiling():
            return False
        if torch.is_grad_enabled() and any(core.requires_grad for core in cores):
            return False
        if any(
            # Anything but a plain parameter is a stand-in: of functorch, or of a fake tensor mode.
            type(core) is not nn.Parameter or core.is_meta or core.is_inference()
            for core in cores
        ):
            return False
        # Under autocast they are contracted in the dtype of the moment.
        return not torch.is_autocast_enabled(cores[0].device.type)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kept": {}}

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
                x, kernel, bias, step.stride, step.padding, step.dilation
            )  # (B·copies, out, H', W')
        return x

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
            channels=sublayer.kernel[1],
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
            f"dilation={self.dilation}, padding_mode={self.padding_mode!r}, form={self.form!r}"
        )


class _Step(NamedTuple):
    """One convolution of the layer: what F.conv2d needs beside its kernel, and what F.pad does
    before it (None: nothing).
    """

    copies: int
    channels: int
    stride: Pair
    dilation: Pair
    padding: Pair
    margins: tuple[int, int, int, int] | None
    mode: str


@dataclass(frozen=True, eq=False)
class _Kept:
    """Sublayer kernels, and the state of the cores that they were contracted from.

    The cores are kept as detached views: they hold on to the memory, so that no other tensor can
    have the same address as long as they are compared.
    """

    kernels: Kernels
    cores: list[Tensor]
    versions: list[int]

    def valid(self, cores: list[Tensor]) -> bool:
        return all(
            core.data_ptr() == old.data_ptr()
            and core._version == version
            and core.dtype == old.dtype
            for core, old, version in zip(cores, self.cores, self.versions, strict=True)
        )


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
