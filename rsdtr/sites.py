"""Where in a network the output of a ring layer is compared with the dense network's."""

from __future__ import annotations

import operator
from collections import Counter
from dataclasses import dataclass

import torch
from torch import fx, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from rsdtr.layers import TRConv2d
from rsdtr.walk import Walk


@dataclass(frozen=True)
class Site:
    """One ring layer and the value of the network that it is to get right.

    call: the layer's node; layer, norm: module names, norm of the BatchNorm that alone follows, or
    None; addend: what is added after that (a shortcut), or None; value: the node of the sum, or of
    the norm, or of the layer; relu: only the positive part of the value is used.
    """

    call: fx.Node
    layer: str
    norm: str | None
    addend: fx.Node | None
    value: fx.Node
    relu: bool


def sites(walk: Walk) -> list[Site]:
    """A site for each ring layer that runs once per input, in the order they run.

    One whose hooks may change what goes in or out is left out: it is no convolution.
    A shortcut that holds a ring layer which runs later is no addend: it is not settled yet.
    """
    calls = Counter(node.target for node in walk.nodes if node.op == "call_module")
    return [
        _site(walk, node, calls)
        for node in walk.nodes
        if isinstance(ring := _module(walk, node), TRConv2d)
        and calls[node.target] == 1
        and not (ring._forward_hooks or ring._forward_pre_hooks)
    ]


def _site(walk: Walk, call: fx.Node, calls: Counter[object]) -> Site:
    value, norm, addend = _unchanged(walk, call), None, None
    after = _only_user(value)
    module = None if after is None else _module(walk, after)
    known = isinstance(module, _BatchNorm) and module.running_mean is not None
    known = known and module is not None and not module._forward_hooks
    if after is not None and known and calls[after.target] == 1:
        norm, value = str(after.target), _unchanged(walk, after)
        after = _only_user(value)
    if after is not None and after.target in (operator.add, torch.add, "add"):
        other = next((term for term in after.args if term is not value), None)
        if isinstance(other, fx.Node) and _settled(walk, other, call):
            addend, value = other, after
    return Site(call, str(call.target), norm, addend, value, _only_relu(walk, value))


def _unchanged(walk: Walk, value: fx.Node) -> fx.Node:
    """The last node of the chain of nn.Identity that the value goes through."""
    after = _only_user(value)
    while after is not None and isinstance(_module(walk, after), nn.Identity):
        value, after = after, _only_user(after)
    return value


def _module(walk: Walk, node: fx.Node) -> nn.Module | None:
    return walk.modules.get(str(node.target)) if node.op == "call_module" else None


def _only_user(node: fx.Node) -> fx.Node | None:
    users = list(node.users)
    return users[0] if len(users) == 1 else None


def _settled(walk: Walk, value: fx.Node, call: fx.Node) -> bool:
    """Whether no ring layer from `call` on has a part in the value."""
    before = walk.nodes[: walk.position[call]]
    return not any(isinstance(_module(walk, node), TRConv2d) for node in walk.needed(before, value))


def _only_relu(walk: Walk, value: fx.Node) -> bool:
    return bool(value.users) and all(
        user.target in (F.relu, torch.relu, "relu") or isinstance(_module(walk, user), nn.ReLU)
        for user in value.users
    )
