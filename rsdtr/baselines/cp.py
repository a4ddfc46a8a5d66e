"""CP: a sum of R products of four vectors, as 1×1, depthwise KH×1, depthwise 1×KW, 1×1."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from rsdtr.baselines.conv_chain import Stage
from rsdtr.baselines.lowrank import Chain, LowRank, Ranks
from rsdtr.ring.tensor_ring import checked_kernel

ITERATIONS = 40
CLOSE = 50  # the search for a rank ends once it is known to one part in so many


class Canonical(Chain):
    """CP by tensorly's alternating least squares (Lebedev et al. 2015), seeded.

    No spectrum tells its rank: the smallest one that meets ε_p is searched by bisection, to 2 %,
    among those that store less than the kernel; so it is the smallest found, not the smallest.
    """

    def __init__(self, kernel: Tensor) -> None:
        self.kernel = checked_kernel(kernel)
        self.shape = tuple(self.kernel.shape)
        self._found: dict[int, tuple[float, tuple[Tensor, ...]]] = {}

    def ranks(self, eps: float) -> Ranks | None:
        limit = (self.kernel.numel() - 1) // sum(self.shape)
        if limit < 1:
            return None
        within = [rank for rank in self._found if self.error(rank) <= eps]
        high = min(within, default=limit)
        if not within and self.error(limit) > eps:
            return None
        low = max((rank for rank in self._found if rank < high), default=0)
        while high - low > max(1, high // CLOSE):
            middle = (low + high) // 2
            if self.error(middle) <= eps:
                high = middle
            else:
                low = middle
        return (high,)

    def error(self, rank: int) -> float:
        """The relative error that the iteration reaches at this rank."""
        return self._decomposed(rank)[0]

    def _decomposed(self, rank: int) -> tuple[float, tuple[Tensor, ...]]:
        if rank not in self._found:
            import tensorly as tl  # of the extra `compare`
            from tensorly import tenalg
            from tensorly.decomposition import parafac

            with (
                tl.backend_context("pytorch", local_threadsafe=True),
                # Forty times as fast as tensorly's loop over the rank.
                tenalg.backend_context("einsum", local_threadsafe=True),
                warnings.catch_warnings(),
            ):
                # Modes smaller than the rank start from random vectors, and tensorly warns of it.
                warnings.simplefilter("ignore")
                _, factors = parafac(
                    self.kernel, rank, n_iter_max=ITERATIONS, init="svd", svd="truncated_svd",
                    tol=1e-5, random_state=0,
                )  # fmt: skip
                rebuilt = tl.cp_to_tensor((None, factors))
            error = float((self.kernel - rebuilt).norm() / self.kernel.norm())
            finite = torch.isfinite(rebuilt).all()
            self._found[rank] = (error if finite else float("inf"), _balanced(factors))
        return self._found[rank]

    def shapes(self, ranks: Ranks) -> tuple[tuple[int, ...], ...]:
        o, i, kh, kw = self.shape
        return (i, ranks[0]), (kh, ranks[0]), (kw, ranks[0]), (o, ranks[0])

    def stages(self, ranks: Ranks) -> tuple[Stage, ...]:
        (o, i, kh, kw), (r,) = self.shape, ranks
        return (
            Stage(kernel=(r, i, 1, 1), axes=(), cores=(0,), equation="ir->ri"),
            Stage(kernel=(r, 1, kh, 1), axes=(0,), cores=(1,), equation="hr->rh", groups=r),
            Stage(kernel=(r, 1, 1, kw), axes=(1,), cores=(2,), equation="wr->rw", groups=r),
            Stage(kernel=(o, r, 1, 1), axes=(), cores=(3,), equation="or->or"),
        )

    def cores(self, ranks: Ranks) -> tuple[Tensor, ...]:
        of_o, of_i, of_h, of_w = self._decomposed(ranks[0])[1]
        return of_i, of_h, of_w, of_o


def _balanced(factors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The same terms, each with four vectors of equal norm: training has one learning rate."""
    norms = torch.stack([factor.norm(dim=0) for factor in factors])  # (4, R)
    mean = norms.log().mean(0).exp()  # 0 where a vector is 0, as its whole term is
    return tuple(
        factor * (mean / norm.clamp_min(1e-300))
        for factor, norm in zip(factors, norms, strict=True)
    )


CP = LowRank("cp", "CP: 1×1, two depthwise, 1×1", Canonical)
