"""Layers that run several times for one input: one ring, and the MACs of every run."""

import json

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from rsdtr.charts.tables import layers_table
from rsdtr.commands.console import plan_table
from rsdtr.compressed.compress import compress
from rsdtr.models.zoo import ModelSpec
from rsdtr.planning.layer_profile import Runs
from rsdtr.planning.model_profile import profile
from rsdtr.planning.plan import CompressionPlan, Target, plan
from rsdtr.planning.target_solver import solve
from tests.support.networks import varied_spec
from tests.support.own_networks import Network, conv, decayed

SPEC: ModelSpec = varied_spec()  # takes 3×14×10


def pyramid() -> nn.Module:
    """One head on three levels, as RetinaNet has it."""

    def use(net: Network, x: Tensor) -> list[Tensor]:
        levels = [net.stem(x)]
        levels += [level(levels[-1]) for level in (nn.AvgPool2d(2), nn.AvgPool2d(4))]
        return [net.head(net.tower(level).relu()) for level in levels]

    torch.manual_seed(0)
    parts = {"stem": conv(3, 16), "tower": conv(16, 16), "head": conv(16, 4)}
    return decayed(Network(use, **parts))


def siamese() -> nn.Module:
    """One branch on an image and its mirror image, the second time within a batch of both."""

    def use(net: Network, x: Tensor) -> Tensor:
        one = net.branch(net.stem(x).relu())
        both = net.branch(net.stem(torch.cat([x, x.flip(3)])).relu())
        return net.head(torch.cat([one, both]).mean((2, 3))).unflatten(0, (3, -1)).sum(0)

    torch.manual_seed(0)
    parts = {"stem": conv(3, 16), "branch": conv(16, 16), "head": nn.Linear(16, 4)}
    return decayed(Network(use, **parts))


def flops(network: nn.Module) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(torch.zeros(1, *SPEC.input_shape))
    return counter.get_total_flops()


def test_a_head_on_every_level_is_one_ring_whose_macs_are_of_all_levels():
    net = pyramid()
    found = profile(net, SPEC)
    tower = found.layer("tower")
    assert tower.obstacle is None
    assert tower.sizes == (
        Runs((14, 10), (14, 10)), Runs((7, 5), (7, 5)), Runs((3, 2), (3, 2)),
    )  # fmt: skip
    assert (tower.runs, tower.macs) == (3, 16 * 16 * 9 * (140 + 35 + 6))
    decided = plan(found, 0.5, layers=["tower"])
    ring = decided.layers[1]
    assert ring.ranks is not None
    r0, r1, r2, r3 = ring.ranks
    # The four sublayers at every level, by hand: 16 channels in and out, a kernel of 3×3.
    each = 16 * r1 * r2 + r1 * r2 * 3 * r3 + r1 * r3 * 3 * r0 + r1 * r0 * 16
    assert ring.macs.compressed == each * (140 + 35 + 6)
    assert decided.macs.original == flops(net) // 2
    assert decided.macs.compressed == flops(compress(net, decided)) // 2
    params = sum(value.numel() for value in compress(net, decided).parameters())
    assert decided.params.compressed == params


def test_branches_in_one_batch_or_in_two_calls_count_alike():
    net = siamese()
    found = profile(net, SPEC)
    branch = found.layer("branch")
    assert (branch.runs, branch.sizes) == (3, (Runs((14, 10), (14, 10), 3),))
    decided = plan(found, 0.6, layers="auto")
    assert {layer.name: layer.runs for layer in decided.layers} == {
        "stem": 3, "branch": 3, "head": 3,
    }  # fmt: skip
    assert decided.macs.compressed == flops(compress(net, decided)) // 2


def test_how_often_a_layer_runs_is_told_where_it_is_not_once():
    decided = plan(profile(pyramid(), SPEC), 0.5, layers="all")
    told = [layer.get("runs") for layer in json.loads(decided.model_dump_json())["layers"]]
    assert told == [None, 3, 3]
    assert CompressionPlan.from_json(decided.model_dump_json()) == decided
    assert list(layers_table(decided)["runs"]) == [1, 3, 3]
    header, _, tower, *_ = plan_table(decided).splitlines()
    assert header.split()[:3] == ["layer", "kernel", "runs"]
    assert tower.split()[:3] == ["tower", "16×16×3×3", "3"]
    once = plan(profile(decayed(nn.Sequential(conv(3), conv())), SPEC), 0.5, layers="all")
    assert "runs" not in layers_table(once)
    assert "runs" not in plan_table(once).splitlines()[0]


def test_a_target_of_flops_knows_all_runs():
    net, target = pyramid(), Target(kind="fcr", value=1.5)
    found = profile(net, SPEC)
    decided = solve(found, target, objective="macs", layers="all")
    assert decided.fcr >= 1.5
    assert flops(net) / flops(compress(net, decided)) == decided.fcr
