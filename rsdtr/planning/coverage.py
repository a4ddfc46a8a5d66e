"""What a plan compresses and what it leaves alone, in one sentence."""

from __future__ import annotations

import math

from rsdtr.planning.plan import CompressionPlan

_NAMES = {"conv": ("convolution", "convolutions"), "linear": ("linear layer", "linear layers")}


def coverage(plan: CompressionPlan) -> str:
    """How many convolutions and linear layers become rings, which part of all parameters their
    kernels are, and what stays as it is.
    """
    counts, held = [], 0
    for kind, (one, several) in _NAMES.items():
        layers = [layer for layer in plan.layers if layer.kind == kind]
        rings = [layer for layer in layers if layer.kept_dense is None]
        held += sum(math.prod(layer.shape) for layer in rings)
        if layers:
            counts.append(f"{len(rings)} of {len(layers)} {one if len(layers) == 1 else several}")
    share = 100 * held / max(1, plan.params.original)
    kinds = {layer.kind for layer in plan.layers}
    rest = "everything else stays" if "linear" in kinds else "linear layers and all else stay"
    return (
        f"{' and '.join(counts)} become rings, {share:.3g} % of the network's parameters; "
        f"{rest} as trained."
    )
