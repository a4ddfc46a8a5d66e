import pytest
import tensorly as tl
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorly.tr_tensor import TRTensor

from rsdtr.errors import RingError
from rsdtr.ring.tensor_ring import TensorRing, checked_kernel, ring_storage
from tests.support.oracles import ring_by_einsum

ranks = st.tuples(*[st.integers(1, 4)] * 4)
shapes = st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 4), st.integers(1, 4))


@settings(max_examples=40)
@given(shapes, ranks, st.integers(0, 100))
def test_to_tensor_is_the_trace_of_the_four_cores(shape, ranks, seed):
    ring = TensorRing.random(shape, ranks, seed=seed)
    kernel = ring.to_tensor()
    assert kernel.shape == shape
    torch.testing.assert_close(kernel, ring_by_einsum(ring.cores), rtol=1e-12, atol=1e-12)
    with tl.backend_context("pytorch", local_threadsafe=True):
        other = TRTensor(list(ring.cores)).to_tensor()
    torch.testing.assert_close(kernel, other, rtol=1e-12, atol=1e-12)


@settings(max_examples=20)
@given(shapes, ranks)
def test_turning_the_ring_turns_the_kernel(shape, ranks):
    ring = TensorRing.random(shape, ranks)
    turned = TensorRing((*ring.cores[1:], ring.cores[0]))
    torch.testing.assert_close(turned.to_tensor(), ring.to_tensor().permute(1, 2, 3, 0))


def test_storage_counts_every_scalar_of_the_cores():
    ring = TensorRing.random((8, 6, 3, 3), (2, 3, 4, 5), shift=2)
    # 2·8·3 + 3·6·4 + 4·3·5 + 5·3·2
    assert ring.storage == ring_storage(ring.shape, ring.ranks) == 48 + 72 + 60 + 30
    assert ring.ranks == (2, 3, 4, 5)
    assert ring.shape == (8, 6, 3, 3)
    assert ring.r0 == 4


def test_a_matrix_is_no_core():
    cores = TensorRing.random((2, 2, 2, 2), (1, 1, 1, 1)).cores
    with pytest.raises(RingError, match="four cores of shape"):
        TensorRing((cores[0], cores[1], cores[2], torch.ones(2, 2)))
    with pytest.raises(RingError, match="four cores of shape"):
        TensorRing(cores[:3])


def test_neighbouring_ranks_must_be_equal():
    cores = list(TensorRing.random((2, 2, 2, 2), (1, 2, 3, 4)).cores)
    cores[2] = torch.ones(5, 2, 4)
    with pytest.raises(RingError, match="core 1 ends in rank 3 but core 2 begins with 5"):
        TensorRing(tuple(cores))


def test_a_shift_is_one_of_four():
    with pytest.raises(RingError, match="shift is 4"):
        TensorRing.random((2, 2, 2, 2), (1, 1, 1, 1), shift=4)


def test_a_kernel_is_four_way_and_finite():
    with pytest.raises(RingError, match=r"four modes .* got \(3, 3\)"):
        checked_kernel(torch.ones(3, 3))
    with pytest.raises(RingError, match="NaN or Inf"):
        checked_kernel(torch.full((2, 2, 1, 1), float("nan")))
