"""What a plan compresses and what it leaves alone, in one sentence."""

from __future__ import annotations

import math

from rsdtr.planning.plan import CompressionPlan


def coverage(plan: CompressionPlan) -> str:
    """How many convolutions and linear layers become rings, which part of all parameters their
    kernels are, and what stays as it is.
    """
    held = sum(math.prod(layer.shape) for layer in plan.layers if layer.kept_dense is None)
    share = 100 * held / max(1, plan.params.original)
    kinds = {layer.kind for layer in plan.layers}
    rest = "everything else stays" if "linear" in kinds else "linear layers and all else stay"
    return (
        f"{plan.counted} become rings, {share:.3g} % of the network's parameters; "
        f"{rest} as trained."
    )
