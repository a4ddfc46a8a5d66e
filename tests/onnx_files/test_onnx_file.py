"""ONNX files of strangers: read, refused in a sentence, and written whole."""

import os

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from rsdtr.errors import ExportError, WeightsError
from rsdtr.onnx_files.onnx_file import (
    MOST_MODEL_BYTES,
    is_onnx,
    model_sha256,
    read_model,
    write_model,
)
from tests.support.onnx_graphs import answers, one_conv, small_network, tensor, written

IMAGES = np.random.default_rng(0).normal(size=(2, 3, 9, 8)).astype(np.float32)


def test_by_its_ending():
    assert is_onnx("a/net.ONNX")
    assert not is_onnx("net.onnx.data")


def test_what_is_written_is_what_was_read(tmp_path):
    path = written(small_network(), tmp_path / "net.onnx")
    model = read_model(path)
    assert write_model(model, tmp_path / "again.onnx") == path.stat().st_size
    assert (tmp_path / "again.onnx").read_bytes() == path.read_bytes()


def test_external_data_is_read_from_beside_the_file_and_written_above_a_size(tmp_path):
    model = small_network()
    # onnx.save moves the tensors out of the model that it is given.
    onnx.save(small_network(), tmp_path / "net.onnx", save_as_external_data=True, location="w.bin",
              size_threshold=0)  # fmt: skip
    read = read_model(tmp_path / "net.onnx")
    assert np.array_equal(tensor(read, "block.weight"), tensor(model, "block.weight"))
    assert model_sha256(read) == model_sha256(model)
    size = write_model(read, tmp_path / "large.onnx", inline=1000)
    assert size == sum(os.path.getsize(tmp_path / f"large.onnx{end}") for end in ("", ".data"))
    # The kernels lie outside; 12·3·9 is the smallest that is large enough for that.
    assert (tmp_path / "large.onnx.data").stat().st_size == 4 * (12 * 27 + 12 * 108 + 24 * 12)
    assert answers(tmp_path / "large.onnx", images=IMAGES)[0] == pytest.approx(
        answers(model, images=IMAGES)[0], abs=0
    )
    assert not list(tmp_path.glob(".writing-*"))


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "it holds no graph"),
        (b"\xff" * 100, "it is no protobuf message"),
        (b"\x08\x08", "it holds no graph"),
    ],
)
def test_what_is_no_model_is_one_sentence(tmp_path, content, match):
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=match):
        read_model(path)


def test_a_file_that_is_missing_or_too_large(tmp_path):
    with pytest.raises(WeightsError, match="No such file"):
        read_model(tmp_path / "none.onnx")
    with (tmp_path / "huge.onnx").open("wb") as file:
        file.truncate(MOST_MODEL_BYTES + 1)
    with pytest.raises(WeightsError, match="keep its weights as external data"):
        read_model(tmp_path / "huge.onnx")


def test_half_a_file_is_refused(tmp_path):
    content = small_network().SerializeToString()
    for cut in (len(content) // 2, len(content) - 5):
        (tmp_path / "net.onnx").write_bytes(content[:cut])
        with pytest.raises(WeightsError, match="cannot be read"):
            read_model(tmp_path / "net.onnx")


def test_a_tensor_of_another_size_than_it_says(tmp_path):
    model = small_network()
    model.graph.initializer[0].dims[0] = 1 << 40
    with pytest.raises(WeightsError, match=r"'stem\.weight' has more or fewer values"):
        read_model(written(model, tmp_path / "net.onnx"))
    model.graph.initializer[0].dims[0] = -1
    with pytest.raises(WeightsError, match="a size below 0"):
        read_model(written(model, tmp_path / "net.onnx"))


def test_a_graph_that_the_checker_refuses(tmp_path):
    model = small_network()
    model.graph.node[2].input[0] = "nobody"
    with pytest.raises(WeightsError, match="cannot be read"):
        read_model(written(model, tmp_path / "net.onnx"))


@pytest.mark.parametrize("word", ["DequantizeLinear", "QLinearConv", "ConvInteger"])
def test_eight_bits_are_refused(tmp_path, word):
    model = small_network()
    model.graph.node.append(helper.make_node(word, ["a", "b"], ["c"]))
    with pytest.raises(WeightsError, match=f"in eight bits .*{word}.* quantise the result"):
        read_model(written(model, tmp_path / "net.onnx"))


def test_an_old_opset_is_refused(tmp_path):
    with pytest.raises(WeightsError, match="has opset 6, expected at least 7"):
        read_model(written(small_network(opset=6), tmp_path / "net.onnx"))


def external(location: str, length: int) -> onnx.ModelProto:
    model = one_conv(np.ones((2, 3, 1, 1), np.float32))
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(length))):
        weight.external_data.add(key=key, value=value)
    return model


def test_external_data_that_is_missing_too_short_or_elsewhere(tmp_path):
    path = tmp_path / "inner" / "net.onnx"
    path.parent.mkdir()
    path.write_bytes(external("w.bin", 24).SerializeToString())
    with pytest.raises(WeightsError, match=r"'weight' in 'w\.bin', which is not there"):
        read_model(path)
    (path.parent / "w.bin").write_bytes(b"0" * 20)
    with pytest.raises(WeightsError, match=r"takes 24 bytes of 'weight' from 'w\.bin'"):
        read_model(path)
    path.write_bytes(external("w.bin", 4000).SerializeToString())
    with pytest.raises(WeightsError, match="which holds fewer, or others"):
        read_model(path)
    (tmp_path / "secret").write_bytes(b"0" * 24)
    path.write_bytes(external("../secret", 24).SerializeToString())
    with pytest.raises(WeightsError, match="cannot be read"):
        read_model(path)


def test_the_hash_knows_values_and_names(tmp_path):
    model = small_network()
    before = model_sha256(model)
    model.doc_string = "another"
    assert model_sha256(model) == before
    weight = model.graph.initializer[0]
    weight.CopyFrom(numpy_helper.from_array(tensor(model, weight.name) + 1, weight.name))
    assert model_sha256(model) != before


def test_a_place_that_cannot_be_written(tmp_path):
    with pytest.raises(ExportError, match="cannot be written"):
        write_model(small_network(), tmp_path / "none" / "net.onnx")
