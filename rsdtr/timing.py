"""How long networks and their layers take on this machine, side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rsdtr import measure
from rsdtr.errors import RsdtrError
from rsdtr.measure import machine

__all__ = ["Timing", "eager", "machine", "timings"]

Run = Callable[[Tensor], object]


@dataclass(frozen=True)
class Timing:
    """Median and interquartile range in ms of a forward pass.

    scope: `network` or a layer's name; engine: `eager`, `onnxruntime`, …; variant: `dense`,
    `paper` (the paper's pipeline as its program computes it), a form, or `auto`.
    """

    scope: str
    engine: str
    batch: int
    variant: str
    median_ms: float
    iqr_ms: float


def timings(
    variants: Mapping[str, Run],
    input_shape: tuple[int, int, int],
    *,
    scope: str = "network",
    engine: str = "eager",
    batch: int = 1,
    runs: int = 30,
    threads: int = 2,
) -> list[Timing]:
    """Time functions of the same (batch, *input_shape) noise in turns; a row for each.

    Measurements that another program interrupted are made again, see `measure.interleaved`.
    RsdtrError when batch, runs or threads is not at least 1.
    """
    for name, value in (("batch", batch), ("runs", runs), ("threads", threads)):
        if value < 1:
            raise RsdtrError(f"timing got {name}={value}: give at least 1")
    noise = torch.randn(batch, *input_shape, generator=torch.Generator().manual_seed(0))
    works = {name: _work(run, noise.clone()) for name, run in variants.items()}
    with measure.threads(threads):
        found = measure.interleaved(works, runs=runs)
    return [
        Timing(scope, engine, batch, name, spread.median_ms, spread.iqr_ms)
        for name, spread in found.items()
    ]


def eager(model: nn.Module) -> Run:
    """The model as a function without gradients, in whatever mode it is in."""

    def run(images: Tensor) -> None:
        with torch.inference_mode():
            model(images)

    return run


def _work(run: Run, noise: Tensor) -> Callable[[], object]:
    return lambda: run(noise)
