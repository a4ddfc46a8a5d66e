"""What a model is worth: accuracy with its interval, latency with its spread, bytes on disk."""

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from rsdtr.data.datasets import LabelledImages
from rsdtr.errors import DataError, RsdtrError
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


@dataclass(frozen=True)
class Latency:
    """Wall time of one forward pass in ms: median and interquartile range of `runs` passes."""

    median_ms: float
    iqr_ms: float
    batch: int
    threads: int
    runs: int


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
    with evaluating(model):
        for pixels, labels in images.batches(batch_size):
            correct += int((model(pixels.to(device)).argmax(1).cpu() == labels).sum())
            seen += len(labels)
            if progress:
                progress(seen, len(images))
    return Accuracy.of(correct, seen)


def latency(
    model: nn.Module,
    input_shape: tuple[int, int, int],
    *,
    batch: int = 1,
    runs: int = 30,
    threads: int = 2,
) -> Latency:
    """Times forward passes of (batch, *input_shape) noise, after three that warm up.

    The model's mode and torch's thread count are restored.
    Raises RsdtrError when batch, runs or threads is not at least 1.
    """
    for name, value in (("batch", batch), ("runs", runs), ("threads", threads)):
        if value < 1:
            raise RsdtrError(f"latency got {name}={value}: give at least 1")
    device = device_of(model)
    noise = torch.randn(batch, *input_shape, generator=torch.Generator().manual_seed(0)).to(device)
    threads_before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with evaluating(model):
            times = [_milliseconds(model, noise) for _ in range(runs + 3)][3:]
    finally:
        torch.set_num_threads(threads_before)
    low, _, high = statistics.quantiles(times, n=4) if runs > 1 else times * 3
    return Latency(statistics.median(times), high - low, batch, threads, runs)


def _milliseconds(model: nn.Module, noise: torch.Tensor) -> float:
    start = time.perf_counter()
    model(noise)
    if noise.is_cuda:
        torch.cuda.synchronize()
    return (time.perf_counter() - start) * 1000
