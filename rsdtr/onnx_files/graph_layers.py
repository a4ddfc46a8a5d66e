"""The layers of a graph: convolutions, and products with a constant matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast

import numpy as np
import torch
from onnx import GraphProto, NodeProto
from torch import Tensor

from rsdtr.onnx_files.constants import Constant, Constants, attribute, node_name
from rsdtr.planning import obstacles

Operation = Literal["Conv", "Gemm", "MatMul"]
Pair = tuple[int, int]
_FLOATS = (np.float16, np.float32, np.float64)


@dataclass(frozen=True, eq=False)
class GraphLayer:
    """A node that multiplies with a constant, as a convolution.

    name: of the node, or else of its output; place: in graph.node; kernel: (O, I/groups, KH, KW),
    (O, I, 1, 1) of a matrix; weight: the constant; stride, dilation: of rows and columns; pads:
    (top, left, bottom, right), empty where auto_pad says it; fixed: why its kernel may not change;
    obstacle: why it cannot be a ring.
    """

    name: str
    place: int
    operation: Operation
    kernel: Tensor
    weight: Constant
    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    pads: tuple[int, ...] = (0, 0, 0, 0)
    auto_pad: str = "NOTSET"
    groups: int = 1
    fixed: str | None = None

    @property
    def obstacle(self) -> str | None:
        if self.groups != 1:
            return f"grouped convolution (groups={self.groups}): a ring mixes all channels"
        return self.fixed

    @property
    def is_matrix(self) -> bool:
        return self.operation != "Conv"


def graph_layers(graph: GraphProto) -> tuple[GraphLayer, ...]:
    """Every convolution over two axes, Gemm and MatMul with a constant kernel, in graph order."""
    constants = Constants(graph)
    layers = [
        layer
        for place, node in enumerate(graph.node)
        if (layer := _layer(node, place, constants)) is not None
    ]
    names = [layer.name for layer in layers]
    return tuple(
        replace(layer, name=_unique(layer, graph, names)) if names.count(layer.name) > 1 else layer
        for layer in layers
    )


def _unique(layer: GraphLayer, graph: GraphProto, names: Sequence[str]) -> str:
    """Another name where several nodes have one: that of the value, which no other node makes."""
    made = graph.node[layer.place].output[0]
    return made if made not in names else f"{made}#{layer.place}"


def _layer(node: NodeProto, place: int, constants: Constants) -> GraphLayer | None:
    if node.domain not in ("", "ai.onnx") or node.op_type not in ("Conv", "Gemm", "MatMul"):
        return None
    weight = constants.of(node.input[1]) if len(node.input) > 1 else "it is missing"
    axes = 4 if node.op_type == "Conv" else 2
    if isinstance(weight, str) or weight.values.ndim != axes or 0 in weight.values.shape:
        return None
    if weight.values.dtype not in _FLOATS:
        return None
    values = weight.values
    reason = None
    if node.op_type != "Conv":
        outputs_first = node.op_type == "Gemm" and bool(attribute(node, "transB", 0))
        values = (values if outputs_first else values.T)[:, :, None, None]
        if node.op_type == "Gemm" and bool(attribute(node, "transA", 0)):
            reason = "it takes its input transposed"
    kernel = torch.from_numpy(np.array(values, order="C"))
    reason = reason or _fixed(node, kernel, weight, constants)
    layer = GraphLayer(
        node_name(node), place, cast(Operation, node.op_type), kernel, weight, fixed=reason
    )
    return layer if layer.is_matrix else _with_geometry(layer, node)


def _with_geometry(layer: GraphLayer, node: NodeProto) -> GraphLayer:
    pads = attribute(node, "pads", [0, 0, 0, 0])
    strides, dilations = attribute(node, "strides", [1, 1]), attribute(node, "dilations", [1, 1])
    auto_pad = str(attribute(node, "auto_pad", "NOTSET"))
    assert isinstance(pads, list)
    assert isinstance(strides, list)
    assert isinstance(dilations, list)
    groups = attribute(node, "group", 1)
    assert isinstance(groups, int)
    if len(pads) != 4 or len(strides) != 2 or len(dilations) != 2:
        return replace(layer, fixed="its strides, pads or dilations are not of two axes")
    return replace(
        layer,
        stride=(strides[0], strides[1]),
        dilation=(dilations[0], dilations[1]),
        groups=groups,
        pads=() if auto_pad in ("SAME_UPPER", "SAME_LOWER") else tuple(pads),
        auto_pad=auto_pad if auto_pad != "VALID" else "NOTSET",
    )


def _fixed(node: NodeProto, kernel: Tensor, weight: Constant, constants: Constants) -> str | None:
    if kernel.dtype == torch.float16:
        return (
            "a kernel of float16 is too coarse for a ring: compress the network in float32, and "
            "convert the result"
        )
    if (other := constants.shared(weight, node)) is not None:
        return f"shares its kernel with {other}: give each a kernel of its own"
    return obstacles.of_values(kernel)
