"""Matrix product operator (MPO): a train whose bonds tie output channels to input channels.

The kernel's pixels come first, then the channels in pairs (O1, I1), (O2, I2), …, as Garipov et al.
(2016) order them; O = O1·O2·…, I = I1·I2·…, in factors of at most 4.
"""

from __future__ import annotations

import string
from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np
from torch import Tensor

from rsdtr.baselines.conv_chain import Stage
from rsdtr.baselines.lowrank import (
    Chain,
    LowRank,
    Ranks,
    cheapest,
    unfolding_tails,
)
from rsdtr.baselines.tensorized_ring import factors
from rsdtr.ring.tensor_ring import checked_kernel


class OperatorTrain(Chain):
    """tensorly's TT-SVD of the paired modes; it runs as one convolution with the rebuilt kernel.

    So it saves parameters and no multiplication. The channel numbers of both sides get as many
    factors, the last ones 1 where one side has fewer.
    """

    def __init__(self, kernel: Tensor) -> None:
        kernel = checked_kernel(kernel)
        self.shape = o, i, kh, kw = tuple(kernel.shape)
        depth = max(len(factors(o)), len(factors(i)))
        self.outs, self.ins = (
            (*factors(n), *(1 for _ in range(depth - len(factors(n))))) for n in (o, i)
        )
        pairs = [mode for k in range(depth) for mode in (k, depth + k)]
        modes = kernel.reshape(*self.outs, *self.ins, kh * kw).permute(2 * depth, *pairs)
        self.folded = modes.reshape(kh * kw, *map(prod, zip(self.outs, self.ins, strict=True)))
        self.tails = [unfolding_tails(self.folded, range(cut + 1)) for cut in range(depth)]

    def ranks(self, eps: float) -> Ranks | None:
        found = cheapest(self.tails, eps, self._storage)
        # The cuts before leave no more than this: a larger rank would store zeros.
        kept: list[int] = []
        for rank, mode in zip(found, self.folded.shape, strict=False):
            kept.append(min(rank, mode * (kept[-1] if kept else 1)))
        return tuple(kept)

    def _storage(self, ranks: Any) -> Any:
        return np.asarray(sum(prod(shape, start=np.int64(1)) for shape in self.shapes(ranks)))

    def shapes(self, ranks: Any) -> tuple[tuple[Any, ...], ...]:
        return tuple(self._shapes(ranks))

    def _shapes(self, ranks: Any) -> Iterator[tuple[Any, ...]]:
        yield self.shape[2] * self.shape[3], ranks[0]
        *inner, last = zip(self.outs, self.ins, strict=True)
        for position, pair in enumerate(inner):
            yield ranks[position], *pair, ranks[position + 1]
        yield ranks[-1], *last

    def stages(self, ranks: Ranks) -> tuple[Stage, ...]:
        depth = len(self.outs)
        bonds = string.ascii_uppercase[:depth]
        outs, ins = string.ascii_lowercase[:depth], string.ascii_lowercase[depth : 2 * depth]
        terms = ["z" + bonds[0]]
        terms += [bonds[k] + outs[k] + ins[k] + bonds[k + 1 : k + 2] for k in range(depth)]
        o, i, kh, kw = self.shape
        return (
            Stage(
                kernel=(o, i, kh, kw), axes=(0, 1), cores=tuple(range(depth + 1)),
                equation=f"{','.join(terms)}->{outs}{ins}z",
            ),
        )  # fmt: skip

    def cores(self, ranks: Ranks) -> tuple[Tensor, ...]:
        import tensorly as tl  # of the extra `compare`
        from tensorly.decomposition import tensor_train

        with tl.backend_context("pytorch", local_threadsafe=True):
            train = tensor_train(self.folded.contiguous(), [1, *ranks, 1])
        both = zip(train.factors, self.shapes(ranks), strict=True)
        return tuple(core.reshape(shape) for core, shape in both)


MPO = LowRank("mpo", "MPO: a train of channel pairs, rebuilt", OperatorTrain)
