"""A first look in single precision at what a first rank and divisor would need.

Only norms and singular values are taken from it, which rounding moves by less than SINGLE of the
energy: enough to rule a candidate out, at half the price of computing it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

from torch import Tensor

from rsdtr.ring.rank_selection import Energies, rank_within, tail_energies
from rsdtr.search.gram import flat_rank, smaller_gram, squared_values
from rsdtr.search.memory_budget import Kept

_GRAMS = Kept(1 << 24)  # of all looks, before their eigenvalues are asked for
SINGLE = 1e-5  # room for single precision in a bound, as a part of the energy


class Look:
    """Lower bounds on the second and third rank of the ring SVD, from its rows before them.

    rows: called for them when needed, (r0, r1, b, c, d) in float32; energy: what they keep of the
    kernel's. `allowed` is always the energy that may be lost after the first truncation.
    """

    def __init__(self, rows: Callable[[], Tensor], energy: float) -> None:
        self._rows, self._energy = rows, energy
        self._gram: Tensor | None = None

    def second_floor(self, allowed: float) -> int:
        """A lower bound on the second rank; no eigenvalue."""
        if "second_tails" in self.__dict__:
            return self.second_rank(allowed)
        return self._flat(self._second_norm, allowed)

    def second_rank(self, allowed: float) -> int:
        """The second rank, or less where rounding could decide."""
        return rank_within(self.second_tails, allowed + SINGLE * self._energy)

    def third_floor(self, allowed: float) -> int:
        """A lower bound on the third rank, whatever the second one; no eigenvalue."""
        return self._flat(self._third_norm, allowed)

    @cached_property
    def second_tails(self) -> Energies:
        """Energy lost at each second rank 0 … n, (n+1,)."""
        tails = tail_energies(squared_values(self._second_gram()))
        self._gram = None
        return tails

    def _second_gram(self) -> Tensor:
        """The smaller Gram matrix of the second matrix (r1·b, c·d·r0)."""
        gram = self._gram
        if gram is None:
            _, r1, b, _, _ = (rows := self._rows()).shape
            gram = _far_gram(rows, r1 * b)
        return gram

    @cached_property
    def _second_norm(self) -> float:
        self._gram = gram = self._second_gram()  # most likely its eigenvalues are asked for next
        _GRAMS.use(self, "gram", gram.numel(), Look._drop)
        return float(gram.square().sum())

    def _drop(self) -> None:
        self._gram = None

    @cached_property
    def _third_norm(self) -> float:
        """Squared norm of the Gram matrix of (r1·b·c, d·r0), what the third truncation cuts."""
        _, r1, b, c, _ = (rows := self._rows()).shape
        return float(_far_gram(rows, r1 * b * c).square().sum())

    def _flat(self, squared_gram_norm: float, allowed: float) -> int:
        return flat_rank(self._energy, squared_gram_norm, allowed + SINGLE * self._energy)


def _far_gram(rows: Tensor, height: int) -> Tensor:
    """The smaller Gram matrix of rows (r0, r1, b, c, d) with r0 moved to the far end."""
    return smaller_gram(rows.permute(1, 2, 3, 4, 0).reshape(height, -1))
