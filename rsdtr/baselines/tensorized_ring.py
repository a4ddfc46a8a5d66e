"""Tensorized tensor ring (TRN, Wang et al. 2018): channels reshaped to factors, one rank R.

The ring's modes are O1 … Oq, I1 … Ip and the KH·KW pixels of the kernel together. PSTRN (Li et al.
2022) searched a rank for each stage of two networks.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from functools import lru_cache, partial
from math import prod

from torch import Tensor

from rsdtr.baselines.conv_chain import Stage
from rsdtr.baselines.lowrank import LowRank, Ranks
from rsdtr.baselines.reach_pcr import Kernels
from rsdtr.errors import PlanError
from rsdtr.ring.cost import Size
from rsdtr.ring.tensor_ring import checked_kernel

LARGEST = 4  # no factor of a channel number is larger, unless it is prime
ITERATIONS = 15


class TensorizedRing:
    """Fitted by tensorly's alternating least squares from seeded random cores.

    A ring SVD cannot start it: it bounds the product of two ranks by the size of a mode, which is 4
    here. The layer runs as one convolution with the rebuilt kernel; its MACs are those of the
    best order (opt_einsum's) in which the input meets the I-cores, the pixels, the O-cores.
    """

    def __init__(self, kernel: Tensor) -> None:
        self.kernel = checked_kernel(kernel)
        self.shape = tuple(self.kernel.shape)
        self.modes = _modes(self.shape)
        self._found: dict[int, tuple[float, tuple[Tensor, ...]]] = {}

    def of_rank(self, rank: int) -> Ranks:
        return (rank,)

    def ranks(self, eps: float) -> Ranks | None:
        # R² · (sum of modes) scalars.
        limit = int(((self.kernel.numel() - 1) / sum(self.modes)) ** 0.5)
        if limit < 1 or self._fitted(limit)[0] > eps:
            return None
        low, high = 0, limit
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._fitted(middle)[0] <= eps else (middle, high)
        return (high,)

    def _fitted(self, rank: int) -> tuple[float, tuple[Tensor, ...]]:
        if rank not in self._found:
            import tensorly as tl  # of the extra `compare`
            from tensorly import tenalg
            from tensorly.decomposition import tensor_ring_als

            folded = self.kernel.reshape(self.modes)
            with (
                tl.backend_context("pytorch", local_threadsafe=True),
                tenalg.backend_context("einsum", local_threadsafe=True),
            ):
                ring = tensor_ring_als(
                    folded, [rank] * (len(self.modes) + 1), ls_solve="normal_eq",
                    n_iter_max=ITERATIONS, tol=1e-4, random_state=0,
                )  # fmt: skip
                error = float((folded - ring.to_tensor()).norm() / folded.norm())
            self._found[rank] = error, tuple(ring.factors)
        return self._found[rank]

    def shapes(self, ranks: Ranks) -> tuple[tuple[int, ...], ...]:
        return tuple((ranks[0], mode, ranks[0]) for mode in self.modes)

    def stages(self, ranks: Ranks) -> tuple[Stage, ...]:
        count = len(self.modes)
        bonds, modes = string.ascii_uppercase[:count], string.ascii_lowercase[:count]
        cores = [f"{bonds[k]}{modes[k]}{bonds[(k + 1) % count]}" for k in range(count)]
        o, i, kh, kw = self.shape
        return (
            Stage(
                kernel=(o, i, kh, kw), axes=(0, 1), cores=tuple(range(count)),
                equation=f"{','.join(cores)}->{modes}",
            ),
        )  # fmt: skip

    def cores(self, ranks: Ranks) -> tuple[Tensor, ...]:
        return self._fitted(ranks[0])[1]

    def macs(self, ranks: Ranks, input_size: Size, output_size: Size) -> int:
        return tensorized_macs(self.shape, ranks[0], input_size, output_size)


def tensorized_storage(shape: Sequence[int], rank: int) -> int:
    """Scalars in the tensorized ring of one rank R for a kernel (O, I, KH, KW)."""
    return rank**2 * sum(_modes(shape))


def tensorized_macs(shape: Sequence[int], rank: int, input_size: Size, output_size: Size) -> int:
    """MACs of the tensorized layer for one input, contracted in the best order; sizes (H, W).

    The order of least multiplications in which the input meets the I-cores, the pixels, and the
    O-cores; cores that are contracted with each other on the way are counted.
    """
    o, i, kh, kw = shape
    inside = _contraction_macs(factors(i), rank, prod(input_size), into_ring=True)
    outside = _contraction_macs(factors(o), rank, prod(output_size), into_ring=False)
    # The pixels' core is a convolution from R to R channels, once for every index of the ring.
    return inside + rank**3 * kh * kw * prod(output_size) + outside


def _modes(shape: Sequence[int]) -> tuple[int, ...]:
    o, i, kh, kw = shape
    return (*factors(o), *factors(i), kh * kw)


def factors(channels: int) -> tuple[int, ...]:
    """A number of channels as factors of at most 4, and one for what is left."""
    found, rest = [], channels
    for factor in (LARGEST, 3, 2):
        while rest % factor == 0:
            found.append(factor)
            rest //= factor
    return (*found, rest) if rest > 1 or not found else tuple(found)


@lru_cache(maxsize=4096)  # the search for an order takes milliseconds
def _contraction_macs(modes: tuple[int, ...], rank: int, pixels: int, *, into_ring: bool) -> int:
    """MACs of contracting pixels × channels with the cores of these modes, or of making them.

    into_ring: (modes…, pixels) -> (left bond, right bond, pixels); else the other way.
    """
    import opt_einsum  # of the extra `compare`

    count = len(modes)
    bonds, letters = string.ascii_uppercase[: count + 1], string.ascii_lowercase[:count]
    cores = [bonds[k] + letters[k] + bonds[k + 1] for k in range(count)]
    ends = (f"{letters}z", f"{bonds[0]}{bonds[-1]}z")
    images, result = ends if into_ring else reversed(ends)
    sizes = dict(zip(letters, modes, strict=True)) | dict.fromkeys(bonds, rank) | {"z": pixels}
    inputs = [images, *cores]
    shapes = [tuple(sizes[letter] for letter in term) for term in inputs]
    _, found = opt_einsum.contract_path(
        f"{','.join(inputs)}->{result}", *shapes, shapes=True, optimize="optimal"
    )
    macs = 0
    for _, _, equation, _, _ in found.contraction_list:
        left = equation.split("->")[0].replace(",", "")
        macs += prod(sizes[letter] for letter in set(left))
    return macs


TRN = LowRank("trn", "tensorized tensor ring, one rank", TensorizedRing, uniform=True)


# PSTRN's ranks, in the order that one of its authors' library (tednet) reads them: the first
# convolution, the first stage, the first block of the second stage and the rest of it, the same of
# the third stage, and the linear layer. The first and the last have nothing to say here: those two
# layers stay dense by the layer policy.
SEARCHED = {
    "cifar10_resnet20": ((4, 8, 6, 8, 6, 12, 10), (8, 15, 10, 12, 14, 18, 12)),
    "cifar10_resnet32": ((3, 12, 9, 9, 9, 9, 6), (17, 14, 10, 13, 18, 15, 10)),
}
_STAGES = ("conv1", "layer1.", "layer2.0.", "layer2.", "layer3.0.", "layer3.", "linear")


def searched_ranks(kernels: Kernels, pcr: float) -> dict[str, Ranks | str]:
    """For every layer its ranks, or why it stays dense, by the list that stores most and reaches
    the PCR. PlanError for another network, or a PCR that no list of it reaches.
    """
    model = kernels.profile.model
    if model not in SEARCHED:
        raise PlanError(f"PSTRN has no ranks for {model}: it has some for {', '.join(SEARCHED)}")
    found = [kernels.each_rank(partial(_of, ranks)) for ranks in SEARCHED[model]]
    reached = {kernels.pcr(each): each for each in found}
    enough = [ratio for ratio in reached if ratio >= pcr]
    if not enough:
        told = ", ".join(f"{ratio:.3g}" for ratio in sorted(reached))
        raise PlanError(f"PSTRN's ranks for {model} reach PCR {told}, not {pcr:g}")
    return reached[min(enough)]


def _of(ranks: tuple[int, ...], layer: str) -> int:
    """The rank of a layer: that of the first stage whose name it begins with."""
    return next(r for stage, r in zip(_STAGES, ranks, strict=True) if layer.startswith(stage))


PSTRN = LowRank("trn-pstrn", "tensorized tensor ring, PSTRN's ranks", TensorizedRing, uniform=True)
