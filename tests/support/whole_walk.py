"""From somebody's network to a folder and back, every promise held against an independent count."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from rsdtr.compressed.compress import compress
from rsdtr.compressed.fuse import fuse
from rsdtr.compressed.ring_layer import RingLayer
from rsdtr.compressed.saved import load, save
from rsdtr.exports.onnx_export import program
from rsdtr.models.model_loading import load_model
from rsdtr.models.run import Example
from rsdtr.models.zoo import own_model
from rsdtr.planning.model_profile import ModelProfile, profile
from rsdtr.planning.plan import CompressionPlan, plan, planned_bytes

CLOSE = 1e-4  # of the largest number of an answer


@dataclass(frozen=True, eq=False)
class Walked:
    """What there is after a walk that kept its promises."""

    profile: ModelProfile
    plan: CompressionPlan
    network: nn.Module

    def reason(self, layer: str) -> str | None:
        """Why a layer stays dense."""
        return next(item.kept_dense for item in self.plan.layers if item.name == layer)

    @property
    def rings(self) -> list[str]:
        return [item.name for item in self.plan.layers if item.kept_dense is None]

    @property
    def left_out(self) -> dict[str, int]:
        return {part.name: part.macs for part in self.plan.not_counted}


@torch.no_grad()
def walked(
    net: nn.Module,
    folder: Path,
    eps: float = 0.5,
    *,
    shape: tuple[int, int, int] = (3, 12, 10),
    examples: Example | None = None,
    exported: bool = False,
    flops_known: bool = True,
) -> Walked:
    """Profile, plan, compress, merge, save and load a network; AssertionError for a false promise.

    examples: inputs of a batch of one; exported: as a torch.export graph as well; flops_known:
    torch's counter has a formula for all that the network does.
    """
    before = copy.deepcopy(net.state_dict())
    modes = {name: module.training for name, module in net.named_modules()}
    spec = own_model("walked", lambda: net, shape, 4, task="other", example_inputs=examples)
    model = load_model(spec.name)
    found = profile(model, spec)
    decided = plan(found, eps, layers="auto")
    network = compress(model, decided)

    _costs_are_right(net, network, found, decided, examples, shape, flops_known)
    answer = _answer(network, examples, shape)
    _same(_answer(_with_rebuilt_kernels(net, network), examples, shape), answer, "rings")
    fused = fuse(network)
    _same(_answer(fused, examples, shape), answer, "merged")
    assert not any(isinstance(module, RingLayer) for module in fused.modules())
    save(network, decided, folder)
    assert (folder / "model.safetensors").stat().st_size == planned_bytes(found, decided)
    _same(_answer(load(folder).model, examples, shape), answer, "loaded")
    if exported:
        with torch.enable_grad():
            graph = program(fused.requires_grad_(False), spec).module()
        _same(_answer(graph, examples, shape), answer, "exported")
    after = net.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert {name: module.training for name, module in net.named_modules()} == modes
    assert all(parameter.grad is None for parameter in net.parameters())
    return Walked(found, decided, network)


def _costs_are_right(
    net: nn.Module, network: nn.Module, found: ModelProfile, decided: CompressionPlan,
    examples: Example | None, shape: tuple[int, int, int], flops_known: bool,
) -> None:  # fmt: skip
    _answer(network, examples, shape)  # its kernels are merged once
    left_out = sum(part.macs for part in decided.not_counted)
    if flops_known:
        assert decided.macs.original + left_out == _macs(net, examples, shape), "dense MACs"
        assert decided.macs.compressed + left_out == _macs(network, examples, shape), "ring MACs"
    assert decided.params.original == _distinct(net), "dense parameters"
    assert decided.params.compressed == _distinct(network), "ring parameters"
    assert decided.pcr == _distinct(net) / _distinct(network)
    planned = [layer.name for layer in decided.layers if layer.kept_dense is None]
    rings = {name: m for name, m in network.named_modules() if isinstance(m, RingLayer)}
    assert sorted(rings) == sorted(planned), "rings that are not planned, or the other way round"
    ran: set[str] = set()
    handles = [
        core.register_forward_hook(lambda *_, name=name: ran.add(name))
        for name, ring in rings.items()
        for core in [_probe(ring)]
    ]
    _answer(network, examples, shape)
    for handle in handles:
        handle.remove()
    for ring in rings.values():
        del ring.forward
    assert ran == set(rings), f"never ran: {set(rings) - ran}"


def _probe(ring: RingLayer) -> nn.Module:
    """A module that is called whenever the ring computes, whoever calls it and how."""
    probe, forward = nn.Identity(), ring.forward

    def probed(input: Tensor) -> Tensor:
        return probe(forward(input))

    object.__setattr__(ring, "forward", probed)
    return probe


def _with_rebuilt_kernels(net: nn.Module, network: nn.Module) -> nn.Module:
    """The dense network with the rings' kernels in its layers: what the rings stand for."""
    dense = load_model("walked")
    for name, ring in network.named_modules():
        if isinstance(ring, RingLayer):
            weight = dense.get_submodule(name).weight
            weight.copy_(ring.ring.to_tensor().reshape(weight.shape))
    return dense


def _distinct(net: nn.Module) -> int:
    return sum(value.numel() for value in {id(p): p for p in net.parameters()}.values())


def _macs(net: nn.Module, examples: Example | None, shape: tuple[int, int, int]) -> int:
    with FlopCounterMode(display=False) as counter:
        _answer(net, examples, shape)
    return counter.get_total_flops() // 2


def _answer(net: nn.Module, examples: Example | None, shape: tuple[int, int, int]) -> list[Tensor]:
    given = copy.deepcopy(examples)
    if given is None:
        given = torch.randn(1, *shape, generator=torch.Generator().manual_seed(1))
        given = given.to(next(net.parameters(), given).dtype)
    if isinstance(given, dict):
        output = net(**given)
    else:
        output = net(given) if isinstance(given, Tensor) else net(*given)
    return list(output) if isinstance(output, list | tuple) else [output]


def _same(found: list[Tensor], expected: list[Tensor], what: str) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape, what
        difference = float((one - other).abs().max() / (1e-6 + other.abs().max()))
        assert difference <= CLOSE, f"{what}: {difference:.2g}"
