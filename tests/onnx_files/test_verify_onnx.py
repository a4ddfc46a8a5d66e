"""A compressed ONNX file is what it says, was made from what it says, and agrees so far."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from rsdtr.errors import ExportError
from rsdtr.onnx_files import compress_onnx, network_inputs, read_onnx, verify_onnx
from rsdtr.onnx_files.verify_onnx import TOLERANCE, prove
from rsdtr.planning import plan
from tests.support.onnx_graphs import answers, off_by, small_network, tensor, written


@pytest.fixture
def network(tmp_path):
    return read_onnx(written(small_network(), tmp_path / "net.onnx"), (11, 9))


@pytest.fixture
def small(network):
    return compress_onnx(network, plan(network.profile, 0.3, layers="auto"))


def test_the_proof_is_of_every_ring_s_output(small, network):
    proof = prove(small, small.model(), network_inputs(network, None, 4))
    assert proof.relative_error < TOLERANCE
    assert (proof.values, proof.n) == (1 + len(set(small.rings) - {"head"}), 4)


def test_a_graph_that_computes_something_else_is_not_written(small, network):
    model = small.model()
    changed = next(t for t in model.graph.initializer if t.name.startswith("stem/"))
    values = numpy_helper.to_array(changed)
    if values.dtype != np.float32:
        changed = next(t for t in model.graph.initializer
                       if t.name.startswith("stem/") and t.data_type == 1)  # fmt: skip
        values = numpy_helper.to_array(changed)
    changed.CopyFrom(numpy_helper.from_array(values * 1.001, changed.name))
    with pytest.raises(ExportError, match="computes something else than its rings"):
        prove(small, model, network_inputs(network, None, 2))
    model.graph.node[0].op_type = "Nonsense"
    with pytest.raises(ExportError, match="is not valid ONNX"):
        prove(small, model, network_inputs(network, None, 2))


def test_a_file_is_verified_with_its_fidelity(small, network, tmp_path):
    small.save(tmp_path / "small.onnx")
    inputs = network_inputs(network, None, 6)
    said, alike = verify_onnx(tmp_path / "small.onnx", network, inputs)
    assert said["source"] == {
        "file": "net.onnx", "sha256": network.sha256, "bytes": network.bytes,
    }  # fmt: skip
    images = inputs.arrays["images"]
    found, wanted = (answers(x, images=images)[0] for x in (tmp_path / "small.onnx", network.model))
    assert alike.agreement == 100 * np.mean(found.argmax(1) == wanted.argmax(1))
    errors = [off_by(one, other) for one, other in zip(found, wanted, strict=True)]
    assert alike.relative_error == pytest.approx(np.mean(errors), rel=1e-3)


def changed(path, change):
    model = onnx.load(path)
    change(model)
    onnx.save(model, path)


def another_bias(model):
    bias = next(t for t in model.graph.initializer if t.name == "head.bias")
    bias.CopyFrom(numpy_helper.from_array(tensor(model, "head.bias") + 1, "head.bias"))


def another_output(model):
    model.graph.output.append(helper.make_tensor_value_info("s", 1, ["b", 12, "h", "w"]))


def another_input(model):
    model.graph.input.append(helper.make_tensor_value_info("more", 1, [1]))


def another_opset(model):
    model.opset_import.append(helper.make_opsetid("somebody", 1))


def other_metadata(model):
    model.metadata_props.add(key="another", value="somebody")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (another_bias, "was changed since it was written"),
        (another_output, r"has other outputs than net\.onnx"),
        (another_input, r"has other inputs than net\.onnx"),
        (another_opset, r"has another opset than net\.onnx"),
        (other_metadata, r"has other metadata than net\.onnx"),
        (lambda model: model.ClearField("metadata_props"), "does not say what it was made from"),
    ],
)
def test_what_was_changed_is_said(small, network, tmp_path, change, match):
    path = tmp_path / "small.onnx"
    small.save(path)
    changed(path, change)
    with pytest.raises(ExportError, match=match):
        verify_onnx(path, network, network_inputs(network, None, 1))


def test_a_file_made_from_another_is_refused(small, tmp_path):
    small.save(tmp_path / "small.onnx")
    other = read_onnx(written(small_network(noise=0.3), tmp_path / "other.onnx"))
    with pytest.raises(ExportError, match=r"made from a file with the SHA-256 .* and other\.onnx"):
        verify_onnx(tmp_path / "small.onnx", other, network_inputs(other, None, 1))
