"""Where a layer stands: what follows it until the rest of the graph sees its value."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from onnx import NodeProto
from torch import Tensor

from rsdtr.onnx_files.constants import Constants, attribute, taken
from rsdtr.onnx_files.graph_layers import GraphLayer, Pair
from rsdtr.onnx_files.graph_walk import GraphWalk
from rsdtr.ring.cost import Size

FAINT = 1e-3  # channels that are scaled below this part of the loudest count as that


@dataclass(frozen=True, eq=False)
class RefitSite:
    """What a layer's output becomes: value = scale·(gain·𝓦x + bias) + offset + addend.

    taken, value: the names of its input and of the value; scale, offset: (O,), in float64; gain:
    alpha of a Gemm; bias: (O,), its own one or zeros, None where no constant can be one; addend:
    the name of a value that is added, if that is known before the layer; relu: only what is above 0
    is seen.
    """

    taken: str
    value: str
    scale: Tensor
    offset: Tensor
    gain: float
    bias: Tensor | None
    addend: str | None
    relu: bool


def refit_site(layer: GraphLayer, walk: GraphWalk, rings: set[int]) -> RefitSite:
    """The site of a layer; rings: the places of all layers that are rings."""
    return _Sites(walk, rings).of(layer)


@dataclass(frozen=True)
class Window:
    """How a convolution's kernel moves over its input, as `Patches` asks for it."""

    kernel_size: Pair
    stride: Pair
    dilation: Pair
    margins: tuple[Pair, Pair]
    padding_mode: str = "zeros"


def window_of(layer: GraphLayer, size: Size) -> Window:
    """Of a layer on inputs of this height and width."""
    kernel = (layer.kernel.shape[2], layer.kernel.shape[3])
    if layer.pads:
        top, left, bottom, right = layer.pads
        margins = ((top, bottom), (left, right))
    else:
        rows, columns = (
            _same(
                size[axis], kernel[axis], layer.stride[axis], layer.dilation[axis], layer.auto_pad
            )
            for axis in (0, 1)
        )
        margins = (rows, columns)
    return Window(kernel, layer.stride, layer.dilation, margins)


def _same(size: int, kernel: int, stride: int, dilation: int, auto_pad: str) -> Pair:
    """The padding before and after an axis that makes the output ⌈size/stride⌉ long."""
    reach = dilation * (kernel - 1) + 1
    whole = max((-(-size // stride) - 1) * stride + reach - size, 0)
    less, more = whole // 2, whole - whole // 2
    return (less, more) if auto_pad == "SAME_UPPER" else (more, less)


class _Sites:
    def __init__(self, walk: GraphWalk, rings: set[int]) -> None:
        self.walk, self.rings = walk, rings
        self.constants = Constants(walk.model.graph)
        self.users: dict[str, list[NodeProto]] = {}
        for node in walk.nodes:
            for name in set(taken(node)):
                self.users.setdefault(name, []).append(node)
        self.outputs = {value.name for value in walk.model.graph.output}

    def of(self, layer: GraphLayer) -> RefitSite:
        node = self.walk.nodes[layer.place]
        channels = len(layer.kernel)
        scale = torch.ones(channels, dtype=torch.float64)
        offset, addend = torch.zeros_like(scale), None
        value = node.output[0]
        while addend is None and (after := self._only_user(value)) is not None:
            step = self._affine(after, value, layer)
            if step is not None:
                scale, offset = scale * step[0], offset * step[0] + step[1]
            elif after.op_type == "Add" and (other := self._settled(after, value, layer)):
                addend = other
            else:
                break
            value = after.output[0]
        faint = scale.abs() < FAINT * scale.abs().max()
        return RefitSite(
            taken=node.input[0],
            value=value,
            scale=torch.where(faint, FAINT * scale.abs().max(), scale),
            offset=offset,
            gain=_number(node, "alpha") if layer.operation == "Gemm" else 1.0,
            bias=self._bias(node, layer, channels),
            addend=addend,
            relu=self._only_relu(value),
        )

    def _bias(self, node: NodeProto, layer: GraphLayer, channels: int) -> Tensor | None:
        bias = torch.zeros(channels, dtype=torch.float64)
        if len(node.input) < 3 or not node.input[2]:
            return bias
        found = self._vector(node.input[2], channels)
        if found is None:
            return None
        return found * (_number(node, "beta") if layer.operation == "Gemm" else 1.0)

    def _only_user(self, name: str) -> NodeProto | None:
        users = self.users.get(name, [])
        return users[0] if len(users) == 1 and name not in self.outputs else None

    def _affine(
        self, node: NodeProto, value: str, layer: GraphLayer
    ) -> tuple[Tensor, Tensor] | None:
        """Scale and offset of a node that gives each channel one of each, or None."""
        channels = len(layer.kernel)
        one, zero = torch.ones(channels, dtype=torch.float64), torch.zeros(channels).double()
        if node.op_type == "Identity":
            return one, zero
        if node.op_type == "BatchNormalization" and not layer.is_matrix:
            if node.input[0] != value or attribute(node, "training_mode", 0):
                return None
            parts = [self._vector(name, channels) for name in node.input[1:5]]
            if any(part is None for part in parts) or len([n for n in node.output if n]) > 1:
                return None
            gamma, beta, mean, variance = (part for part in parts if part is not None)
            scale = gamma / (variance + _number(node, "epsilon", 1e-5)).sqrt()
            return scale, beta - mean * scale
        if node.op_type in ("Add", "Mul") and len(node.input) == 2:
            other = node.input[1] if node.input[0] == value else node.input[0]
            vector = None if other == value else self._channels(other, layer)
            if vector is not None:
                return (one, vector) if node.op_type == "Add" else (vector, zero)
        return None

    def _channels(self, name: str, layer: GraphLayer) -> Tensor | None:
        """A constant that has one number for each channel of the layer's output, or for all."""
        found = self.constants.of(name)
        if isinstance(found, str) or found.values.dtype.kind != "f":
            return None
        shape, channels = found.values.shape, len(layer.kernel)
        if found.values.size == 1:
            return torch.full((channels,), float(found.values.reshape(-1)[0])).double()
        behind = 0 if layer.is_matrix else 2
        place = len(shape) - 1 - behind
        if place < 0 or shape[place] != channels or found.values.size != channels:
            return None
        return torch.from_numpy(np.array(found.values.reshape(-1), np.float64))

    def _vector(self, name: str, channels: int) -> Tensor | None:
        found = self.constants.of(name)
        if isinstance(found, str) or found.values.size not in (1, channels):
            return None
        values = np.broadcast_to(found.values.reshape(-1), (channels,))
        return torch.from_numpy(np.array(values, np.float64))

    def _settled(self, node: NodeProto, value: str, layer: GraphLayer) -> str | None:
        """The other term of a sum, if no ring from this layer on has a part in it."""
        other = node.input[1] if node.input[0] == value else node.input[0]
        if other == value or self.walk.is_constant(other):
            return None
        needed = self.walk.needed((), [other])
        if any(place >= layer.place and place in self.rings for place in needed):
            return None
        return None if layer.place in needed else other

    def _only_relu(self, value: str) -> bool:
        users = self.users.get(value, [])
        return value not in self.outputs and bool(users) and all(map(self._is_relu, users))

    def _is_relu(self, node: NodeProto) -> bool:
        if node.op_type == "Relu":
            return True
        if node.op_type != "Clip":
            return False
        if len(node.input) > 1 and node.input[1]:
            found = self.constants.of(node.input[1])
            return not isinstance(found, str) and float(found.values.reshape(-1)[0]) == 0
        return attribute(node, "min") == 0


def _number(node: NodeProto, name: str, usual: float = 1.0) -> float:
    value = attribute(node, name, usual)
    assert isinstance(value, int | float)
    return float(value)
