"""The published search: every circular shift and every divisor of the first rank of one kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import sqrt

import torch
from torch import Tensor

from rsdtr.cost import pipeline_macs_per_pixel
from rsdtr.errors import RingError
from rsdtr.ring import TensorRing, checked_kernel, ring_storage
from rsdtr.truncation import checked_eps, equal_split, rank_of, tail_energies

Ranks = tuple[int, int, int, int]


@dataclass(frozen=True)
class Candidate:
    """One ring that the search looked at.

    shift: modes moved left before the ring SVD; r0: the divisor that closes the ring;
    ranks: R_0…R_3 in the mode order O, I, KH, KW; storage: scalars in the cores; macs:
    multiply-accumulates of the paper's four sublayers per pixel at stride 1;
    relative_error: ‖𝓦 − 𝓦̂‖_F / ‖𝓦‖_F.
    """

    shift: int
    r0: int
    ranks: Ranks
    storage: int
    macs: int
    relative_error: float


@dataclass(frozen=True, eq=False)
class FirstUnfolding:
    """SVD of one circularly shifted kernel's first unfolding: all that does not depend on ε_p.

    sizes: the shifted kernel's four modes (a, b, c, d); squared: squared singular values,
    descending, (n,); basis: left singular vectors, (a, n); rows: basisᵀ · unfolding, (n, b, c, d).
    """

    shift: int
    sizes: Ranks
    squared: Tensor
    basis: Tensor
    rows: Tensor

    @classmethod
    def of(cls, kernel: Tensor, shift: int) -> FirstUnfolding:
        """Through the smaller Gram matrix in float64. `kernel` as from `checked_kernel`.

        A singular vector's sign is free, and the ranks of a split first mode depend on it. The
        published program takes the signs of single-precision LAPACK; so do we, to choose what it
        chooses.
        """
        shifted = kernel.permute([(shift + k) % 4 for k in range(4)]).contiguous()
        a, b, c, d = shifted.shape
        unfolding = shifted.reshape(a, b * c * d)
        wide = a <= b * c * d
        gram = unfolding @ unfolding.T if wide else unfolding.T @ unfolding
        squared, vectors = torch.linalg.eigh(gram)
        squared, vectors = squared.flip(0).clamp_min(0), vectors.flip(1)
        if wide:
            basis = vectors
        else:
            # Directions without energy have no left vector: they are left out.
            kept = squared > squared[0] * 1e-24
            squared, vectors = squared[kept], vectors[:, kept]
            basis = unfolding @ vectors / squared.sqrt()
        reference = torch.linalg.svd(unfolding.float(), full_matrices=False).U
        agreement = (basis * reference[:, : basis.shape[1]]).sum(0)
        basis = torch.where(agreement < 0, -basis, basis)
        rows = (basis.T @ unfolding).reshape(-1, b, c, d)
        return cls(shift, (a, b, c, d), squared, basis, rows)


class KernelSpectra:
    """The ε-independent part of the search for one kernel (O, I, KH, KW)."""

    def __init__(self, kernel: Tensor) -> None:
        self.kernel = checked_kernel(kernel)
        self.shape: Ranks = tuple(self.kernel.shape)  # type: ignore[assignment]  # 4 modes, checked
        if not bool(self.kernel.any()):
            raise RingError("the kernel is zero everywhere: no relative error is defined for it")

    @cached_property
    def unfoldings(self) -> tuple[FirstUnfolding, ...]:
        """The first unfoldings of the four circular shifts."""
        return tuple(FirstUnfolding.of(self.kernel, shift) for shift in range(4))

    def candidates(self, eps: float) -> list[Candidate]:
        """Every candidate of the published rule at ε_p: shift 0…3, divisors ascending."""
        share = equal_split(checked_eps(eps))
        found = []
        for first in self.unfoldings:
            rank = rank_of(first.squared, share)
            for r0 in divisors(rank):
                found.append(self._candidate(first, rank, r0, share))
        return found

    def _candidate(self, first: FirstUnfolding, rank: int, r0: int, share: float) -> Candidate:
        r1 = rank // r0
        matrix = _second_matrix(first, rank, r0)  # (r1·b, c·d·r0)
        squared, rows = _scaled_right_factor(matrix)
        r2 = rank_of(squared, share)
        third = rows[:r2].reshape(r2 * first.sizes[2], -1)  # (r2·c, d·r0)
        small = third @ third.T if third.shape[0] <= third.shape[1] else third.T @ third
        last = torch.linalg.eigvalsh(small).flip(0).clamp_min(0)
        r3 = rank_of(last, share)
        lost = sum(
            float(tail_energies(values)[kept])
            for values, kept in ((first.squared, rank), (squared, r2), (last, r3))
        )
        ranks = in_mode_order((r0, r1, r2, r3), first.shift)
        return Candidate(
            shift=first.shift,
            r0=r0,
            ranks=ranks,
            storage=ring_storage(self.shape, ranks),
            macs=pipeline_macs_per_pixel(self.shape, ranks),
            relative_error=sqrt(lost / float(first.squared.sum())),
        )


def candidates(kernel: Tensor, eps: float) -> list[Candidate]:
    """All candidates of the published rule (`rule=paper`) for a kernel (O, I, KH, KW) at ε_p.

    For every circular shift and every divisor r0 of the first rank: ring SVD, its three
    truncations each at ε_p/√3 of the norm of the matrix it truncates (arXiv 2405.10802,
    algorithms 1 and 2). Ordered by shift, then r0. RingError for a kernel that is not a finite,
    non-zero 4-way tensor, or for ε_p outside [0.0001, 1).
    """
    return KernelSpectra(kernel).candidates(eps)


def smallest(found: Sequence[Candidate]) -> Candidate:
    """The candidate of least storage, the first one on a tie."""
    return min(found, key=lambda candidate: candidate.storage)


def ring_svd(kernel: Tensor, shift: int, ranks: Sequence[int]) -> TensorRing:
    """The ring that the ring SVD gives a kernel (O, I, KH, KW) at fixed ranks, in float64.

    ranks: R_0…R_3 in the mode order O, I, KH, KW. RingError if they do not fit the kernel.
    """
    kernel = checked_kernel(kernel)
    if shift not in range(4):
        raise RingError(f"shift is {shift}, expected 0, 1, 2 or 3")
    r0, r1, r2, r3 = (ranks[(shift + k) % 4] for k in range(4))
    first = FirstUnfolding.of(kernel, shift)
    a, b, c, d = first.sizes
    limits = (len(first.squared), min(r1 * b, c * d * r0), min(r2 * c, d * r0))
    if min(ranks) < 1 or r0 * r1 > limits[0] or r2 > limits[1] or r3 > limits[2]:
        raise RingError(
            f"ranks {tuple(ranks)} do not fit a kernel {tuple(kernel.shape)} at shift {shift}: "
            f"at most {limits[0]} for {r0}·{r1}, {limits[1]} for {r2}, {limits[2]} for {r3}"
        )
    core_a = first.basis[:, : r0 * r1].reshape(a, r0, r1).permute(1, 0, 2)
    left, rest = _split(_second_matrix(first, r0 * r1, r0), r2)  # (r1·b, r2), (r2, c·d·r0)
    last, core_d = _split(rest.reshape(r2 * c, d * r0), r3)  # (r2·c, r3), (r3, d·r0)
    shifted = (core_a, left.reshape(r1, b, r2), last.reshape(r2, c, r3), core_d.reshape(r3, d, r0))
    c0, c1, c2, c3 = (shifted[(k - shift) % 4].contiguous() for k in range(4))
    return TensorRing((c0, c1, c2, c3), shift)


def divisors(number: int) -> list[int]:
    """All divisors of a positive number, ascending."""
    return [d for d in range(1, number + 1) if number % d == 0]


def in_mode_order(shifted: Sequence[int], shift: int) -> Ranks:
    """Ranks of the shifted kernel's cores, turned back to the mode order O, I, KH, KW."""
    r0, r1, r2, r3 = (shifted[(k - shift) % 4] for k in range(4))
    return r0, r1, r2, r3


def _second_matrix(first: FirstUnfolding, rank: int, r0: int) -> Tensor:
    """What is left after the first truncation, with r0 moved to the far end: (r1·b, c·d·r0)."""
    r1 = rank // r0
    b, c, d = first.sizes[1:]
    split = first.rows[:rank].reshape(r0, r1, b, c, d)
    return split.permute(1, 2, 3, 4, 0).reshape(r1 * b, c * d * r0)


def _scaled_right_factor(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Squared singular values, descending (n,), and Σ·Vᵀ (n, columns), by the smaller Gram."""
    if matrix.shape[0] <= matrix.shape[1]:
        squared, vectors = torch.linalg.eigh(matrix @ matrix.T)
        rows = vectors.flip(1).T @ matrix
    else:
        squared, vectors = torch.linalg.eigh(matrix.T @ matrix)
        rows = squared.clamp_min(0).sqrt().flip(0)[:, None] * vectors.flip(1).T
    return squared.flip(0).clamp_min(0), rows


def _split(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Truncated SVD as an orthonormal left factor and the rest: (m, rank), (rank, n)."""
    u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
    return u[:, :rank], s[:rank, None] * vt[:rank]
