"""Lower bounds: what any ring within an error must cost, from six spectra of the kernel alone.

Two bonds cut a ring in two, so the product of their ranks is at least the ε-rank of the unfolding
between the two halves. A kernel has six such cuts: {O}, {I}, {KH}, {KW}, {O, I} and {I, KH}.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from rsdtr.truncation import Energies, rank_within, tail_energies
from rsdtr.unfolding import Sizes, smaller_gram, squared_values

FEW = 10  # ranks that are tried faster one by one than as an array
Cost = Callable[[Any], Any]  # ranks R_0…R_3 (numbers or arrays) -> a cost rising with each rank


class PairSpectra:
    """Tails of the two unfoldings that put two modes on either side, for a kernel (O, I, KH, KW).

    In single precision: a bound may be loose, and `needed` leaves room for the rounding.
    """

    def __init__(self, kernel: Tensor) -> None:
        self._kernel = kernel
        o, i, kh, kw = kernel.shape
        self.crossed_side = min(i * kh, kw * o)

    @cached_property
    def channels(self) -> Energies:
        """{O, I} against {KH, KW}."""
        o, i, kh, kw = self._kernel.shape
        return _tails(self._kernel.float().reshape(o * i, kh * kw))

    @cached_property
    def crossed(self) -> Energies:
        """{I, KH} against {KW, O}: a large matrix, only computed where it pays."""
        o, i, kh, kw = self._kernel.shape
        return _tails(self._kernel.float().permute(1, 2, 3, 0).reshape(i * kh, kw * o))

    @property
    def crossed_is_known(self) -> bool:
        """Whether `crossed` has been computed."""
        return "crossed" in self.__dict__


@dataclass(frozen=True)
class Needs:
    """Lower bounds on products of the shifted ring's ranks r0…r3, and on r2 alone."""

    r1_r2: int = 1
    r0_r2: int = 1
    r2_r3: int = 1
    r3_r0: int = 1
    r1_r3: int = 1
    r2: int = 1

    def with_crossed(self, shift: int, rank: int) -> Needs:
        """The same, with the rank of the crossed unfolding added where this shift has it."""
        return replace(self, r1_r3=rank) if shift % 2 == 0 else replace(self, r0_r2=rank)


def needed(tails: Energies, allowed: float) -> int:
    """Smallest rank whose tail may be within `allowed` energy, generous to rounding."""
    return rank_within(tails, allowed * (1 + 1e-9) + 1e-5 * float(tails[0]))


def open_ranks(sizes: Sizes, rank: int, r0: int, needs: Needs) -> tuple[np.ndarray, np.ndarray]:
    """Every second rank that satisfies `needs`, and the least third rank that goes with it."""
    _, b, c, d = sizes
    r1 = rank // r0
    lowest = max(needs.r2, -(-needs.r1_r2 // r1), -(-needs.r0_r2 // r0))
    r2 = np.arange(lowest, max(lowest, min(r1 * b, c * d * r0)) + 1)
    r3 = np.maximum(max(-(-needs.r3_r0 // r0), -(-needs.r1_r3 // r1)), -(-needs.r2_r3 // r2))
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
    third = max(-(-needs.r3_r0 // r0), -(-needs.r1_r3 // r1))
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


def _tails(matrix: Tensor) -> Energies:
    return tail_energies(squared_values(smaller_gram(matrix)))
