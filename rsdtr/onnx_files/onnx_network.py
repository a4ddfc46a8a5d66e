"""An ONNX file as a network: its layers, what they cost, and what multiplies beside them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from onnx import ModelProto, NodeProto

from rsdtr.errors import PlanError
from rsdtr.onnx_files.constants import attribute, node_name
from rsdtr.onnx_files.graph_layers import GraphLayer, graph_layers
from rsdtr.onnx_files.onnx_file import (
    graphs_of,
    model_sha256,
    nodes_within,
    read_model,
    stored_bytes,
    tensors_of,
    values_of,
)
from rsdtr.onnx_files.value_shapes import Shape, input_shapes, value_shapes
from rsdtr.planning.layer_profile import LayerProfile, Runs
from rsdtr.planning.model_profile import ModelProfile, NotCounted
from rsdtr.ring.cost import Size
from rsdtr.system.download import file_sha256
from rsdtr.system.safetensors_format import Entry, safetensors_bytes

_FLOATS = ("float16", "float32", "float64")
# What multiplies and is no layer; of the others the MACs are not known.
_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_MULTIPLIES = (
    *_PRODUCTS, "DeformConv", "Einsum", "LSTM", "GRU", "RNN", "Attention", "FusedConv",
    "FusedMatMul", "FusedGemm", "MultiHeadAttention",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class OnnxNetwork:
    """A network that lies in an ONNX file. Nothing changes its model.

    name: of the file; model: the graph with all weights; layers: in graph order; shapes: of its
    inputs, for which costs are counted; profile: what planning needs; bytes: of the file with its
    external data; sha256: of the file.
    """

    name: str
    model: ModelProto
    layers: tuple[GraphLayer, ...]
    shapes: Mapping[str, Shape]
    profile: ModelProfile
    bytes: int
    sha256: str

    def layer(self, name: str) -> GraphLayer:
        """The layer of that name; PlanError if there is none."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise PlanError(
            f"the plan names a layer {name!r} that {self.name} lacks: use the file that the plan "
            "was made for"
        )


def read_onnx(path: str | Path, input_size: Size | None = None) -> OnnxNetwork:
    """Read a network from an ONNX file, with external data beside it.

    input_size: the height and width that costs are counted for where the graph leaves them open,
    by default 224×224. WeightsError for a file that is malformed or quantised; PlanError for a
    graph without layers, or that takes no input of this size.
    """
    path = Path(path).expanduser()
    model = read_model(path)
    layers = graph_layers(model.graph)
    if not layers:
        raise PlanError(
            f"{path.name} has no Conv, Gemm or MatMul with a constant kernel: there is nothing to "
            "compress"
        )
    shapes = input_shapes(model, input_size)
    # External data that was read lies in files of its own.
    size, stored = path.stat().st_size, stored_bytes(model)
    size = size if size > stored else size + stored
    sizes = value_shapes(model, shapes, _wanted(model, layers))
    return OnnxNetwork(
        name=path.name,
        model=model,
        layers=layers,
        shapes=shapes,
        profile=_profile(path.name, model, layers, shapes, sizes, size),
        bytes=size,
        sha256=file_sha256(path),
    )


def _profile(
    name: str,
    model: ModelProto,
    layers: tuple[GraphLayer, ...],
    shapes: Mapping[str, Shape],
    sizes: Mapping[str, Shape],
    file_bytes: int,
) -> ModelProfile:
    profiles = [
        _layer_profile(layer, model.graph.node[layer.place], sizes, position)
        for position, layer in enumerate(layers)
    ]
    macs = sum(layer.macs for layer in profiles)
    return ModelProfile(
        model=name,
        layers=tuple(profiles),
        params=_params(model),
        macs=macs,
        not_counted=_not_counted(model, layers, sizes, macs),
        weights_sha256=_identity(model, shapes),
        entries=_entries(layers, file_bytes),
        usual_layers="auto",
    )


def _identity(model: ModelProto, shapes: Mapping[str, Shape]) -> str:
    """Of the weights, and of the sizes that costs are counted for: winners on disk are by both."""
    return hashlib.sha256(f"{model_sha256(model)} {sorted(shapes.items())}".encode()).hexdigest()


def _layer_profile(
    layer: GraphLayer, node: NodeProto, sizes: Mapping[str, Shape], position: int
) -> LayerProfile:
    before, after = (_size(layer, sizes[name]) for name in (node.input[0], node.output[0]))
    _, _, kh, kw = layer.kernel.shape
    return LayerProfile(
        name=layer.name,
        kernel=layer.kernel,
        stride=layer.stride,
        sizes=(Runs(before, after),),
        macs=layer.kernel.numel() * after[0] * after[1],
        in_paper_policy=position > 0 and max(kh, kw) > 1,
        obstacle=layer.obstacle,
        padding=(layer.pads[0], layer.pads[1]) if layer.pads else "same",
        dilation=layer.dilation,
        padding_mode="zeros",
        kind="linear" if layer.is_matrix else "conv",
    )


def _size(layer: GraphLayer, shape: Shape) -> Size:
    """(H, W) of a value for one input, rows of several pictures or positions below each other."""
    if layer.is_matrix:
        return math.prod(shape[:-1]), 1
    return shape[0] * shape[2], shape[3]


def _params(model: ModelProto) -> int:
    """Scalars of all floating-point tensors that the file stores."""
    return sum(
        math.prod(tensor.dims)
        for tensor in tensors_of(model.graph)
        if values_of(tensor).dtype.name in _FLOATS
    )


def _entries(layers: tuple[GraphLayer, ...], file_bytes: int) -> dict[str, Entry]:
    """The file as `planned_bytes` counts: every kernel by its layer, and one tensor of the rest."""
    kernels = {
        f"{layer.name}.weight": Entry.of(layer.kernel)
        for layer in layers
        if "shares its kernel" not in (layer.obstacle or "")
    }
    beside = max(0, file_bytes - safetensors_bytes(kernels | {"": Entry("uint8", 1, (0,))}))
    return kernels | {"": Entry("uint8", 1, (beside,))}


def _wanted(model: ModelProto, layers: tuple[GraphLayer, ...]) -> set[str]:
    """The values whose shapes costs are counted from."""
    wanted = set()
    for layer in layers:
        node = model.graph.node[layer.place]
        wanted |= {node.input[0], node.output[0]}
    for node in _others(model, layers):
        if node.op_type in _PRODUCTS:
            wanted |= {*node.input[:2], node.output[0]}
    return wanted


def _others(model: ModelProto, layers: Iterable[GraphLayer]) -> list[NodeProto]:
    """The nodes of the graph's own level that multiply and are no layers."""
    places = {layer.place for layer in layers}
    return [
        node
        for place, node in enumerate(model.graph.node)
        if node.op_type in _MULTIPLIES and place not in places
    ]


def _not_counted(
    model: ModelProto, layers: tuple[GraphLayer, ...], sizes: Mapping[str, Shape], macs: int
) -> tuple[NotCounted, ...]:
    """What multiplies outside of the layers, most first."""
    found = [
        (
            node_name(node),
            _macs(node, sizes),
            f"{node.op_type}: it has no constant kernel of two axes",
        )
        for node in _others(model, layers)
    ]
    for node in model.graph.node:
        for part in node.attribute:
            for inner in graphs_of(part):
                names = [n.op_type for n in nodes_within(inner) if n.op_type in _MULTIPLIES]
                if names:
                    reason = f"{node.op_type}: what runs within it ({', '.join(names)})"
                    found.append((node_name(node), 0, reason))
    total = macs + sum(count for _, count, _ in found)
    return tuple(
        NotCounted(name=name, macs=count, share=count / total if total else 0.0, reason=reason)
        for name, count, reason in sorted(found, key=lambda item: -item[1])
    )


def _macs(node: NodeProto, sizes: Mapping[str, Shape]) -> int:
    """MACs of a product for one input; 0 where no formula is known."""
    if node.op_type not in _PRODUCTS:
        return 0
    first, second, after = sizes[node.input[0]], sizes[node.input[1]], sizes[node.output[0]]
    if node.op_type == "Conv":  # (O, I/groups, …) for each pixel of each output channel
        return math.prod(after) * math.prod(second[1:])
    if node.op_type == "ConvTranspose":  # (I, O/groups, …) for each pixel of each input channel
        return math.prod(first) * math.prod(second[1:])
    turned = node.op_type == "Gemm" and bool(attribute(node, "transA", 0))
    return math.prod(after) * (first[0] if turned else first[-1])
