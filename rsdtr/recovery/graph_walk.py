"""A network walked through node by node, many batches side by side.

Layer-by-layer methods ask for the input of one layer after another. Running the network from its
beginning each time would cost a whole pass per layer; what was live where the last walk stopped is
kept instead, as long as it fits a budget of bytes, and the next walk goes on from there. Sites say
where the output of a ring layer is compared with the dense network's.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from rsdtr.compressed.ring_layer import RingLayer
from rsdtr.errors import RsdtrError
from rsdtr.recovery.out_of_place import rewrite_out_of_place

HOOKED = "its hooks may change what goes in or out: it is no convolution"


@dataclass(frozen=True)
class Site:
    """One ring layer and the value of the network that it is to get right.

    call: the layer's node; layer, norm: module names, norm of the BatchNorm that alone follows, or
    None; addend: what is added after that (a shortcut), or None; value: the node of the sum, or of
    the norm, or of the layer; relu: only the positive part of the value is used; again: the same of
    the layer's further runs for one input; obstacle: why no least squares can do it, in words.
    """

    call: fx.Node
    layer: str
    norm: str | None
    addend: fx.Node | None
    value: fx.Node
    relu: bool
    again: tuple[Site, ...] = ()
    obstacle: str | None = None


def sites(walk: Walk) -> list[Site]:
    """A site for each ring layer, in the order they first run.

    A shortcut that holds a ring layer which runs later is no addend: it is not settled yet.
    """
    calls = Counter(node.target for node in walk.nodes if node.op == "call_module")
    runs: dict[RingLayer, list[fx.Node]] = {}
    for node in walk.nodes:
        if isinstance(ring := _module(walk, node), RingLayer):
            runs.setdefault(ring, []).append(node)
    found = []
    for ring, nodes in runs.items():
        first, *again = (_site(walk, node, nodes[0], calls) for node in nodes)
        found.append(
            replace(
                first,
                relu=all(site.relu for site in (first, *again)),
                again=tuple(again),
                obstacle=HOOKED if ring._forward_hooks or ring._forward_pre_hooks else None,
            )
        )
    return found


def _site(walk: Walk, call: fx.Node, first: fx.Node, calls: Counter[object]) -> Site:
    """first: the layer's first run."""
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
        if isinstance(other, fx.Node) and _settled(walk, other, first):
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
    return not any(
        isinstance(_module(walk, node), RingLayer) for node in walk.needed(before, value)
    )


def _only_relu(walk: Walk, value: fx.Node) -> bool:
    return bool(value.users) and all(
        user.target in (F.relu, torch.relu, "relu") or isinstance(_module(walk, user), nn.ReLU)
        for user in value.users
    )


Values = dict[fx.Node, Any]


class Walk:
    """The nodes of one network, and its values where each batch's walk stopped.

    network: changed so that no operation works in place; its weights may change while it is walked
    as long as only layers that were not passed yet do; budget: bytes of values that may be kept.
    RsdtrError for a network that torch.fx cannot trace, or whose operations in place have no other
    form.
    """

    def __init__(self, network: nn.Module, batches: Iterable[Tensor], budget: float) -> None:
        self.modules = dict(network.named_modules())
        graph = _traced(network)
        self.nodes = list(graph.nodes)
        self.position = {node: place for place, node in enumerate(self.nodes)}
        self._interpreter = fx.Interpreter(
            fx.GraphModule(network, graph), garbage_collect_values=False
        )
        self._last = {
            node: max((self.position[user] for user in node.users), default=-1)
            for node in self.nodes
        }
        entries = [node for node in self.nodes if node.op == "placeholder"]
        if len(entries) != 1:
            raise RsdtrError(
                f"this network takes {len(entries)} inputs: only those of one image can be walked"
            )
        (entry,) = entries
        # Each batch: how many nodes were passed, and what of their values is still needed.
        self._held: list[tuple[int, Values]] = [(0, {entry: batch}) for batch in batches]
        self._budget = budget / max(1, len(self._held))

    def __len__(self) -> int:
        return len(self._held)

    def to(self, batch: int, place: int) -> Values:
        """The live values of a batch before node number `place`; the walk stops there."""
        passed, values = self._held[batch]
        values = self._run(passed, place, dict(values))
        size = sum(x.nbytes for x in values.values() if isinstance(x, Tensor))
        if size <= self._budget:
            self._held[batch] = (place, values)
        return values

    def value(self, values: Values, node: fx.Node) -> Any:
        """The value of a node, from live values, by no other node than it needs."""
        values = dict(values)
        self._interpreter.env = values
        for needed in self.needed(values, node):
            values[needed] = self._interpreter.run_node(needed)
        return values[node]

    def needed(self, values: Iterable[fx.Node], node: fx.Node) -> list[fx.Node]:
        """The nodes, in order, that lead from those in `values` to `node`, itself included."""
        have, found, todo = set(values), set(), [node]
        while todo:
            at = todo.pop()
            if at not in have and at not in found:
                found.add(at)
                todo += at.all_input_nodes
        return sorted(found, key=self.position.__getitem__)

    def _run(self, start: int, stop: int, values: Values) -> Values:
        self._interpreter.env = values
        for place in range(start, stop):
            node = self.nodes[place]
            if node not in values:
                values[node] = self._interpreter.run_node(node)
            for used in node.all_input_nodes:
                if self._last[used] <= place:
                    del values[used]
        return values


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, RingLayer) or super().is_leaf_module(m, module_qualified_name)


def _traced(network: nn.Module) -> fx.Graph:
    try:
        graph = _Tracer().trace(network)
    except Exception as error:  # whatever the model's own code raises at the sight of a proxy
        raise RsdtrError(
            f"the layers of this network cannot be walked one by one ({error}): its forward must "
            "be traceable by torch.fx"
        ) from error
    # A value that is kept must not change when the walk goes on from it.
    rewrite_out_of_place(network, graph)
    return graph
