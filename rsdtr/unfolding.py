"""The three matrices that the ring SVD truncates, each through its smaller Gram matrix."""

from __future__ import annotations

from collections import OrderedDict
from functools import cache, cached_property, partial
from math import ceil, prod

import torch
from torch import Tensor

from rsdtr.truncation import Energies, tail_energies

KEPT_SCALARS = 1 << 22  # of second matrices, per shift: small kernels keep most of them
MORE_ROWS = 16  # of a second matrix, computed together
KEPT_TAILS = 256  # second matrices, per shift, of which only the tails and norms are kept
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
        self._kernel = kernel
        a, b, c, d = (kernel.shape[(shift + k) % 4] for k in range(4))
        self.sizes: Sizes = (a, b, c, d)
        self._leading_rows = kernel.new_zeros(0, b, c, d)
        self._rows_gram = kernel.new_zeros(0, b, 0, b)
        self._seconds: OrderedDict[tuple[int, int], SecondUnfolding] = OrderedDict()
        self._shed: OrderedDict[tuple[int, int], SecondUnfolding] = OrderedDict()

    def _matrix(self) -> Tensor:
        order = [(self.shift + k) % 4 for k in range(4)]
        return self._kernel.permute(order).reshape(self.sizes[0], -1)  # (a, b·c·d)

    @cached_property
    def _eigen(self) -> tuple[Tensor, Tensor]:
        """Squared singular values (n,) and the matching left singular vectors (a, n)."""
        matrix = self._matrix()
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
    def tails(self) -> Energies:
        """Energy lost at each rank 0 … n, (n+1,)."""
        return tail_energies(self.squared)

    def _rows(self, rank: int) -> Tensor:
        """The kernel in the basis of its leading left singular vectors, (rank, b, c, d)."""
        if len(self._leading_rows) < rank:
            vectors = self._eigen[1][:, :rank]
            self._leading_rows = (vectors.T @ self._matrix()).reshape(-1, *self.sizes[1:])
        return self._leading_rows[:rank]

    def second_gram(self, rank: int, r0: int) -> Tensor:
        """M·Mᵀ of the second matrix M for a first rank r = r0·r1, (r1·b, r1·b).

        M's rows are sums over r0 of rows that no divisor changes: one Gram matrix of those serves
        every first rank and divisor.
        """
        a, b, c, d = self.sizes
        r1 = rank // r0
        if a * b > c * d:  # that one would be larger than M·Mᵀ ever is
            return smaller_gram(self.remainder(rank, r0))
        if len(self._rows_gram) < rank:
            self._rows(rank)
            rows = self._leading_rows.reshape(-1, c * d)
            self._rows_gram = (rows @ rows.T).reshape(len(self._leading_rows), b, -1, b)
        gram = self._kernel.new_zeros(r1, b, r1, b)
        for start in range(0, rank, r1):
            block = self._rows_gram[start : start + r1, :, start : start + r1]
            if 1 < r0 < rank:
                signs = self._signs[start : start + r1]
                block = signs[:, None, None, None] * signs[:, None] * block
            gram += block
        return gram.reshape(r1 * b, r1 * b)

    @cached_property
    def _signs(self) -> Tensor:
        squared, basis = self._eigen
        rows, columns = self.sizes[0], prod(self.sizes[1:])
        if rows >= 32 and 2 * rows <= columns <= 16 * rows and signs_follow_from_gram():
            single = single_left_vectors(square_root(squared, basis))
        else:
            single = torch.linalg.svd(self._matrix().float(), full_matrices=False).U
        agreement = (basis * single[:, : basis.shape[1]]).sum(0)
        return torch.where(agreement < 0, -1.0, 1.0).to(basis.dtype)

    def basis(self, rank: int, r0: int) -> Tensor:
        """The leading left singular vectors as `remainder` has them, (a, rank)."""
        vectors = self._eigen[1][:, :rank]
        return vectors * self._signs[:rank] if 1 < r0 < rank else vectors

    def remainder(self, rank: int, r0: int) -> Tensor:
        """What the first truncation leaves, with r0 moved to the far end: (r1·b, c·d·r0)."""
        r1 = rank // r0
        b, c, d = self.sizes[1:]
        rows = self._rows(rank)
        # Where r0 or r1 is 1 a sign only turns a whole row or column: no rank sees it.
        if 1 < r0 < rank:
            rows = self._signs[:rank, None, None, None] * rows
        split = rows.reshape(r0, r1, b, c, d)
        return split.permute(1, 2, 3, 4, 0).reshape(r1 * b, c * d * r0)

    def second(self, rank: int, r0: int) -> SecondUnfolding:
        """The second matrix for a first rank and divisor.

        The latest ones asked for are kept, and of those before them the tails and norms.
        """
        at = rank, r0
        found = self._seconds.pop(at, None) or self._shed.pop(at, None)
        self._seconds[at] = found = found or SecondUnfolding(self, rank, r0)
        while len(self._seconds) > max(8, KEPT_SCALARS // self._kernel.numel()):
            oldest, second = self._seconds.popitem(last=False)
            second.shed()
            self._shed[oldest] = second
        while len(self._shed) > KEPT_TAILS:
            self._shed.popitem(last=False)
        return found


class SecondUnfolding:
    """The second matrix (r1·b, c·d·r0) of the ring SVD for one first rank r = r0·r1."""

    def __init__(self, first: FirstUnfolding, rank: int, r0: int) -> None:
        b, c, d = first.sizes[1:]
        self.side = min(rank // r0 * b, c * d * r0)  # the smaller side
        self.third_side = min(self.side * c, d * r0)  # the third matrix's, at most
        self._third_shape = (c, d * r0)
        self._wide = rank // r0 * b <= c * d * r0
        self._remainder = partial(first.remainder, rank, r0)
        self._wide_gram = partial(first.second_gram, rank, r0)
        self._leading_rows: Tensor | None = None
        self._third_norms: dict[int, float] = {}
        self._third_tails: dict[int, Energies] = {}
        self._latest: tuple[int, Tensor] | None = None  # second rank and its third Gram matrix

    @cached_property
    def _gram(self) -> Tensor:
        return self._wide_gram() if self._wide else smaller_gram(self._remainder())

    @cached_property
    def _norms(self) -> tuple[float, float]:
        """Trace and squared Frobenius norm of the Gram matrix."""
        if "_svd" in self.__dict__:
            return float(self.squared.sum()), float(self.squared.square().sum())
        return float(self._gram.trace()), float(self._gram.square().sum())

    def rank_floor(self, allowed: float) -> int:
        """A lower bound on the second rank that loses at most `allowed` energy; no eigenvalue."""
        return flat_rank(*self._norms, allowed)

    @cached_property
    def _svd(self) -> tuple[Tensor, Tensor]:
        """Squared singular values (n,), and the eigenvectors of the smaller Gram matrix, (n, n)."""
        squared, vectors = torch.linalg.eigh(self._gram)
        del self._gram  # not needed any more
        return squared.flip(0).clamp_min(0), vectors.flip(1)

    def _rows(self, r2: int) -> Tensor:
        """Σ·Vᵀ, the matrix in the basis of its left singular vectors, its first r2 rows at least.

        A few more are computed when more are asked for: neighbours of a second rank come next.
        """
        have = 0 if self._leading_rows is None else len(self._leading_rows)
        if self._leading_rows is None or have < r2:
            squared, vectors = self._svd
            end = r2 if have == 0 else max(r2, have + MORE_ROWS)
            if self._wide:
                more = vectors[:, have:end].T @ self._remainder()  # (…, c·d·r0)
            else:
                more = squared[have:end, None].sqrt() * vectors[:, have:end].T
            old = [] if self._leading_rows is None else [self._leading_rows]
            self._leading_rows = torch.cat([*old, more])
        return self._leading_rows

    @property
    def squared(self) -> Tensor:
        """Squared singular values, descending."""
        return self._svd[0]

    @cached_property
    def tails(self) -> Energies:
        """Energy lost at each second rank 0 … n, (n+1,)."""
        return tail_energies(self.squared)

    def third_floor(self, r2: int, allowed: float) -> int:
        """A lower bound on the third rank that loses at most `allowed` energy; no eigenvalue."""
        if r2 not in self._third_norms:
            self._third_norms[r2] = float(self._third_gram(r2).square().sum())
        return flat_rank(self._kept(r2), self._third_norms[r2], allowed)

    def third_tails(self, r2: int) -> Energies:
        """Energy lost at each third rank 0 … n when r2 is the second, (n+1,); kept."""
        if r2 not in self._third_tails:
            self._third_tails[r2] = tail_energies(squared_values(self._third_gram(r2)))
        return self._third_tails[r2]

    @property
    def known_thirds(self) -> tuple[int, ...]:
        """The second ranks whose `third_tails` are known already."""
        return tuple(self._third_tails)

    def shed(self) -> None:
        """Drop all that is large; it is computed again when it is needed again."""
        for name in ("_svd", "_gram"):
            self.__dict__.pop(name, None)
        self._leading_rows = None
        self.release()

    def release(self) -> None:
        """Drop the third Gram matrix that was kept for its neighbours: it may be large."""
        self._latest = None

    def _third_gram(self, r2: int) -> Tensor:
        """The smaller Gram matrix of the third matrix (r2·c, d·r0) at second rank r2.

        A larger second rank adds rows to that matrix: what the latest Gram matrix has is not
        computed again.
        """
        c, rest = self._third_shape
        rows = self._rows(r2 if self._latest is None else max(r2, self._latest[0]))
        wide = r2 * c <= rest
        if self._latest is not None and (self._latest[0] * c <= rest) == wide:
            at, gram = self._latest
            low, high = sorted((at, r2))
            between = rows[low:high].reshape((high - low) * c, rest)
            if wide and at < r2:
                across = rows[:at].reshape(at * c, rest) @ between.T  # (at·c, (r2-at)·c)
                right = torch.cat([across, between @ between.T])
                gram = torch.cat([torch.cat([gram, across.T]), right], 1)
            elif wide:
                return gram[: r2 * c, : r2 * c]
            elif high - low < r2:
                gram = torch.addmm(gram, between.T, between, alpha=1 if at < r2 else -1)
            else:
                gram = smaller_gram(rows[:r2].reshape(r2 * c, rest))
        else:
            gram = smaller_gram(rows[:r2].reshape(r2 * c, rest))
        self._latest = r2, gram
        return gram

    def _kept(self, r2: int) -> float:
        return float(self.tails[0] - self.tails[r2])


def smaller_gram(matrix: Tensor) -> Tensor:
    """M·Mᵀ or Mᵀ·M, whichever has the smaller side."""
    rows, columns = matrix.shape
    return matrix @ matrix.T if rows <= columns else matrix.T @ matrix


def square_root(squared: Tensor, vectors: Tensor) -> Tensor:
    """V·Σ·Vᵀ, the symmetric square root of a Gram matrix, from its eigenvalues and vectors."""
    return (vectors * squared.sqrt()) @ vectors.T


def single_left_vectors(root: Tensor) -> Tensor:
    """Left singular vectors, in the signs of LAPACK's single precision, of wide M: M·Mᵀ = root²."""
    # A few columns of zeros keep the matrix wide: LAPACK treats square ones another way.
    wide = torch.cat([root.float(), root.new_zeros(len(root), 8, dtype=torch.float32)], 1)
    return torch.linalg.svd(wide, full_matrices=False).U


@cache
def signs_follow_from_gram() -> bool:
    """Whether this LAPACK gives a wide matrix the signs of the square root of its Gram matrix.

    Bidiagonalising a wide matrix from the left sees only M·Mᵀ. MKL does so up to 19 times as many
    columns as rows; a LAPACK that takes an LQ factorisation first has other signs, and then the
    whole matrix must be decomposed. So must one of fewer than 32 rows: below divide and conquer's
    size, LAPACK iterates, and rounding decides some signs.
    """
    generator = torch.Generator().manual_seed(0)
    for rows, columns in ((32, 64), (40, 640)):
        matrix = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
        squared, vectors = torch.linalg.eigh(matrix @ matrix.T)
        whole = torch.linalg.svd(matrix.float(), full_matrices=False).U
        small = single_left_vectors(square_root(squared, vectors))
        if bool(((whole * small).sum(0) < 0.5).any()):
            return False
    return True


def squared_values(gram: Tensor) -> Tensor:
    """Squared singular values, descending, from a Gram matrix."""
    return torch.linalg.eigvalsh(gram).flip(0).clamp_min(0)


def flat_rank(energy: float, squared_gram_norm: float, allowed: float) -> int:
    """The least rank that can lose at most `allowed` energy, from the Gram matrix's two norms.

    energy: its trace; squared_gram_norm: ‖G‖_F². By Cauchy–Schwarz the ρ largest eigenvalues sum
    to at most √ρ·‖G‖_F: sharp for flat spectra, which are the expensive ones.
    """
    missing = max(0.0, energy - allowed)
    return max(1, ceil(missing**2 / squared_gram_norm * (1 - 1e-9)))
