"""What follows a layer, folded into a scale, an offset and an addend."""

import numpy as np
import pytest
import torch
from onnx import helper

from rsdtr.onnx_files import read_onnx
from rsdtr.onnx_files.graph_walk import GraphWalk
from rsdtr.onnx_files.refit_site import FAINT, refit_site, window_of
from tests.support.onnx_graphs import (
    graph,
    one_conv,
    ring_kernel,
    small_network,
    tensor,
    written,
)


def sites(model, path):
    network = read_onnx(written(model, path / "net.onnx"), (11, 9))
    walk = GraphWalk(network, [], 1e9)
    places = {layer.place for layer in network.layers if layer.obstacle is None}
    return {layer.name: refit_site(layer, walk, places) for layer in network.layers}


def test_of_a_network(tmp_path):
    model = small_network()
    found = sites(model, tmp_path)
    assert (found["stem"].value, found["stem"].addend, found["stem"].relu) == ("s", None, True)
    assert np.allclose(found["stem"].bias, tensor(model, "stem.bias"))
    block = found["block"]
    assert (block.value, block.addend, block.relu) == ("ba", "sr", True)
    gamma, beta, mean, var = (tensor(model, n) for n in ("gamma", "beta", "mean", "var"))
    scale = gamma / np.sqrt(var + 1e-5)
    assert np.allclose(block.scale, scale)
    assert np.allclose(block.offset, beta - mean * scale, atol=1e-6)
    assert not block.bias.any()
    head = found["head"]
    assert (head.value, head.relu, head.gain) == ("logits", False, 1.0)


def chain(nodes, tensors, tail="z"):
    kernel = ring_kernel((6, 3, 3, 3), (1, 2, 2, 1))
    first = helper.make_node("Conv", ["images", "w"], ["y"], "conv")
    return graph([first, *nodes], {"w": kernel} | tensors, outputs={tail: ["b", 6, "h", "w"]})


def test_constants_of_each_channel_are_folded_in_order(tmp_path):
    plus, times = np.arange(6, dtype=np.float32), np.float32([2, 3, 4, 5, 6, 7])
    nodes = [
        helper.make_node("Add", ["y", "plus"], ["a"]),
        helper.make_node("Mul", ["times", "a"], ["m"]),
        helper.make_node("Identity", ["m"], ["i"]),
        helper.make_node("Mul", ["i", "half"], ["h"]),
        helper.make_node("Clip", ["h", "zero"], ["z"]),
    ]
    tensors = {"plus": plus.reshape(1, 6, 1, 1), "times": times.reshape(6, 1, 1),
               "half": np.float32(0.5), "zero": np.float32(0)}  # fmt: skip
    site = sites(chain(nodes, tensors), tmp_path)["conv"]
    assert site.value == "h"
    assert site.relu
    assert np.allclose(site.scale, times / 2)
    assert np.allclose(site.offset, plus * times / 2)


@pytest.mark.parametrize(
    ("shape", "value"), [((6, 6), "y"), ((1, 1, 6), "y"), ((1, 6, 1, 1), "a"), ((), "a")]
)
def test_what_is_no_number_of_each_channel_ends_the_chain(tmp_path, shape, value):
    nodes = [helper.make_node("Add", ["y", "plus"], ["a"]), helper.make_node("Tanh", ["a"], ["z"])]
    model = chain(nodes, {"plus": np.ones(shape, np.float32)})
    network_size = (8, 8)  # y is 6×6, so that (6, 6) can be added to it
    network = read_onnx(written(model, tmp_path / "net.onnx"), network_size)
    site = refit_site(network.layers[0], GraphWalk(network, [], 1e9), {0})
    assert (site.value, site.relu) == (value, False)


def test_an_addend_that_hangs_on_a_later_ring_is_none(tmp_path):
    nodes = [
        helper.make_node("Conv", ["images", "v"], ["other"], "other"),
        helper.make_node("Add", ["y", "other"], ["z"]),
    ]
    model = chain(nodes, {"v": ring_kernel((6, 3, 3, 3), (1, 2, 2, 1), 5)})
    found = sites(model, tmp_path)
    assert (found["conv"].value, found["conv"].addend) == ("y", None)
    assert (found["other"].value, found["other"].addend) == ("z", "y")


def test_a_faint_channel_counts_as_a_little_louder(tmp_path):
    nodes = [helper.make_node("Mul", ["y", "times"], ["z"])]
    times = np.float32([1, 0, 2, 1, 1, 1e-9]).reshape(1, 6, 1, 1)
    site = sites(chain(nodes, {"times": times}), tmp_path)["conv"]
    assert site.scale.tolist() == [1, 2 * FAINT, 2, 1, 1, 2 * FAINT]


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("size", [(11, 9), (10, 8), (7, 12)])
def test_windows_pad_as_the_runtime_does(tmp_path, auto_pad, size):
    kernel = ring_kernel((2, 3, 4, 3), (1, 2, 2, 1))
    model = one_conv(kernel, auto_pad=auto_pad, strides=[2, 3])
    network = read_onnx(written(model, tmp_path / "net.onnx"), size)
    window = window_of(network.layers[0], size)
    (top, bottom), (left, right) = window.margins
    images = torch.randn(1, 3, *size)
    padded = torch.nn.functional.pad(images, (left, right, top, bottom))
    wanted = torch.nn.functional.conv2d(padded, torch.from_numpy(kernel), stride=(2, 3))
    walk = GraphWalk(network, [{"images": images.numpy()}], 1e9)
    found = walk.values({"images": images.numpy()}, 0, ["logits"])["logits"]
    assert np.allclose(found, wanted, atol=1e-5)
