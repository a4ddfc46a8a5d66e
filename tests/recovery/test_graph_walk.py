"""Walking a network node by node gives what running it gives."""

import math

import pytest
import torch
from torch import Tensor, nn

from rsdtr.errors import RsdtrError
from rsdtr.recovery.graph_walk import Walk


class InPlace(nn.Module):
    """A residual network that overwrites what it can."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 3, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.second = nn.Conv2d(3, 3, 1)
        self.third = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.first(x))
        z = self.second(y)
        z += y
        z = nn.functional.relu(z, inplace=True)
        w = self.third(z)
        z *= 2
        return self.act(w) + z


def batches() -> list[Tensor]:
    return list(torch.randn(3, 4, 2, 5, 5).unbind())


@pytest.mark.parametrize("budget", [0.0, math.inf], ids=["nothing kept", "all kept"])
@torch.no_grad()
def test_every_node_on_the_way_has_its_value(budget):
    network, inputs = InPlace().eval(), batches()
    expected = [network(x) for x in inputs]
    first = [network.first(x).relu() for x in inputs]
    given = [x.clone() for x in inputs]
    walk = Walk(network, given, budget)
    assert len(walk) == 3
    output = walk.nodes[-1]
    third = next(node for node in walk.nodes if node.target == "third")
    second = next(node for node in walk.nodes if node.target == "second")
    for _ in range(2):  # a walk may come by the same place again
        for batch in range(3):
            values = walk.to(batch, walk.position[second])
            torch.testing.assert_close(walk.value(values, second.all_input_nodes[0]), first[batch])
    for _ in range(2):
        for batch in range(3):
            values = walk.to(batch, walk.position[third])
            torch.testing.assert_close(walk.value(values, output), expected[batch])
    assert all(torch.equal(x, old) for x, old in zip(given, inputs, strict=True))


@torch.no_grad()
def test_only_what_fits_the_budget_is_kept():
    network = nn.Sequential(nn.Conv2d(1, 4, 1), nn.ReLU(), nn.Conv2d(4, 1, 1), nn.ReLU())
    runs: list[int] = []
    network.get_submodule("0").register_forward_hook(lambda *_: runs.append(1))
    size = 2 * 4 * 8 * 8 * 4  # two batches of one picture, 4 channels of 8×8 float32
    for budget, expected in ((size - 1, 4), (size, 2)):
        runs.clear()
        walk = Walk(network, list(torch.randn(2, 1, 1, 8, 8)), budget)
        place = next(walk.position[node] for node in walk.nodes if node.target == "2")
        for _ in range(2):
            for batch in range(2):
                walk.to(batch, place)
        assert len(runs) == expected


@torch.no_grad()
def test_weights_may_change_in_layers_that_were_not_passed():
    network, (x, *_) = InPlace().eval(), batches()
    walk = Walk(network, [x], math.inf)
    third = next(node for node in walk.nodes if node.target == "third")
    walk.to(0, walk.position[third])
    network.third.weight.zero_()
    found = walk.value(walk.to(0, walk.position[third]), walk.nodes[-1])
    torch.testing.assert_close(found, network(x))


def test_networks_that_cannot_be_walked_are_refused():
    class Fickle(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    class Two(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x + y

    with pytest.raises(RsdtrError, match="its forward must be traceable"):
        Walk(Fickle(), batches(), 0)
    with pytest.raises(RsdtrError, match="takes 2 inputs: only those of one image"):
        Walk(Two(), batches(), 0)
