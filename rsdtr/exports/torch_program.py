"""rsdtr_model.py: one file that needs torch alone and rebuilds a network from its cores.

It is written out of torch.export's graph, statement by statement. What depends on the weights
only, such as the kernels of a ring, it computes once, when they are read.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import fx
from torch.export.graph_signature import InputKind

from rsdtr.errors import ExportError
from rsdtr.models.zoo import ModelSpec
from rsdtr.planning.plan import CompressionPlan
from rsdtr.system import state_file
from rsdtr.system.templates import text_template

_MOST_CONSTANTS = 64  # values of a tensor that is written out as text
_OPERATORS = {
    getattr(operator, name): name for name in ("add", "sub", "mul", "floordiv", "getitem")
}
_ANSWERS = {
    "classification": "logits (B, {0})",
    "segmentation": "logits (B, {0}, {1}, {2})",
    "other": "its answers (B, …)",
}
_TEMPLATE = text_template(Path(__file__).with_name("templates") / "rsdtr_model.py.j2")


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
                if written.aliases.get(name, name) in written.dtypes:  # only complex ones get here
                    prepared.append(
                        f'        self.register_buffer("{node.name}", '
                        f"torch.view_as_complex(self.{node.name}))"
                    )
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
    return _TEMPLATE.render(
        model=spec.name, label=plan.label, torch=torch.__version__.partition("+")[0],
        shape=", ".join(map(str, spec.input_shape)), answer=_ANSWERS[spec.task].format(*shape),
        bgr=spec.channel_order == "BGR", mean=spec.mean, std=spec.std,
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
