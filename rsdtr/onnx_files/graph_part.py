"""A piece of a graph while it is written: its nodes, its tensors, and names not yet used."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor

IR_WITH_FREE_INITIALIZERS = 4  # before it, every initializer had to be an input of the graph
OPSET_WITH_ZEROS = 9  # that of ConstantOfShape
NOTHING = 1e-9  # beside the largest number of a tensor, in single precision
Array = NDArray[np.generic]


class Names:
    """Names that a graph does not use yet."""

    def __init__(self, used: Iterable[str]) -> None:
        self._used = set(used)

    def new(self, wanted: str) -> str:
        """`wanted`, or the same with a number behind it; it is used from now on."""
        name, count = wanted, 1
        while name in self._used:
            count += 1
            name = f"{wanted}_{count}"
        self._used.add(name)
        return name


@dataclass(eq=False)
class Part:
    """A piece of a graph that is being written: its nodes in order, and the tensors they take."""

    names: Names
    prefix: str
    dtype: np.dtype[np.generic]
    opset: int
    nodes: list[NodeProto] = field(default_factory=list)
    tensors: list[TensorProto] = field(default_factory=list)

    def stored(self, values: Array, word: str) -> str:
        """A tensor that the file holds."""
        name = self.names.new(f"{self.prefix}/{word}")
        self.tensors.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def numbers(self, values: Tensor, word: str) -> str:
        """The same of values in the network's own precision.

        What is nothing beside the largest is 0: processors take many times as long for the
        denormal products of such numbers.
        """
        array = values.detach().cpu().numpy().astype(self.dtype)
        array[np.abs(array) < NOTHING * np.abs(array).max(initial=0)] = 0
        return self.stored(array, word)

    def node(self, operation: str, inputs: Sequence[str], word: str, **attributes: Any) -> str:
        """One more node with one output: the name of that."""
        name = self.names.new(f"{self.prefix}/{word}")
        self.nodes.append(
            helper.make_node(operation, list(inputs), [name], name=name, **attributes)
        )
        return name

    def product(self, first: str, second: str) -> str:
        return self.node("MatMul", [first, second], "product")

    def reshaped(self, value: str, shape: Sequence[int]) -> str:
        shaped = self.stored(np.array(shape, np.int64), "shape")
        return self.node("Reshape", [value, shaped], "reshaped")

    def turned(self, value: str, order: Sequence[int]) -> str:
        return self.node("Transpose", [value], "turned", perm=list(order))

    def widened(self, value: str, shape: Sequence[int], axis: int, size: int) -> str:
        """A kernel of this shape with zeros behind it along an axis, up to a size."""
        missing = [size - length if k == axis else length for k, length in enumerate(shape)]
        if missing[axis] == 0 or self.opset < OPSET_WITH_ZEROS:
            return value
        shaped = self.stored(np.array(missing, np.int64), "shape")
        zero = numpy_helper.from_array(np.zeros(1, self.dtype))
        zeros = self.node("ConstantOfShape", [shaped], "zeros", value=zero)
        return self.node("Concat", [value, zeros], "widened", axis=axis)

    def as_constants(self) -> None:
        """Let nodes hold the tensors, for a graph that would have to list them as inputs."""
        constants = [
            helper.make_node("Constant", [], [tensor.name], name=tensor.name, value=tensor)
            for tensor in self.tensors
        ]
        self.nodes[:0] = constants
        self.tensors.clear()
