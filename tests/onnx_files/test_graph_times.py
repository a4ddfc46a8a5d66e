"""Whole graphs beside the original: which forms are taken, and what is said of slower ones."""

import numpy as np
import pytest

from rsdtr.onnx_files import compress_onnx, graph_times, network_inputs, read_onnx
from rsdtr.onnx_files.graph_times import GraphTime, no_slower, slower_told
from rsdtr.planning.plan import plan
from tests.support.onnx_graphs import one_conv, ring_kernel, written


@pytest.fixture
def small(tmp_path):
    """A kernel whose ring has a fifth of the multiplications: two convolutions by the rule."""
    model = one_conv(ring_kernel((64, 64, 3, 3), (1, 16, 8, 4), noise=0.001), pads=[1, 1, 1, 1])
    network = read_onnx(written(model, tmp_path / "net.onnx"), (32, 32))
    return compress_onnx(network, plan(network.profile, 0.2, layers="all"))


def times(monkeypatch, *ratios):
    """Have the graphs that are tried take these parts of the original's time, batch by batch."""
    seen = []

    def told(original, others, inputs, batches, progress=None):
        seen.append(len(others))
        return [
            tuple(GraphTime(b, 10.0, 10 * r) for b, r in zip(batches, one, strict=False))
            for one in ratios[: len(others)]
        ]

    monkeypatch.setattr(graph_times, "graph_times", told)
    return seen


def test_forms_that_are_slower_for_one_of_the_batches_are_not_taken(small, monkeypatch):
    inputs = network_inputs(small.network, None, 4)
    assert small.forms != ("dense",)
    seen = times(monkeypatch, (0.5, 1.2), (1.0, 1.01))
    chosen, found = no_slower(small, inputs)
    assert seen == [2]  # the wary rule says the same as the usual one here: it is tried once
    assert chosen.forms == ("dense",)
    assert [one.batch for one in found] == [1, 8]
    assert slower_told(found, "net.onnx") is None
    assert chosen.rings is small.rings


def test_of_those_that_are_no_slower_the_fastest_are_taken(small, monkeypatch):
    inputs = network_inputs(small.network, None, 4)
    times(monkeypatch, (0.5, 1.02), (1.0, 1.0))
    assert no_slower(small, inputs)[0].forms == small.forms


def test_where_all_are_slower_a_sentence_says_so(small, monkeypatch):
    inputs = network_inputs(small.network, None, 4)
    seen = times(monkeypatch, (0.9, 1.1), (1.0, 1.2))
    chosen, found = no_slower(small, inputs)
    assert chosen.forms == small.forms  # those lose least
    assert seen == [2, 1]  # and are timed once more
    told = slower_told(found, "net.onnx")
    assert "1.10 times as long for 8 inputs as net.onnx" in told
    assert "1 input as" not in told


def test_the_times_of_a_graph_beside_itself_are_alike(small):
    inputs = network_inputs(small.network, None, 2)  # fewer than a batch takes
    same = small.network.model
    ((one, eight),) = graph_times.graph_times(same, [same], inputs, (1, 8))
    assert one.compressed_ms > 0
    assert 0.5 < eight.ratio < 2
    assert eight.original_ms > 2 * one.original_ms


def test_a_graph_of_a_fixed_batch_is_timed_at_that(tmp_path):
    model = one_conv(ring_kernel((16, 16, 3, 3), (1, 4, 4, 2), noise=0.001))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    network = read_onnx(written(model, tmp_path / "two.onnx"), (8, 8))
    small = compress_onnx(network, plan(network.profile, 0.2, layers="all"))
    _, found = no_slower(small, network_inputs(network, None, 4))
    assert [one.batch for one in found] == [2]
    assert np.isfinite(found[0].ratio)
