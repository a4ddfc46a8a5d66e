"""A network walked through node by node, many batches side by side.

Layer-by-layer methods ask for the input of one layer after another. Running the network from its
beginning each time would cost a whole pass per layer; what was live where the last walk stopped is
kept instead, as long as it fits a budget of bytes, and the next walk goes on from there.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, fx, nn

from rsdtr.errors import RsdtrError
from rsdtr.layers import TRConv2d
from rsdtr.out_of_place import rewrite_out_of_place

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
        return isinstance(m, TRConv2d) or super().is_leaf_module(m, module_qualified_name)


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
