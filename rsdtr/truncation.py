"""How ε_p becomes ranks: the split over three truncations and the tail that decides each."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rsdtr.errors import RingError

MINIMUM_EPS = 1e-4  # below it, squared singular values in float64 no longer decide a rank safely


def checked_eps(eps: float) -> float:
    """ε_p, the prescribed relative error ‖𝓦 − 𝓦̂‖_F ≤ ε_p ‖𝓦‖_F; RingError outside its range."""
    if not MINIMUM_EPS <= eps < 1:
        raise RingError(
            f"ε_p is {eps}, expected a relative error from {MINIMUM_EPS} to below 1, such as 0.6"
        )
    return float(eps)


def equal_split(eps: float) -> float:
    """The share of each of the three truncations, ε_p/√3 (arXiv 2405.10802, algorithm 1)."""
    return eps / math.sqrt(3)


def tail_energies(squared: Tensor) -> Tensor:
    """Energy left out at each rank: entry r is Σ_{i ≥ r} σ_i², for r = 0 … n (shape (n+1,)).

    `squared` holds squared singular values in descending order; summed from the small end.
    """
    tails = torch.flip(torch.cumsum(torch.flip(squared, (0,)), 0), (0,))
    return torch.cat([tails, tails.new_zeros(1)])


def rank_of(squared: Tensor, share: float) -> int:
    """Smallest rank ≥ 1 whose tail is strictly below `share` times the norm of the matrix.

    `squared`: squared singular values, descending. If no tail is below (a zero matrix), full rank.
    """
    tails = tail_energies(squared)
    below = tails[1:] < share**2 * tails[0]
    return int(below.to(torch.int8).argmax()) + 1 if bool(below.any()) else len(squared)
