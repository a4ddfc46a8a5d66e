"""Proofs of compressed ONNX files: what a file must compute, and whether it is what it says."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import ModelProto
from onnx.checker import ValidationError

from rsdtr.errors import ExportError
from rsdtr.measuring.fidelity import Fidelity
from rsdtr.onnx_files.answers import Answers, fidelity_of, largest_error
from rsdtr.onnx_files.compress_onnx import METADATA, CompressedOnnx
from rsdtr.onnx_files.network_inputs import NetworkInputs
from rsdtr.onnx_files.onnx_file import (
    MOST_INLINE_BYTES,
    brief_line,
    model_sha256,
    read_model,
    stored_bytes,
)
from rsdtr.onnx_files.onnx_network import OnnxNetwork
from rsdtr.onnx_files.runtime import Session, with_outputs
from rsdtr.onnx_files.value_shapes import true_inputs

TOLERANCE = 1e-5  # relative, of every ring's output and of the graph's answers


@dataclass(frozen=True)
class OnnxProof:
    """How far a compressed graph is from the original one with the rings' kernels rebuilt.

    relative_error: the largest ‖y − ŷ‖/‖y‖ of the outputs of all rings and of the graph; values: of
    how many; n: on how many inputs.
    """

    relative_error: float
    values: int
    n: int


def prove(small: CompressedOnnx, model: ModelProto, inputs: NetworkInputs) -> OnnxProof:
    """Check a graph that is to be written: by ONNX's own checker, and by running it.

    inputs: the first batch of them is run. ExportError for a graph that is not valid, or that
    computes something else than its rings.
    """
    try:
        if stored_bytes(model) < MOST_INLINE_BYTES:
            onnx.checker.check_model(model)
    except ValidationError as error:
        raise ExportError(
            f"the compressed graph is not valid ONNX ({brief_line(error)}) and nothing was kept: "
            "leave that layer dense (--keep-dense)"
        ) from None
    graph = small.network.model.graph
    names = [value.name for value in graph.output]
    names += [
        graph.node[layer.place].output[0]
        for layer in small.network.layers
        if layer.name in small.rings
    ]
    names = list(dict.fromkeys(names))
    batch = next(inputs.batches())
    found = Session(with_outputs(model, names))(batch)
    off = largest_error(found, Session(with_outputs(small.rebuilt(), names))(batch))
    if not off <= TOLERANCE:
        raise ExportError(
            f"the compressed graph computes something else than its rings: a relative error of "
            f"{off:.2g} where at most {TOLERANCE:.0e} was expected, and nothing was kept: leave "
            "layers dense (--keep-dense), or compress less"
        )
    return OnnxProof(off, len(names), len(next(iter(batch.values()))))


def verify_onnx(
    place: str | Path, original: OnnxNetwork, inputs: NetworkInputs
) -> tuple[dict[str, object], Fidelity]:
    """What a compressed file says of itself, and how its answers agree with the original's.

    ExportError for a file that `compress` did not write, that was changed, that was made from
    another one, or whose inputs, outputs, opset or metadata are not the original's.
    """
    path = Path(place).expanduser()
    model = read_model(path)
    said = next((part.value for part in model.metadata_props if part.key == METADATA), None)
    try:
        manifest = json.loads(said or "")
        source, tensors = manifest["source"]["sha256"], manifest["tensors"]
    except (ValueError, KeyError, TypeError):
        raise ExportError(
            f"{path} does not say what it was made from: give a file that compress wrote"
        ) from None
    if source != original.sha256:
        raise ExportError(
            f"{path} was made from a file with the SHA-256 {str(source)[:8]}…, and {original.name} "
            f"has {original.sha256[:8]}…: give the file that was compressed"
        )
    if tensors != model_sha256(model):
        raise ExportError(f"{path} was changed since it was written: compress the network again")
    if reason := _interface(model, original.model):
        raise ExportError(f"{path} has {reason} than {original.name}: compress the network again")
    answers = Answers.of(model, inputs)
    return manifest, fidelity_of(answers, Answers.of(original.model, inputs))


def _interface(model: ModelProto, original: ModelProto) -> str | None:
    """What differs of what a caller sees of a graph, in words."""
    if [v.SerializeToString() for v in true_inputs(model)] != [
        v.SerializeToString() for v in true_inputs(original)
    ]:
        return "other inputs"
    if list(model.graph.output) != list(original.graph.output):
        return "other outputs"
    if list(model.opset_import) != list(original.opset_import):
        return "another opset"
    kept = [part for part in model.metadata_props if part.key != METADATA]
    if kept != [part for part in original.metadata_props if part.key != METADATA]:
        return "other metadata"
    return None
