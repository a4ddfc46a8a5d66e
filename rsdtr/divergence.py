"""How far a network's class probabilities are from those of the dense network it was made from."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rsdtr.data import LabelledImages
from rsdtr.evaluate import device_of, evaluating
from rsdtr.fuse import merged


class Divergence:
    """The mean KL divergence, in nats, from a reference network on the same unlabelled images.

    Called with a network whose output is logits (B, classes); the largest number there is where it
    gives NaN. Modes are restored.
    """

    def __init__(self, reference: nn.Module, images: LabelledImages, batch_size: int = 100) -> None:
        self.images, self.batch_size = images, batch_size
        self._expected = self._log_probabilities(reference)

    def __call__(self, model: nn.Module) -> float:
        found = self._log_probabilities(model)
        value = F.kl_div(found, self._expected, reduction="batchmean", log_target=True)
        return float(value.nan_to_num(torch.finfo(value.dtype).max))

    def _log_probabilities(self, model: nn.Module) -> Tensor:
        device = device_of(model)
        network = merged(model)
        with evaluating(network):
            logits = [network(x.to(device)).cpu() for x, _ in self.images.batches(self.batch_size)]
        return torch.cat(logits).detach().double().log_softmax(1)
