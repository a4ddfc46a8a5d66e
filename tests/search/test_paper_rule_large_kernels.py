"""Kernels too large to be searched in full: which shifts and divisors are looked at, and no other.

The bounds are set so low here that an exhaustive search can be the oracle.
"""

import pytest

from rsdtr.ring.cost import pipeline_macs_per_pixel
from rsdtr.search import paper_rule, unfoldings
from rsdtr.search.paper_rule import KernelSpectra
from rsdtr.search.ring_svd import ring_svd
from rsdtr.search.tight_rule import best_tight
from tests.support.oracles import exhaustive, random_kernel, ring_by_einsum

SIDE = 12
CASES = [((24, 6, 3, 4), 0.1, 0.4), ((24, 18, 1, 1), 0.02, 0.3), ((16, 3, 5, 2), 0.2, 0.15)]


@pytest.fixture
def bounded(monkeypatch):
    monkeypatch.setattr(paper_rule, "LARGE", 1)
    monkeypatch.setattr(paper_rule, "MOST_SIDE", SIDE)


def allowed(kernel, eps):
    """The exhaustive search's candidates at shift 0 whose matrices are narrow enough, or first."""
    _, i, kh, kw = kernel.shape
    found = []
    for shift, r0, ranks, storage, error in exhaustive(kernel, eps):
        second = min(ranks[1] * i, kh * kw * r0)  # (R1·I, KH·KW·R0)
        third = min(second * kh, kw * r0)  # (R2·KH, KW·R0), R2 at most `second`
        if shift == 0 and (r0 == 1 or max(second, third) <= SIDE):
            found.append((shift, r0, ranks, storage, error))
    return found


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize(("shape", "decay", "eps"), CASES)
def test_one_shift_and_narrow_divisors_alone_are_looked_at(shape, decay, eps):
    kernel = random_kernel(shape, 3, decay)
    spectra = KernelSpectra(kernel)
    expected = allowed(kernel, eps)
    at_shift_0 = [found for found in exhaustive(kernel, eps, with_error=False) if found[0] == 0]
    assert 0 < len(expected) < len(at_shift_0)  # the bound on the sides does leave some out
    found = spectra.candidates(eps)
    assert [(c.shift, c.r0, c.ranks, c.storage) for c in found] == [e[:4] for e in expected]
    best = spectra.best(eps).winner
    first = min(expected, key=lambda e: e[3])
    assert (best.shift, best.r0, best.ranks) == first[:3]
    assert best.relative_error == pytest.approx(first[4], abs=1e-7)
    by_macs = spectra.best(eps, lambda ranks: pipeline_macs_per_pixel(shape, ranks)).winner
    assert pipeline_macs_per_pixel(shape, by_macs.ranks) == min(
        pipeline_macs_per_pixel(shape, e[2]) for e in expected
    )


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize(("shape", "decay", "eps"), CASES)
def test_the_tight_rule_stores_no_more_and_keeps_the_promise(shape, decay, eps):
    kernel = random_kernel(shape, 3, decay)
    spectra = KernelSpectra(kernel)
    tight = best_tight(spectra, eps).winner
    assert tight.shift == 0
    assert tight.storage <= spectra.best(eps).winner.storage
    ring = ring_svd(kernel, tight.shift, tight.ranks)
    error = float((ring_by_einsum(ring.cores) - kernel).norm() / kernel.norm())
    assert error == pytest.approx(tight.relative_error, abs=1e-7)
    assert error <= eps


@pytest.mark.parametrize("eps", [0.1, 0.4])
def test_signs_of_one_s_own_give_rings_of_the_error_that_was_told(monkeypatch, eps):
    monkeypatch.setattr(unfoldings, "MOST_SIGNS", 4)
    kernel = random_kernel((12, 8, 3, 3), 5, 0.1)
    found = KernelSpectra(kernel).candidates(eps)
    assert any(1 < c.r0 < c.ranks[0] * c.ranks[1] for c in found)  # where signs matter
    for candidate in found:
        ring = ring_svd(kernel, candidate.shift, candidate.ranks)
        error = float((ring_by_einsum(ring.cores) - kernel).norm() / kernel.norm())
        assert ring.ranks == candidate.ranks
        assert error == pytest.approx(candidate.relative_error, abs=1e-7)
        assert error <= eps


def test_the_bounds_are_those_of_the_docs():
    assert (paper_rule.LARGE, paper_rule.MOST_SIDE) == (2**24, 2048)
    spectra = KernelSpectra(random_kernel((8, 4, 3, 3), 0))
    assert not spectra.large
    assert spectra.searched == spectra.unfoldings
