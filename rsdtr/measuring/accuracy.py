"""What a model is worth: top-1 accuracy with its interval."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from pydantic import JsonValue
from torch import nn

from rsdtr.compressed.fuse import merged
from rsdtr.data.image_sets import LabelledImages
from rsdtr.data.tensor_images import ImageSource, images_of
from rsdtr.errors import DataError, RsdtrError
from rsdtr.models.outputs import answered_classes
from rsdtr.models.run import evaluating, fresh_input

Z95 = 1.959963984540054  # two-sided 95 % quantile of the normal distribution


@dataclass(frozen=True)
class Accuracy:
    """Top-1 accuracy in percent, its 95 % Wilson interval in percent, and the sample size.

    assumed: what the labels take for granted, in a sentence to be told beside the number.
    """

    percent: float
    interval: tuple[float, float]
    n: int
    assumed: str | None = None

    @property
    def told(self) -> dict[str, JsonValue]:
        """In the words of `evaluate --json`."""
        told: dict[str, JsonValue] = {
            "accuracy": self.percent, "interval": list(self.interval), "n": self.n,
        }  # fmt: skip
        return told | ({} if self.assumed is None else {"assumed": self.assumed})

    @staticmethod
    def of(correct: int, n: int, assumed: str | None = None) -> "Accuracy":
        """From counts. Wilson 1927: unlike p ± 1.96 s it stays inside 0..100 at the ends.

        Raises DataError when n is 0.
        """
        if n < 1:
            raise DataError("accuracy needs images and there are none: give a set with at least 1")
        low, high = wilson(correct, n, Z95)
        return Accuracy(100 * correct / n, (100 * low, 100 * high), n, assumed)


def wilson(correct: int, n: int, z: float) -> tuple[float, float]:
    """Wilson's interval of a proportion, from 0 to 1; z: quantile of the normal distribution."""
    p = correct / n
    centre = p + z**2 / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    scale = 1 / (1 + z**2 / n)
    return max(0.0, (centre - half) * scale), min(1.0, (centre + half) * scale)


def accuracy(
    model: nn.Module,
    images: ImageSource,
    *,
    batch_size: int = 250,
    progress: Callable[[int, int], None] | None = None,
) -> Accuracy:
    """Top-1 accuracy of the model's logits, see `outputs.class_logits`.

    `progress` gets (seen, all) images. The model's mode is restored. Raises DataError when there
    are no images, or no labels; RsdtrError for answers that tell no classes.
    """
    images = images_of(images)
    right = right_answers(model, images, batch_size=batch_size, progress=progress)
    return Accuracy.of(int(right.sum()), len(right), images.assumed)


def right_answers(
    model: nn.Module,
    images: ImageSource,
    *,
    batch_size: int = 250,
    progress: Callable[[int, int], None] | None = None,
) -> torch.Tensor:
    """Which images the model has right: bool (n,), in their order, without those that turned out
    to be broken. As `accuracy`, but no images are no error.
    """
    images = images_of(images)
    images.check_labelled("accuracy")
    said, labels = predictions(model, images, batch_size=batch_size, progress=progress)
    return said == labels


def predictions(
    model: nn.Module,
    images: LabelledImages,
    *,
    batch_size: int = 250,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The class that the model gives each image, and the image's label: int64 (n,) both, in their
    order, without images that turned out to be broken. Errors as `accuracy`.
    """
    said = [torch.zeros(0, dtype=torch.int64)]
    told = [torch.zeros(0, dtype=torch.int64)]
    seen = 0
    classes = images.spec.classes
    single: list[torch.Tensor] = []  # logits of a network that answers one
    network = merged(model)
    with evaluating(network):
        for pixels, labels in images.batches(batch_size):
            answer = answered_classes(
                network(fresh_input(network, pixels)), len(labels), classes
            ).cpu()
            if answer.shape[1] == 1:
                single.append(answer[:, 0])
            said.append(answer.argmax(1) if answer.shape[1] > 1 else (answer[:, 0] > 0).long())
            told.append(labels)
            seen += len(labels)
            if progress:
                progress(seen, len(images))
    if single and bool(((one := torch.cat(single)) >= 0).all() & (one <= 1).all()):
        raise RsdtrError(
            f"{images.spec.name} answers one number from 0 to 1 for every image, as after a "
            "sigmoid, and its sign was to tell the class: give the network without the sigmoid"
        )
    return torch.cat(said), torch.cat(told)
