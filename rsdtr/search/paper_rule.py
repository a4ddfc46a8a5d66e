"""The search of one kernel: every circular shift, every divisor of the first rank.

`candidates` looks at all of them, as the published program does. `best` finds the same winner
while computing only those that a lower bound on their cost cannot rule out.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from heapq import heapify, heappop, heappush
from math import sqrt

import torch
from torch import Tensor

from rsdtr.errors import RingError
from rsdtr.ring.cost import pipeline_macs_per_pixel
from rsdtr.ring.rank_selection import checked_eps, equal_split, rank_of_tails
from rsdtr.ring.tensor_ring import checked_kernel, ring_storage
from rsdtr.search.bounds import (
    Cost,
    Needs,
    PairSpectra,
    cost_at,
    floor,
    needed,
)
from rsdtr.search.candidate import Candidate, Pruned, Ranks, SearchResult
from rsdtr.search.gram import SpatialGram
from rsdtr.search.ring_svd import in_mode_order
from rsdtr.search.unfoldings import FirstUnfolding, SecondUnfolding

SEARCH_VERSION = 2  # part of every stored result's key: raise it when a result may change
LARGE = 1 << 24  # scalars from which a kernel is searched in its own order of modes only, and
MOST_SIDE = 2048  # only for divisors whose matrices have a smaller side of at most so many
NARROW = 4  # a last mode this small leaves the third rank too little room for a bound of its own


# Of a kernel's largest entry: single precision holds its square, and sums of many of them.
SMALLEST, LARGEST = 1e-18, 1e16


class KernelSpectra:
    """The ε-independent part of the search for one kernel (O, I, KH, KW), computed when needed.

    The whole search of a linear layer of 4096 × 25088 would take an hour: from LARGE scalars on,
    shift 0 alone is looked at, and no divisor whose matrices would be larger than the first one's.
    RingError for a kernel that is not a finite 4-way tensor with a nonzero entry, or whose squares
    single precision cannot hold.
    """

    def __init__(self, kernel: Tensor) -> None:
        self.kernel = checked_kernel(kernel)
        o, i, kh, kw = self.kernel.shape
        self.shape: Ranks = (o, i, kh, kw)
        low, high = torch.aminmax(self.kernel)
        largest = max(-float(low), float(high))
        if largest == 0:
            raise RingError("the kernel is zero everywhere: no relative error is defined for it")
        if largest < SMALLEST or largest > LARGEST:
            raise RingError(
                f"the kernel's largest entry is {largest:.2g}, expected {SMALLEST} to {LARGEST}: "
                "scale it, or keep the layer dense"
            )
        single = self.kernel.float()
        windows = SpatialGram(self.kernel)
        self.unfoldings = tuple(
            FirstUnfolding(self.kernel, shift, single, windows) for shift in range(4)
        )
        self.large = kernel.numel() >= LARGE
        self.searched = self.unfoldings[:1] if self.large else self.unfoldings
        self.pairs = PairSpectra(single, self.unfoldings, windows)
        self.energy = float(torch.linalg.vector_norm(self.kernel)) ** 2
        self.lock = threading.RLock()  # what is kept for later is not for two searches at once

    def candidates(self, eps: float) -> list[Candidate]:
        """Every candidate of the published rule at ε_p: shift 0…3, divisors ascending."""
        share = equal_split(checked_eps(eps))
        found = []
        with self.lock:
            for first in self.searched:
                rank = rank_of_tails(first.tails, share)
                for r0 in self.divisors(first, rank):
                    r2, r3, lost = _finish(first.second(rank, r0), share)
                    found.append(self.candidate(first, rank, r0, (r2, r3), lost))
        return found

    def best(self, eps: float, cost: Cost | None = None) -> SearchResult:
        """The candidate of least cost, the first one on a tie, computing as few as it can.

        cost: of ranks R_0…R_3, by default storage; it must not fall when a rank rises.
        """
        share = equal_split(checked_eps(eps))
        with self.lock:
            return self._best(share, cost or self.storage)

    def _best(self, share: float, cost: Cost) -> SearchResult:
        waiting = list(self._waiting(cost, share))
        heapify(waiting)
        best: tuple[int, int, int] | None = None  # (cost, shift, r0) of the winner so far
        winner: Candidate | None = None
        computed: list[Candidate] = []
        while waiting and (best is None or waiting[0][:3] <= best):
            lowest, shift, r0, floors = heappop(waiting)
            tighter = next(floors, None)
            if tighter is not None:
                heappush(waiting, (max(lowest, tighter), shift, r0, floors))
                continue
            first = self.unfoldings[shift]
            rank = rank_of_tails(first.tails, share)
            r2, r3, lost = _finish(first.second(rank, r0), share)
            found = self.candidate(first, rank, r0, (r2, r3), lost)
            computed.append(found)
            place = (int(cost(found.ranks)), shift, r0)
            if best is None or place < best:
                best, winner = place, found
        assert winner is not None  # the first one waiting is always computed
        pruned = [Pruned(shift, r0, lowest) for lowest, shift, r0, _ in sorted(waiting)]
        return SearchResult(winner, tuple(computed), tuple(pruned))

    def _waiting(self, cost: Cost, share: float) -> Iterator[tuple[int, int, int, Iterator[int]]]:
        """For every candidate a lower bound on its cost, its shift and r0, and tighter bounds."""
        for first in self.searched:
            rank = rank_of_tails(first.tails, share)
            needs = self._needs(first, rank, share)
            for r0 in self.divisors(first, rank):
                lowest = floor(cost, first.shift, first.sizes, rank, r0, needs)
                tighter = self._rising_floors(cost, first, rank, r0, needs, share)
                yield lowest, first.shift, r0, tighter

    def _rising_floors(
        self, cost: Cost, first: FirstUnfolding, rank: int, r0: int, needs: Needs, share: float
    ) -> Iterator[int]:
        """Lower bounds on a candidate's cost, each tighter and dearer to compute than the last."""
        at = (cost, first.shift, first.sizes, rank, r0)
        dear = self.is_dear(first, rank, r0)
        if dear or self.pairs.crossed_is_known(share):
            needs = needs.with_crossed(first.shift, self._crossed_rank(first, rank, share))
            yield floor(*at, needs)
        lost, look = float(first.tails[rank]), first.look(rank, r0)
        after_second, after_third = self._allowed(first, rank, share)
        if first.sizes[3] > NARROW:
            needs = needs._replace(r3=look.third_floor(after_third - lost))
            yield floor(*at, needs)
        for bound in (look.second_floor, look.second_rank):
            needs = needs._replace(r2=bound(after_second - lost))
            yield floor(*at, needs)
        second = first.second(rank, r0)
        kept, r2 = self.energy - lost, rank_of_tails(second.tails, share)
        third = second.third_floor(r2, share**2 * (kept - float(second.tails[r2])))
        yield int(cost_at(cost, first.shift, (r0, rank // r0, r2, third)))

    def divisors(self, first: FirstUnfolding, rank: int) -> list[int]:
        """The divisors of a first rank that are looked at, ascending."""
        found = divisors(rank)
        if not self.large:
            return found
        return [r0 for r0 in found if r0 == 1 or first.largest_side(rank, r0) <= MOST_SIDE]

    def is_dear(self, first: FirstUnfolding, rank: int, r0: int) -> bool:
        """Whether a candidate costs so much that the crossed unfolding is worth its price."""
        return not self.large and 2 * first.largest_side(rank, r0) > self.pairs.crossed_side

    def storage(self, ranks: Sequence[int]) -> int:
        """Scalars in a ring of these ranks, as a cost."""
        return ring_storage(self.shape, ranks)

    def candidate(
        self, first: FirstUnfolding, rank: int, r0: int, rest: tuple[int, int], lost: float
    ) -> Candidate:
        """The ring of first rank r0·r1 and `rest` = (r2, r3), whose truncations lose `lost`."""
        ranks = in_mode_order((r0, rank // r0, *rest), first.shift)
        return Candidate(
            shift=first.shift,
            r0=r0,
            ranks=ranks,
            storage=ring_storage(self.shape, ranks),
            macs=pipeline_macs_per_pixel(self.shape, ranks),
            relative_error=sqrt((float(first.tails[rank]) + lost) / self.energy),
        )

    def _needs(self, first: FirstUnfolding, rank: int, share: float) -> Needs:
        """What any ring must satisfy at the bonds that this first truncation leaves open."""
        after_second, after_third = self._allowed(first, rank, share)
        shift = first.shift
        needs = Needs(
            r1_r2=self.needed_around(shift + 1, after_second),
            r2_r3=self.needed_around(shift + 2, after_third),
            r3_r0=self.needed_around(shift + 3, after_third),
        )
        if shift % 2 == 0:
            needs = needs._replace(r0_r2=needed(self.pairs.channels, after_second))
        else:
            needs = needs._replace(r1_r3=needed(self.pairs.channels, after_third))
        if self.pairs.crossed_is_known(share):
            needs = needs.with_crossed(shift, self._crossed_rank(first, rank, share))
        return needs

    def needed_around(self, mode: int, allowed: float) -> int:
        """A lower bound on the product of the ranks of a mode's core, at so much lost energy."""
        unfolding = self.unfoldings[mode % 4]
        if self.large and unfolding.sizes[0] > MOST_SIDE:
            return 1  # its spectrum would take longer than what it spares
        return needed(unfolding.tails, allowed)

    def _crossed_rank(self, first: FirstUnfolding, rank: int, share: float) -> int:
        after_second, after_third = self._allowed(first, rank, share)
        allowed = after_third if first.shift % 2 == 0 else after_second
        return needed(self.pairs.crossed(share), allowed)

    def _allowed(self, first: FirstUnfolding, rank: int, share: float) -> tuple[float, float]:
        """The most energy that can be lost after the second, and after the third truncation."""
        lost = float(first.tails[rank])
        after_second = lost + share**2 * (self.energy - lost)
        return after_second, after_second + share**2 * (self.energy - after_second)


def _finish(second: SecondUnfolding, share: float) -> tuple[int, int, float]:
    """Second and third rank, and the energy that their truncations lose."""
    r2 = rank_of_tails(second.tails, share)
    tails = second.third_tails(r2)
    r3 = rank_of_tails(tails, share)
    return r2, r3, float(second.tails[r2]) + float(tails[r3])


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


def divisors(number: int) -> list[int]:
    """All divisors of a positive number, ascending."""
    return [d for d in range(1, number + 1) if number % d == 0]
