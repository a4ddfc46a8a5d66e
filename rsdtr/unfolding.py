"""The three matrices that the ring SVD truncates, each through its smaller Gram matrix."""

from __future__ import annotations

from functools import cached_property
from math import ceil

import torch
from torch import Tensor

from rsdtr.truncation import tail_energies

Sizes = tuple[int, int, int, int]


class FirstUnfolding:
    """The first unfolding (a, b·c·d) of one circularly shifted kernel: all that no ε_p changes.

    `kernel` as from `checked_kernel`. sizes: the shifted modes (a, b, c, d). Float64 Gram matrices
    move a relative tail by less than 1e-7.

    A singular vector's sign is free, but the ranks of a first mode that is split (1 < r0 < r)
    depend on it. The published program takes the signs of single-precision LAPACK; so do we, to
    choose what it chooses, and only once such a split is looked at.
    """

    def __init__(self, kernel: Tensor, shift: int) -> None:
        self.shift = shift
        self._shifted = kernel.permute([(shift + k) % 4 for k in range(4)]).contiguous()
        a, b, c, d = self._shifted.shape
        self.sizes: Sizes = (a, b, c, d)
        self._at_rank: tuple[int, dict[int, SecondUnfolding]] = (0, {})

    @property
    def _matrix(self) -> Tensor:
        return self._shifted.reshape(self.sizes[0], -1)  # (a, b·c·d)

    @cached_property
    def _eigen(self) -> tuple[Tensor, Tensor]:
        """Squared singular values (n,) and the matching left singular vectors (a, n)."""
        matrix = self._matrix
        squared, vectors = torch.linalg.eigh(smaller_gram(matrix))
        squared, vectors = squared.flip(0).clamp_min(0), vectors.flip(1)
        if matrix.shape[0] <= matrix.shape[1]:
            return squared, vectors
        # Directions without energy have no left vector: they are left out.
        kept = squared > squared[0] * 1e-24
        squared, vectors = squared[kept], vectors[:, kept]
        return squared, matrix @ vectors / squared.sqrt()

    @property
    def squared(self) -> Tensor:
        """Squared singular values, descending, (n,)."""
        return self._eigen[0]

    @cached_property
    def tails(self) -> Tensor:
        """Energy lost at each rank 0 … n, (n+1,)."""
        return tail_energies(self.squared)

    @cached_property
    def _rows(self) -> Tensor:
        return (self._eigen[1].T @ self._matrix).reshape(-1, *self.sizes[1:])  # (n, b, c, d)

    @cached_property
    def _signs(self) -> Tensor:
        basis = self._eigen[1]
        single = torch.linalg.svd(self._matrix.float(), full_matrices=False).U
        agreement = (basis * single[:, : basis.shape[1]]).sum(0)
        return torch.where(agreement < 0, -1.0, 1.0).to(basis.dtype)

    @cached_property
    def _signed_rows(self) -> Tensor:
        return self._signs[:, None, None, None] * self._rows

    def basis(self, rank: int, r0: int) -> Tensor:
        """The leading left singular vectors as `remainder` has them, (a, rank)."""
        vectors = self._eigen[1][:, :rank]
        return vectors * self._signs[:rank] if 1 < r0 < rank else vectors

    def remainder(self, rank: int, r0: int) -> Tensor:
        """What the first truncation leaves, with r0 moved to the far end: (r1·b, c·d·r0)."""
        r1 = rank // r0
        b, c, d = self.sizes[1:]
        # Where r0 or r1 is 1 a sign only turns a whole row or column: no rank sees it.
        rows = self._signed_rows if 1 < r0 < rank else self._rows
        split = rows[:rank].reshape(r0, r1, b, c, d)
        return split.permute(1, 2, 3, 4, 0).reshape(r1 * b, c * d * r0)

    def second(self, rank: int, r0: int) -> SecondUnfolding:
        """The second matrix for a first rank and divisor; kept until another rank is asked for."""
        if self._at_rank[0] != rank:
            self._at_rank = (rank, {})
        kept = self._at_rank[1]
        if r0 not in kept:
            kept[r0] = SecondUnfolding(self, rank, r0)
        return kept[r0]


class SecondUnfolding:
    """The second matrix (r1·b, c·d·r0) of the ring SVD for one first rank r = r0·r1."""

    def __init__(self, first: FirstUnfolding, rank: int, r0: int) -> None:
        self._matrix = first.remainder(rank, r0)
        self._third_shape = (first.sizes[2], first.sizes[3] * r0)  # (c, d·r0)
        self._thirds: tuple[int, Tensor | None] = (0, None)

    @cached_property
    def _gram(self) -> Tensor:
        return smaller_gram(self._matrix)

    def rank_floor(self, share: float) -> int:
        """A lower bound on the second rank, without an eigenvalue."""
        return flat_rank(self._gram, share)

    @cached_property
    def _eigen(self) -> tuple[Tensor, Tensor]:
        squared, vectors = torch.linalg.eigh(self._gram)
        return squared.flip(0).clamp_min(0), vectors.flip(1)

    @property
    def squared(self) -> Tensor:
        """Squared singular values, descending."""
        return self._eigen[0]

    def third_gram(self, r2: int) -> Tensor:
        """The smaller Gram matrix of the third matrix (r2·c, d·r0) at second rank r2."""
        if self._thirds[0] == r2 and self._thirds[1] is not None:
            return self._thirds[1]
        squared, vectors = self._eigen
        leading = vectors[:, :r2]
        if self._matrix.shape[0] <= self._matrix.shape[1]:
            rows = leading.T @ self._matrix  # (r2, c·d·r0)
        else:
            rows = squared[:r2, None].sqrt() * leading.T
        gram = smaller_gram(rows.reshape(r2 * self._third_shape[0], self._third_shape[1]))
        self._thirds = (r2, gram)
        return gram


def smaller_gram(matrix: Tensor) -> Tensor:
    """M·Mᵀ or Mᵀ·M, whichever has the smaller side."""
    rows, columns = matrix.shape
    return matrix @ matrix.T if rows <= columns else matrix.T @ matrix


def squared_values(gram: Tensor) -> Tensor:
    """Squared singular values, descending, from a Gram matrix."""
    return torch.linalg.eigvalsh(gram).flip(0).clamp_min(0)


def flat_rank(gram: Tensor, share: float) -> int:
    """The least rank whose tail can be below `share` of the norm, from trace and Frobenius norm.

    By Cauchy–Schwarz the ρ largest eigenvalues sum to at most √ρ·‖G‖_F: sharp for flat spectra,
    which are the expensive ones.
    """
    needed = (1 - share**2) * float(gram.trace())
    return max(1, ceil(needed**2 / float(gram.square().sum()) * (1 - 1e-9)))
