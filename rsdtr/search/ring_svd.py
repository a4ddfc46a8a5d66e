"""A kernel's ring at given ranks, by three truncated SVDs one after the other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rsdtr.errors import RingError
from rsdtr.ring.tensor_ring import TensorRing, checked_kernel
from rsdtr.search.candidate import Ranks
from rsdtr.search.unfoldings import FirstUnfolding


def ring_svd(kernel: Tensor, shift: int, ranks: Sequence[int]) -> TensorRing:
    """The ring that the ring SVD gives a kernel (O, I, KH, KW) at fixed ranks, in float64.

    ranks: R_0…R_3 in the mode order O, I, KH, KW. RingError if they do not fit the kernel.
    """
    kernel = checked_kernel(kernel)
    if shift not in range(4):
        raise RingError(f"shift is {shift}, expected 0, 1, 2 or 3")
    r0, r1, r2, r3 = (ranks[(shift + k) % 4] for k in range(4))
    first = FirstUnfolding(kernel, shift)
    a, b, c, d = first.sizes
    limits = (len(first.squared), min(r1 * b, c * d * r0), min(r2 * c, d * r0))
    if min(ranks) < 1 or r0 * r1 > limits[0] or r2 > limits[1] or r3 > limits[2]:
        raise RingError(
            f"ranks {tuple(ranks)} do not fit a kernel {tuple(kernel.shape)} at shift {shift}: "
            f"at most {limits[0]} for {r0}·{r1}, {limits[1]} for {r2}, {limits[2]} for {r3}"
        )
    rank = r0 * r1
    core_a = first.basis(rank, r0).reshape(a, r0, r1).permute(1, 0, 2)
    left, rest = _split(first.remainder(rank, r0), r2)  # (r1·b, r2), (r2, c·d·r0)
    last, core_d = _split(rest.reshape(r2 * c, d * r0), r3)  # (r2·c, r3), (r3, d·r0)
    shifted = (core_a, left.reshape(r1, b, r2), last.reshape(r2, c, r3), core_d.reshape(r3, d, r0))
    c0, c1, c2, c3 = (shifted[(k - shift) % 4].contiguous() for k in range(4))
    return TensorRing((c0, c1, c2, c3), shift)


def in_mode_order(shifted: Sequence[int], shift: int) -> Ranks:
    """Ranks of the shifted kernel's cores, turned back to the mode order O, I, KH, KW."""
    r0, r1, r2, r3 = (shifted[(k - shift) % 4] for k in range(4))
    return r0, r1, r2, r3


def _split(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Truncated SVD as an orthonormal left factor and the rest: (m, rank), (rank, n)."""
    u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
    return u[:, :rank], s[:rank, None] * vt[:rank]
