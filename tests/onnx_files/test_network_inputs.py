"""Inputs of ONNX graphs: pictures, NumPy's files, random numbers, or one sentence."""

import numpy as np
import pytest
from onnx import TensorProto, helper
from PIL import Image

from rsdtr.errors import DataError
from rsdtr.onnx_files import network_inputs, read_onnx
from tests.support.onnx_graphs import graph, one_conv, ring_kernel, written


def network_of(path, axes, kernel=None, **more):
    kernel = ring_kernel((4, 3, 3, 3), (1, 2, 2, 1)) if kernel is None else kernel
    model = one_conv(kernel)
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("images", 1, axes))
    for name, given in more.items():
        model.graph.input.append(given)
        model.graph.node.append(helper.make_node("Identity", [name], [f"{name}.passed"]))
    return read_onnx(written(model, path / "net.onnx"), (12, 10))


@pytest.fixture
def network(tmp_path):
    return network_of(tmp_path, ["n", 3, "h", "w"])


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures" / "deeper"
    folder.mkdir(parents=True)
    for k in range(5):
        Image.new("RGB", (20 + k, 24), (10 * k, 100, 200)).save(folder / f"{k}.png")
    (folder / "broken.png").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("no picture", encoding="utf-8")
    return folder.parent


def test_pictures_are_cropped_to_the_input_and_normalised(network, pictures):
    inputs = network_inputs(network, pictures, 10)
    assert inputs.arrays["images"].shape == (5, 3, 12, 10)
    assert not inputs.random
    green = (100 / 255 - 0.456) / 0.224
    assert np.allclose(inputs.arrays["images"][:, 1], green, atol=1e-5)


def test_the_normalisation_and_the_order_of_colours_can_be_said(network, pictures):
    plain = network_inputs(network, pictures, 10, mean=(0, 0, 0), std=(1 / 255,) * 3, bgr=True)
    assert np.allclose(plain.arrays["images"][:, 0], 200, atol=1e-3)  # blue first
    assert sorted(plain.arrays["images"][:, 2, 0, 0].round().tolist()) == [0, 10, 20, 30, 40]


def test_pictures_with_channels_last_and_in_grey(tmp_path, pictures):
    nodes = [
        helper.make_node("Transpose", ["images"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["t", "w"], ["logits"], "conv"),
    ]
    model = graph(nodes, {"w": ring_kernel((4, 1, 3, 3), (1, 2, 2, 1))},
                  inputs={"images": ["n", "h", "w", 1]},
                  outputs={"logits": ["n", 4, "a", "b"]})  # fmt: skip
    network = read_onnx(written(model, tmp_path / "net.onnx"), (12, 10))
    assert network_inputs(network, pictures, 3).arrays["images"].shape == (3, 12, 10, 1)


def test_arrays_of_files(network, tmp_path):
    values = np.arange(4 * 3 * 7 * 7, dtype=np.float64).reshape(4, 3, 7, 7)
    np.save(tmp_path / "x.npy", values)
    np.savez(tmp_path / "x.npz", anything=values)
    for name in ("x.npy", "x.npz"):
        inputs = network_inputs(network, tmp_path / name, 10)
        assert inputs.arrays["images"].dtype == np.float32
        assert np.array_equal(inputs.arrays["images"], values)
    assert len(network_inputs(network, tmp_path / "x.npz", 2)) == 2


def test_random_numbers_are_told_to_be_random(network):
    inputs = network_inputs(network, None, 6)
    assert inputs.random
    assert inputs.arrays["images"].shape == (6, 3, 12, 10)
    again = network_inputs(network, None, 6)
    assert np.array_equal(inputs.arrays["images"], again.arrays["images"])


def test_a_fixed_batch_is_given_whole(tmp_path):
    network = network_of(tmp_path, [2, 3, 8, 8])
    inputs = network_inputs(network, None, 5)
    assert len(inputs) == 6
    assert [len(batch["images"]) for batch in inputs.batches()] == [2, 2, 2]
    np.save(tmp_path / "x.npy", np.ones((5, 3, 8, 8), np.float32))
    assert len(network_inputs(network, tmp_path / "x.npy", 9)) == 4


def test_several_inputs_are_known_by_their_names(tmp_path):
    number = helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", 2])
    network = network_of(tmp_path, ["n", 3, 8, 8], ids=number)
    images = np.ones((3, 3, 8, 8), np.float32)
    np.savez(tmp_path / "x.npz", images=images, ids=np.ones((3, 2), int))
    assert set(network_inputs(network, tmp_path / "x.npz", 9).arrays) == {"images", "ids"}
    assert not network_inputs(network, None, 2).arrays["ids"].any()
    np.savez(tmp_path / "x.npz", images=images)
    with pytest.raises(DataError, match="graph takes images, ids: give it an array called ids"):
        network_inputs(network, tmp_path / "x.npz", 9)
    np.savez(tmp_path / "x.npz", images=images, ids=np.ones((3, 2)))
    with pytest.raises(DataError, match="input ids is int64, and what was given float64"):
        network_inputs(network, tmp_path / "x.npz", 9)
    np.savez(tmp_path / "x.npz", images=images, ids=np.ones((4, 2), int))
    with pytest.raises(DataError, match="give as many of that shape for each input"):
        network_inputs(network, tmp_path / "x.npz", 9)
    (tmp_path / "pictures").mkdir()
    with pytest.raises(DataError, match="takes no batch of pictures in floating-point numbers"):
        network_inputs(network, tmp_path / "pictures", 9)


@pytest.mark.parametrize(
    ("shape", "match"),
    [
        ((4, 1, 7, 7), r"is n×3×\?×\?, and what was given 4×1×7×7"),
        ((4, 3, 7), "what was given 4×3×7"),
        ((0, 3, 7, 7), "there are no inputs for net.onnx"),
    ],
)
def test_arrays_of_another_shape_are_one_sentence(network, tmp_path, shape, match):
    np.save(tmp_path / "x.npy", np.ones(shape, np.float32))
    with pytest.raises(DataError, match=match):
        network_inputs(network, tmp_path / "x.npy", 9)


@pytest.mark.parametrize(
    ("content", "name"), [(b"", "x.npy"), (b"PK\x03\x04 no zip", "x.npz"), (b"\x93NUMPY", "x.npy")]
)
def test_files_that_are_none_are_one_sentence(network, tmp_path, content, name):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=r"cannot be read .* numpy\.save or numpy\.savez wrote"):
        network_inputs(network, tmp_path / name, 9)


def test_pickled_objects_are_not_read(network, tmp_path):
    np.save(tmp_path / "x.npy", np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match="cannot be read"):
        network_inputs(network, tmp_path / "x.npy", 9)


def test_places_and_numbers_that_do_not_fit(network, tmp_path, pictures):
    with pytest.raises(DataError, match=r"is no folder of pictures and no \.npz or \.npy file"):
        network_inputs(network, tmp_path / "x.txt", 9)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no pictures"):
        network_inputs(network, tmp_path / "empty", 9)
    with pytest.raises(DataError, match="was given 1 means and 3 standard deviations"):
        network_inputs(network, pictures, 9, mean=(0.5,))
    two = network_of(tmp_path, ["n", 2, 8, 8], ring_kernel((4, 2, 3, 3), (1, 2, 2, 1)))
    with pytest.raises(DataError, match="takes 2 channels, and pictures have 1, 3 or 4"):
        network_inputs(two, pictures, 9)
    grey = network_of(tmp_path, ["n", 1, 8, 8], ring_kernel((4, 1, 3, 3), (1, 2, 2, 1)))
    with pytest.raises(DataError, match="takes one channel: BGR is an order of 3 or 4"):
        network_inputs(grey, pictures, 9, bgr=True)


def test_a_split_keeps_them_apart(network):
    inputs = network_inputs(network, None, 10)
    learnt, judged = inputs.split(0.2, 3)
    assert (len(learnt), len(judged)) == (8, 2)
    both = np.concatenate([learnt.arrays["images"], judged.arrays["images"]])
    assert len(np.unique(both.reshape(10, -1), axis=0)) == 10
