"""A traced network in which nothing is overwritten, so that any of its values can be kept."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from rsdtr.errors import RsdtrError

_OPERATORS = {
    getattr(operator, f"i{name}"): getattr(operator, name)
    for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul")
}
# Whose answer may lie in the memory of what they are given.
_VIEWS = {
    "view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "transpose", "permute", "t",
    "swapaxes", "movedim", "expand", "narrow", "select", "chunk", "split", "unbind", "unfold",
    "detach", "contiguous", "to", "float", "getitem", "dropout",
}  # fmt: skip
_VIEW_MODULES = (nn.Identity, nn.Flatten, nn.Unflatten, nn.Dropout, nn.Dropout2d)


def rewrite_out_of_place(network: nn.Module, graph: fx.Graph) -> None:
    """Make every operation of the graph, and of the network's modules, give a new value.

    Who read what was overwritten reads the new value. RsdtrError for an operation that only works
    in place, or one on a part of a value that is used as a whole afterwards.
    """
    modules = dict(network.named_modules())
    nodes = list(graph.nodes)
    position = {node: place for place, node in enumerate(nodes)}
    for node in nodes:
        if not _made_out_of_place(node, modules):
            continue
        written = node.args[0] if node.args else node.kwargs.get("input")
        if not isinstance(written, fx.Node):
            continue

        def comes_later(user: fx.Node, node: fx.Node = node) -> bool:
            return position[user] > position[node]

        for other in _same_memory(written, modules):
            if any(comes_later(user) for user in other.users):
                raise RsdtrError(
                    f"the layers of this network cannot be walked one by one: {node.name} "
                    f"overwrites a part of {other.name}, which is used again: write x = x + 1 in "
                    "place of x += 1"
                )
        written.replace_all_uses_with(node, delete_user_cb=comes_later)
    for module in modules.values():
        if getattr(module, "inplace", False):
            setattr(module, "inplace", False)  # noqa: B010 (modules have attributes of all types)


def _made_out_of_place(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """Whether the node overwrote something; it does not any more."""
    if node.op == "call_module":
        return bool(getattr(modules[str(node.target)], "inplace", False))
    if node.op == "call_method":
        name = str(node.target)
        if not name.endswith("_") or name.endswith("__"):
            return False
        node.target = _named(name, Tensor)
        return True
    if node.op != "call_function":
        return False
    target: Any = node.target
    if target in _OPERATORS:
        node.target = _OPERATORS[target]
        return True
    name = getattr(target, "__name__", "")
    if name.endswith("_") and not name.endswith("__") and target.__module__ != "_operator":
        node.target = getattr(torch if hasattr(torch, name[:-1]) else F, _named(name, torch, F))
        return True
    if node.kwargs.get("out") is not None:
        raise RsdtrError(_only_in_place(f"{name}(out=…)"))
    return _inplace_switched_off(node)


def _inplace_switched_off(node: fx.Node) -> bool:
    """Whether a function such as F.relu was given inplace=True, by whatever way."""
    target: Any = node.target
    try:
        given = inspect.signature(target).bind(*node.args, **node.kwargs)
    except (TypeError, ValueError):  # a builtin has no signature, and no such argument either
        return False
    if not given.arguments.get("inplace", False):
        return False
    given.arguments["inplace"] = False
    node.args, node.kwargs = given.args, given.kwargs
    return True


def _named(name: str, *places: object) -> str:
    """The name of the operation that does the same and gives a new value."""
    if not any(hasattr(place, name[:-1]) for place in places):
        raise RsdtrError(_only_in_place(name))
    return name[:-1]


def _only_in_place(name: str) -> str:
    return (
        f"the layers of this network cannot be walked one by one: {name} overwrites a value and "
        "there is no operation that gives a new one: write the forward without it"
    )


def _same_memory(written: fx.Node, modules: dict[str, nn.Module]) -> Iterator[fx.Node]:
    """Other values that may lie in this one's memory: what it is a view of, and the views of it."""

    def is_view(node: fx.Node) -> bool:
        if node.op == "call_module":
            return isinstance(modules[str(node.target)], _VIEW_MODULES)
        name = node.target if node.op == "call_method" else getattr(node.target, "__name__", "")
        return node.op in ("call_method", "call_function") and name in _VIEWS

    root = written
    while is_view(root) and root.args and isinstance(root.args[0], fx.Node):
        root = root.args[0]
    if root.op in ("call_method", "call_function") and (
        root.target in ("size", getattr) or getattr(root.target, "__name__", "") == "getattr"
    ):
        return  # numbers, which nothing overwrites
    todo = [root]
    while todo:
        node = todo.pop()
        if node is not written:
            yield node
        todo += [user for user in node.users if is_view(user) and user.args[:1] == (node,)]
