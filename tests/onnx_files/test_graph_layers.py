"""Which nodes are layers, what their kernels are, and why some stay dense."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from rsdtr.onnx_files.graph_layers import graph_layers
from tests.support.onnx_graphs import graph, one_conv, ring_kernel, small_network, tensor

KERNEL = ring_kernel((6, 3, 3, 3), (1, 2, 2, 1))
MAPS = {"logits": ["batch", 6, "rows", "columns"]}


def conv(weight: str, out: str = "logits", name: str = "conv", source: str = "images"):
    return helper.make_node("Conv", [source, weight], [out], name)


def test_every_product_with_a_constant_is_a_layer_in_graph_order():
    model = small_network()
    layers = graph_layers(model.graph)
    assert [layer.name for layer in layers] == ["stem", "block", "depth", "point", "head"]
    assert [tuple(layer.kernel.shape) for layer in layers] == [
        (12, 3, 3, 3), (12, 12, 3, 3), (12, 1, 3, 3), (24, 12, 1, 1), (4, 24, 1, 1),
    ]  # fmt: skip
    assert [layer.operation for layer in layers] == ["Conv"] * 4 + ["Gemm"]
    # transB: outputs come first already.
    assert np.array_equal(layers[-1].kernel[:, :, 0, 0], tensor(model, "head.weight"))


def test_a_grouped_convolution_stays_dense_with_its_reason():
    depth = graph_layers(small_network().graph)[2]
    assert depth.obstacle == "grouped convolution (groups=12): a ring mixes all channels"


def test_strides_dilations_and_pads_are_read():
    model = one_conv(KERNEL, strides=[2, 1], dilations=[1, 3], pads=[0, 1, 2, 3])
    (layer,) = graph_layers(model.graph)
    assert (layer.stride, layer.dilation, layer.pads) == ((2, 1), (1, 3), (0, 1, 2, 3))
    (layer,) = graph_layers(one_conv(KERNEL, auto_pad="SAME_LOWER").graph)
    assert (layer.auto_pad, layer.pads) == ("SAME_LOWER", ())
    (layer,) = graph_layers(one_conv(KERNEL, auto_pad="VALID").graph)
    assert (layer.auto_pad, layer.pads) == ("NOTSET", (0, 0, 0, 0))


@pytest.mark.parametrize("operation", ["MatMul", "Gemm"])
def test_a_matrix_is_turned_so_that_outputs_come_first(operation):
    matrix = np.arange(15, dtype=np.float32).reshape(5, 3)  # (I, O)
    node = helper.make_node(operation, ["images", "weight"], ["logits"], "m")
    model = graph([node], {"weight": matrix}, inputs={"images": ["n", 5]})
    (layer,) = graph_layers(model.graph)
    assert layer.kernel.shape == (3, 5, 1, 1)
    assert float(layer.kernel[2, 4, 0, 0]) == matrix[4, 2]


def test_a_kernel_comes_through_constants_identities_and_transposes():
    nodes = [
        helper.make_node(
            "Constant", [], ["c"], value=numpy_helper.from_array(KERNEL.transpose(2, 3, 1, 0))
        ),
        helper.make_node("Identity", ["c"], ["i"]),
        helper.make_node("Transpose", ["i"], ["t"], perm=[3, 2, 0, 1]),
        conv("t"),
    ]
    (layer,) = graph_layers(graph(nodes, {}, outputs=MAPS).graph)
    assert np.array_equal(layer.kernel, KERNEL)
    assert (layer.weight.stored, layer.weight.nodes) == ("c", (2, 1, 0))


def test_a_shared_kernel_stays_dense_and_says_with_whom():
    square = ring_kernel((3, 3, 3, 3), (1, 2, 1, 1))
    nodes = [conv("weight", "one", "a"), conv("weight", "two", "b"),
             helper.make_node("Add", ["one", "two"], ["logits"])]  # fmt: skip
    first, second = graph_layers(graph(nodes, {"weight": square}, outputs=MAPS).graph)
    assert first.obstacle == "shares its kernel with b: give each a kernel of its own"
    assert second.obstacle == "shares its kernel with a: give each a kernel of its own"


def test_a_kernel_that_is_an_output_as_well_stays_dense():
    outputs = MAPS | {"weight": [6, 3, 3, 3]}
    (layer,) = graph_layers(graph([conv("weight")], {"weight": KERNEL}, outputs=outputs).graph)
    assert (
        layer.obstacle
        == "shares its kernel with an output of the graph: give each a kernel of its own"
    )


def test_half_precision_stays_dense_with_its_reason():
    model = graph([conv("weight")], {"weight": KERNEL.astype(np.float16)}, outputs=MAPS,
                  kind=TensorProto.FLOAT16)  # fmt: skip
    (layer,) = graph_layers(model.graph)
    assert layer.obstacle.startswith("a kernel of float16 is too coarse for a ring: compress the")


@pytest.mark.parametrize(
    ("kernel", "reason"),
    [(KERNEL * 0, "the kernel is zero everywhere"), (KERNEL * np.nan, "the kernel contains NaN")],
)
def test_values_that_make_no_ring(kernel, reason):
    (layer,) = graph_layers(one_conv(kernel).graph)
    assert layer.obstacle.startswith(reason)


def test_a_gemm_that_takes_its_input_transposed_stays_dense():
    node = helper.make_node("Gemm", ["images", "weight"], ["logits"], "g", transA=1)
    model = graph([node], {"weight": np.ones((5, 3), np.float32)}, inputs={"images": [5, "n"]})
    (layer,) = graph_layers(model.graph)
    assert layer.obstacle == "it takes its input transposed"


def test_a_computed_kernel_another_number_of_axes_and_another_domain_are_no_layers():
    computed = [helper.make_node("Neg", ["weight"], ["negative"]), conv("negative")]
    assert graph_layers(graph(computed, {"weight": KERNEL}, outputs=MAPS).graph) == ()
    line = {"weight": KERNEL[:, :, :, 0]}
    assert graph_layers(graph([conv("weight")], line, outputs=MAPS).graph) == ()
    other = conv("weight")
    other.domain = "somebody"
    assert graph_layers(graph([other], {"weight": KERNEL}, outputs=MAPS).graph) == ()


def test_nodes_of_one_name_are_told_apart_by_what_they_make():
    square = ring_kernel((3, 3, 3, 3), (1, 2, 1, 1))
    nodes = [
        conv("w1", "one", "same"),
        conv("w2", "logits", "same", "one"),
    ]
    model = graph(nodes, {"w1": square, "w2": square}, outputs=MAPS)
    assert [layer.name for layer in graph_layers(model.graph)] == ["one", "logits"]
    for node in model.graph.node:
        node.name = ""
    assert [layer.name for layer in graph_layers(model.graph)] == ["one", "logits"]
