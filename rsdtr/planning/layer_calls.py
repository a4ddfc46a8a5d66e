"""One pass of a network, watched: which layers run, on what, and all that multiplies elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvNd
from torch.utils.flop_counter import FlopCounterMode, _FlopCounterMode

from rsdtr.models.run import Example, called, tensors_in
from rsdtr.models.surgery import (
    CONVOLUTION,
    ConvReplacement,
    LinearReplacement,
    Replacement,
    Weighted,
    copied,
    replaced,
)
from rsdtr.planning.flattened_maps import FlattenedMaps
from rsdtr.planning.flop_formulas import FORMULAS, SEVERAL_PRODUCTS
from rsdtr.ring.cost import Size


@dataclass
class Call:
    """One run of a layer: (H, W) of what goes in and out, its MACs, and for how many regions.

    Of one input, a detection network's second stage sees many regions at once. A linear layer's
    size is that of its positions: (1, 1) for one vector, (H, W) channels-last; flattened:
    (C, H, W) of the map that its input is, or None.
    """

    input_size: Size = (1, 1)
    output_size: Size = (1, 1)
    regions: int = 1
    macs: int = 0
    flattened: tuple[int, int, int] | None = None


@dataclass
class Observation:
    """What ran. calls: of each nn.Conv2d, or what stands for one, and each nn.Linear, by its name,
    in the order they first ran; elsewhere: MACs of what is none of these, by the name and type of
    the module they are part of; past: MACs with the kernel of a layer outside of a call of it.
    """

    calls: dict[str, list[Call]] = field(default_factory=dict)
    elsewhere: dict[tuple[str, str], int] = field(default_factory=dict)
    past: dict[str, int] = field(default_factory=dict)


class Rehearsal(Replacement):
    """Looks to a network as a ring layer does, and computes what the layer before computes."""

    bias: nn.Parameter | None

    def _stand_for(self, layer: Weighted) -> None:
        self._stands_for = (copied(layer),)  # in a tuple: no module of the network
        cores = (layer.weight.new_empty(1, 1, 1) for _ in range(4))
        self.cores = nn.ParameterList(cores)
        self.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach())
        self.train(layer.training)

    def kernel(self) -> Tensor:
        """A copy of the layer's weight, always the same one."""
        (layer,) = self._stands_for
        return cast(nn.Conv2d, layer).weight


class ConvRehearsal(Rehearsal, ConvReplacement):
    """In place of an nn.Conv2d."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self._stand_for(conv)
        for name in CONVOLUTION:
            setattr(self, name, getattr(conv, name))

    def forward(self, input: Tensor) -> Tensor:
        (conv,) = self._stands_for
        return cast(nn.Conv2d, conv)._conv_forward(input, self.kernel(), self.bias)


class LinearRehearsal(Rehearsal, LinearReplacement):
    """In place of an nn.Linear."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self._stand_for(linear)
        self.in_features, self.out_features = linear.in_features, linear.out_features

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.kernel(), self.bias)


def rehearsed(model: nn.Module, layers: Mapping[str, Weighted], example: Example) -> Observation:
    """What runs once these layers, by their names, are of another kind.

    Raises whatever the network raises then.
    """
    pairs = [
        (layer, LinearRehearsal(layer) if isinstance(layer, nn.Linear) else ConvRehearsal(layer))
        for layer in layers.values()
    ]
    parts: dict[nn.Module, nn.Module] = dict(pairs)
    network = replaced(model, parts, [(layer.weight, part.kernel()) for layer, part in pairs])
    return observed(network, example, layers)


def observed(network: nn.Module, example: Example, layers: Mapping[str, Weighted]) -> Observation:
    """Run a network once in eval mode and note what each layer does.

    network: a copy for this purpose, which is changed; example: its inputs, as `called` takes them;
    layers: of the network that was copied, which a closure may run. Raises whatever the network
    raises.
    """
    names = {module: name for name, module in network.named_modules()}
    watch = _Watch(network)
    for name, layer in layers.items():
        watch.belongs(layer.weight, name)
    for module, name in names.items():
        kernel: Tensor | None = None
        if isinstance(module, Weighted | _ConvNd):
            kernel = module._parameters.get("weight")
        if isinstance(module, Rehearsal):
            kernel = module.kernel()
        if kernel is not None:
            watch.belongs(kernel, name)
        if not isinstance(module, torch.jit.ScriptModule):
            module.forward = watch.of(module, name)
    network.eval()
    with torch.no_grad(), watch:
        called(network, example)
    return watch.observation


class _Frame:
    """A module that is running: its name, and its call if it is a listed layer."""

    def __init__(self, name: str, kind: str, call: Call | None) -> None:
        self.name, self.kind, self.call = name, kind, call


class _NoTracker:
    """In place of torch's ModuleTracker, whose hooks are those of every thread of the process."""

    parents = ("Global",)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        pass


class _UncompiledMode(_FlopCounterMode):
    """torch's counting mode, without its compiler where nothing has imported that.

    torch keeps the compiler out of what a mode does by a decorator that imports it: two seconds,
    for nothing where there is nothing compiled.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # the decorator is the parent's affair

    def __torch_dispatch__(self, *args: Any, **kwargs: Any) -> Any:
        count = _FlopCounterMode.__torch_dispatch__
        if "torch._dynamo" not in sys.modules:
            count = vars(count).get("__wrapped__", count)
        return count(self, *args, **kwargs)


class _Watch(FlopCounterMode):
    """torch's counter, which also knows for which layer it counts."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(display=False, custom_mapping=FORMULAS)
        self.mod_tracker = _NoTracker()  # type: ignore[assignment]  # it is asked for no more
        self.observation = Observation()
        self._maps = FlattenedMaps()
        self._owners: dict[int, set[str]] = {}
        self._frames = [_Frame("", type(network).__name__, None)]

    def __enter__(self) -> Self:
        self.flop_counts.clear()
        self.mode = _UncompiledMode(self)
        self.mode.__enter__()
        return self

    def belongs(self, kernel: Tensor, name: str) -> None:
        """Count what multiplies with this kernel for the layer of that name."""
        self._owners.setdefault(kernel.data_ptr(), set()).add(name)

    def of(self, module: nn.Module, name: str) -> Callable[..., object]:
        """The forward of a module, watched."""
        forward, calls = module.forward, self.observation.calls
        listed = isinstance(module, Weighted | Replacement)

        def watched(*args: Any, **kwargs: Any) -> object:
            call = Call() if listed else None
            if call is not None:
                calls.setdefault(name, [])
                first = next(tensors_in((args, kwargs)), None)
                call.flattened = None if first is None else self._maps.of(first)
            self._frames.append(_Frame(name, type(module).__name__, call))
            try:
                output = forward(*args, **kwargs)
            finally:
                self._frames.pop()
            if call is not None:
                _note(call, module, (args, kwargs), output)
                calls[name].append(call)
            return output

        return watched

    def _count_flops(
        self, func_packet: Any, out: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        self._maps.follow(func_packet, out, (args, kwargs))
        before = self.get_total_flops()
        super()._count_flops(func_packet, out, args, kwargs)
        macs = (self.get_total_flops() - before) // 2
        if not macs:
            return out
        kernels = () if func_packet in SEVERAL_PRODUCTS else tensors_in(args)
        owners = next(filter(None, (self._owners.get(x.data_ptr()) for x in kernels)), None)
        frame = next((frame for frame in reversed(self._frames) if frame.call), None)
        inner, seen = self._frames[-1], self.observation
        if frame is not None and frame.call and (owners is None or frame.name in owners):
            frame.call.macs += macs
        elif owners is not None and inner.name not in owners:
            name = min(owners)
            seen.past[name] = seen.past.get(name, 0) + macs
        else:
            at = inner.name, inner.kind
            seen.elsewhere[at] = seen.elsewhere.get(at, 0) + macs
        return out


def _note(call: Call, module: nn.Module, given: object, output: object) -> None:
    before, after = next(tensors_in(given), None), next(tensors_in(output), None)
    if isinstance(module, nn.Linear | LinearReplacement):
        # Of one vector torch's counter counts nothing.
        call.macs = call.macs or module.in_features * sum(x.numel() for x in tensors_in(output))
        if after is not None and after.ndim > 1:
            call.regions = len(after)
            positions = after.numel() // (len(after) * module.out_features) if len(after) else 0
            width = after.shape[-2] if after.ndim > 2 else 1
            call.output_size = (positions // width, width) if width else (0, 0)
        return
    if before is not None and before.ndim > 1:
        call.input_size = (before.shape[-2], before.shape[-1])
    if after is not None and after.ndim > 1:
        call.output_size = (after.shape[-2], after.shape[-1])
        call.regions = len(after) if after.ndim == 4 else 1
