"""Two networks on the same images: which are right where, and by how many points one falls behind.

On the same images the difference of two accuracies is known far better than either of them: what
counts is only the images on which one is right and the other wrong.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from rsdtr.errors import DataError
from rsdtr.measuring.accuracy import wilson

Z95 = 1.959963984540054  # two-sided 95 % quantile of the normal distribution
Z84 = 1.0  # the upper end of such an interval is above the truth in 84 of 100 cases


@dataclass(frozen=True)
class Drop:
    """Percentage points that the second network is behind the first, and a 95 % interval.

    n: images that both answered.
    """

    points: float
    interval: tuple[float, float]
    n: int


def paired_drop(before: Tensor, after: Tensor, z: float = Z95) -> Drop:
    """From which images, bool (n,), each network has right.

    The interval is Newcombe's (1998, Statistics in Medicine 17, method 10) for the difference of
    paired proportions: it has a width even where both agree on every image. z: its quantile.
    DataError for no images, or another number of them.
    """
    n = len(before)
    if n < 1 or len(after) != n:
        raise DataError(f"a drop was asked for {n} and {len(after)} images: give the same ones")
    first, second = before.bool(), after.bool()
    both = int((first & second).sum())
    lost = int((first & ~second).sum())
    won = int((~first & second).sum())
    neither = n - both - lost - won
    p1, p2 = (both + lost) / n, (both + won) / n
    l1, u1 = wilson(both + lost, n, z)
    l2, u2 = wilson(both + won, n, z)
    margins = (both + lost) * (won + neither) * (both + won) * (lost + neither)
    phi = (both * neither - lost * won) / math.sqrt(margins) if margins else 0.0
    difference = p1 - p2
    low = difference - _length(p1 - l1, u2 - p2, phi)
    high = difference + _length(u1 - p1, p2 - l2, phi)
    return Drop(100 * difference, (100 * low, 100 * high), n)


def _length(one: float, other: float, phi: float) -> float:
    return math.sqrt(max(one**2 - 2 * phi * one * other + other**2, 0.0))
