"""Which vectors of a running network are flattened maps (C, H, W), told by what made them."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from rsdtr.models.run import tensors_in

Map = tuple[int, int, int]
# Operations by their names in aten. Whose answer is a map of its own, channels first:
_MAPS = {
    "convolution", "_convolution", "cudnn_convolution", "mkldnn_convolution", "max_pool2d",
    "max_pool2d_with_indices", "avg_pool2d", "adaptive_avg_pool2d", "_adaptive_avg_pool2d",
    "adaptive_max_pool2d", "upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d",
}  # fmt: skip
# Which keep the order of the numbers, whatever shape they give them:
_SAME_ORDER = {
    "view", "_unsafe_view", "reshape", "squeeze", "unsqueeze", "alias", "detach", "clone",
    "contiguous", "_to_copy", "lift_fresh", "_reshape_alias", "native_batch_norm",
    "_native_batch_norm_legit", "_native_batch_norm_legit_no_training", "cudnn_batch_norm",
    "native_layer_norm", "native_group_norm", "_softmax", "native_dropout", "_fused_dropout",
}  # fmt: skip


class FlattenedMaps:
    """Tensors of one input whose numbers lie in the order of a map (C, H, W).

    A convolution or pooling makes a map; views, copies and what works number by number keep its
    order; after anything else, such as a permutation to channels-last, nothing is known any more.
    """

    def __init__(self) -> None:
        self._known: WeakIdKeyDictionary = WeakIdKeyDictionary()

    def of(self, tensor: Tensor) -> Map | None:
        """The map that a tensor holds, or None where it is not known to hold one."""
        found: Map | None = self._known.get(tensor)
        return found

    def follow(self, operation: Any, answer: object, given: object) -> None:
        """Note what an operation of torch, an overload packet of aten, has made of its inputs."""
        made = next(tensors_in(answer), None)
        name = getattr(operation, "__name__", "")
        if made is None:
            return
        found: Map | None = None
        if name in _MAPS and made.ndim == 4 and len(made) == 1:
            found = (made.shape[1], made.shape[2], made.shape[3])
        elif name in _SAME_ORDER or _is_pointwise(operation):
            sources = (self._known.get(x) for x in tensors_in(given))
            found = next((s for s in sources if s and prod(s) == made.numel()), None)
        if found is not None:
            self._known[made] = found
        else:  # an operation in place may have changed what the tensor holds
            self._known.pop(made, None)


def _is_pointwise(operation: Any) -> bool:
    overloads = getattr(operation, "overloads", None)
    names = overloads() if overloads else ()
    return any(torch.Tag.pointwise in getattr(operation, name).tags for name in names)
