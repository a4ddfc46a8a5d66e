import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rsdtr.errors import RingError
from rsdtr.models.model_loading import load_model
from rsdtr.ring.cost import pipeline_macs_per_pixel
from rsdtr.ring.rank_selection import equal_split, rank_of, rank_of_tails, rank_within
from rsdtr.ring.tensor_ring import ring_storage
from rsdtr.search.paper_rule import KernelSpectra, divisors
from rsdtr.search.ring_svd import in_mode_order, ring_svd
from rsdtr.search.tight_rule import NEIGHBOURS, ROUNDING, SMALL_MODE, best_tight
from tests.support.oracles import random_kernel, ring_by_einsum

shapes = st.tuples(
    st.integers(1, 10), st.integers(1, 10), st.sampled_from([1, 2, 3]), st.sampled_from([1, 3])
)


def cheapest_by_enumeration(kernel, eps, cost):
    """Every second and third rank behind every first rank that the rule allows, by plain SVDs."""
    energy = float(kernel.square().sum())
    best = None
    for shift in range(4):
        tensor = kernel.permute([(shift + k) % 4 for k in range(4)]).contiguous()
        a, _, c, d = tensor.shape
        squared = torch.linalg.svdvals(tensor.reshape(a, -1)) ** 2
        published = rank_of(squared, equal_split(eps))
        spectra = KernelSpectra(kernel).unfoldings[shift]
        for rank in range(max(1, published - NEIGHBOURS), published + NEIGHBOURS + 1):
            if rank > len(spectra.squared):
                continue
            for r0 in divisors(rank):
                matrix = spectra.remainder(rank, r0)
                _, s, vt = torch.linalg.svd(matrix, full_matrices=False)
                for r2 in range(1, len(s) + 1):
                    rest = (s[:r2, None] * vt[:r2]).reshape(r2 * c, d * r0)
                    tails = torch.linalg.svdvals(rest) ** 2
                    for r3 in range(1, len(tails) + 1):
                        lost = squared[rank:].sum() + (s[r2:] ** 2).sum() + tails[r3:].sum()
                        if float(lost) <= eps**2 * energy * (1 - 1e-9):
                            shifted = (r0, rank // r0, r2, r3)
                            ranks = tuple(shifted[(k - shift) % 4] for k in range(4))
                            best = min(best or cost(ranks), cost(ranks))
                            break
    return best


@settings(max_examples=60)
@given(shapes, st.integers(0, 10_000), st.floats(0.0, 1.0), st.floats(0.05, 0.95), st.booleans())
def test_the_promise_is_kept_and_never_dearer_than_the_paper_s(shape, seed, decay, eps, macs):
    kernel = random_kernel(shape, seed, decay)
    spectra = KernelSpectra(kernel)
    cost = (lambda r: pipeline_macs_per_pixel(shape, r)) if macs else spectra.storage
    found = best_tight(spectra, eps, cost).winner
    assert cost(found.ranks) <= cost(spectra.best(eps, cost).winner.ranks)
    ring = ring_svd(kernel, found.shift, found.ranks)
    error = float((ring_by_einsum(ring.cores) - kernel).norm() / kernel.norm())
    assert error <= eps
    assert error == pytest.approx(found.relative_error, abs=1e-7)
    assert ring.storage == found.storage


@settings(max_examples=25)
@given(
    st.tuples(
        st.integers(1, 5), st.integers(1, 5), st.sampled_from([1, 2]), st.sampled_from([1, 3])
    ),
    st.integers(0, 1000),
    st.floats(0.1, 0.9),
)
def test_the_winner_is_the_cheapest_of_all_that_the_rule_allows(shape, seed, eps):
    kernel = random_kernel(shape, seed, 0.4)
    spectra = KernelSpectra(kernel)
    expected = cheapest_by_enumeration(kernel, eps, spectra.storage)
    published = spectra.best(eps).winner.storage
    assert best_tight(spectra, eps).winner.storage == min(expected or published, published)


def first_of_the_cheapest(kernel, eps, cost):
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
                afresh = KernelSpectra(kernel)
                second = afresh.unfoldings[first.shift].second(rank, r0)
                for r2 in range(1, len(second.tails)):
                    if second.tails[r2] <= left:
                        r3 = rank_within(second.third_tails(r2), left - float(second.tails[r2]))
                        ranks = in_mode_order((r0, rank // r0, r2, r3), first.shift)
                        found.append((cost(ranks), first.shift, rank, r0, r2, ranks))
    return min(found)


@settings(max_examples=60)
@given(shapes, st.integers(0, 10_000), st.floats(0.0, 1.0), st.floats(0.05, 0.95), st.booleans())
def test_on_a_tie_the_first_ring_wins(shape, seed, decay, eps, macs):
    def cost(ranks):
        return ranks[0] * ranks[1] + ranks[2] * ranks[3] if macs else ring_storage(shape, ranks)

    kernel = random_kernel(shape, seed, decay)
    least, shift, rank, r0, r2, ranks = first_of_the_cheapest(kernel, eps, cost)
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


def test_what_was_ruled_out_and_what_was_looked_into_are_told_apart():
    spectra = KernelSpectra(random_kernel((24, 16, 3, 3), 3, 0.2))
    result = best_tight(spectra, 0.4)
    computed = {(c.shift, c.r0) for c in result.computed}
    assert result.winner in result.computed
    assert computed.isdisjoint({(p.shift, p.r0) for p in result.pruned})
    assert all(p.floor >= result.winner.storage for p in result.pruned)


def test_eps_out_of_range():
    with pytest.raises(RingError, match="ε_p is 2"):
        best_tight(KernelSpectra(random_kernel((4, 4, 3, 3), 0)), 2)


def test_a_real_layer_stores_much_less_at_the_same_promise(offline):
    spectra = KernelSpectra(load_model("cifar10_resnet20").get_submodule("layer3.0.conv2").weight)
    paper, tight = spectra.best(0.5).winner, best_tight(spectra, 0.5).winner
    assert paper.storage == 21_546  # golden
    assert tight.storage < 0.85 * paper.storage
    assert paper.relative_error < 0.47
    assert 0.49 < tight.relative_error <= 0.5
