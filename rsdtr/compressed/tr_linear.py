"""A linear layer held as a tensor ring: four trainable cores, computed with matrix products."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsdtr.compressed.ring_layer import RingLayer, check_stands_for
from rsdtr.errors import RingError
from rsdtr.models.surgery import LinearReplacement
from rsdtr.ring.forms import Form
from rsdtr.ring.tensor_ring import TensorRing


class TRLinear(RingLayer, LinearReplacement):
    """`nn.Linear` whose weight is a ring: that of the convolution which computes the same.

    Of a flattened map (C, H, W) the weight (O, C·H·W) is the kernel (O, C, H, W) of a convolution
    without padding that sees the whole map; of any other input it is (O, I, 1, 1). Arguments as
    `nn.Linear`, and `map_size`, (H, W) of the flattened map; `ranks`, `shift` and `form` as in
    `TRConv2d`. Input (…, in_features), output (…, O); whatever sees all of what is left of the map
    is a matrix product, the sublayers before it are convolutions. RingError for arguments that make
    no layer.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        ranks: Sequence[int],
        *,
        map_size: tuple[int, int] = (1, 1),
        bias: bool = True,
        shift: int = 0,
        form: Form = "pipeline",
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        channels, rest = divmod(in_features, prod(map_size))
        if rest or min(*map_size, channels) < 1:
            raise RingError(
                f"in_features is {in_features}, expected a multiple of the map's "
                f"{map_size[0]}·{map_size[1]} pixels"
            )
        self.in_features, self.out_features, self.map_size = in_features, out_features, map_size
        shape = (out_features, channels, *map_size)
        self._hold(shape, ranks, bias=bias, shift=shift, form=form, device=device, dtype=dtype)

    @classmethod
    def from_linear(
        cls, linear: nn.Linear, ring: TensorRing, *, form: Form = "pipeline"
    ) -> TRLinear:
        """The layer that computes `linear` with `ring` for its weight, on its device and dtype.

        The ring's shape (O, C, H, W) says which map was flattened, (O, I, 1, 1) none. Its cores
        train if the weight did, its bias if that did. RingError for a weight in half precision or a
        ring of another shape; `linear` is not changed.
        """
        map_size = ring.shape[2:]
        channels = linear.in_features // prod(map_size)
        check_stands_for(linear, ring, (linear.out_features, channels, *map_size), "linear layer")
        layer = cls(
            linear.in_features, linear.out_features, ring.ranks, map_size=map_size,
            bias=linear.bias is not None, shift=ring.shift, form=form,
            device=linear.weight.device, dtype=linear.weight.dtype,
        )  # fmt: skip
        layer._take(linear, ring)
        return layer

    def _as_weight(self, kernel: Tensor) -> Tensor:
        return kernel.flatten(1)  # (O, I)

    @torch.no_grad()
    def to_dense(self) -> nn.Linear:
        """A plain linear layer with the rebuilt weight."""
        linear = nn.Linear(
            self.in_features, self.out_features, self.bias is not None,
            device=self.cores[0].device, dtype=self.cores[0].dtype,
        )  # fmt: skip
        linear.weight.copy_(self.kernel().flatten(1))
        if linear.bias is not None and self.bias is not None:
            linear.bias.copy_(self.bias)
        return linear.train(self.training)

    def forward(self, input: Tensor) -> Tensor:
        if input.ndim != 2:
            rows = input.reshape(-1, input.shape[-1])
            return self.forward(rows).reshape(*input.shape[:-1], self.out_features)
        x, batch, folded = input, input.shape[0], 1
        kernels = self.kernels()
        for step, kernel in zip(self._steps, kernels, strict=True):
            if step.copies != folded:
                x = x.reshape(batch * step.copies, step.channels, *x.shape[2:])
                folded = step.copies
            bias = self.bias if kernel is kernels[-1] else None
            if step.whole:
                x = F.linear(x.flatten(1), kernel.flatten(1), bias)  # (B·copies, out)
            else:
                if x.ndim == 2:
                    x = x.unflatten(1, (step.channels, *self.map_size))
                x = F.conv2d(x, kernel, bias)  # (B·copies, out, H', W')
        return x

    @property
    def whole(self) -> tuple[bool, ...]:
        """Of each sublayer: whether it sees all that is left of the map."""
        return tuple(step.whole for step in self._steps)

    def _prepare(self) -> None:
        steps, size = [], self.map_size
        for sublayer in self.sublayers:
            _, channels, *kernel = sublayer.kernel
            steps.append(_Step(sublayer.copies, channels, tuple(kernel) == size))
            size = (
                1 if 0 in sublayer.axes else size[0],
                1 if 1 in sublayer.axes else size[1],
            )
        self._steps = tuple(steps)

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"map_size={self.map_size}, bias={self.bias is not None}, ranks={self.ranks}, "
            f"form={self.form!r}"
        )


class _Step(NamedTuple):
    """One sublayer: how many copies of its input channels share its kernel, and whether it sees all
    that is left of the map.
    """

    copies: int
    channels: int
    whole: bool
