"""What the blocks of a network answer on the way to its own answer, beside another network's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from rsdtr.compressed.ring_layer import RingLayer
from rsdtr.errors import RsdtrError
from rsdtr.models.outputs import tensors

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def block_names(model: nn.Module) -> list[str]:
    """The blocks that hold a network's rings, in the order of the modules.

    Of every ring the smallest module around it that is neither a plain container, such as an
    nn.Sequential, nor the whole network, as a residual block is; the ring itself where there is
    none.
    """
    blocks: dict[str, None] = {}
    for name, module in model.named_modules():
        if isinstance(module, RingLayer):
            blocks[_block_around(model, name)] = None
    # A block that holds another one would count what that one gets wrong twice.
    return [one for one in blocks if not any(other.startswith(f"{one}.") for other in blocks)]


def _block_around(model: nn.Module, ring: str) -> str:
    around = ring.rpartition(".")[0]
    while around:
        if type(model.get_submodule(around)) not in _CONTAINERS:
            return around
        around = around.rpartition(".")[0]
    return ring


@contextmanager
def listening(model: nn.Module, names: Sequence[str]) -> Iterator[dict[str, list[Tensor]]]:
    """Inside of the block, what these modules answered since the dict was last cleared, by name.

    RsdtrError where the network has no module of such a name.
    """
    heard: dict[str, list[Tensor]] = {}
    handles = []
    modules = dict(model.named_modules())
    try:
        for name in names:
            if name not in modules:
                raise RsdtrError(
                    f"the reference has no {name}: give the dense network that the model was "
                    "compressed from"
                )

            def hear(_: nn.Module, __: object, answer: object, name: str = name) -> None:
                heard.setdefault(name, []).extend(tensors(answer))

            handles.append(modules[name].register_forward_hook(hear))
        yield heard
    finally:
        for handle in handles:
            handle.remove()


def relative_squared_error(expected: Tensor, found: Tensor) -> Tensor:
    """‖z − ẑ‖² / ‖z‖² of all numbers of a batch together, in float32; 0 where both are 0."""
    expected, found = expected.float(), found.float()
    power = expected.square().sum().clamp_min(torch.finfo(torch.float32).tiny)
    return (found - expected).square().sum() / power
