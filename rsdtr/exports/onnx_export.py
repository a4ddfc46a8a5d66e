"""The network as a graph: of torch.export, as ONNX, and as ONNX in eight bits."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rsdtr.compressed.fuse import fuse
from rsdtr.errors import ExportError, first_line
from rsdtr.models.run import fresh_input
from rsdtr.models.zoo import ModelSpec
from rsdtr.ring.cost import Size

if TYPE_CHECKING:
    from onnx import AttributeProto

OPSET = 20
_CALIBRATION_BATCH = 16


@cache
def _batch() -> torch.export.Dim:
    """Any number of inputs; made only now, for it loads sympy."""
    return torch.export.Dim("batch", min=1)


def onnx_file(network: nn.Module, spec: ModelSpec) -> bytes:
    """The network, fused, as one ONNX file: `images` (batch, C, H, W) to `logits`."""
    return onnx_bytes(program(fuse(network), spec))


def program(
    network: nn.Module, spec: ModelSpec, *, any_size: bool = True
) -> torch.export.ExportedProgram:
    """The network as a graph that takes any batch, and where it tells more than classes, any height
    and width that the network does, if `any_size` and torch.export can follow; see `takes_sizes`.

    ExportError where torch.export finds no graph, or the network answers anything but one tensor.
    """
    if spec.task == "detection":  # torch would take half a minute to find that out
        raise ExportError(
            f"{spec.name} chooses its boxes by their values, which torch.export cannot follow: "
            f"{_instead(spec)}"
        )
    # The example is stored in a .pt2: it must be nobody's picture. Two, not one: torch.export
    # takes a batch of one for a constant.
    example = fresh_input(network, torch.zeros(2, *spec.input_shape))
    try:
        graph = _of_any_size(network, example, spec) if any_size else None
        graph = graph or torch.export.export(network, (example,), dynamic_shapes=({0: _batch()},))
    except Exception as error:  # whatever torch, or the network's own code, raises
        first = first_line(error)
        raise ExportError(
            f"{spec.name} cannot be turned into a graph by torch.export ({first}): {_instead(spec)}"
        ) from error
    if len(graph.graph_signature.user_outputs) != 1 or not graph.call_spec.out_spec.is_leaf():
        raise ExportError(
            f"{spec.name} answers something else than one tensor, which is all that these formats "
            f"hold: {_instead(spec)}"
        )
    for module in graph.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                # Where the source code lay on this machine is no part of the model.
                for key in ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn"):
                    node.meta.pop(key, None)
    return graph


@torch.no_grad()
def runs_at(network: nn.Module, spec: ModelSpec) -> Size | None:
    """Another height and width that the network takes, to prove on; None for one that tells classes
    or boxes, and for one of a single size.

    It is larger by multiples of 32, so that what is halved five times comes out even.
    """
    if spec.task in ("classification", "detection"):
        return None
    channels, height, width = spec.input_shape
    size = height + 32, width + 64
    try:
        network(fresh_input(network, torch.zeros(1, channels, *size)))
    except Exception:  # whatever the network's own code raises at the sight of it
        return None
    return size


def takes_sizes(graph: torch.export.ExportedProgram) -> bool:
    """Whether a graph takes images of another height and width than its example's."""
    (name,) = graph.graph_signature.user_inputs
    (entry,) = (node for node in graph.graph.nodes if node.name == name)
    return not any(isinstance(size, int) for size in entry.meta["val"].shape[2:])


def _of_any_size(
    network: nn.Module, example: Tensor, spec: ModelSpec
) -> torch.export.ExportedProgram | None:
    """The graph that takes images of other sizes; None where there is none."""
    size = runs_at(network, spec)
    if size is None:
        return None
    blank = fresh_input(network, torch.zeros(1, spec.input_shape[0], *size))
    free = torch.export.Dim.AUTO  # torch finds out what sizes the network can do
    try:
        graph = torch.export.export(
            network, (example,), dynamic_shapes=({0: _batch(), 2: free, 3: free},)
        )
        if not takes_sizes(graph):
            return None
        graph.module()(blank)
    except Exception:  # whatever torch says of a size that it cannot do
        return None
    return graph


def _instead(spec: ModelSpec) -> str:
    """What to do where there is no graph: a network of one's own is proved by its graph alone."""
    if spec.own:
        return "keep it with rsdtr.save"
    return "export it as safetensors"


def onnx_bytes(graph: torch.export.ExportedProgram) -> bytes:
    """One ONNX file: input `images` (batch, C, H, W), output `logits` (batch, classes, …).

    ExportError for what ONNX has no operator for.
    """
    try:
        written = _written(graph)
    except torch.onnx.OnnxExporterError as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise ExportError(
            f"the network cannot be written as ONNX ({first_line(cause)}): export it as "
            "safetensors or pt2"
        ) from error
    model = written.model_proto
    said = model.graph
    for parts in ([said], said.node, said.input, said.output, said.initializer):
        for part in parts:
            # torch's notes on where each node came from: most of a small file, and local paths.
            part.ClearField("metadata_props")
    return model.SerializeToString()


def _written(graph: torch.export.ExportedProgram) -> torch.onnx.ONNXProgram:
    written = torch.onnx.export(
        graph,
        dynamo=True,
        verbose=False,
        opset_version=OPSET,
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=({0: "batch"} | ({2: "height", 3: "width"} if takes_sizes(graph) else {}),),
        external_data=False,
    )
    assert written is not None  # only the old exporter answers with nothing
    return written


def quantised(onnx: bytes, calibration: Tensor) -> bytes:
    """An ONNX file whose convolutions and linear layers compute in eight bits: QDQ, weights per
    channel, the ranges of the activations from `calibration`, normalised images (n, C, H, W).
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the library's own deprecated calls
        given, prepared, out = (Path(folder) / f"{name}.onnx" for name in ("a", "b", "c"))
        given.write_bytes(onnx)
        quant_pre_process(given, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            out,
            _Calibration(calibration),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return compact(out.read_bytes())


def compact(onnx: bytes) -> bytes:
    """The same graph with short names, each value once, and nothing that any reader infers.

    A third of an int8 file of a small network is such: every tensor has several names, a scale
    and a zero point, and a convolution says that it is not dilated. `images` and `logits` keep
    their names.
    """
    from onnx import load_from_string

    model = load_from_string(onnx)
    graph = model.graph
    if any(part.HasField("g") or part.graphs for node in graph.node for part in node.attribute):
        return onnx  # a branch or a loop has names of its own, and takes those around it
    graph.ClearField("value_info")
    short = {value.name: value.name for value in (*graph.input, *graph.output)} | {"": ""}
    values: dict[bytes, str] = {}
    for tensor in graph.initializer:
        name = tensor.name
        if name in short:  # it is an input with a default, or an output
            values[tensor.SerializeToString(deterministic=True)] = name
            continue
        tensor.ClearField("name")
        content = tensor.SerializeToString(deterministic=True)
        short[name] = values.setdefault(content, f"{len(short):x}")
    graph.ClearField("initializer")
    for content, name in values.items():
        graph.initializer.add(name=name).MergeFromString(content)
    for node in graph.node:
        node.ClearField("name")
        for names in (node.input, node.output):
            names[:] = [short.setdefault(name, f"{len(short):x}") for name in names]
        if node.op_type == "Conv":
            said = [attribute for attribute in node.attribute if not _is_understood(attribute)]
            del node.attribute[:]
            node.attribute.extend(said)
    return model.SerializeToString()


def _is_understood(attribute: AttributeProto) -> bool:
    """Whether a convolution without this attribute is the same one, by ONNX's definition."""
    if attribute.name == "auto_pad":
        return attribute.s == b"NOTSET"
    if attribute.name == "group":
        return attribute.i == 1
    usual = {"dilations": {1}, "strides": {1}, "pads": {0}, "kernel_shape": set(attribute.ints)}
    return set(attribute.ints) == usual.get(attribute.name)


class _Calibration:
    """The batches of a calibration, as onnxruntime asks for them."""

    def __init__(self, images: Tensor) -> None:
        self._batches: Iterator[Tensor] = iter(images.split(_CALIBRATION_BATCH))

    def get_next(self) -> dict[str, object] | None:
        """The next batch, or None."""
        batch = next(self._batches, None)
        return None if batch is None else {"images": batch.numpy()}
