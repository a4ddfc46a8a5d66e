"""Small ONNX graphs made by hand, and the numpy that they are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

Array = NDArray[Any]


def traced(cores: Sequence[Array]) -> Array:
    """The kernel that four cores stand for, by the definition of the trace."""
    g0, g1, g2, g3 = (np.asarray(core) for core in cores)
    return np.einsum("aob,bic,chd,dwa->oihw", g0, g1, g2, g3)


def ring_kernel(
    shape: Sequence[int], ranks: Sequence[int], seed: int = 0, noise: float = 0.0
) -> Array:
    """float32 (O, I, KH, KW) of norm 1 per output on average: a random ring, and some noise."""
    generator = np.random.default_rng(seed)
    cores = [generator.standard_normal((ranks[k], shape[k], ranks[(k + 1) % 4])) for k in range(4)]
    kernel = traced(cores)
    kernel *= np.sqrt(shape[0]) / np.linalg.norm(kernel)
    kernel += noise * generator.standard_normal(kernel.shape) * np.sqrt(shape[0] / kernel.size)
    return kernel.astype(np.float32)


def graph(
    nodes: Sequence[NodeProto],
    tensors: dict[str, Array],
    *,
    inputs: dict[str, Sequence[object]] | None = None,
    outputs: dict[str, Sequence[object]] | None = None,
    opset: int = 17,
    ir: int = 8,
    kind: int = TensorProto.FLOAT,
) -> ModelProto:
    """A model of these nodes; inputs and outputs: the axes of each, a text for an open one."""
    made = helper.make_graph(
        list(nodes),
        "by hand",
        [helper.make_tensor_value_info(k, kind, v) for k, v in (inputs or IMAGES).items()],
        [helper.make_tensor_value_info(k, kind, v) for k, v in (outputs or LOGITS).items()],
        [numpy_helper.from_array(np.asarray(values), name) for name, values in tensors.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)


IMAGES: dict[str, Sequence[object]] = {"images": ["batch", 3, "height", "width"]}
LOGITS: dict[str, Sequence[object]] = {"logits": ["batch", 4]}


def small_network(*, noise: float = 0.02, opset: int = 17) -> ModelProto:
    """Convolutions with and without bias, BatchNorm, a shortcut, a grouped one, and a Gemm.

    `stem` (12, 3, 3, 3), `block` (12, 12, 3, 3), `depth` of 12 groups, `point` (24, 12, 1, 1) whose
    kernel an Identity hands on, `head` (4, 24) with transB.
    """
    generator = np.random.default_rng(7)
    norm = {
        "gamma": generator.uniform(0.5, 1.5, 12),
        "beta": generator.normal(size=12) * 0.1,
        "mean": generator.normal(size=12) * 0.1,
        "var": generator.uniform(0.5, 1.5, 12),
    }
    tensors = {
        "stem.weight": ring_kernel((12, 3, 3, 3), (1, 3, 2, 2), 1, noise),
        "stem.bias": (generator.normal(size=12) * 0.1).astype(np.float32),
        "block.weight": ring_kernel((12, 12, 3, 3), (1, 4, 3, 2), 2, noise),
        "depth.weight": generator.normal(size=(12, 1, 3, 3)).astype(np.float32) / 3,
        "point.weight": ring_kernel((24, 12, 1, 1), (1, 4, 1, 1), 3, noise),
        "head.weight": generator.normal(size=(4, 24)).astype(np.float32),
        "head.bias": generator.normal(size=4).astype(np.float32),
    } | {name: values.astype(np.float32) for name, values in norm.items()}
    square = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["images", "stem.weight", "stem.bias"], ["s"], "stem", **square),
        helper.make_node("Relu", ["s"], ["sr"], "stem.relu"),
        helper.make_node("Conv", ["sr", "block.weight"], ["b"], "block", doc_string="b", **square),
        helper.make_node("BatchNormalization", ["b", "gamma", "beta", "mean", "var"], ["bn"], "bn"),
        helper.make_node("Add", ["bn", "sr"], ["ba"], "shortcut"),
        helper.make_node("Relu", ["ba"], ["br"], "block.relu"),
        helper.make_node("Conv", ["br", "depth.weight"], ["d"], "depth", group=12, **square),
        helper.make_node("Identity", ["point.weight"], ["point.kernel"], "handed on"),
        helper.make_node("Conv", ["d", "point.kernel"], ["p"], "point", kernel_shape=[1, 1]),
        helper.make_node("Relu", ["p"], ["pr"], "point.relu"),
        helper.make_node("GlobalAveragePool", ["pr"], ["g"], "pool"),
        helper.make_node("Flatten", ["g"], ["f"], "flat"),
        helper.make_node("Gemm", ["f", "head.weight", "head.bias"], ["logits"], "head", transB=1),
    ]
    model = graph(nodes, tensors, opset=opset)
    model.producer_name = "by hand"
    helper.set_model_props(model, {"author": "nobody", "labels": "a,b,c,d"})
    return model


def one_conv(kernel: Array, *, opset: int = 17, ir: int = 8, **attributes: object) -> ModelProto:
    """A single convolution `conv` from `images` to `logits`."""
    node = helper.make_node("Conv", ["images", "weight"], ["logits"], "conv", **attributes)
    return graph(
        [node],
        {"weight": kernel},
        inputs={"images": ["batch", kernel.shape[1], "height", "width"]},
        outputs={"logits": ["batch", len(kernel), "rows", "columns"]},
        opset=opset,
        ir=ir,
    )


def written(model: ModelProto, path: Path) -> Path:
    """The model as a file."""
    onnx.save(model, path)
    return path


def answers(model: ModelProto | Path, **inputs: Array) -> list[Array]:
    """What ONNX Runtime computes, without any optimisation of its own."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    return list(session.run(None, inputs))


def tensor(model: ModelProto, name: str) -> Array:
    """An initializer of the graph."""
    (found,) = (t for t in model.graph.initializer if t.name == name)
    return numpy_helper.to_array(found)


def off_by(found: Array, wanted: Array) -> float:
    """‖y − ŷ‖/‖y‖."""
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))
