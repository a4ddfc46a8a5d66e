"""The network as a graph: of torch.export, as ONNX, and as ONNX in eight bits."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rsdtr.compressed.fuse import fuse
from rsdtr.errors import ExportError, first_line
from rsdtr.models.zoo import ModelSpec

if TYPE_CHECKING:
    from onnx import AttributeProto

OPSET = 20
_CALIBRATION_BATCH = 16


def onnx_file(network: nn.Module, spec: ModelSpec) -> bytes:
    """The network, fused, as one ONNX file: `images` (batch, C, H, W) to `logits`."""
    return onnx_bytes(program(fuse(network), spec))


def program(network: nn.Module, spec: ModelSpec) -> torch.export.ExportedProgram:
    """The network as a graph that takes any batch; ExportError where torch.export finds none, or
    where the network answers anything but one tensor.
    """
    if spec.task == "detection":  # torch would take half a minute to find that out
        raise ExportError(
            f"{spec.name} chooses its boxes by their values, which torch.export cannot follow: "
            f"{_instead(spec)}"
        )
    # The example is stored in a .pt2: it must be nobody's picture. Two, not one: torch.export
    # takes a batch of one for a constant.
    example = torch.zeros(2, *spec.input_shape)
    try:
        graph = torch.export.export(
            network, (example,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},)
        )
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


def _instead(spec: ModelSpec) -> str:
    """What to do where there is no graph: a network of one's own is proved by its graph alone."""
    if spec.own:
        return "keep it with rsdtr.save"
    return "export it as safetensors"


def onnx_bytes(graph: torch.export.ExportedProgram) -> bytes:
    """One ONNX file: input `images` (batch, C, H, W), output `logits` (batch, classes, …)."""
    written = torch.onnx.export(
        graph,
        dynamo=True,
        verbose=False,
        opset_version=OPSET,
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=({0: "batch"},),
        external_data=False,
    )
    assert written is not None  # only the old exporter answers with nothing
    model = written.model_proto
    said = model.graph
    for parts in ([said], said.node, said.input, said.output, said.initializer):
        for part in parts:
            # torch's notes on where each node came from: most of a small file, and local paths.
            part.ClearField("metadata_props")
    return model.SerializeToString()


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
