"""The tensor ring of a convolution kernel: four cores closed into a trace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, prod

import torch
from torch import Tensor

from rsdtr.errors import RingError
from rsdtr.ring.forms import sublayer_kernels

MODES = ("O", "I", "KH", "KW")


@dataclass(frozen=True, eq=False)
class TensorRing:
    """Four cores of a kernel 𝓦 of shape (O, I, KH, KW), valid by construction.

    Core k has shape (R_k, n_k, R_{k+1}), indices mod 4, in the mode order O, I, KH, KW, and
    𝓦[o,i,h,w] = trace(G0[:,o,:] G1[:,i,:] G2[:,h,:] G3[:,w,:])  (arXiv 2405.10802, eq. 1).
    `shift` tells at which mode the ring SVD began. RingError if the cores do not close a ring.
    """

    cores: tuple[Tensor, Tensor, Tensor, Tensor]
    shift: int = 0

    def __post_init__(self) -> None:
        shapes = [tuple(core.shape) for core in self.cores]
        if len(shapes) != 4 or any(len(shape) != 3 for shape in shapes):
            raise RingError(
                f"a ring needs four cores of shape (left rank, mode, right rank), got {shapes}"
            )
        for k, shape in enumerate(shapes):
            following = shapes[(k + 1) % 4]
            if shape[2] != following[0]:
                raise RingError(
                    f"core {k} ends in rank {shape[2]} but core {(k + 1) % 4} begins with "
                    f"{following[0]}: neighbouring ranks must be equal"
                )
        if self.shift not in range(4):
            raise RingError(f"shift is {self.shift}, expected 0, 1, 2 or 3")

    @classmethod
    def random(
        cls, shape: Sequence[int], ranks: Sequence[int], *, seed: int = 0, shift: int = 0
    ) -> TensorRing:
        """Float64 cores with standard normal entries, for a kernel `shape` and ranks R_0…R_3."""
        generator = torch.Generator().manual_seed(seed)
        c0, c1, c2, c3 = (
            torch.randn(
                ranks[k], shape[k], ranks[(k + 1) % 4], generator=generator, dtype=torch.float64
            )
            for k in range(4)
        )
        return cls((c0, c1, c2, c3), shift)

    @property
    def ranks(self) -> tuple[int, int, int, int]:
        """Left rank of each core, in the mode order O, I, KH, KW."""
        r0, r1, r2, r3 = (core.shape[0] for core in self.cores)
        return r0, r1, r2, r3

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The kernel's (O, I, KH, KW)."""
        o, i, kh, kw = (core.shape[1] for core in self.cores)
        return o, i, kh, kw

    @property
    def r0(self) -> int:
        """The divisor that closes the ring: the left rank of the mode the ring SVD began with."""
        return self.ranks[self.shift]

    @property
    def storage(self) -> int:
        """Scalars in the four cores."""
        return sum(core.numel() for core in self.cores)

    def to_tensor(self) -> Tensor:
        """The kernel that the ring stands for, (O, I, KH, KW), in the cores' dtype."""
        (kernel,) = sublayer_kernels("dense", self.cores)
        return kernel


def ring_storage(shape: Sequence[int], ranks: Sequence[int]) -> int:
    """Scalars in the four cores of a ring, from the kernel's shape and the ranks R_0…R_3."""
    (o, i, kh, kw), (r0, r1, r2, r3) = shape, ranks
    return r0 * o * r1 + r1 * i * r2 + r2 * kh * r3 + r3 * kw * r0


def ring_shapes(shape: Sequence[int], ranks: Sequence[int]) -> tuple[tuple[int, int, int], ...]:
    """The shapes (R_k, n_k, R_{k+1}) of the four cores of a ring."""
    return tuple((ranks[k], shape[k], ranks[(k + 1) % 4]) for k in range(4))


def too_coarse(kernel: Tensor) -> str | None:
    """Why no ring may stand for a kernel of this dtype, in words, or None.

    Cores in half precision have errors of their own, up to 0.4 % each, which no ε_p accounts for,
    and values that they cannot hold: one core carries the norm of the whole kernel.
    """
    if kernel.dtype in (torch.float32, torch.float64):
        return None
    name = str(kernel.dtype).removeprefix("torch.")
    if kernel.is_complex():
        return f"a kernel of {name}: rings here are of real numbers"
    return f"a kernel of {name} is too coarse for a ring: compress model.float() instead"


def checked_kernel(kernel: Tensor) -> Tensor:
    """The kernel, detached, in float64; RingError if it is not a finite 4-way tensor of single or
    double precision.
    """
    if kernel.ndim != 4 or prod(kernel.shape) == 0:
        raise RingError(
            f"a kernel has four modes (O, I, KH, KW), each at least 1, got {tuple(kernel.shape)}"
        )
    if reason := too_coarse(kernel):
        raise RingError(reason)
    kernel = kernel.detach()
    low, high = torch.aminmax(kernel)  # NaN if one is in it; a quarter of the time of isfinite
    if not isfinite(float(low)) or not isfinite(float(high)):
        raise RingError("the kernel contains NaN or Inf: repair the weights first")
    return kernel.to(torch.float64)
