"""Carrying out a plan on an ONNX graph, of which everything else stays as it is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from onnx import ModelProto, NodeProto, ValueInfoProto
from torch import Tensor

from rsdtr.errors import PlanError
from rsdtr.onnx_files.constants import Constants, taken
from rsdtr.onnx_files.form_choice import fastest_model, forms_by_time, forms_by_work, forms_dense
from rsdtr.onnx_files.graph_layers import GraphLayer
from rsdtr.onnx_files.graph_part import IR_WITH_FREE_INITIALIZERS, Names, Part
from rsdtr.onnx_files.network_inputs import network_inputs
from rsdtr.onnx_files.onnx_file import model_sha256, nodes_within, opset_of, tensors_of, write_model
from rsdtr.onnx_files.onnx_network import OnnxNetwork
from rsdtr.onnx_files.ring_nodes import dense_part, ring_part
from rsdtr.planning.plan import CompressionPlan
from rsdtr.ring.forms import Form
from rsdtr.ring.tensor_ring import TensorRing
from rsdtr.search.ring_svd import ring_svd
from rsdtr.typing import Progress

METADATA = "rsdtr"  # the key of what a compressed file says of itself
FORMAT_VERSION = 1
Write = Callable[[GraphLayer, NodeProto, Part], None]


@dataclass(frozen=True, eq=False)
class LayerRing:
    """What stands in a layer's place; bias: (O,) in place of its own, or None for that."""

    ring: TensorRing
    bias: Tensor | None = None

    @property
    def kernel(self) -> Tensor:
        return self.ring.to_tensor()


@dataclass(frozen=True, eq=False)
class DenseLayer:
    """A layer that stays dense, with a kernel (O, I/groups, KH, KW) and bias of a refit."""

    kernel: Tensor
    bias: Tensor | None = None


@dataclass(frozen=True, eq=False)
class CompressedOnnx:
    """A network of an ONNX file whose planned layers are rings.

    plan: what was obeyed, with the form of each ring; rings: by the layers' names; dense: other
    layers that a refit has changed; told: what else the file is to say of itself, JSON-able, such
    as its fidelity.
    """

    network: OnnxNetwork
    plan: CompressionPlan
    rings: Mapping[str, LayerRing]
    dense: Mapping[str, DenseLayer] = field(default_factory=dict)
    told: Mapping[str, object] = field(default_factory=dict)

    @property
    def forms(self) -> tuple[Form, ...]:
        """The form of each layer of the plan, in its order."""
        return tuple(layer.form for layer in self.plan.layers)

    def model(self) -> ModelProto:
        """The compressed graph: the given one, but for the nodes of the layers that are rings."""
        forms = {layer.name: layer.form for layer in self.plan.layers}

        def write_of(name: str, one: LayerRing) -> Write:
            return lambda layer, node, part: ring_part(
                layer, node, one.ring, forms[name], one.bias, part
            )

        writes = {name: write_of(name, one) for name, one in self.rings.items()}
        writes |= {name: _dense_write(one) for name, one in self.dense.items()}
        model = rewritten(self.network, writes)
        said = next((p for p in model.metadata_props if p.key == METADATA), None)
        said = model.metadata_props.add(key=METADATA) if said is None else said
        manifest = self.manifest() | {"tensors": model_sha256(model)}
        said.value = json.dumps(manifest, ensure_ascii=False, separators=(",", ":"))
        return model

    def rebuilt(self) -> ModelProto:
        """The given graph with each ring's kernel in place of the layer's own: it answers the same
        as the compressed one, up to the precision of its numbers.
        """
        return rebuilt(self.network, {**self.rings, **self.dense})

    def manifest(self) -> dict[str, object]:
        """What the file says of itself: where it came from, what was asked for, its rings."""
        plan = self.plan
        return {
            "version": FORMAT_VERSION,
            "source": {
                "file": self.network.name,
                "sha256": self.network.sha256,
                "bytes": self.network.bytes,
            },
            "plan": plan.label,
            "pcr": round(plan.pcr, 4),
            "fcr": round(plan.fcr, 4),
            "rings": {
                layer.name: [layer.shift, layer.ranks, layer.form]
                for layer in plan.layers
                if layer.name in self.rings
            },
        } | dict(self.told)

    def save(self, path: str | Path) -> int:
        """Write the file, whole or not at all; its bytes, external data included.

        ExportError where it cannot be written.
        """
        return write_model(self.model(), Path(path))

    def with_told(self, **told: object) -> CompressedOnnx:
        """The same, which says more of itself."""
        return replace(self, told=dict(self.told) | told)


def compress_onnx(
    network: OnnxNetwork,
    plan: CompressionPlan,
    *,
    batch: int | None = None,
    progress: Progress | None = None,
) -> CompressedOnnx:
    """The network with the rings of a plan, each in the form that suits ONNX Runtime.

    batch: time every form on this machine for so many inputs, with one thread, and of the whole
    graphs that come of it, of the forms that have least to do and of one convolution for each ring
    take the fastest; by default each form is the one that has least to do. progress: called with
    (layers timed, layers to time). PlanError for a plan of another network.
    """
    rings = {}
    for layer in plan.layers:
        if layer.shift is None or layer.ranks is None:
            continue
        given = network.layer(layer.name)
        if tuple(given.kernel.shape) != layer.shape:
            raise PlanError(
                f"layer {layer.name} has a kernel {tuple(given.kernel.shape)}, the plan expects "
                f"{layer.shape}: use the file that the plan was made for"
            )
        if given.obstacle:
            raise PlanError(f"layer {layer.name} cannot be a ring: {given.obstacle}")
        rings[layer.name] = ring_svd(given.kernel, layer.shift, layer.ranks)
    layers = {name: LayerRing(ring) for name, ring in rings.items()}
    by_work = CompressedOnnx(network, forms_by_work(plan, network), layers)
    if batch is None or not rings:
        return by_work
    timed = forms_by_time(plan, network, rings, batch=batch, progress=progress)
    plans = [timed, by_work.plan, forms_dense(plan, network)]
    choices = [
        CompressedOnnx(
            network, decided.model_copy(update={"measured_on": timed.measured_on}), layers
        )
        for decided in plans
    ]
    inputs = network_inputs(network, None, batch)
    models = [choice.model() for choice in choices]
    return choices[fastest_model(models, next(inputs.batches()))]


def rebuilt(network: OnnxNetwork, layers: Mapping[str, LayerRing | DenseLayer]) -> ModelProto:
    """The network's graph with other kernels, dense ones, and biases in some of its layers."""
    return rewritten(network, {name: _dense_write(one) for name, one in layers.items()})


def _dense_write(one: LayerRing | DenseLayer) -> Write:
    return lambda layer, node, part: dense_part(layer, node, one.kernel, one.bias, part)


def rewritten(network: OnnxNetwork, writes: Mapping[str, Write]) -> ModelProto:
    """A copy of the graph in which these layers, by their names, are written anew.

    Constants that nothing takes any more are gone, and the inputs whose defaults they were.
    """
    model = ModelProto()
    model.CopyFrom(network.model)
    graph = model.graph
    layers = {layer.place: layer for layer in network.layers if layer.name in writes}
    names, opset = Names(_names(network.model)), opset_of(network.model)
    tensors = []
    nodes = []
    for place, node in enumerate(network.model.graph.node):
        layer = layers.get(place)
        if layer is None:
            nodes.append(node)
            continue
        part = Part(names, layer.name, layer.kernel.numpy().dtype, opset)
        writes[layer.name](layer, node, part)
        if model.ir_version < IR_WITH_FREE_INITIALIZERS:
            part.as_constants()
        nodes += part.nodes
        tensors += part.tensors
    before = Constants(network.model.graph)
    chains = {place for layer in layers.values() for place in layer.weight.nodes}
    del graph.node[:]
    graph.node.extend(nodes)
    left = _left(graph.node, graph.output, before, chains)
    gone = {layer.weight.stored for layer in layers.values() if layer.weight.stored not in left} | {
        name for place in chains for name in before.graph.node[place].output if name not in left
    }
    for members in (graph.node, graph.initializer, graph.input, graph.value_info):
        stay = [x for x in members if not _is_gone(x, gone)]
        if len(stay) < len(members):
            del members[:]
            members.extend(stay)
    graph.initializer.extend(tensors)
    return model


def _left(
    nodes: Iterable[NodeProto],
    outputs: Iterable[ValueInfoProto],
    before: Constants,
    chains: set[int],
) -> set[str]:
    """The values that are still taken, not counting by chains that lead to nothing."""
    chain_outputs = {
        name: before.graph.node[place]
        for place in chains
        for name in before.graph.node[place].output
    }
    left = {value.name for value in outputs}
    for node in nodes:
        if not (set(node.output) & chain_outputs.keys()):
            left |= set(taken(node))
    todo = [name for name in left if name in chain_outputs]
    while todo:
        for name in taken(chain_outputs[todo.pop()]):
            if name not in left:
                left.add(name)
                todo += [name] if name in chain_outputs else []
    return left


def _is_gone(member: object, gone: set[str]) -> bool:
    if isinstance(member, NodeProto):
        return bool(member.output) and set(member.output) <= gone
    return getattr(member, "name", None) in gone


def _names(model: ModelProto) -> set[str]:
    """Every name that the graph uses, of values and of nodes, however deep."""
    found = {value.name for value in (*model.graph.input, *model.graph.output)}
    found |= {tensor.name for tensor in tensors_of(model.graph)}
    for node in nodes_within(model.graph):
        found |= {node.name, *node.input, *node.output}
    return found
