"""Least squares on an ONNX graph: what helps stays, everything else stays as it was."""

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from rsdtr.errors import DataError, RsdtrError
from rsdtr.measuring.fidelity import Fidelity
from rsdtr.onnx_files import compress_onnx, network_inputs, read_onnx, refit_onnx
from rsdtr.onnx_files.answers import Answers, fidelity_of
from rsdtr.onnx_files.compress_onnx import CompressedOnnx, LayerRing
from rsdtr.onnx_files.refit_onnx import USUAL
from rsdtr.planning import plan
from rsdtr.recovery import RefitOptions
from rsdtr.search import ring_svd
from tests.support.onnx_graphs import (
    answers,
    graph,
    off_by,
    one_conv,
    ring_kernel,
    small_network,
    tensor,
    written,
)


def inputs_of(network, path, n=60, seed=0, **shapes):
    """Smooth pictures, whose pixels have to do with each other as those of photographs do."""
    generator = np.random.default_rng(seed)
    arrays = {}
    for name, shape in (shapes or {"images": (3, 11, 9)}).items():
        values = generator.normal(size=(n, *shape))
        for axis in range(2, values.ndim):
            values = values + np.roll(values, 1, axis) + np.roll(values, 2, axis)
        arrays[name] = values.astype(np.float32)
    np.savez(path / "inputs.npz", **arrays)
    return network_inputs(network, path / "inputs.npz", n)


def fidelity(model, network, inputs) -> Fidelity:
    return fidelity_of(Answers.of(model, inputs), Answers.of(network.model, inputs))


@pytest.fixture
def small(tmp_path):
    network = read_onnx(written(small_network(noise=0.25), tmp_path / "net.onnx"), (11, 9))
    decided = plan(network.profile, 0.6, layers="auto")
    return compress_onnx(network, decided)


def test_it_brings_the_answers_closer_on_inputs_that_it_has_not_seen(small, tmp_path):
    network = small.network
    refitted = refit_onnx(small, inputs_of(network, tmp_path, 120))
    fresh = inputs_of(network, tmp_path, 50, seed=1)
    before = fidelity(small.model(), network, fresh).relative_error
    after = fidelity(refitted.compressed.model(), network, fresh).relative_error
    assert after < 0.5 * before
    assert len(refitted.held_out) == 24
    # Ranks, and with them the bytes, stay.
    ranks = {name: one.ring.ranks for name, one in small.rings.items()}
    assert {name: one.ring.ranks for name, one in refitted.compressed.rings.items()} == ranks
    onnx.checker.check_model(refitted.compressed.model(), full_check=True)


def test_every_step_is_told_and_the_given_network_is_not_touched(small, tmp_path):
    bytes_before = small.network.model.SerializeToString()
    cores = [core.clone() for one in small.rings.values() for core in one.ring.cores]
    seen = []
    refitted = refit_onnx(
        small, inputs_of(small.network, tmp_path), progress=lambda *at: seen.append(at)
    )
    names = [step.name for step in refitted.steps]
    assert names[-1] == "cores"
    assert list(dict.fromkeys(names[:-1])) == ["stem", "block", "depth", "point", "head"]
    assert {step.measure for step in refitted.steps} == {
        "relative error", "rectified error", "divergence",
    }  # fmt: skip
    assert seen[0] == (0, 5)
    assert seen[-1] == (5, 5)
    assert small.network.model.SerializeToString() == bytes_before
    after = [core for one in small.rings.values() for core in one.ring.cores]
    assert all(torch.equal(a, b) for a, b in zip(cores, after, strict=True))


def test_a_convolution_without_a_bias_gets_one(small, tmp_path):
    refitted = refit_onnx(small, inputs_of(small.network, tmp_path)).compressed
    (before,) = (node for node in small.network.model.graph.node if node.name == "block")
    (after,) = (node for node in refitted.model().graph.node if node.name == "block")
    assert len(before.input) == 2
    assert len(after.input) == 3
    assert tensor(refitted.model(), after.input[2]).shape == (12,)


def test_a_point_convolution_is_the_reduced_rank_regression_of_numpy(tmp_path):
    generator = np.random.default_rng(3)
    kernel = generator.normal(size=(10, 8, 1, 1)).astype(np.float32)
    network = read_onnx(written(one_conv(kernel), tmp_path / "net.onnx"), (6, 5))
    rank = 4
    ring = ring_svd(torch.from_numpy(kernel), 0, (1, rank, 1, 1))
    decided = plan(network.profile, None, layers="auto", own={"conv": 0.5})
    small = CompressedOnnx(network, decided, {"conv": LayerRing(ring)})
    mixed = generator.normal(size=(40, 30, 8)) @ generator.normal(size=(8, 8)) + 1.0
    pictures = mixed.transpose(0, 2, 1).reshape(40, 8, 6, 5).astype(np.float32)
    np.savez(tmp_path / "inputs.npz", pictures)
    inputs = network_inputs(network, tmp_path / "inputs.npz", 40)
    options = RefitOptions(ridge=0.0, sweeps=30, pixels=10_000)
    refitted = refit_onnx(small, inputs, options=options)
    learnt, _ = inputs.split(options.held_out, options.seed)
    x = learnt.arrays["images"].transpose(0, 2, 3, 1).reshape(-1, 8).astype(np.float64)
    y = x @ kernel[:, :, 0, 0].astype(np.float64).T
    xc, yc = x - x.mean(0), y - y.mean(0)
    _, _, vt = np.linalg.svd(yc, full_matrices=False)
    least = np.linalg.norm(yc - yc @ vt[:rank].T @ vt[:rank])
    one = refitted.compressed.rings["conv"]
    found = y - x @ one.kernel.numpy()[:, :, 0, 0].T - one.bias.numpy()
    assert np.linalg.norm(found) == pytest.approx(least, rel=1e-3)
    before = yc - xc @ ring.to_tensor().numpy()[:, :, 0, 0].T
    assert np.linalg.norm(before) > 1.2 * least


def test_what_does_not_help_the_answers_is_not_kept(small, tmp_path, monkeypatch):
    values = iter([0.1, 0.2])
    monkeypatch.setattr(Answers, "divergence_from", lambda *_: ("divergence", next(values)))
    refitted = refit_onnx(small, inputs_of(small.network, tmp_path))
    assert refitted.compressed is small
    assert not refitted.steps[-1].kept


def test_a_small_budget_gives_the_same(small, tmp_path):
    inputs = inputs_of(small.network, tmp_path, 40)
    results = [
        refit_onnx(small, inputs, options=RefitOptions(pixels=20, sweeps=1, budget=budget))
        for budget in (2e9, 1e6)
    ]
    first, second = (
        answers(result.compressed.model(), images=inputs.arrays["images"])[0] for result in results
    )
    assert off_by(second, first) < 1e-3


def test_layers_that_cannot_be_fitted_say_why(small, tmp_path):
    inputs = inputs_of(small.network, tmp_path, 20)
    steps = refit_onnx(small, inputs, options=RefitOptions(pixels=20, budget=2e4)).steps
    skipped = {step.name: step.skipped for step in steps}
    assert skipped["block"] == (
        "the second moments of its 108 inputs take more memory than may be used"
    )
    assert skipped["stem"] is None


def test_a_bias_that_is_no_constant_and_a_scale_of_zero(tmp_path):
    kernel = ring_kernel((6, 3, 3, 3), (1, 2, 2, 1), noise=0.2)
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], axes=[0, 2, 3], keepdims=0),
        helper.make_node("Concat", ["mean", "mean"], ["bias"], axis=0),
        helper.make_node("Conv", ["images", "a", "bias"], ["one"], "free", pads=[1] * 4),
        helper.make_node("Conv", ["images", "b"], ["two"], "silent", pads=[1] * 4),
        helper.make_node("Mul", ["two", "zero"], ["nothing"]),
        helper.make_node("Add", ["one", "nothing"], ["sum"]),
        helper.make_node("ReduceMean", ["sum"], ["logits"], axes=[2, 3], keepdims=0),
    ]
    tensors = {"a": kernel, "b": kernel * 2, "zero": np.zeros((1, 6, 1, 1), np.float32)}
    model = graph(nodes, tensors, outputs={"logits": ["n", 6]})
    network = read_onnx(written(model, tmp_path / "net.onnx"), (8, 8))
    small = compress_onnx(network, plan(network.profile, 0.5, layers="auto"))
    steps = refit_onnx(small, inputs_of(network, tmp_path, 6, images=(3, 8, 8))).steps
    assert {step.name: step.skipped for step in steps} == {
        "free": "what is added to its output is no constant for each channel",
        "silent": "what follows multiplies its output by 0",
        "cores": None,
    }


def test_too_few_inputs_and_no_rings_are_one_sentence(small, tmp_path):
    with pytest.raises(DataError, match="asked for with 1 inputs: give at least 2"):
        refit_onnx(small, inputs_of(small.network, tmp_path, 1))
    dense = compress_onnx(
        small.network,
        plan(small.network.profile, None, layers="auto",
             own=dict.fromkeys((layer.name for layer in small.network.layers), None)),
    )  # fmt: skip
    with pytest.raises(RsdtrError, match=r"net\.onnx has no ring to refit: compress it first"):
        refit_onnx(dense, inputs_of(small.network, tmp_path, 8))


def test_values_that_are_not_finite_are_one_sentence(small, tmp_path):
    inputs = inputs_of(small.network, tmp_path, 8)
    inputs.arrays["images"][:] = np.inf
    with pytest.raises(RsdtrError, match="out of layer stem is not finite"):
        refit_onnx(small, inputs, options=USUAL)
