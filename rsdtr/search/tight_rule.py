"""rule=tight: the same promise ‖𝓦 − 𝓦̂‖ ≤ ε_p‖𝓦‖, with no part of it left unspent.

The published rule gives each of the three truncations ε_p/√3 of the matrix that it truncates; what
one of them does not use is lost, and a prime first rank leaves only the divisors 1 and itself. The
three losses are orthogonal, so their energies add up. Here the first truncation also tries ranks
beside the published one, rich in divisors or leaving more to the others, and the second and third
share whatever is left of ε_p² in the way that costs least.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rsdtr.ring.rank_selection import checked_eps, equal_split, rank_of_tails, rank_within
from rsdtr.search.bounds import (
    Cost,
    Needs,
    cost_at,
    floor,
    needed,
    open_ranks,
)
from rsdtr.search.candidate import Candidate, Pruned, SearchResult
from rsdtr.search.paper_rule import KernelSpectra
from rsdtr.search.unfoldings import FirstUnfolding, SecondUnfolding

NEIGHBOURS = 2  # first ranks tried on either side of the published one, in modes of up to
SMALL_MODE = 64  # so many; in larger ones a rank more or less changes little and costs much
Ranks = NDArray[np.int64]
ROUNDING = 1e-9  # of ε_p², kept back so that the promise also holds in floating point


def best_tight(
    spectra: KernelSpectra,
    eps: float,
    cost: Cost | None = None,
    published: Candidate | None = None,
) -> SearchResult:
    """The cheapest ring that this rule finds: never dearer than the published rule's winner.

    cost: of ranks R_0…R_3, by default storage; it must rise when a rank rises. published: that
    winner at the same ε_p and cost, where it is known. On a tie the first one wins, by shift, first
    rank, r0 and second rank: what was searched before never changes the answer. `computed` holds
    the cheapest ring of every (shift, r0) that was looked into, `pruned` the others.
    """
    eps, cost = checked_eps(eps), cost or spectra.storage
    with spectra.lock:
        if published is None:
            published = spectra.best(eps, cost).winner
        return _Search(spectra, eps, cost, published).result()


class _Search:
    """One kernel at one ε_p: the best ring so far, and what was seen on the way."""

    def __init__(
        self, spectra: KernelSpectra, eps: float, cost: Cost, published: Candidate
    ) -> None:
        self.spectra, self.cost = spectra, cost
        self.budget = eps**2 * spectra.energy * (1 - ROUNDING)
        self.share = equal_split(eps)
        self.winner, self.least = published, int(cost(published.ranks))
        r0, r1, r2, _ = (published.ranks[(published.shift + k) % 4] for k in range(4))
        self.place = published.shift, r0 * r1, r0, r2  # of the winner so far
        self.seen = {(published.shift, published.r0): published}

    def result(self) -> SearchResult:
        waiting = sorted(
            (
                (self._floor(first, rank, r0, needs), first.shift, rank, r0, needs)
                for first in self.spectra.searched
                for needs in (self._needs(first.shift),)
                for rank in self._first_ranks(first)
                for r0 in self.spectra.divisors(first, rank)
            ),
            key=lambda item: item[:4],
        )
        floors: dict[tuple[int, int], int] = {}
        for lowest, shift, rank, r0, needs in waiting:
            floors.setdefault((shift, r0), lowest)
            if (lowest, shift, rank, r0) <= (self.least, *self.place[:3]):
                self._look_into(self.spectra.unfoldings[shift], rank, r0, needs)
        pruned = [
            Pruned(*cell, max(lowest, self.least))
            for cell, lowest in floors.items()
            if cell not in self.seen
        ]
        return SearchResult(self.winner, tuple(self.seen.values()), tuple(pruned))

    def _first_ranks(self, first: FirstUnfolding) -> range:
        """The published first rank and its neighbours, as far as the budget reaches."""
        least = rank_within(first.tails, self.budget)
        middle = rank_of_tails(first.tails, self.share)
        reach = NEIGHBOURS if first.sizes[0] <= SMALL_MODE else 0
        return range(max(least, middle - reach), min(len(first.squared), middle + reach) + 1)

    def _needs(self, shift: int) -> Needs:
        """What any ring within the whole error must satisfy."""
        needs = Needs(
            r1_r2=self.spectra.needed_around(shift + 1, self.budget),
            r2_r3=self.spectra.needed_around(shift + 2, self.budget),
            r3_r0=self.spectra.needed_around(shift + 3, self.budget),
        )
        pair = needed(self.spectra.pairs.channels, self.budget)
        needs = needs._replace(r0_r2=pair) if shift % 2 == 0 else needs._replace(r1_r3=pair)
        if self.spectra.pairs.crossed_is_known(self.share):
            needs = needs.with_crossed(shift, self._crossed_rank())
        return needs

    def _crossed_rank(self) -> int:
        return needed(self.spectra.pairs.crossed(self.share), self.budget)

    def _floor(self, first: FirstUnfolding, rank: int, r0: int, needs: Needs) -> int:
        return floor(self.cost, first.shift, first.sizes, rank, r0, needs)

    def _look_into(self, first: FirstUnfolding, rank: int, r0: int, needs: Needs) -> None:
        """Find the cheapest second and third rank behind one first rank and divisor.

        A larger second rank never needs a larger third one, so each third rank that is computed
        bounds those on its left from below. It also only adds rows to the third matrix, whose tails
        therefore grow: known tails bound the third ranks on their right. The most promising second
        rank comes first.
        """
        left = self.budget - float(first.tails[rank])
        pairs = self.spectra.pairs
        dear = self.spectra.is_dear(first, rank, r0)
        if dear or pairs.crossed_is_known(self.share):
            needs = needs.with_crossed(first.shift, self._crossed_rank())
        look = first.look(rank, r0)
        needs = needs._replace(r3=look.third_floor(left))
        if self._floor(first, rank, r0, needs) > self.least:
            return
        for bound in (look.second_floor, look.second_rank):
            needs = needs._replace(r2=bound(left))
            if self._floor(first, rank, r0, needs) > self.least:
                return
        second = first.second(rank, r0)
        needs = needs._replace(r2=rank_within(second.tails, left))
        r2, r3 = open_ranks(first.sizes, rank, r0, needs)
        inside = r2 < len(second.tails)
        r2, r3 = r2[inside], r3[inside]
        known = list(second.known_thirds)
        bounded: set[int] = set()
        while True:
            costs = cost_at(self.cost, first.shift, (r0, rank // r0, r2, r3))
            cheaper = self._wanted(costs, (first.shift, rank, r0), r2)
            if not cheaper.any():
                second.release()
                return
            if known:  # what earlier searches left costs nothing
                r2, r3 = r2[cheaper], r3[cheaper]
                nearest = known.pop(int(np.abs(np.subtract(known, r2[0])).argmin()))
                r3 = np.maximum(r3, _third_floors(second, nearest, r2, left))
                continue
            r2, r3 = r2[cheaper], r3[cheaper]
            at = int(r2[costs[cheaper].argmin()])
            spare = left - float(second.tails[at])
            if at not in bounded:  # a bound that needs no eigenvalue comes first
                bounded.add(at)
                third = second.third_floor(at, spare)
            else:
                third = rank_within(second.third_tails(at), spare)
                self._keep(first, rank, r0, (at, third), second)
                r2, r3 = r2[r2 != at], r3[r2 != at]
                r3 = np.maximum(r3, _third_floors(second, at, r2, left))
                continue
            r3 = np.where(r2 <= at, np.maximum(r3, third), r3)

    def _wanted(self, costs: Ranks, cell: tuple[int, int, int], r2: Ranks) -> NDArray[np.bool_]:
        """Which second ranks would win at these costs; cell: shift, first rank and r0."""
        if cell < self.place[:3]:
            return costs <= self.least
        tied = (costs == self.least) & (r2 < self.place[3])
        return (costs < self.least) | (tied if cell == self.place[:3] else False)

    def _keep(
        self,
        first: FirstUnfolding,
        rank: int,
        r0: int,
        rest: tuple[int, int],
        second: SecondUnfolding,
    ) -> None:
        lost = float(second.tails[rest[0]]) + float(second.third_tails(rest[0])[rest[1]])
        found = self.spectra.candidate(first, rank, r0, rest, lost)
        cost, cell = int(self.cost(found.ranks)), (first.shift, r0)
        if cell not in self.seen or cost < self.cost(self.seen[cell].ranks):
            self.seen[cell] = found
        place = first.shift, rank, r0, rest[0]
        if (cost, place) < (self.least, self.place):
            self.winner, self.least, self.place = found, cost, place
            self.seen[cell] = found


def _third_floors(second: SecondUnfolding, at: int, r2: Ranks, left: float) -> Ranks:
    """What the tails at second rank `at` say of the third ranks at others, (len(r2),).

    left: the energy that the second and third truncation may lose.
    """
    tails = second.third_tails(at)
    spare = left - second.tails[np.maximum(r2, at)]
    # Room for rounding where another matrix is spoken of; at itself the tails are exact.
    spare += np.where(r2 > at, 1e-12 * tails[0], 0.0)
    return len(tails) - np.searchsorted(tails[::-1], spare, side="right")
