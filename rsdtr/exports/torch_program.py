"""rsdtr_model.py: one file that needs torch alone and rebuilds a network from its cores.

It is written out of torch.export's graph, statement by statement. What depends on the weights
only, such as the kernels of a ring, it computes once, when they are read.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable

import torch
from torch import fx
from torch.export.graph_signature import InputKind

from rsdtr.errors import ExportError
from rsdtr.models.zoo import ModelSpec
from rsdtr.planning.plan import CompressionPlan
from rsdtr.system import state_file

_MOST_CONSTANTS = 64  # values of a tensor that is written out as text
_OPERATORS = {
    getattr(operator, name): name for name in ("add", "sub", "mul", "floordiv", "getitem")
}
_ANSWERS = {
    "classification": "logits (B, {0})",
    "segmentation": "logits (B, {0}, {1}, {2})",
    "other": "its answers (B, …)",
}
_FLIP = """\
    pixels = torch.cat([pixels[:, :3].flip(1), pixels[:, 3:]], 1)  # the network takes BGR
"""
_TEMPLATE = '''\
"""{model} ({label}), compressed with tensor rings: the network in plain torch.

    import rsdtr_model
    network = rsdtr_model.load("model.safetensors")
    logits = network(rsdtr_model.normalise(pixels))  # pixels: uint8 (B, {shape})

Needs torch and nothing else; written with torch {torch}. For inference: the kernels are
computed from the cores once, when they are read.
"""

import hashlib
import json
import math
import operator

import torch

SHA256 = "{sha256}"
MEAN, STD = {mean}, {std}
DTYPES = {{
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U8": torch.uint8, "BOOL": torch.bool,
}}
WEIGHTS = {{
{weights}
}}


def read(path):
    """The tensors of a safetensors file, which must be the one this program was written for."""
    with open(path, "rb") as file:
        content = bytearray(file.read())
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise ValueError(f"{{path}} is not the file that this program was written for")
    start = 8 + int.from_bytes(content[:8], "little")
    tensors = {{}}
    for name, entry in json.loads(content[8:start]).items():
        if name == "__metadata__":
            continue
        dtype, shape, offset = DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"][0]
        tensors[name] = torch.empty(shape, dtype=dtype)
        if math.prod(shape):
            count, offset = math.prod(shape), start + offset
            flat = torch.frombuffer(content, dtype=dtype, count=count, offset=offset)
            tensors[name].copy_(flat.reshape(shape))
    return tensors


def normalise(pixels):
    """uint8 (B, C, H, W) in 0..255 -> float32, mean 0 and deviation 1 per channel."""
{flip}    mean = torch.tensor(MEAN, device=pixels.device).view(1, -1, 1, 1)
    std = torch.tensor(STD, device=pixels.device).view(1, -1, 1, 1)
    return (pixels.float() / 255 - mean) / std


class Network(torch.nn.Module):
    """Images (B, {shape}) -> {answer}."""

    @torch.no_grad()
    def __init__(self, tensors):
        super().__init__()
        for name, key in WEIGHTS.items():
            self.register_buffer(name, tensors[key])
{prepared}

    def forward(self, {argument}):
{statements}


def load(path="model.safetensors"):
    """The network with its weights, for inference on the CPU."""
    return Network(read(path)).eval()
'''


def source(
    graph: torch.export.ExportedProgram, plan: CompressionPlan, spec: ModelSpec, sha256: str
) -> str:
    """The text of rsdtr_model.py for a network's graph and the SHA-256 of its model.safetensors.

    graph: of the network as it is stored, not fused. ExportError for an operation or a constant
    that cannot be written out.
    """
    nodes = [node for node in graph.graph.nodes if node.users or node.op == "output"]
    stored = graph.graph_signature.inputs_to_parameters | graph.graph_signature.inputs_to_buffers
    kinds = {item.arg.name: item for item in graph.graph_signature.input_specs}
    written = state_file.stored(graph.state_dict)
    weights, prepared, statements = [], [], []
    fixed: set[fx.Node] = set()
    argument = ""
    last = {used: node for node in nodes for used in node.all_input_nodes}
    for node in nodes:
        if node.op == "placeholder":
            kind = kinds[node.name]
            if kind.kind == InputKind.USER_INPUT:
                argument = node.name
                continue
            fixed.add(node)
            if node.name in stored and stored[node.name] in graph.state_dict:
                name = stored[node.name]
                weights.append(f"    {node.name!r}: {written.aliases.get(name, name)!r},")
            else:
                value = _constant(graph.constants[str(kind.target)])
                prepared.append(f'        self.register_buffer("{node.name}", {value})')
        elif node.op == "output":
            (answer,) = node.args[0]
            statements.append(f"        return {_text(answer, fixed)}")
        elif all(used in fixed for used in node.all_input_nodes):
            fixed.add(node)
            call = _call(node, fixed)
            prepared.append(
                f'        self.register_buffer("{node.name}", {call}, persistent=False)'
            )
        else:
            dead = [
                used.name
                for used in node.all_input_nodes
                if last[used] is node and used not in fixed
            ]
            after = f"; del {', '.join(dead)}" if dead else ""
            statements.append(f"        {node.name} = {_call(node, fixed)}{after}")
    shape = (spec.classes, *spec.input_shape[1:])
    return _TEMPLATE.format(
        model=spec.name, label=plan.label, torch=torch.__version__.partition("+")[0],
        shape=", ".join(map(str, spec.input_shape)), answer=_ANSWERS[spec.task].format(*shape),
        flip=_FLIP if spec.channel_order == "BGR" else "", mean=spec.mean, std=spec.std,
        sha256=sha256, argument=argument,
        weights="\n".join(weights), prepared="\n".join(prepared),
        statements="\n".join(statements),
    )  # fmt: skip


def _call(node: fx.Node, fixed: set[fx.Node]) -> str:
    target = node.target
    if isinstance(target, torch._ops.OpOverload) and target.namespace == "aten":
        function = f"torch.ops.{target}"
    elif target in _OPERATORS:
        function = f"operator.{_OPERATORS[target]}"
    else:
        raise ExportError(
            f"the operation {target} cannot be written into rsdtr_model.py: export another format"
        )
    words = [_text(value, fixed) for value in node.args]
    words += [f"{name}={_text(value, fixed)}" for name, value in node.kwargs.items()]
    return f"{function}({', '.join(words)})"


def _text(value: object, fixed: Iterable[fx.Node]) -> str:
    """An argument as Python source."""
    if isinstance(value, fx.Node):
        return f"self.{value.name}" if value in fixed else value.name
    if isinstance(value, list | tuple):
        return f"[{', '.join(_text(item, fixed) for item in value)}]"
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    if isinstance(value, torch.device):
        return f'torch.device("{value}")'
    if value is None or isinstance(
        value, bool | int | float | str | torch.dtype | torch.layout | torch.memory_format
    ):
        return repr(value)
    raise ExportError(
        f"the argument {value!r} cannot be written into rsdtr_model.py: export another format"
    )


def _constant(value: object) -> str:
    if not isinstance(value, torch.Tensor) or value.numel() > _MOST_CONSTANTS:
        raise ExportError(
            "the network holds a constant that is no weight and too large for rsdtr_model.py: "
            "export another format"
        )
    return f"torch.tensor({value.tolist()}, dtype={value.dtype})"
