"""How ε_p becomes ranks: the split over three truncations and the tail that decides each."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rsdtr.errors import RingError

Energies = NDArray[np.float64]
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


def tail_energies(squared: Tensor) -> Energies:
    """Energy left out at each rank: entry r is Σ_{i ≥ r} σ_i², for r = 0 … n, (n+1,) in float64.

    `squared` holds squared singular values in descending order; summed from the small end. An
    array, not a tensor: a search asks it thousands of small questions.
    """
    values = squared.detach().double().numpy()
    return np.append(np.cumsum(values[::-1])[::-1], 0.0)


def rank_of(squared: Tensor, share: float) -> int:
    """Smallest rank ≥ 1 whose tail is strictly below `share` times the norm of the matrix.

    `squared`: squared singular values, descending. If no tail is below (a zero matrix), full rank.
    """
    return rank_of_tails(tail_energies(squared), share)


def rank_of_tails(tails: Energies, share: float) -> int:
    """`rank_of` from the energies left out at each rank 0 … n."""
    return min(len(tails) - 1, max(1, int(np.count_nonzero(tails >= share**2 * tails[0]))))


def rank_within(tails: Energies, allowed: float) -> int:
    """Smallest rank ≥ 1 that leaves out at most `allowed` energy."""
    return max(1, int(np.count_nonzero(tails > allowed)))
