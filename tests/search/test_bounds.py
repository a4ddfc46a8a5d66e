"""Gram matrices, first looks and crossed spectra, against plain SVDs: no bound may be too high."""

import gc
import weakref

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rsdtr.ring.rank_selection import equal_split, rank_of_tails, rank_within, tail_energies
from rsdtr.search.bounds import PairSpectra, needed
from rsdtr.search.gram import SpatialGram, flat_rank, gram, smaller_gram
from rsdtr.search.paper_rule import KernelSpectra, divisors
from rsdtr.search.quick_bounds import SINGLE, Look
from rsdtr.search.unfoldings import FirstUnfolding


def kernel(o, i, kh, kw, seed=0, decay=3.0):
    """Random, with falling energy along every mode."""
    values = torch.randn(o, i, kh, kw, generator=torch.Generator().manual_seed(seed)).double()
    for mode, size in enumerate((o, i, kh, kw)):
        shape = [1] * 4
        shape[mode] = size
        values *= torch.exp(-decay * torch.linspace(0, 1, size).double()).reshape(shape)
    return values


def squared_values(matrix):
    return torch.linalg.svdvals(matrix.double()).square()


@pytest.mark.parametrize(("rows", "columns"), [(1, 5), (255, 300), (256, 256), (700, 300)])
def test_a_gram_matrix_in_strips_is_the_whole(rows, columns):
    matrix = torch.randn(rows, columns).double()
    assert torch.allclose(gram(matrix), matrix @ matrix.T, atol=1e-9)
    side = min(rows, columns)
    assert smaller_gram(matrix).shape == (side, side)
    assert float(smaller_gram(matrix).trace()) == pytest.approx(float(matrix.square().sum()))


@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=12), st.floats(0.001, 0.999))
def test_no_rank_below_the_flat_one_keeps_enough(values, part):
    squared = torch.tensor(sorted(values, reverse=True)).double()
    energy = float(squared.sum())
    rank = flat_rank(energy, float(squared.square().sum()), part * energy)
    assert rank <= rank_within(tail_energies(squared), part * energy * (1 + 1e-9))


SHAPES = ((12, 9, 3, 3), (33, 40, 3, 2), (6, 70, 1, 5))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("eps", [0.2, 0.5, 0.8])
def test_a_first_look_never_promises_too_much(shape, eps):
    spectra, share = KernelSpectra(kernel(*shape)), equal_split(eps)
    for first in spectra.unfoldings:
        rank = rank_of_tails(first.tails, share)
        kept = float(first.tails[0] - first.tails[rank])
        for r0 in divisors(rank):
            second, look = first.second(rank, r0), first.look(rank, r0)
            r2 = rank_of_tails(second.tails, share)
            lost = share**2 * kept
            floor, close = look.second_floor(lost), look.second_rank(lost)
            assert 1 <= floor <= close <= r2
            # Exact but for what rounding may decide.
            assert close >= rank_within(second.tails, lost + 3 * SINGLE * kept)
            r3 = rank_of_tails(second.third_tails(r2), share)
            after = lost + share**2 * (kept - lost)
            assert 1 <= look.third_floor(after) <= r3


def test_rounding_moves_a_look_by_less_than_its_room():
    """SINGLE covers ten times what single precision does to tails of a large random kernel."""
    first = FirstUnfolding(kernel(128, 128, 3, 3, decay=1.0), 1)
    exact, rough = first.second(60, 3).tails, first.look(60, 3).second_tails
    assert abs(exact - rough).max() < SINGLE / 10 * exact[0]


def test_a_look_by_hand():
    """r0 = 1, r1 = 2, b = c = 1, d = 3: rows (3, 0, 0) and (0, 4, 0)."""
    rows = torch.tensor([[3.0, 0, 0], [0, 4.0, 0]]).reshape(1, 2, 1, 1, 3)
    look = Look(lambda: rows, 25.0)
    assert list(look.second_tails) == pytest.approx([25, 9, 0])
    assert look.second_rank(9.1) == 1
    assert look.second_rank(8.9) == 2
    # Σσ² = 25 and ‖G‖² = 81 + 256: (25 − 1)² / 337 = 1.7 → 2.
    assert look.third_floor(1.0) == 2


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
@pytest.mark.parametrize("shape", SHAPES)
def test_crossed_tails_are_lower_bounds_and_close(shape, share):
    whole = kernel(*shape)
    unfoldings = [FirstUnfolding(whole, shift) for shift in range(4)]
    pairs = PairSpectra(whole.float(), unfoldings, SpatialGram(whole))
    o, i, kh, kw = shape
    exact = tail_energies(squared_values(whole.permute(1, 2, 3, 0).reshape(i * kh, kw * o)))
    assert not pairs.crossed_is_known(share)
    found = pairs.crossed(share)
    assert pairs.crossed_is_known(share)
    size = min(len(found), len(exact))
    energy = float(exact[0])
    assert (found[:size] <= exact[:size] + SINGLE * energy).all()
    # What the two projections leave out is a quarter of share² each, at most.
    assert (exact[:size] - found[:size]).max() <= 0.5 * share**2 * energy + SINGLE * energy
    allowed = 2 * share**2 * energy
    assert needed(found, allowed) <= needed(exact, allowed)


def test_the_spectra_of_a_kernel_are_freed_without_a_collection():
    """Nothing in it refers back to itself: large matrices must not wait for the collector."""
    spectra = KernelSpectra(kernel(16, 16, 3, 3))
    spectra.best(0.5)
    gone = [weakref.ref(first) for first in spectra.unfoldings]
    gc.disable()
    try:
        del spectra
        assert all(reference() is None for reference in gone)
    finally:
        gc.enable()
