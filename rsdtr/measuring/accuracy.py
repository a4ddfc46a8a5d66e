"""What a model is worth: top-1 accuracy with its interval."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from rsdtr.compressed.fuse import merged
from rsdtr.data.datasets import LabelledImages
from rsdtr.errors import DataError
from rsdtr.models.run import device_of, evaluating

_Z95 = 1.959963984540054  # two-sided 95 % quantile of the normal distribution


@dataclass(frozen=True)
class Accuracy:
    """Top-1 accuracy in percent, its 95 % Wilson interval in percent, and the sample size."""

    percent: float
    interval: tuple[float, float]
    n: int

    @staticmethod
    def of(correct: int, n: int) -> "Accuracy":
        """From counts. Wilson 1927: unlike p ± 1.96 s it stays inside 0..100 at the ends.

        Raises DataError when n is 0.
        """
        if n < 1:
            raise DataError("accuracy needs images and there are none: give a set with at least 1")
        p = correct / n
        centre = p + _Z95**2 / (2 * n)
        half = _Z95 * math.sqrt(p * (1 - p) / n + _Z95**2 / (4 * n**2))
        scale = 100 / (1 + _Z95**2 / n)
        low, high = max(0.0, (centre - half) * scale), min(100.0, (centre + half) * scale)
        return Accuracy(percent=100 * p, interval=(low, high), n=n)


def accuracy(
    model: nn.Module,
    images: LabelledImages,
    *,
    batch_size: int = 250,
    progress: Callable[[int, int], None] | None = None,
) -> Accuracy:
    """Top-1 accuracy of the model's logits (B, classes); `progress` gets (seen, all) images.

    The model's mode is restored. Raises DataError when there are no images, or no labels.
    """
    images.check_labelled("accuracy")
    correct = seen = 0
    device = device_of(model)
    network = merged(model)
    with evaluating(network):
        for pixels, labels in images.batches(batch_size):
            correct += int((network(pixels.to(device)).argmax(1).cpu() == labels).sum())
            seen += len(labels)
            if progress:
                progress(seen, len(images))
    return Accuracy.of(correct, seen)
