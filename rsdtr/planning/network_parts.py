"""A network's plan from afar: stages, their blocks, and the blocks' convolutions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Literal

from rsdtr.planning.plan import CompressionPlan, LayerPlan

Level = Literal["stage", "block", "convolution"]
LEVELS: tuple[Level, ...] = ("stage", "block", "convolution")


@dataclass(frozen=True)
class Part:
    """Convolutions that follow each other and belong together, before and after compression.

    name: the beginning that their names share, of a convolution its whole name; layers: theirs, in
    network order; before, after: scalars of their kernels; starts: how many scalars of kernels come
    before theirs in the network, before and after compression; relative_error: the root of the mean
    of their squared relative errors, weighted by scalars, 0 for a layer that stays dense.
    """

    level: Level
    name: str
    layers: tuple[str, ...]
    before: int
    after: int
    starts: tuple[int, int]
    relative_error: float

    @property
    def gain(self) -> float:
        """Original / compressed."""
        return self.before / self.after


def parts(plan: CompressionPlan) -> tuple[Part, ...]:
    """Every part of the network, stages first: a name's first word, its first two, and all of it.

    A convolution whose name has one word is of no stage, and one of two words of no block.
    """
    found = []
    for depth, level in enumerate(LEVELS, start=1):
        starts = (0, 0)
        for name, group in groupby(plan.layers, partial(_part_of, depth=depth)):
            layers = tuple(group)
            part = _part(level, name or "", layers, starts)
            starts = (starts[0] + part.before, starts[1] + part.after)
            if name is not None:
                found.append(part)
    return tuple(found)


def _part_of(layer: LayerPlan, depth: int) -> str | None:
    words = layer.name.split(".")
    if depth == len(LEVELS):
        return layer.name
    return ".".join(words[:depth]) if len(words) > depth else None


def _part(level: Level, name: str, layers: Sequence[LayerPlan], starts: tuple[int, int]) -> Part:
    before = sum(math.prod(layer.shape) for layer in layers)
    squared = sum(math.prod(layer.shape) * layer.relative_error**2 for layer in layers)
    return Part(
        level,
        name,
        tuple(layer.name for layer in layers),
        before,
        sum(layer.storage for layer in layers),
        starts,
        math.sqrt(squared / before),
    )
