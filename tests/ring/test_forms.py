"""The kernels of every form, contracted back to the ring's kernel by hand."""

import pytest
import torch

from rsdtr.measuring.stopwatch import peak_bytes
from rsdtr.ring.forms import FORMS, sublayer_kernels, sublayers
from rsdtr.ring.tensor_ring import TensorRing
from tests.support.oracles import ring_by_einsum

SHAPE, RANKS = (5, 4, 3, 2), (2, 3, 4, 5)


@pytest.fixture(scope="module")
def ring():
    return TensorRing.random(SHAPE, RANKS)


# o, i, h, w: the kernel's modes; x: channels between; b: the ring index R_1 folded into the batch.
CONTRACTIONS = {
    "O|IHW": "xihw,oxyz->oihw",
    "I|HWO": "xiyz,oxhw->oihw",
    "IH|WO": "xihy,oxzw->oihw",
    "dense": "oihw->oihw",
}


@pytest.mark.parametrize("form", CONTRACTIONS)
def test_the_convolutions_of_a_form_compose_to_the_kernel(ring, form):
    kernels = sublayer_kernels(form, ring.cores)
    composed = torch.einsum(CONTRACTIONS[form], *kernels)
    torch.testing.assert_close(composed, ring_by_einsum(ring.cores))


def test_the_paper_s_four_sublayers_compose_to_the_kernel(ring):
    channels_in, rows, columns, channels_out = sublayer_kernels("pipeline", ring.cores)
    _, r1, r2, _ = RANKS
    composed = torch.einsum(
        "bciyz,dchs,adtw,obamn->oihw",
        channels_in.reshape(r1, r2, 4, 1, 1),
        rows,
        columns,
        channels_out.reshape(5, r1, 2, 1, 1),
    )
    torch.testing.assert_close(composed, ring_by_einsum(ring.cores))


@pytest.mark.parametrize("form", FORMS)
def test_shapes_are_known_without_the_cores(ring, form):
    kernels = sublayer_kernels(form, ring.cores)
    steps = sublayers(form, SHAPE, RANKS)
    assert [tuple(kernel.shape) for kernel in kernels] == [step.kernel for step in steps]
    assert sorted(axis for step in steps for axis in step.axes) == [0, 1]
    assert {step.copies for step in steps} == ({1, 3} if form == "pipeline" else {1})


@pytest.mark.parametrize("form", FORMS)
def test_gradients_reach_every_core(ring, form):
    cores = [core.clone().requires_grad_() for core in ring.cores]
    sum(kernel.pow(2).sum() for kernel in sublayer_kernels(form, cores)).backward()
    assert all(bool(core.grad.abs().sum() > 0) for core in cores)


@pytest.mark.parametrize("ranks", [(2, 3, 4, 5), (1, 7, 2, 9), (9, 1, 7, 2), (3, 8, 8, 1)])
def test_every_cut_gives_the_dense_kernel(ranks):
    """Fewest channels between: R_0·R_1, R_3·R_1, R_1·R_2, R_3·R_1 of them."""
    ring = TensorRing.random(SHAPE, ranks)
    (kernel,) = sublayer_kernels("dense", ring.cores)
    torch.testing.assert_close(kernel, ring_by_einsum(ring.cores))
    torch.testing.assert_close(ring.to_tensor(), kernel)


@pytest.mark.parametrize("ranks", [(40, 2, 50, 6), (2, 40, 6, 50)])
def test_the_dense_kernel_of_a_wide_layer_takes_little_more_than_itself(ranks):
    ring = TensorRing.random((64, 64, 3, 3), ranks)
    kernel = 64 * 64 * 9 * 4
    assert peak_bytes(lambda: sublayer_kernels("dense", ring.cores)) < 20 * kernel
    assert peak_bytes(ring.to_tensor) < 20 * kernel
