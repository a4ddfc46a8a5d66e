"""One half of the evaluation images, and what networks have right on it."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from rsdtr.data.image_sets import LabelledImages
from rsdtr.measuring.accuracy import predictions

Measure = Literal["accuracy", "fidelity"]


class Half:
    """Images, and what the dense network answers on them.

    By "accuracy" right is what the labels say, by "fidelity" what the dense network says. before:
    bool (n,), which of them the dense network has right.
    """

    def __init__(self, images: LabelledImages, dense: nn.Module, measure: Measure) -> None:
        self.images = images
        said, labels = predictions(dense, images)
        self._truth = labels if measure == "accuracy" else said
        self.before = said == self._truth

    def right(self, network: nn.Module) -> Tensor:
        """Which of the images a network has right: bool (n,)."""
        return torch.eq(predictions(network, self.images)[0], self._truth)
