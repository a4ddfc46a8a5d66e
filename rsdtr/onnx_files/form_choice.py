"""Which form a ring runs in within ONNX Runtime: by what it has to do, or by its time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import prod

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, helper

from rsdtr.measuring.stopwatch import interleaved, machine
from rsdtr.onnx_files.graph_layers import GraphLayer
from rsdtr.onnx_files.graph_part import Names, Part
from rsdtr.onnx_files.onnx_file import opset_of
from rsdtr.onnx_files.onnx_network import OnnxNetwork
from rsdtr.onnx_files.ring_nodes import aligned, dense_part, ring_part
from rsdtr.onnx_files.runtime import Session
from rsdtr.planning.layer_profile import LayerProfile
from rsdtr.planning.plan import CompressionPlan, LayerPlan, MeasuredOn, Milliseconds
from rsdtr.ring.cost import form_activations, form_macs
from rsdtr.ring.forms import Form, sublayers
from rsdtr.ring.tensor_ring import TensorRing
from rsdtr.typing import Progress

BY_WORK: tuple[Form, ...] = ("O|IHW", "I|HWO", "IH|WO", "dense")
BY_TIME: tuple[Form, ...] = (*BY_WORK, "pipeline")
# What takes as long as so many MACs, fitted to 520 times of layers of three networks: an element
# that a layer takes or gives, one that lies between its convolutions, and a convolution as such.
MACS_PER_END, MACS_PER_ELEMENT, MACS_PER_NODE = 18, 33, 400_000
# A form must take less than this part of the dense one, by its work or by its time.
WORTH_OF_WORK, WORTH_OF_TIME = 0.8, 0.95
WARY_OF_WORK = 0.5  # where the rule has proved too trusting of a whole graph
_RUNS, _SECONDS, _AT_LEAST_MS = 7, 1.0, 2.0


def forms_by_work(
    plan: CompressionPlan, network: OnnxNetwork, worth: float = WORTH_OF_WORK
) -> CompressionPlan:
    """The plan with the form for each ring that has least to do: MACs, and elements in between.

    A ring that has more to do than that part of the convolution runs as one, with its kernel
    rebuilt when the file is opened.
    """
    forms = {la.name: _least_work(la, network, worth) for la in plan.layers if la.ranks}
    return _with_forms(plan, network, forms)


def forms_by_time(
    plan: CompressionPlan,
    network: OnnxNetwork,
    rings: Mapping[str, TensorRing],
    *,
    batch: int = 1,
    progress: Progress | None = None,
) -> CompressionPlan:
    """The plan with the form for each ring that is fastest in ONNX Runtime on this machine.

    Each layer is timed alone, in all forms and dense, in turn, on inputs of its size for so many;
    with one thread, by the processor's time, which other programs do not change.
    """
    found: dict[str, Form] = {}
    times: dict[str, Milliseconds] = {}
    known: dict[object, tuple[Form, Milliseconds]] = {}
    todo = [layer for layer in plan.layers if layer.ranks is not None]
    for done, layer in enumerate(todo):
        if progress:
            progress(done, len(todo))
        given, profile = network.layer(layer.name), network.profile.layer(layer.name)
        alike = (
            layer.shape, layer.ranks, given.stride, given.dilation, given.pads, given.auto_pad,
            given.operation, profile.input_size,
        )  # fmt: skip
        if alike not in known:
            known[alike] = _fastest(network, given, profile, rings[layer.name], batch)
        found[layer.name], times[layer.name] = known[alike]
    if progress:
        progress(len(todo), len(todo))
    decided = _with_forms(plan, network, found)
    layers = [
        layer.model_copy(update={"latency_ms": times.get(layer.name)}) for layer in decided.layers
    ]
    where = MeasuredOn(
        machine=machine(), device="onnxruntime, cpu", threads=1, batch=batch,
        mode="inference",
    )  # fmt: skip
    return decided.model_copy(update={"layers": tuple(layers), "measured_on": where})


def forms_dense(plan: CompressionPlan, network: OnnxNetwork) -> CompressionPlan:
    """The plan with every ring as one convolution, whose kernel is rebuilt as a file is opened."""
    forms: dict[str, Form] = {layer.name: "dense" for layer in plan.layers if layer.ranks}
    return _with_forms(plan, network, forms)


def fastest_model(models: Sequence[ModelProto], inputs: Mapping[str, NDArray[np.generic]]) -> int:
    """Which of some whole graphs takes least of the processor's time, on one thread."""
    sessions = [Session(model, threads=1) for model in models]
    works = {str(k): partial(session, inputs) for k, session in enumerate(sessions)}
    spread = interleaved(works, runs=_RUNS, seconds=5 * _SECONDS, clock=time.process_time)
    return min(range(len(models)), key=lambda k: spread[str(k)].best_ms)


def _least_work(layer: LayerPlan, network: OnnxNetwork, worth: float) -> Form:
    profile = network.profile.layer(layer.name)
    o, i, _, _ = layer.shape
    ends = i * prod(profile.input_size) + o * prod(profile.output_size)

    def work(form: Form) -> float:
        assert layer.ranks is not None
        sizes = layer.shape, layer.ranks, profile.input_size, profile.output_size
        wider = _wider(form, layer, network.layer(layer.name).is_matrix)
        between = 2 * wider * form_activations(form, *sizes)  # written, and read
        nodes = 1 if form == "dense" else 2
        moved = MACS_PER_END * ends + MACS_PER_ELEMENT * between
        return wider * form_macs(form, *sizes) + moved + MACS_PER_NODE * nodes

    best = min(BY_WORK, key=work)
    return best if work(best) < worth * work("dense") else "dense"


def _fastest(
    network: OnnxNetwork, layer: GraphLayer, profile: LayerProfile, ring: TensorRing, batch: int
) -> tuple[Form, Milliseconds]:  # fmt: skip
    """The fastest form of a layer alone, and its time beside the convolution's."""
    dtype = layer.kernel.numpy().dtype
    shape = _input_shape(layer, profile, batch)
    values = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    forms = BY_WORK if layer.is_matrix else BY_TIME
    sessions = {form: _alone(network, layer, ring, form) for form in forms}
    works: dict[str, Callable[[], object]] = {
        form: partial(session, {"x": values}) for form, session in sessions.items()
    }
    spread = interleaved(
        works,
        runs=_RUNS,
        seconds=_SECONDS,
        at_least_ms=_AT_LEAST_MS,
        hopeless=2.0,
        clock=time.process_time,
    )
    dense = spread["dense"].best_ms
    best: Form = min(forms, key=lambda form: spread[form].best_ms)
    if spread[best].best_ms >= WORTH_OF_TIME * dense:
        best = "dense"
    return best, Milliseconds(original=dense, compressed=spread[best].best_ms)


def _wider(form: Form, layer: LayerPlan, is_matrix: bool) -> float:
    """How many times as many channels lie between two convolutions as the ring has there."""
    assert layer.ranks is not None
    if is_matrix or form in ("dense", "pipeline"):
        return 1.0
    bond = sublayers(form, layer.shape, layer.ranks)[0].kernel[0]
    return aligned(bond) / bond


def _input_shape(layer: GraphLayer, profile: LayerProfile, batch: int) -> tuple[int, ...]:
    _, i, _, _ = layer.kernel.shape
    height, width = profile.input_size
    return (batch * height, i) if layer.is_matrix else (batch, i, height, width)


def _alone(network: OnnxNetwork, layer: GraphLayer, ring: TensorRing, form: Form) -> Session:
    """A graph of this layer and nothing else, in one form."""
    node = type(network.model.graph.node[layer.place])()
    node.CopyFrom(network.model.graph.node[layer.place])
    node.input[:], node.output[:] = ["x", node.input[1]], ["y"]
    opset = opset_of(network.model)
    part = Part(Names(["x", "y"]), "layer", layer.kernel.numpy().dtype, opset)
    if form == "dense":
        dense_part(layer, node, layer.kernel, None, part)
    else:
        ring_part(layer, node, ring, form, None, part)
    kind = helper.np_dtype_to_tensor_dtype(part.dtype)
    axes = 2 if layer.is_matrix else 4
    graph = helper.make_graph(
        part.nodes,
        "layer",
        [helper.make_tensor_value_info("x", kind, [None] * axes)],
        [helper.make_tensor_value_info("y", kind, [None] * axes)],
        part.tensors,
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", opset)])
    return Session(model, threads=1)


def _with_forms(
    plan: CompressionPlan, network: OnnxNetwork, forms: Mapping[str, Form]
) -> CompressionPlan:
    layers = []
    for layer in plan.layers:
        if layer.ranks is not None:
            profile, form = network.profile.layer(layer.name), forms[layer.name]
            macs = form_macs(
                form, layer.shape, layer.ranks, profile.input_size, profile.output_size
            )
            macs = round(macs * _wider(form, layer, network.layer(layer.name).is_matrix))
            layer = layer.model_copy(update={"form": form, "macs_run": macs})
        layers.append(layer)
    run = plan.macs.original - sum(
        layer.macs.original - layer.macs_run for layer in layers if layer.macs_run is not None
    )
    return plan.model_copy(
        update={"layers": tuple(layers), "fcr_run": plan.macs.original / max(run, 1)}
    )
