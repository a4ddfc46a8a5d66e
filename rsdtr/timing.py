"""How long networks take on this machine, side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from rsdtr.evaluate import latency
from rsdtr.measure import machine

__all__ = ["Timing", "machine", "network_timings"]


@dataclass(frozen=True)
class Timing:
    """Median and interquartile range in ms of a forward pass.

    scope: `network` or a layer's name; engine: `eager`; variant: `dense` or a form.
    """

    scope: str
    engine: str
    batch: int
    variant: str
    median_ms: float
    iqr_ms: float


def network_timings(
    variants: Mapping[str, nn.Module],
    input_shape: tuple[int, int, int],
    *,
    batches: Sequence[int] = (1,),
    runs: int = 30,
    threads: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> list[Timing]:
    """Time every variant of a network at every batch size, on inputs (batch, *input_shape).

    progress: called with (timings done, timings in all). RsdtrError as `evaluate.latency`.
    """
    pairs = [(batch, variant) for batch in batches for variant in variants]
    rows = []
    for done, (batch, variant) in enumerate(pairs):
        if progress:
            progress(done, len(pairs))
        found = latency(variants[variant], input_shape, batch=batch, runs=runs, threads=threads)
        rows.append(Timing("network", "eager", batch, variant, found.median_ms, found.iqr_ms))
    if progress:
        progress(len(pairs), len(pairs))
    return rows
