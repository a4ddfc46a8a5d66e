"""ONNX files: read as strangers' files are, written whole, with external data above 2 GB."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from math import prod
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper
from onnx.checker import ValidationError
from onnx.external_data_helper import (
    ExternalDataInfo,
    load_external_data_for_tensor,
    set_external_data,
    uses_external_data,
)

from rsdtr.errors import ExportError, WeightsError, first_line
from rsdtr.system.atomic_files import SHARED, new_file

SUFFIX = ".onnx"
MOST_MODEL_BYTES = (1 << 31) - 1  # of one protobuf message
MOST_INLINE_BYTES = 1_900_000_000  # tensors that are written into the message itself
LEAST_EXTERNAL_BYTES = 1024
LEAST_OPSET = 7
_QUANTISED = ("Quantize", "QLinear", "Integer", "DequantizeLinear")
_EMPTY = "cannot be read: give an .onnx file that is whole ({})"


def is_onnx(place: str | Path) -> bool:
    """Whether the word for a model is the name of an ONNX file."""
    return Path(place).suffix.lower() == SUFFIX


def read_model(path: Path) -> ModelProto:
    """The graph of a file with all its weights; external data is read from the file's folder.

    WeightsError for a file that is missing, malformed or quantised, or whose external data lies
    elsewhere or is too short.
    """
    try:
        size = path.stat().st_size
        if size > MOST_MODEL_BYTES:
            raise WeightsError(
                f"has {size:,} bytes, and no ONNX file has more than {MOST_MODEL_BYTES:,}: keep "
                "its weights as external data",
                path,
            )
        model = onnx.load(path, load_external_data=False)
    except OSError as error:
        raise WeightsError(_EMPTY.format(error.strerror or error), path) from error
    except DecodeError:
        raise WeightsError(_EMPTY.format("it is no protobuf message"), path) from None
    if not model.graph.node:
        raise WeightsError(_EMPTY.format("it holds no graph"), path)
    _check_opset(model, path)
    _check_not_quantised(model, path)
    _load_external(model, path)
    for tensor in tensors_of(model.graph):
        _check_tensor(tensor, path)
    try:
        if stored_bytes(model) < MOST_INLINE_BYTES:
            onnx.checker.check_model(model)
        else:
            onnx.checker.check_model(path)
    except (ValidationError, ValueError) as error:
        raise WeightsError(_EMPTY.format(brief_line(error)), path) from None
    return model


def write_model(model: ModelProto, path: Path, inline: int = MOST_INLINE_BYTES) -> int:
    """Write a graph so that a reader finds the old file or the new one; the bytes written.

    With more than `inline` bytes of tensors they go into NAME.data beside it. ExportError if the
    place cannot be written.
    """
    try:
        if stored_bytes(model) <= inline:
            with new_file(path, SHARED) as temporary:
                temporary.write_bytes(model.SerializeToString())
            return path.stat().st_size
        data = path.with_name(f"{path.name}.data")
        with new_file(data, SHARED) as weights, new_file(path, SHARED) as graph:
            graph.write_bytes(_with_external(model, weights, data.name).SerializeToString())
        return path.stat().st_size + data.stat().st_size
    except OSError as error:
        raise ExportError(
            f"{path} cannot be written ({error.strerror or error}): give another place"
        ) from error


def model_sha256(model: ModelProto) -> str:
    """Of all tensors of the graph, with their names, types and shapes, and of nothing else."""
    digest = hashlib.sha256()
    for tensor in tensors_of(model.graph):
        digest.update(f"{tensor.name} {tensor.data_type} {list(tensor.dims)}".encode())
        if tensor.HasField("raw_data"):
            digest.update(tensor.raw_data)
        elif tensor.data_type != TensorProto.STRING:
            digest.update(values_of(tensor).tobytes())
    return digest.hexdigest()


def tensors_of(graph: GraphProto) -> Iterator[TensorProto]:
    """Every tensor that a graph stores: initializers, and those in its nodes, however deep."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for inner in graphs_of(attribute):
                yield from tensors_of(inner)


def graphs_of(attribute: AttributeProto) -> list[GraphProto]:
    """The branches and bodies that an attribute of a node holds."""
    return [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]


def nodes_within(graph: GraphProto) -> Iterator[NodeProto]:
    """All nodes of a graph and of the graphs within them."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in graphs_of(attribute):
                yield from nodes_within(inner)


def values_of(tensor: TensorProto) -> NDArray[np.generic]:
    """The values of a tensor that was read and checked."""
    return numpy_helper.to_array(tensor)


def stored_bytes(model: ModelProto) -> int:
    """Bytes of all tensors."""
    return sum(_bytes_of(tensor) for tensor in tensors_of(model.graph))


def brief_line(error: Exception) -> str:
    """`first_line` where a library may quote a stranger's file: at most 300 signs."""
    return first_line(error)[:300]


def _bytes_of(tensor: TensorProto) -> int:
    if tensor.HasField("raw_data"):
        return len(tensor.raw_data)
    if tensor.data_type == TensorProto.STRING:
        return sum(map(len, tensor.string_data))
    return int(prod(tensor.dims) * _itemsize(tensor))


def _itemsize(tensor: TensorProto) -> float:
    try:
        return float(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
    except KeyError:
        return 1.0


def _check_opset(model: ModelProto, path: Path) -> None:
    opset = opset_of(model)
    if opset < LEAST_OPSET:
        raise WeightsError(
            f"has opset {opset}, expected at least {LEAST_OPSET}: convert it with "
            "onnx.version_converter first",
            path,
        )


def opset_of(model: ModelProto) -> int:
    """The version of the operators of the ONNX standard that a model was written for."""
    return max((x.version for x in model.opset_import if x.domain in ("", "ai.onnx")), default=1)


def _check_not_quantised(model: ModelProto, path: Path) -> None:
    for node in nodes_within(model.graph):
        if any(word in node.op_type for word in _QUANTISED):
            raise WeightsError(
                f"computes in eight bits (it has {node.op_type} nodes): give the network in "
                "float32, compress that, and quantise the result",
                path,
            )


def _load_external(model: ModelProto, path: Path) -> None:
    """Read external tensors into the model, each from a file in the model's own folder."""
    for tensor in tensors_of(model.graph):
        if not uses_external_data(tensor):
            continue
        info = ExternalDataInfo(tensor)
        expected = int(prod(tensor.dims) * _itemsize(tensor))
        offset, length = info.offset or 0, info.length or expected
        data = path.parent / info.location
        if not data.is_file():
            raise WeightsError(
                f"keeps {tensor.name!r} in {info.location!r}, which is not there: put that file "
                "beside it",
                path,
            )
        if length != expected or offset < 0 or offset + length > data.stat().st_size:
            raise WeightsError(
                f"takes {expected:,} bytes of {tensor.name!r} from {info.location!r}, which holds "
                "fewer, or others: copy both files again",
                path,
            )
        try:
            load_external_data_for_tensor(tensor, str(path.parent))
        except (ValidationError, ValueError, OSError) as error:
            raise WeightsError(_EMPTY.format(brief_line(error)), path) from None
        tensor.data_location = TensorProto.DEFAULT
        del tensor.external_data[:]


def _check_tensor(tensor: TensorProto, path: Path) -> None:
    """WeightsError for a tensor whose values are not those that its shape asks for."""
    try:
        if min(tensor.dims, default=0) < 0:
            raise ValueError("a size below 0")
        if tensor.HasField("raw_data") and tensor.data_type != TensorProto.STRING:
            if tensor.data_type in _PACKED:
                return
            fits = len(tensor.raw_data) == prod(tensor.dims) * _itemsize(tensor)
        else:
            fits = sum(len(getattr(tensor, name)) for name in _FIELDS) in (
                prod(tensor.dims),
                2 * prod(tensor.dims),  # complex numbers
            )
        if not fits:
            raise ValueError("more or fewer values than its shape")
    except ValueError as error:
        raise WeightsError(
            _EMPTY.format(f"its tensor {tensor.name[:80]!r} has {error}"), path
        ) from None


_FIELDS = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")
# Several values in a byte.
_PACKED = {
    getattr(TensorProto, name)
    for name in ("UINT4", "INT4", "FLOAT4E2M1", "UINT2", "INT2")
    if hasattr(TensorProto, name)
}


def _with_external(model: ModelProto, weights: Path, location: str) -> ModelProto:
    """A copy whose large initializers lie in the file `weights`, to be called `location`."""
    light = ModelProto()
    light.CopyFrom(model)
    with weights.open("wb") as file:
        for tensor in light.graph.initializer:
            if _bytes_of(tensor) < LEAST_EXTERNAL_BYTES or tensor.data_type == TensorProto.STRING:
                continue
            raw = tensor.raw_data or values_of(tensor).tobytes()
            for name in _FIELDS:
                tensor.ClearField(name)
            tensor.raw_data = raw  # what `set_external_data` asks for
            set_external_data(tensor, location, offset=file.tell(), length=len(raw))
            tensor.ClearField("raw_data")
            file.write(raw)
    return light


def session_source(model: ModelProto) -> tuple[bytes | str, str | None]:
    """What ONNX Runtime opens: the bytes, or where they are too many a file and its folder, which
    the caller removes.
    """
    if stored_bytes(model) <= MOST_INLINE_BYTES:
        return model.SerializeToString(), None
    folder = tempfile.mkdtemp(prefix="rsdtr-onnx-")
    path = Path(folder, f"model{SUFFIX}")
    try:
        write_model(model, path)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return os.fspath(path), folder
