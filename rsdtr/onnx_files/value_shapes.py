"""The sizes of all values for one input: inferred from the graph, or seen in one pass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, ValueInfoProto, helper

from rsdtr.errors import PlanError, RsdtrError
from rsdtr.onnx_files.onnx_file import MOST_INLINE_BYTES, brief_line, stored_bytes
from rsdtr.onnx_files.runtime import Session, with_outputs
from rsdtr.ring.cost import Size

Shape = tuple[int, ...]
USUAL_SIZE: Size = (224, 224)
_CHANNELS = (1, 3, 4)


def true_inputs(model: ModelProto) -> list[ValueInfoProto]:
    """The inputs that somebody has to give: no initializer is their default."""
    stored = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in stored]


def open_sizes(value: ValueInfoProto) -> tuple[int | None, ...]:
    """The sizes of an input as its graph fixes them; None for one that it leaves open."""
    axes = value.type.tensor_type.shape.dim
    return tuple(axis.dim_value if axis.dim_value > 0 else None for axis in axes)


def input_shapes(model: ModelProto, size: Size | None = None) -> dict[str, Shape]:
    """The shape of every input for a batch of one.

    size: the height and width where the graph leaves them open, by default 224×224; of pictures,
    in whichever order the axes are. PlanError for inputs that are no tensors.
    """
    found = {}
    for value in true_inputs(model):
        if not value.type.HasField("tensor_type"):
            raise PlanError(
                f"the graph's input {value.name!r} is no tensor: give a graph that takes tensors"
            )
        found[value.name] = _shape(open_sizes(value), size or USUAL_SIZE)
    return found


def spatial_axes(sizes: tuple[int | None, ...]) -> tuple[int, int] | None:
    """Which axes of an input are rows and columns; None where it is no batch of pictures.

    (B, H, W, C) only where the last axis is as short as colours are, and the second is not.
    """
    if len(sizes) != 4:
        return None
    last = sizes[3] in _CHANNELS and sizes[1] not in _CHANNELS
    return (1, 2) if last else (2, 3)


def leaves_open(model: ModelProto) -> bool:
    """Whether the graph leaves the height or width of one of its inputs open."""
    for value in true_inputs(model):
        sizes = open_sizes(value)
        if None in sizes[1:]:
            return True
    return False


def _shape(sizes: tuple[int | None, ...], size: Size) -> Shape:
    axes = spatial_axes(sizes)
    shape = []
    for axis, fixed in enumerate(sizes):
        if fixed is not None:
            shape.append(fixed)
        elif axis == 0:
            shape.append(1)
        elif axes is None:
            shape.append(size[0])
        else:
            shape.append(size[axes.index(axis)] if axis in axes else 3)
    return tuple(shape)


def blank_inputs(model: ModelProto, shapes: Mapping[str, Shape]) -> dict[str, NDArray[np.generic]]:
    """Zeros of these shapes, in the types that the graph takes."""
    found = {}
    for value in true_inputs(model):
        dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        found[value.name] = np.zeros(shapes[value.name], dtype)
    return found


def value_shapes(
    model: ModelProto, shapes: Mapping[str, Shape], wanted: Iterable[str]
) -> dict[str, Shape]:
    """The shapes of the wanted values when the inputs have these shapes.

    What ONNX's shape inference leaves open is seen in one pass on zeros. PlanError where the graph
    does not run on them.
    """
    wanted = set(wanted)
    known = _inferred(model, shapes)
    missing = sorted(wanted - known.keys())
    if missing:
        try:
            values = Session(with_outputs(model, missing), plain=True)(blank_inputs(model, shapes))
        except RsdtrError as error:
            told = ", ".join(f"{k} {'×'.join(map(str, v))}" for k, v in shapes.items())
            raise PlanError(
                f"the graph's sizes are not known for {told} ({brief_line(error)}): give another "
                "size of its inputs (--input-size HEIGHTxWIDTH)"
            ) from error
        known |= {name: tuple(value.shape) for name, value in values.items()}
    return {name: known[name] for name in wanted}


def _inferred(model: ModelProto, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """What shape inference finds, inputs included; nothing where it fails."""
    if stored_bytes(model) > MOST_INLINE_BYTES:
        return {}
    fixed = ModelProto()
    fixed.CopyFrom(model)
    del fixed.graph.value_info[:]
    for value in fixed.graph.output:
        value.type.tensor_type.ClearField("shape")
    for value in fixed.graph.input:
        if value.name in shapes:
            axes = value.type.tensor_type.shape
            del axes.dim[:]
            for size in shapes[value.name]:
                axes.dim.add(dim_value=size)
    try:
        inferred = onnx.shape_inference.infer_shapes(fixed, data_prop=True)
    except Exception:  # of its own kinds, by operator; the pass on zeros is the judge
        return {}
    found = {}
    for value in (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output):
        tensor = value.type.tensor_type
        if not tensor.HasField("shape"):
            continue
        if all(axis.HasField("dim_value") and axis.dim_value >= 0 for axis in tensor.shape.dim):
            found[value.name] = tuple(axis.dim_value for axis in tensor.shape.dim)
    return found


def is_floating(value: ValueInfoProto) -> bool:
    """Whether an input takes floating-point numbers."""
    return value.type.tensor_type.elem_type in (
        TensorProto.FLOAT,
        TensorProto.FLOAT16,
        TensorProto.DOUBLE,
    )
