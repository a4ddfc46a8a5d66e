"""Which form a ring runs in: never one that has more to do than the convolution."""

import numpy as np
import pytest

from rsdtr.onnx_files import read_onnx
from rsdtr.onnx_files.form_choice import forms_by_work
from rsdtr.onnx_files.ring_nodes import stored_scalars
from rsdtr.planning import plan
from rsdtr.ring import FORMS, form_macs
from tests.support.onnx_graphs import one_conv, ring_kernel, written


def decided(path, kernel, size, eps=0.1):
    network = read_onnx(written(one_conv(kernel, pads=[1] * 4), path / "net.onnx"), size)
    return forms_by_work(plan(network.profile, eps, layers="auto"), network)


def test_a_wide_kernel_of_small_ranks_runs_as_two_convolutions(tmp_path):
    found = decided(tmp_path, ring_kernel((96, 96, 3, 3), (1, 8, 2, 2)), (56, 56))
    (layer,) = found.layers
    assert layer.form in ("O|IHW", "I|HWO", "IH|WO")
    assert layer.macs_run < 0.5 * layer.macs.original
    assert found.fcr_run == pytest.approx(layer.macs.original / layer.macs_run)
    # 8, 16 and 16 channels lie between: ONNX Runtime computes 16 of all.
    macs = {
        form: form_macs(form, layer.shape, layer.ranks, (56, 56), (56, 56)) * 16 // channels
        for form, channels in {"O|IHW": 8, "I|HWO": 16, "IH|WO": 16}.items()
    }
    assert layer.macs_run == macs[layer.form] == min(macs.values())


def test_a_thin_one_stays_one_convolution_with_its_kernel_rebuilt(tmp_path):
    found = decided(tmp_path, ring_kernel((8, 8, 3, 3), (1, 3, 2, 2)), (7, 7))
    (layer,) = found.layers
    assert layer.ranks is not None
    assert layer.form == "dense"
    assert layer.macs_run == layer.macs.original


@pytest.mark.parametrize("ranks", [(1, 2, 1, 1), (3, 2, 4, 2), (5, 1, 6, 7), (1, 9, 3, 2)])
def test_no_form_stores_more_than_the_cores(ranks):
    shape = (12, 10, 3, 5)
    cores = sum(ranks[k] * shape[k] * ranks[(k + 1) % 4] for k in range(4))
    for form in FORMS:
        assert stored_scalars(form, shape, ranks) <= cores
    r0, r1, r2, r3 = ranks
    first = min(r1 * r2 * 10, 10**9)
    second = min(12 * r1 * r2 * 15, np.sum([r2 * 3 * r3, r3 * 5 * r0, r0 * 12 * r1]))
    assert stored_scalars("I|HWO", shape, ranks) == first + second
