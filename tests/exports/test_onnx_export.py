"""Smaller ONNX graphs that compute the same, whatever the graph is."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from rsdtr.exports.onnx_export import compact

KERNEL = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
WEIGHT = numpy_helper.from_array(KERNEL, "weight")
IMAGES = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 8, 8])
ANY = ["batch", "channels", "height", "width"]


def value(name: str, shape: list) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def conv(to: str = "logits", **attributes) -> onnx.NodeProto:
    return helper.make_node("Conv", ["images", "weight"], [to], name="a_long_name", **attributes)


def model(nodes, initializers=(WEIGHT,), inputs=(IMAGES,), outputs=None) -> bytes:
    graph = helper.make_graph(
        nodes, "graph", list(inputs), list(outputs or [value("logits", ANY)]), list(initializers)
    )
    opset = helper.make_opsetid("", 20)
    return helper.make_model(graph, opset_imports=[opset], ir_version=10).SerializeToString()


def answers(content: bytes) -> list[np.ndarray]:
    images = np.random.default_rng(1).standard_normal((2, 3, 8, 8)).astype(np.float32)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(content, options).run(None, {"images": images})


def same(content: bytes) -> None:
    small = compact(content)
    onnx.checker.check_model(small)
    for before, after in zip(answers(content), answers(small), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"pads": [0, 0, 0, 0], "strides": [1, 1], "dilations": [1, 1], "group": 1},
        {"kernel_shape": [3, 3], "auto_pad": "NOTSET", "pads": [0, 1, 0, 1], "strides": [2, 1]},
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
        {"auto_pad": "VALID", "dilations": [2, 2]},
    ],
)
def test_a_convolution_stays_the_same(attributes):
    same(model([conv(**attributes)]))


def test_what_a_convolution_does_anyway_is_not_said():
    said = {"kernel_shape": [3, 3], "auto_pad": "NOTSET", "pads": [0] * 4, "strides": [1, 1]}
    (node,) = onnx.load_from_string(compact(model([conv(**said, group=1)]))).graph.node
    assert not node.attribute
    assert not node.name


def test_two_names_of_one_value_become_one():
    twin = numpy_helper.from_array(KERNEL, "twin")
    again = helper.make_node("Conv", ["images", "twin"], ["other"])
    both = helper.make_node("Concat", ["first", "other"], ["logits"], axis=1)
    content = model([conv("first"), again, both], [WEIGHT, twin])
    same(content)
    assert len(onnx.load_from_string(compact(content)).graph.initializer) == 1


def test_a_value_that_is_an_output_or_the_default_of_an_input_keeps_its_name():
    constant = numpy_helper.from_array(np.arange(4, dtype=np.float32), "logits")
    outputs = [value("logits", [4]), value("moved", ANY)]
    same(model([conv("moved")], [WEIGHT, constant], outputs=outputs))
    same(model([conv()], inputs=[IMAGES, value("weight", [4, 3, 3, 3])]))


def test_a_graph_with_branches_is_left_as_it_is():
    two = numpy_helper.from_array(np.float32(2), "two")
    twice, once = (
        helper.make_graph([node], "branch", [], [value(node.output[0], ANY)])
        for node in (
            helper.make_node("Mul", ["hidden", "two"], ["twice"]),
            helper.make_node("Identity", ["hidden"], ["once"]),
        )
    )
    nodes = [
        conv("hidden"),
        helper.make_node("ReduceSum", ["hidden"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "two"], ["much"]),
        helper.make_node("If", ["much"], ["logits"], then_branch=twice, else_branch=once),
    ]
    content = model(nodes, [WEIGHT, two])
    assert compact(content) == content
    same(content)
