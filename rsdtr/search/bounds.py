"""Lower bounds: what any ring within an error must cost, from six spectra of the kernel alone.

Two bonds cut a ring in two, so the product of their ranks is at least the ε-rank of the unfolding
between the two halves. A kernel has six such cuts: {O}, {I}, {KH}, {KW}, {O, I} and {I, KH}.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from rsdtr.ring.rank_selection import Energies, rank_within, tail_energies
from rsdtr.search.gram import SpatialGram, smaller_gram, squared_values
from rsdtr.search.quick_bounds import SINGLE
from rsdtr.search.unfoldings import FirstUnfolding, Sizes

FEW = 10  # ranks that are tried faster one by one than as an array
LEVEL = 4.0  # one crossed spectrum serves all errors up to so many times as much energy, and
SHARP = 4.0  # leaves out one part in so many of the least one
Cost = Callable[[Any], Any]  # ranks R_0…R_3 (numbers or arrays) -> a cost rising with each rank


class PairSpectra:
    """Tails of the two unfoldings that put two modes on either side, for a kernel (O, I, KH, KW).

    single: the kernel in single precision: a bound may be loose, and `needed` leaves room for the
    rounding. unfoldings: its four first ones; windows: what those of KH and KW are taken from.
    """

    def __init__(
        self, single: Tensor, unfoldings: Sequence[FirstUnfolding], windows: SpatialGram
    ) -> None:
        self._single = single
        self._windows = windows
        self._first, self._second = unfoldings[:2]
        self._crossed: dict[int, Energies] = {}  # by level, a power of LEVEL
        o, i, kh, kw = single.shape
        self.crossed_side = min(i * kh, kw * o)

    @cached_property
    def channels(self) -> Energies:
        """{O, I} against {KH, KW}."""
        o, i, kh, kw = self._single.shape
        if self._windows.small:
            return tail_energies(squared_values(self._windows.gram))
        return _tails(self._single.reshape(o * i, kh * kw))

    def crossed(self, share: float) -> Energies:
        """Lower bounds on the tails of {I, KH} against {KW, O}, sharp for errors from `share` up.

        Of a kernel projected on its leading directions in modes O and I, which leave out a small
        part of share²: projecting lowers every singular value, and the matrix is much smaller.
        """
        level = _level(share)
        if level not in self._crossed:
            lost = float(self._first.tails[0]) * LEVEL**level / SHARP
            left, right = self._first.leading_vectors(lost), self._second.leading_vectors(lost)
            o, i, kh, kw = self._single.shape
            rows = (left.T @ self._single.reshape(o, -1)).reshape(-1, i, kh, kw)  # (o', I, KH, KW)
            core = right.T @ rows.permute(1, 2, 3, 0).reshape(i, -1)  # (i', KH·KW·o')
            self._crossed[level] = _tails(core.reshape(right.shape[1] * kh, -1))
        return self._crossed[level]

    def crossed_is_known(self, share: float) -> bool:
        """Whether `crossed` has been computed for about this error."""
        return _level(share) in self._crossed


class Needs(NamedTuple):
    """Lower bounds on products of the shifted ring's ranks r0…r3, and on r2 and r3 alone."""

    r1_r2: int = 1
    r0_r2: int = 1
    r2_r3: int = 1
    r3_r0: int = 1
    r1_r3: int = 1
    r2: int = 1
    r3: int = 1

    def with_crossed(self, shift: int, rank: int) -> Needs:
        """The same, with the rank of the crossed unfolding added where this shift has it."""
        return self._replace(r1_r3=rank) if shift % 2 == 0 else self._replace(r0_r2=rank)


def needed(tails: Energies, allowed: float) -> int:
    """Smallest rank whose tail may be within `allowed` energy, generous to rounding."""
    return rank_within(tails, allowed * (1 + 1e-9) + SINGLE * float(tails[0]))


def open_ranks(sizes: Sizes, rank: int, r0: int, needs: Needs) -> tuple[np.ndarray, np.ndarray]:
    """Every second rank that satisfies `needs`, and the least third rank that goes with it."""
    _, b, c, d = sizes
    r1 = rank // r0
    lowest = max(needs.r2, -(-needs.r1_r2 // r1), -(-needs.r0_r2 // r0))
    r2 = np.arange(lowest, max(lowest, min(r1 * b, c * d * r0)) + 1)
    third = max(needs.r3, -(-needs.r3_r0 // r0), -(-needs.r1_r3 // r1))
    r3 = np.maximum(third, -(-needs.r2_r3 // r2))
    possible = r3 <= d * r0
    return (r2[possible], r3[possible]) if possible.any() else (r2, r3)


def cost_at(cost: Cost, shift: int, shifted: Sequence[Any]) -> Any:
    """The cost of a ring from its ranks in the shifted order."""
    start = -shift % 4
    return cost((*shifted[start:], *shifted[:start]))


def floor(cost: Cost, shift: int, sizes: Sizes, rank: int, r0: int, needs: Needs) -> int:
    """Least cost over all second and third ranks that satisfy `needs`.

    Only second ranks up to where the third one is as small as it gets: beyond, the cost rises.
    """
    _, b, c, d = sizes
    r1 = rank // r0
    third = max(needs.r3, -(-needs.r3_r0 // r0), -(-needs.r1_r3 // r1))
    most = max(third, d * r0)  # a third rank above d·r0 does not exist
    lowest = max(needs.r2, -(-needs.r1_r2 // r1), -(-needs.r0_r2 // r0), -(-needs.r2_r3 // most))
    highest = min(max(lowest, min(r1 * b, c * d * r0)), max(lowest, -(-needs.r2_r3 // third)))
    if highest - lowest < FEW:
        return min(
            int(cost_at(cost, shift, (r0, r1, r2, max(third, -(-needs.r2_r3 // r2)))))
            for r2 in range(lowest, highest + 1)
        )
    seconds = np.arange(lowest, highest + 1)
    thirds = np.maximum(third, -(-needs.r2_r3 // seconds))
    return int(np.min(cost_at(cost, shift, (r0, r1, seconds, thirds))))


def _level(share: float) -> int:
    return math.floor(math.log(share**2, LEVEL))


def _tails(matrix: Tensor) -> Energies:
    return tail_energies(squared_values(smaller_gram(matrix)))
