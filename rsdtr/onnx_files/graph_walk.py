"""A graph run piece by piece: the values of a batch where its walk stopped, and what lies ahead."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto

from rsdtr.onnx_files.compress_onnx import DenseLayer, LayerRing
from rsdtr.onnx_files.constants import taken
from rsdtr.onnx_files.graph_layers import GraphLayer
from rsdtr.onnx_files.graph_part import IR_WITH_FREE_INITIALIZERS, Names, Part
from rsdtr.onnx_files.onnx_file import opset_of
from rsdtr.onnx_files.onnx_network import OnnxNetwork
from rsdtr.onnx_files.ring_nodes import dense_part
from rsdtr.onnx_files.runtime import Arrays, Session, value_info


class GraphWalk:
    """The nodes of one network, and its values where each batch's walk stopped.

    budget: bytes of values that may be kept; a batch whose values take more is run from where it
    last stopped. Layers may be given other kernels as long as no walk has passed them.
    """

    def __init__(self, network: OnnxNetwork, batches: Iterable[Arrays], budget: float) -> None:
        self.model = network.model
        self.nodes = list(network.model.graph.node)
        self.producers = {
            name: place for place, node in enumerate(self.nodes) for name in node.output if name
        }
        self._tensors = {tensor.name: tensor for tensor in network.model.graph.initializer}
        self._fixed = self._constant_values()
        self._last: dict[str, int] = {}
        for place, node in enumerate(self.nodes):
            self._last |= dict.fromkeys(taken(node), place)
        self._others: dict[int, tuple[list[NodeProto], list[TensorProto]]] = {}
        self._held = [(0, dict(batch)) for batch in batches]
        self._budget = budget / max(1, len(self._held))
        self._sessions: dict[tuple[int, tuple[str, ...]], Session] = {}

    def __len__(self) -> int:
        return len(self._held)

    def put(self, layer: GraphLayer, one: LayerRing | DenseLayer) -> None:
        """Let a layer have another kernel, and bias."""
        dtype, opset = layer.kernel.numpy().dtype, opset_of(self.model)
        part = Part(Names(()), f"rebuilt/{layer.name}", dtype, opset)
        dense_part(layer, self.nodes[layer.place], one.kernel, one.bias, part)
        self._others[layer.place] = (part.nodes, part.tensors)
        self._sessions.clear()

    def to(self, batch: int, place: int) -> Arrays:
        """The live values of a batch before node number `place`; the walk stops there."""
        passed, values = self._held[batch]
        found = self._run(passed, values, sorted(self._live(place)))
        if sum(array.nbytes for array in found.values()) <= self._budget:
            self._held[batch] = (place, found)
        return found

    def values(self, live: Arrays, place: int, names: Sequence[str]) -> Arrays:
        """Values beyond `place`, from the live ones there, by no other nodes than they need."""
        return self._run(place, live, list(names))

    def needed(self, available: Iterable[str], names: Iterable[str]) -> list[int]:
        """The places, in order, of the nodes that lead from available values to others."""
        have, found, todo = set(available), set(), list(names)
        while todo:
            name = todo.pop()
            place = self.producers.get(name)
            if name in have or place is None or place in found:
                continue
            found.add(place)
            todo += taken(self.nodes[place])
        return sorted(found)

    def is_constant(self, name: str) -> bool:
        """Whether no input of the graph has a part in a value."""
        return name in self._fixed

    def _constant_values(self) -> set[str]:
        fixed = set(self._tensors)
        for node in self.nodes:
            if all(name in fixed for name in taken(node)) and "Random" not in node.op_type:
                fixed |= set(node.output)
        return fixed

    def _live(self, place: int) -> set[str]:
        """What nodes from `place` on take of what inputs and earlier nodes have made."""
        return {
            name
            for name, last in self._last.items()
            if last >= place and name not in self._fixed and self.producers.get(name, -1) < place
        }

    def _run(self, start: int, values: Arrays, names: Sequence[str]) -> Arrays:
        missing = [name for name in names if name not in values]
        found = {name: values[name] for name in names if name in values}
        if missing:
            key = (start, tuple(missing))
            session = self._sessions.get(key)
            if session is None:
                if len(self._sessions) > 8:
                    self._sessions.clear()
                session = self._sessions[key] = Session(self._piece(values, missing))
            given = {name: values[name] for name in self._given(values, missing)}
            found |= session(given)
        return found

    def _given(self, values: Arrays, names: Sequence[str]) -> list[str]:
        inside = [self.nodes[place] for place in self.needed(values, names)]
        return sorted({name for node in inside for name in taken(node) if name in values})

    def _piece(self, values: Arrays, names: Sequence[str]) -> ModelProto:
        """The part of the graph that leads from these values to those of these names."""
        model = ModelProto()
        model.ir_version = max(self.model.ir_version, IR_WITH_FREE_INITIALIZERS)
        model.opset_import.extend(self.model.opset_import)
        model.functions.extend(self.model.functions)
        graph = model.graph
        graph.name = "piece"
        places = self.needed(values, names)
        for place in places:
            nodes, tensors = self._others.get(place, ([self.nodes[place]], []))
            graph.node.extend(nodes)
            graph.initializer.extend(tensors)
        used = {name for node in graph.node for name in taken(node)}
        graph.initializer.extend(t for name, t in self._tensors.items() if name in used)
        graph.input.extend(value_info(name, values[name]) for name in self._given(values, names))
        graph.output.extend(ValueInfoProto(name=name) for name in names)
        return model
