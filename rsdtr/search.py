"""The search of one kernel: every circular shift, every divisor of the first rank.

`candidates` looks at all of them, as the published program does. `best` finds the same winner
while computing only those that a lower bound on their cost cannot rule out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from math import sqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rsdtr.cost import pipeline_macs_per_pixel
from rsdtr.errors import RingError
from rsdtr.ring import TensorRing, checked_kernel, ring_storage
from rsdtr.truncation import checked_eps, equal_split, rank_of, tail_energies
from rsdtr.unfolding import (
    FirstUnfolding,
    SecondUnfolding,
    flat_rank,
    smaller_gram,
    squared_values,
)

SEARCH_VERSION = 1  # part of every stored result's key: raise it when a result may change
Ranks = tuple[int, int, int, int]
Cost = Callable[[Any], Any]  # ranks R_0…R_3 (numbers or arrays) -> a cost rising with each rank


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


@dataclass(frozen=True)
class Pruned:
    """A candidate that was ruled out: whatever its ranks, it costs at least `floor`."""

    shift: int
    r0: int
    floor: int


@dataclass(frozen=True)
class SearchResult:
    """The winner, and what was computed and ruled out on the way to it."""

    winner: Candidate
    computed: tuple[Candidate, ...]
    pruned: tuple[Pruned, ...]


class KernelSpectra:
    """The ε-independent part of the search for one kernel (O, I, KH, KW), computed when needed.

    RingError for a kernel that is not a finite 4-way tensor with a nonzero entry.
    """

    def __init__(self, kernel: Tensor) -> None:
        self.kernel = checked_kernel(kernel)
        o, i, kh, kw = self.kernel.shape
        self.shape: Ranks = (o, i, kh, kw)
        if not bool(self.kernel.any()):
            raise RingError("the kernel is zero everywhere: no relative error is defined for it")
        self.unfoldings = tuple(FirstUnfolding(self.kernel, shift) for shift in range(4))
        self.energy = float(self.kernel.square().sum())

    @cached_property
    def _pair_tails(self) -> tuple[Tensor, Tensor]:
        """Tails of (O·I)×(KH·KW) and of (I·KH)×(KW·O), for the bounds on two bonds' ranks.

        In single precision: a bound may be loose, and `_needed` leaves room for the rounding.
        """
        o, i, kh, kw = self.shape
        kernel = self.kernel.float()
        channels = kernel.reshape(o * i, kh * kw)
        crossed = kernel.permute(1, 2, 3, 0).reshape(i * kh, kw * o)
        one, other = (
            tail_energies(squared_values(smaller_gram(matrix)).double())
            for matrix in (channels, crossed)
        )
        return one, other

    def candidates(self, eps: float) -> list[Candidate]:
        """Every candidate of the published rule at ε_p: shift 0…3, divisors ascending."""
        share = equal_split(checked_eps(eps))
        found = []
        for first in self.unfoldings:
            rank = rank_of(first.squared, share)
            for r0 in divisors(rank):
                r2, r3, lost = _finish(first.second(rank, r0), share)
                found.append(self._candidate(first, rank, r0, (r2, r3), lost))
        return found

    def best(self, eps: float, cost: Cost | None = None) -> SearchResult:
        """The candidate of least cost, the first one on a tie, computing as few as it can.

        cost: of ranks R_0…R_3, by default storage; it must not fall when a rank rises.
        """
        share = equal_split(checked_eps(eps))
        cost = cost or self.storage
        waiting = sorted(
            (
                (_floor(cost, first, rank, r0, needs), first.shift, r0, rank, needs)
                for first in self.unfoldings
                for rank in (rank_of(first.squared, share),)
                for needs in (self._needs(first, rank, share),)
                for r0 in divisors(rank)
            ),
            key=lambda item: item[:3],
        )
        best: tuple[int, int, int] | None = None  # (cost, shift, r0) of the winner so far
        winner: Candidate | None = None
        computed: list[Candidate] = []
        pruned: list[Pruned] = []
        for floor, shift, r0, rank, needs in waiting:
            first = self.unfoldings[shift]
            floors = chain([floor], _rising_floors(cost, first, rank, r0, needs, share))
            beaten = next((f for f in floors if best and (f, shift, r0) > best), None)
            if beaten is not None:
                pruned.append(Pruned(shift, r0, beaten))
                continue
            r2, r3, lost = _finish(first.second(rank, r0), share)
            found = self._candidate(first, rank, r0, (r2, r3), lost)
            computed.append(found)
            place = (int(cost(found.ranks)), shift, r0)
            if best is None or place < best:
                best, winner = place, found
        assert winner is not None  # the first one waiting is always computed
        return SearchResult(winner, tuple(computed), tuple(pruned))

    def storage(self, ranks: Sequence[int]) -> int:
        """Scalars in a ring of these ranks, as a cost."""
        return ring_storage(self.shape, ranks)

    def _candidate(
        self, first: FirstUnfolding, rank: int, r0: int, rest: tuple[int, int], lost: float
    ) -> Candidate:
        ranks = in_mode_order((r0, rank // r0, *rest), first.shift)
        return Candidate(
            shift=first.shift,
            r0=r0,
            ranks=ranks,
            storage=ring_storage(self.shape, ranks),
            macs=pipeline_macs_per_pixel(self.shape, ranks),
            relative_error=sqrt((float(first.tails[rank]) + lost) / self.energy),
        )

    def _needs(self, first: FirstUnfolding, rank: int, share: float) -> _Needs:
        """What any ring within the error must satisfy at the bonds that are still open.

        Two bonds cut the ring in two, so the product of their ranks is at least the rank of that
        unfolding at the error which the truncations so far allow.
        """
        lost = float(first.tails[rank])
        after_second = lost + share**2 * (self.energy - lost)
        after_third = after_second + share**2 * (self.energy - after_second)
        shift = first.shift
        own, crossed = self._pair_tails if shift % 2 == 0 else self._pair_tails[::-1]
        tails = [self.unfoldings[(shift + k) % 4].tails for k in range(4)]
        return _Needs(
            r1_r2=_needed(tails[1], after_second),
            r0_r2=_needed(own, after_second),
            r2_r3=_needed(tails[2], after_third),
            r3_r0=_needed(tails[3], after_third),
            r1_r3=_needed(crossed, after_third),
        )


@dataclass(frozen=True)
class _Needs:
    """Lower bounds on products of the shifted ring's ranks, and on r2 alone."""

    r1_r2: int
    r0_r2: int
    r2_r3: int
    r3_r0: int
    r1_r3: int
    r2: int = 1

    def at_least(self, r2: int) -> _Needs:
        return _Needs(self.r1_r2, self.r0_r2, self.r2_r3, self.r3_r0, self.r1_r3, r2)


def _rising_floors(
    cost: Cost, first: FirstUnfolding, rank: int, r0: int, needs: _Needs, share: float
) -> Iterator[int]:
    """Lower bounds on a candidate's cost, each tighter and dearer to compute than the last."""
    second = first.second(rank, r0)
    yield _floor(cost, first, rank, r0, needs.at_least(second.rank_floor(share)))
    r2 = rank_of(second.squared, share)
    r3_floor = flat_rank(second.third_gram(r2), share)
    yield int(_cost_at(cost, first.shift, (r0, rank // r0, r2, r3_floor)))


def _floor(cost: Cost, first: FirstUnfolding, rank: int, r0: int, needs: _Needs) -> int:
    """Least cost over all second and third ranks that satisfy `needs`."""
    _, b, c, d = first.sizes
    r1 = rank // r0
    lowest = max(needs.r2, -(-needs.r1_r2 // r1), -(-needs.r0_r2 // r0))
    r2 = np.arange(lowest, max(lowest, min(r1 * b, c * d * r0)) + 1)
    r3 = np.maximum(max(-(-needs.r3_r0 // r0), -(-needs.r1_r3 // r1)), -(-needs.r2_r3 // r2))
    possible = r3 <= d * r0
    if possible.any():
        r2, r3 = r2[possible], r3[possible]
    return int(np.min(_cost_at(cost, first.shift, (r0, r1, r2, r3))))


def _cost_at(cost: Cost, shift: int, shifted: Sequence[Any]) -> Any:
    return cost(tuple(shifted[(k - shift) % 4] for k in range(4)))


def _needed(tails: Tensor, allowed: float) -> int:
    """Smallest rank whose tail may be within `allowed` energy, generous to rounding."""
    generous = allowed * (1 + 1e-9) + 1e-5 * float(tails[0])
    return max(1, int((tails > generous).sum()))


def _finish(second: SecondUnfolding, share: float) -> tuple[int, int, float]:
    """Second and third rank, and the energy that their truncations lose."""
    r2 = rank_of(second.squared, share)
    last = squared_values(second.third_gram(r2))
    r3 = rank_of(last, share)
    lost = float(tail_energies(second.squared)[r2]) + float(tail_energies(last)[r3])
    return r2, r3, lost


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


def divisors(number: int) -> list[int]:
    """All divisors of a positive number, ascending."""
    return [d for d in range(1, number + 1) if number % d == 0]


def in_mode_order(shifted: Sequence[int], shift: int) -> Ranks:
    """Ranks of the shifted kernel's cores, turned back to the mode order O, I, KH, KW."""
    r0, r1, r2, r3 = (shifted[(k - shift) % 4] for k in range(4))
    return r0, r1, r2, r3


def _split(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Truncated SVD as an orthonormal left factor and the rest: (m, rank), (rank, n)."""
    u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
    return u[:, :rank], s[:rank, None] * vt[:rank]
