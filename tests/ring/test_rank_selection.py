import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rsdtr.errors import RingError
from rsdtr.ring.rank_selection import checked_eps, equal_split, rank_of, tail_energies
from tests.support.oracles import rank_by_svd


def test_three_equal_shares_add_up_to_eps_squared():
    assert 3 * equal_split(0.6) ** 2 == pytest.approx(0.36)


def test_tail_energies_by_hand():
    tails = tail_energies(torch.tensor([9.0, 4.0, 1.0]))
    assert tails.tolist() == [14.0, 5.0, 1.0, 0.0]


def test_the_tail_must_be_strictly_below_the_bound():
    # σ = (√3, 1), norm 2: at share ½ the tail of rank 1 is exactly the bound, and is not enough.
    assert rank_of(torch.tensor([3.0, 1.0]), 0.5) == 2
    assert rank_of(torch.tensor([3.0, 1.0]), 0.5000001) == 1


def test_rank_is_at_least_one_and_full_for_a_zero_matrix():
    assert rank_of(torch.tensor([4.0, 1e-9]), 0.99) == 1
    assert rank_of(torch.zeros(3), 0.5) == 3


@settings(max_examples=100)
@given(st.lists(st.floats(0.001, 10), min_size=1, max_size=12), st.floats(0.01, 0.99))
def test_rank_agrees_with_the_definition(values, eps):
    values = torch.tensor(sorted(values, reverse=True), dtype=torch.float64)
    expected = rank_by_svd(values, eps)
    assert abs(rank_of(values**2, eps / math.sqrt(3)) - expected) <= int(_near(values, eps))


def _near(values, eps):
    """Whether some tail lies so close to the bound that rounding may decide."""
    tails = np.sqrt(tail_energies(values**2)) / float(values.norm())
    return bool(np.abs(tails - eps / math.sqrt(3)).min() < 1e-9)


@pytest.mark.parametrize("eps", [0, 1, -0.2, 1.5, float("nan"), 1e-5])
def test_eps_out_of_range(eps):
    with pytest.raises(RingError, match=r"expected a relative error from 0\.0001 to below 1"):
        checked_eps(eps)
