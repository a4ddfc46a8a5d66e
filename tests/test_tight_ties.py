"""rule=tight against an oracle that looks at every first and second rank."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rsdtr.errors import RingError
from rsdtr.ring import ring_storage
from rsdtr.search import KernelSpectra, divisors, in_mode_order
from rsdtr.tight import NEIGHBOURS, ROUNDING, SMALL_MODE, best_tight
from rsdtr.truncation import equal_split, rank_of_tails, rank_within

shapes = st.tuples(
    st.integers(1, 10), st.integers(1, 10), st.sampled_from([1, 2, 3]), st.sampled_from([1, 3])
)


def random_kernel(shape, seed, decay):
    generator = torch.Generator().manual_seed(seed)
    kernel = torch.randn(shape, generator=generator, dtype=torch.float64)
    u, s, vt = torch.linalg.svd(kernel.reshape(shape[0], -1), full_matrices=False)
    return (u * (s * torch.exp(-decay * torch.arange(len(s)))) @ vt).reshape(shape)


def exhaustive(kernel, eps, cost):
    """The first ring of least cost, by shift, first rank, r0 and second rank."""
    spectra = KernelSpectra(kernel)
    published = spectra.best(eps, cost).winner
    r0, r1, r2, _ = (published.ranks[(published.shift + k) % 4] for k in range(4))
    found = [(cost(published.ranks), published.shift, r0 * r1, r0, r2, published.ranks)]
    budget = eps**2 * spectra.energy * (1 - ROUNDING)
    for first in spectra.unfoldings:
        assert first.sizes[0] <= SMALL_MODE
        middle = rank_of_tails(first.tails, equal_split(eps))
        for rank in range(max(1, middle - NEIGHBOURS), middle + NEIGHBOURS + 1):
            if rank > len(first.squared) or first.tails[rank] > budget:
                continue
            left = budget - float(first.tails[rank])
            for r0 in divisors(rank):
                second = KernelSpectra(kernel).unfoldings[first.shift].second(rank, r0)
                for r2 in range(1, len(second.tails)):
                    if second.tails[r2] <= left:
                        r3 = rank_within(second.third_tails(r2), left - float(second.tails[r2]))
                        ranks = in_mode_order((r0, rank // r0, r2, r3), first.shift)
                        found.append((cost(ranks), first.shift, rank, r0, r2, ranks))
    return min(found)


@settings(max_examples=60)
@given(shapes, st.integers(0, 10_000), st.floats(0.0, 1.0), st.floats(0.05, 0.95), st.booleans())
def test_the_winner_is_the_exhaustive_search_s(shape, seed, decay, eps, macs):
    def cost(ranks):
        return ranks[0] * ranks[1] + ranks[2] * ranks[3] if macs else ring_storage(shape, ranks)

    kernel = random_kernel(shape, seed, decay)
    least, shift, rank, r0, r2, ranks = exhaustive(kernel, eps, cost)
    found = best_tight(KernelSpectra(kernel), eps, cost).winner
    shifted = [found.ranks[(found.shift + k) % 4] for k in range(4)]
    assert int(cost(found.ranks)) == least
    assert (found.shift, shifted[0] * shifted[1], found.r0, shifted[2]) == (shift, rank, r0, r2)
    assert found.ranks == ranks
    assert found.relative_error <= eps


def test_what_was_asked_before_changes_no_answer():
    kernel = random_kernel((16, 12, 3, 3), 5, 0.1)
    used = KernelSpectra(kernel)
    for eps in (0.9, 0.3, 0.6, 0.32, 0.58, 0.62, 0.1, 0.6):
        warm = best_tight(used, eps).winner
        fresh = best_tight(KernelSpectra(kernel), eps).winner
        assert (warm.shift, warm.ranks) == (fresh.shift, fresh.ranks)
        assert warm.relative_error == pytest.approx(fresh.relative_error, abs=1e-12)
        assert warm.storage <= used.best(eps).winner.storage


def test_eps_out_of_range():
    with pytest.raises(RingError, match=r"ε_p is 1\.0, expected a relative error"):
        best_tight(KernelSpectra(torch.ones(2, 2, 1, 1)), 1.0)
