"""The ranks that PSTRN searched for tensorized rings (Li et al. 2022), one for each stage.

Seven numbers, in the order that one of its authors' library (tednet) reads them: the first
convolution, the first stage, the first block of the second stage and the rest of it, the same of
the third stage, and the linear layer. The first and the last have nothing to say here: those two
layers stay dense by the layer policy.
"""

from __future__ import annotations

from functools import partial

from rsdtr.errors import PlanError
from rsdtr.methods.lowrank import LowRank, Ranks
from rsdtr.methods.network import Kernels
from rsdtr.methods.tensorized import TensorizedRing

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
