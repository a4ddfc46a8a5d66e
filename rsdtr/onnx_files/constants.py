"""Which values of a graph are constants, and through which nodes they come."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto

from rsdtr.onnx_files.onnx_file import graphs_of, values_of

# What hands a constant on, as it is or turned.
_PASSES = ("Identity", "Transpose")


@dataclass(frozen=True, eq=False)
class Constant:
    """A value that no input changes.

    name: by which a node takes it; values: as the node takes them; stored: the name of the tensor
    that holds them; nodes: the places, in graph.node, of what leads from that to the value.
    """

    name: str
    values: NDArray[np.generic]
    stored: str
    nodes: tuple[int, ...]


class Constants:
    """The constants of a graph's own level, and how often each value is taken, wherever."""

    def __init__(self, graph: GraphProto) -> None:
        self.graph = graph
        self.tensors: dict[str, TensorProto] = {t.name: t for t in graph.initializer}
        self.producers = {
            name: place for place, node in enumerate(graph.node) for name in node.output if name
        }
        self.uses = Counter(name for node in graph.node for name in taken(node))
        self.uses.update(value.name for value in graph.output)

    def of(self, name: str) -> Constant | str:
        """The constant of that name, or in words what it is instead."""
        nodes: list[int] = []
        turns: list[tuple[int, ...] | None] = []
        at = name
        while at not in self.tensors:
            place = self.producers.get(at)
            if place is None:
                return "it is an input of the graph"
            node = self.graph.node[place]
            nodes.append(place)
            if node.op_type == "Constant":
                tensor = attribute(node, "value")
                if not isinstance(tensor, TensorProto):
                    return "it is a constant without axes"
                return self._turned(name, tensor, at, nodes, turns)
            if node.op_type not in _PASSES:
                return f"it is computed by {node.op_type}"
            if node.op_type == "Transpose":
                turned = attribute(node, "perm")
                turns.append(tuple(turned) if isinstance(turned, list) else None)
            at = node.input[0]
        return self._turned(name, self.tensors[at], at, nodes, turns)

    def shared(self, constant: Constant, node: NodeProto) -> str | None:
        """Who takes the constant, or what it is made from, beside this node; None: nobody."""
        names = {constant.name, constant.stored}
        names |= {name for place in constant.nodes for name in self.graph.node[place].output}
        if all(self.uses[name] == 1 for name in names):
            return None
        own = {id(self.graph.node[place]) for place in constant.nodes} | {id(node)}
        for other in self.graph.node:
            if id(other) not in own and names & set(taken(other)):
                return node_name(other)
        return "an output of the graph" if names & {v.name for v in self.graph.output} else "itself"

    def _turned(
        self,
        name: str,
        tensor: TensorProto,
        stored: str,
        nodes: list[int],
        turns: list[tuple[int, ...] | None],
    ) -> Constant:
        values = values_of(tensor)
        for turn in reversed(turns):
            values = np.transpose(values, turn)
        return Constant(name, values, stored, tuple(nodes))


def taken(node: NodeProto) -> list[str]:
    """The names of all values that a node takes, those that its branches take from outside too."""
    names = [name for name in node.input if name]
    for part in node.attribute:
        for inner in graphs_of(part):
            made = {value.name for value in inner.input} | {t.name for t in inner.initializer}
            made |= {name for other in inner.node for name in other.output}
            names += [n for other in inner.node for n in taken(other) if n not in made]
            names += [v.name for v in inner.output if v.name not in made]
    return names


def attribute(node: NodeProto, name: str, default: object = None) -> object:
    """An attribute of a node as a Python value, a list for several."""
    for part in node.attribute:
        if part.name != name:
            continue
        if part.HasField("t"):
            return part.t
        if part.HasField("f"):
            return part.f
        if part.HasField("i"):
            return part.i
        if part.HasField("s"):
            return part.s.decode(errors="replace")
        return list(part.ints or part.floats)
    return default


def node_name(node: NodeProto) -> str:
    """What a node is called: by its own name, or else by that of its first output."""
    return node.name or next((name for name in node.output if name), node.op_type)
