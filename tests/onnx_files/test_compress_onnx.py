"""The compressed graph: exact to its rings, and otherwise the one that was given."""

import json

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from rsdtr.errors import PlanError
from rsdtr.onnx_files import compress_onnx, read_onnx
from rsdtr.onnx_files.compress_onnx import METADATA, CompressedOnnx, LayerRing
from rsdtr.planning import plan
from rsdtr.ring.forms import FORMS
from rsdtr.ring.tensor_ring import TensorRing
from tests.support.onnx_graphs import (
    answers,
    graph,
    off_by,
    one_conv,
    ring_kernel,
    small_network,
    traced,
    written,
)

IMAGES = np.random.default_rng(0).normal(size=(2, 3, 11, 9)).astype(np.float32)


def compressed(model, path, eps=0.3, **options):
    network = read_onnx(written(model, path / "net.onnx"), (11, 9))
    return compress_onnx(network, plan(network.profile, eps, layers="auto"), **options)


def with_kernels(model, kernels):
    """The model with these initializers, by a way of its own."""
    other = onnx.ModelProto()
    other.CopyFrom(model)
    for tensor in other.graph.initializer:
        if tensor.name in kernels:
            tensor.CopyFrom(numpy_helper.from_array(kernels[tensor.name], tensor.name))
    return other


def test_it_computes_what_the_traces_of_its_cores_compute(tmp_path):
    model = small_network()
    small = compressed(model, tmp_path)
    assert {"stem", "block", "point", "head"} >= set(small.rings) >= {"stem", "block", "point"}
    kernels = {}
    for name, one in small.rings.items():
        kernel = traced([core.numpy() for core in one.ring.cores]).astype(np.float32)
        kernels[f"{name}.weight"] = kernel[:, :, 0, 0] if name == "head" else kernel
    (wanted,) = answers(with_kernels(model, kernels), images=IMAGES)
    (found,) = answers(small.model(), images=IMAGES)
    assert off_by(found, wanted) < 1e-5
    assert off_by(answers(model, images=IMAGES)[0], wanted) > 1e-3
    assert off_by(answers(small.rebuilt(), images=IMAGES)[0], wanted) < 1e-6


def test_names_inputs_outputs_opset_and_metadata_stay(tmp_path):
    model = small_network()
    new = compressed(model, tmp_path).model()
    onnx.checker.check_model(new, full_check=True)
    assert list(new.graph.input) == list(model.graph.input)
    assert list(new.graph.output) == list(model.graph.output)
    assert list(new.opset_import) == list(model.opset_import)
    assert (new.producer_name, new.ir_version) == (model.producer_name, model.ir_version)
    metadata = {part.key: part.value for part in new.metadata_props}
    told = json.loads(metadata.pop(METADATA))
    assert metadata == {"author": "nobody", "labels": "a,b,c,d"}
    assert told["source"]["file"] == "net.onnx"
    assert set(told["rings"]) >= {"stem", "block", "point"}
    before = {node.name: node for node in model.graph.node}
    after = {node.name: node for node in new.graph.node if node.name in before}
    assert set(before) - set(after) == {"handed on"}
    assert all(list(after[name].output) == list(before[name].output) for name in after)
    assert after["block"].doc_string == "b"
    assert after["depth"] == before["depth"]
    names = {tensor.name for tensor in new.graph.initializer}
    assert "depth.weight" in names
    assert not names & {"stem.weight", "block.weight", "point.weight"}
    made = [name for node in new.graph.node for name in node.output]
    assert len(set(made)) == len(made)


def test_the_file_takes_fewer_bytes_and_any_size(tmp_path):
    small = compressed(small_network(), tmp_path, eps=0.5)
    size = small.save(tmp_path / "small.onnx")
    assert size == (tmp_path / "small.onnx").stat().st_size
    for shape in ((1, 3, 5, 5), (3, 3, 20, 7)):
        images = np.ones(shape, np.float32)
        assert answers(tmp_path / "small.onnx", images=images)[0].shape == (shape[0], 4)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"pads": [1, 0, 2, 1], "strides": [2, 1], "dilations": [1, 2]},
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
        {"auto_pad": "SAME_LOWER", "strides": [1, 2]},
    ],
)
def test_every_form_is_exact_and_stores_no_more_than_the_cores(tmp_path, form, attributes):
    ring = TensorRing.random((7, 3, 3, 5), (2, 3, 2, 2), seed=3)
    kernel = traced([core.numpy() for core in ring.cores]).astype(np.float32)
    network = read_onnx(written(one_conv(kernel, **attributes), tmp_path / "net.onnx"), (11, 9))
    decided = plan(network.profile, 0.1, layers="auto")
    layer = decided.layers[0].model_copy(update={"form": form})
    small = CompressedOnnx(
        network, decided.model_copy(update={"layers": (layer,)}), {"conv": LayerRing(ring)}
    )
    model = small.model()
    onnx.checker.check_model(model)
    (wanted,) = answers(network.model, images=IMAGES)
    assert off_by(answers(model, images=IMAGES)[0], wanted) < 1e-5
    stored = sum(
        int(np.prod(t.dims)) for t in model.graph.initializer if t.data_type == TensorProto.FLOAT
    )
    assert stored <= ring.storage


@pytest.mark.parametrize("operation", ["MatMul", "Gemm", "Gemm of a transposed matrix"])
def test_matrices_become_two_with_alpha_beta_and_more_than_two_axes(tmp_path, operation):
    matrix = ring_kernel((20, 30, 1, 1), (1, 4, 1, 1))[:, :, 0, 0]  # (O, I)
    turned = operation.endswith("matrix")
    word, extra = operation.split()[0], {}
    inputs = ["images", "weight"]
    tensors = {"weight": matrix if turned else matrix.T.copy()}
    shape = ["n", 6, 30] if word == "MatMul" else ["n", 30]
    if word == "Gemm":
        inputs.append("bias")
        tensors["bias"] = np.arange(20, dtype=np.float32)
        extra = {"alpha": 0.5, "beta": 2.0, "transB": int(turned)}
    model = graph([helper.make_node(word, inputs, ["logits"], "m", **extra)], tensors,
                  inputs={"images": shape}, outputs={"logits": [*shape[:-1], 20]})  # fmt: skip
    network = read_onnx(written(model, tmp_path / "net.onnx"))
    small = compress_onnx(network, plan(network.profile, 0.05, layers="auto"))
    assert set(small.rings) == {"m"}
    given = np.random.default_rng(1).normal(size=(3, *shape[1:])).astype(np.float32)
    wanted = given @ matrix.T
    if word == "Gemm":
        wanted = 0.5 * wanted + 2 * tensors["bias"]
    new = small.model()
    onnx.checker.check_model(new, full_check=True)
    assert off_by(answers(new, images=given)[0], wanted) < 1e-5
    # With a bias of its own instead.
    bias = torch.arange(20.0) + 3
    other = CompressedOnnx(network, small.plan, {"m": LayerRing(small.rings["m"].ring, bias)})
    wanted = (0.5 if word == "Gemm" else 1.0) * (given @ matrix.T) + bias.numpy()
    assert off_by(answers(other.model(), images=given)[0], wanted) < 1e-5
    assert off_by(answers(other.rebuilt(), images=given)[0], wanted) < 1e-5


def test_before_free_initializers_tensors_lie_in_nodes_and_inputs_go(tmp_path):
    kernel = ring_kernel((16, 3, 3, 3), (1, 3, 2, 2))
    model = one_conv(kernel, opset=9, ir=3)
    model.graph.input.append(helper.make_tensor_value_info("weight", 1, kernel.shape))
    network = read_onnx(written(model, tmp_path / "net.onnx"), (11, 9))
    small = compress_onnx(network, plan(network.profile, 0.05, layers="auto")).model()
    onnx.checker.check_model(small)
    assert [value.name for value in small.graph.input] == ["images"]
    assert not small.graph.initializer
    (wanted,) = answers(model, images=IMAGES)
    assert off_by(answers(small, images=IMAGES)[0], wanted) < 1e-5


def test_a_constant_that_others_take_stays(tmp_path):
    kernel = ring_kernel((16, 3, 3, 3), (1, 3, 2, 2))
    nodes = [
        helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(kernel)),
        helper.make_node("Identity", ["k"], ["passed"]),
        helper.make_node("Conv", ["images", "passed"], ["logits"], "conv"),
    ]
    outputs = {"logits": ["b", 16, "h", "w"]}
    network = read_onnx(written(graph(nodes, {}, outputs=outputs), tmp_path / "net.onnx"))
    small = compress_onnx(network, plan(network.profile, 0.05, layers="auto")).model()
    left = {name for node in small.graph.node for name in node.output}
    assert not left & {"k", "passed"}


def test_forms_by_time_are_measured_here(tmp_path):
    small = compressed(small_network(), tmp_path, batch=2)
    assert small.plan.measured_on.batch == 2
    rings = [layer for layer in small.plan.layers if layer.ranks]
    for layer in rings:
        told = layer.latency_ms
        # Nothing is told where the forms of least work made the faster graph.
        assert told is None or layer.form == "dense" or told.compressed < 0.95 * told.original


def test_a_plan_of_another_network_is_one_sentence(tmp_path):
    network = read_onnx(written(small_network(), tmp_path / "net.onnx"))
    decided = plan(network.profile, 0.3, layers="auto")
    other = read_onnx(
        written(one_conv(ring_kernel((8, 3, 3, 3), (1, 2, 2, 1))), tmp_path / "b.onnx")
    )
    with pytest.raises(PlanError, match=r"a layer 'stem' that b\.onnx lacks"):
        compress_onnx(other, decided)
    changed = small_network()
    changed.graph.node[0].name, changed.graph.node[2].name = "block", "stem"
    swapped = read_onnx(written(changed, tmp_path / "c.onnx"))
    with pytest.raises(PlanError, match=r"stem has a kernel \(12, 12, 3, 3\), the plan expects"):
        compress_onnx(swapped, decided)
    shared = small_network()
    shared.graph.output.append(helper.make_tensor_value_info("stem.weight", 1, [12, 3, 3, 3]))
    with pytest.raises(PlanError, match="layer stem cannot be a ring: shares its kernel"):
        compress_onnx(read_onnx(written(shared, tmp_path / "d.onnx")), decided)
