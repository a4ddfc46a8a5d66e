"""A ring as nodes of a graph: the convolutions of its form, or products with its two matrices.

The file holds what takes fewer scalars: the kernel of a convolution, or the cores that it is
contracted from. In that case constant nodes contract them, which a runtime does once, when it opens
the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from onnx import NodeProto, helper
from torch import Tensor

from rsdtr.onnx_files.graph_layers import GraphLayer
from rsdtr.onnx_files.graph_part import Part
from rsdtr.ring.forms import Form, Sublayer, sublayer_kernels, sublayers
from rsdtr.ring.tensor_ring import TensorRing

# ONNX Runtime keeps convolutions in its blocked layout where the channels between them are as many
# as a block and a multiple of four (core/optimizer/nchwc_transformer.cc): elsewhere it turns every
# value back and forth, which takes longer than the ring saves.
BLOCK, ALIGNED = 16, 4


def ring_part(
    layer: GraphLayer,
    node: NodeProto,
    ring: TensorRing,
    form: Form,
    bias: Tensor | None,
    part: Part,
) -> None:
    """Write into `part` what computes in `node`'s place with a ring: the same name, input, output.

    bias: (O,), in place of the node's own one, or None for that.
    """
    if layer.is_matrix:
        _matrices(layer, node, ring, form, bias, part)
    else:
        _convolutions(layer, node, ring, form, bias, part)


def dense_part(
    layer: GraphLayer, node: NodeProto, kernel: Tensor, bias: Tensor | None, part: Part
) -> None:
    """The same with another dense kernel (O, I/groups, KH, KW)."""
    if layer.is_matrix:
        matrix = kernel[:, :, 0, 0].T  # (I, O)
        _last_product(layer, node, node.input[0], part.numbers(matrix, "matrix"), bias, part)
        return
    o, i, kh, kw = kernel.shape
    weight = part.numbers(kernel, "kernel")
    _convolution(layer, Sublayer((o, i, kh, kw), (0, 1)), node.input[0], weight, part, node, bias)


def aligned(channels: int) -> int:
    """How many channels lie between the two convolutions of a form, some of them of zeros."""
    return max(BLOCK, -(-channels // ALIGNED) * ALIGNED)


def stored_scalars(form: Form, shape: Sequence[int], ranks: Sequence[int]) -> int:
    """Scalars that a file holds for a ring in this form: never more than the cores' and ring's."""
    if form == "dense":
        return min(stored_scalars(two, shape, ranks) for two in _TWO)
    cores = [ranks[k] * shape[k] * ranks[(k + 1) % 4] for k in range(4)]
    if form == "pipeline":
        return sum(cores)
    merged = [prod(step.kernel) for step in sublayers(form, shape, ranks)]
    return sum(
        min(whole, sum(cores[k] for k in modes))
        for whole, modes in zip(merged, _MODES[form], strict=True)
    )


# Which cores the two convolutions of a form are contracted from.
_TWO: tuple[Form, ...] = ("O|IHW", "I|HWO", "IH|WO")
_MODES: dict[Form, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "O|IHW": ((1, 2, 3), (0,)),
    "I|HWO": ((1,), (2, 3, 0)),
    "IH|WO": ((1, 2), (3, 0)),
}


def _convolutions(
    layer: GraphLayer, node: NodeProto, ring: TensorRing, form: Form, bias: Tensor | None,
    part: Part,
) -> None:  # fmt: skip
    steps = sublayers(form, ring.shape, ring.ranks)
    weights = _weights(ring, form, part)
    if form in _TWO:
        bond = aligned(steps[0].kernel[0])
        weights = [
            part.widened(weight, step.kernel, axis, bond)
            for axis, (weight, step) in enumerate(zip(weights, steps, strict=True))
        ]
    value, copies = node.input[0], 1
    for number, (step, weight) in enumerate(zip(steps, weights, strict=True)):
        if step.copies != copies:  # R_1 into the batch, or back into the channels
            channels = step.kernel[1]
            value = part.reshaped(value, (-1, channels, 0, 0))
            copies = step.copies
        last = number == len(steps) - 1
        value = _convolution(layer, step, value, weight, part, node if last else None, bias)


def _convolution(
    layer: GraphLayer, step: Sublayer, value: str, weight: str, part: Part,
    original: NodeProto | None, bias: Tensor | None,
) -> str:  # fmt: skip
    """One convolution of a form; `original` is the node whose place the last of them takes."""
    attributes: dict[str, object] = {
        "kernel_shape": list(step.kernel[2:]),
        "strides": [layer.stride[axis] if axis in step.axes else 1 for axis in (0, 1)],
        "dilations": [layer.dilation[axis] if axis in step.axes else 1 for axis in (0, 1)],
    }
    if layer.pads:
        attributes["pads"] = [
            layer.pads[place] if place % 2 in step.axes else 0 for place in range(4)
        ]
    else:  # of one pixel without strides there is nothing to pad
        attributes["auto_pad"] = layer.auto_pad
    if original is None:
        return part.node("Conv", [value, weight], "conv", **attributes)
    if layer.groups != 1:  # a dense one: no ring is grouped
        attributes["group"] = layer.groups
    inputs = [value, weight]
    if bias is not None:
        inputs.append(part.numbers(bias, "bias"))
    elif len(original.input) > 2 and original.input[2]:
        inputs.append(original.input[2])
    _take_place(original, "Conv", inputs, part, **attributes)
    return original.output[0]


def _matrices(
    layer: GraphLayer, node: NodeProto, ring: TensorRing, form: Form, bias: Tensor | None,
    part: Part,
) -> None:  # fmt: skip
    first, *second = _weights(ring, form, part, matrices=True)
    value = node.input[0]
    if second:
        value, (first,) = part.product(value, first), second
    _last_product(layer, node, value, first, bias, part)


def _last_product(
    layer: GraphLayer, node: NodeProto, value: str, matrix: str, bias: Tensor | None, part: Part
) -> None:
    """value·matrix + bias in the node's place; matrix: (I, O) or (P, O)."""
    if layer.operation == "Gemm":
        inputs = [value, matrix]
        scales = {a.name: a.f for a in node.attribute if a.name in ("alpha", "beta")}
        if bias is not None:
            if beta := scales.get("beta", 1.0):
                bias = bias / beta
            inputs.append(part.numbers(bias, "bias"))
        elif len(node.input) > 2 and node.input[2]:
            inputs.append(node.input[2])
        _take_place(node, "Gemm", inputs, part, **scales)
    elif bias is None:
        _take_place(node, "MatMul", [value, matrix], part)
    else:
        made = part.product(value, matrix)
        _take_place(node, "Add", [made, part.numbers(bias, "bias")], part)


def _take_place(
    original: NodeProto, operation: str, inputs: Sequence[str], part: Part, **attributes: Any
) -> None:
    """The node that makes the original's output, under its name and with what it is told of it."""
    node = helper.make_node(operation, list(inputs), list(original.output), **attributes)
    node.name, node.doc_string, node.domain = original.name, original.doc_string, original.domain
    node.metadata_props.extend(original.metadata_props)
    part.nodes.append(node)


def _weights(ring: TensorRing, form: Form, part: Part, matrices: bool = False) -> list[str]:
    """The kernels of a form, as names; matrices: as (I, P) and (P, O), for KH = KW = 1."""
    if form == "dense":
        whole = _dense(ring, part)
        return [part.turned(part.reshaped(whole, ring.shape[:2]), (1, 0)) if matrices else whole]
    merged = sublayer_kernels(form, ring.cores)
    if form == "pipeline":
        return [part.numbers(kernel, "core") for kernel in merged]
    names = []
    for which, kernel in enumerate(merged):
        cores = _MODES[form][which]
        if kernel.numel() <= sum(ring.cores[k].numel() for k in cores):
            plain = kernel[:, :, 0, 0].T if matrices else kernel
            names.append(part.numbers(plain, "kernel"))
            continue
        name = _contracted(ring, form, which, part)
        if matrices:
            name = part.turned(part.reshaped(name, kernel.shape[:2]), (1, 0))
        names.append(name)
    return names


def _contracted(ring: TensorRing, form: Form, which: int, part: Part) -> str:
    """Nodes that contract the cores of one convolution of a form to its kernel."""
    g0, g1, g2, g3 = ring.cores
    o, i, kh, kw = ring.shape
    r0, r1, r2, r3 = ring.ranks
    rows = part.numbers(g1.reshape(r1 * i, r2), "core") if which == 0 else ""
    if form == "IH|WO":
        if which == 0:  # (R1·I, KH·R3)
            made = part.product(rows, part.numbers(g2.reshape(r2, kh * r3), "core"))
            made = part.turned(part.reshaped(made, (r1, i, kh, r3)), (3, 0, 1, 2))
            return part.reshaped(made, (r3 * r1, i, kh, 1))
        columns = part.numbers(g3.reshape(r3 * kw, r0), "core")
        made = part.product(columns, part.numbers(g0.reshape(r0, o * r1), "core"))
        made = part.turned(part.reshaped(made, (r3, kw, o, r1)), (2, 0, 3, 1))
        return part.reshaped(made, (o, r3 * r1, 1, kw))
    tail = part.product(
        part.numbers(g2.reshape(r2 * kh, r3), "core"),
        part.numbers(g3.reshape(r3, kw * r0), "core"),
    )  # (R2·KH, KW·R0)
    if form == "O|IHW":
        made = part.product(rows, part.reshaped(tail, (r2, kh * kw * r0)))
        made = part.turned(part.reshaped(made, (r1, i, kh, kw, r0)), (4, 0, 1, 2, 3))
        return part.reshaped(made, (r0 * r1, i, kh, kw))
    tail = part.reshaped(tail, (r2 * kh * kw, r0))
    made = part.product(tail, part.numbers(g0.reshape(r0, o * r1), "core"))
    made = part.turned(part.reshaped(made, (r2, kh, kw, o, r1)), (3, 4, 0, 1, 2))
    return part.reshaped(made, (o, r1 * r2, kh, kw))


def _dense(ring: TensorRing, part: Part) -> str:
    """Nodes that contract a ring to its kernel (O, I, KH, KW), by the form that stores least."""
    o, i, kh, kw = ring.shape
    form = min(_TWO, key=lambda form: stored_scalars(form, ring.shape, ring.ranks))
    first, second = _weights(ring, form, part)
    bond = sublayers(form, ring.shape, ring.ranks)[0].kernel[0]
    if form == "O|IHW":  # (O, P) by (P, I·KH·KW)
        made = part.product(
            part.reshaped(second, (o, bond)), part.reshaped(first, (bond, i * kh * kw))
        )
        return part.reshaped(made, (o, i, kh, kw))
    if form == "I|HWO":  # (O·KH·KW, P) by (P, I)
        made = part.turned(second, (0, 2, 3, 1))
        made = part.product(
            part.reshaped(made, (o * kh * kw, bond)), part.reshaped(first, (bond, i))
        )
        return part.turned(part.reshaped(made, (o, kh, kw, i)), (0, 3, 1, 2))
    made = part.turned(part.reshaped(second, (o, bond, kw)), (0, 2, 1))  # (O·KW, P) by (P, I·KH)
    made = part.product(part.reshaped(made, (o * kw, bond)), part.reshaped(first, (bond, i * kh)))
    return part.turned(part.reshaped(made, (o, kw, i, kh)), (0, 2, 3, 1))
