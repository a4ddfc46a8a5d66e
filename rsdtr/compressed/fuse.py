"""A network of plain convolutions for deployment: rings merged, BatchNorm folded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize
from torch.nn.utils.fusion import fuse_conv_bn_weights

from rsdtr.compressed.ring_layer import RingLayer
from rsdtr.compressed.tr_conv2d import TRConv2d, along
from rsdtr.compressed.tr_linear import TRLinear
from rsdtr.models.surgery import (
    CONVOLUTION,
    ConvReplacement,
    LinearReplacement,
    replaced,
    sharing,
)
from rsdtr.ring.forms import Sublayer

_STATE = ("running_mean", "running_var", "eps", "weight", "bias")


def fuse(model: nn.Module) -> nn.Module:
    """A new model, in eval mode, that computes the same with torch's own layers alone.

    Each ring layer becomes the convolutions of its form (where channel groups share a kernel,
    grouped ones in which it is repeated), and what sees a whole map a linear layer; a BatchNorm
    that only follows a convolution is folded into it. Where
    torch.fx cannot trace the whole, it is folded within the parts that can be traced, each of which
    is taken to be called as a whole. A parametrised tensor is computed once. It is
    larger than the cores: keep the given model, which is not changed, for storing and training.
    """
    rings = [module for module in model.modules() if isinstance(module, RingLayer)]
    new = replaced(model, {ring: plain_layers(ring) for ring in rings}).eval()
    _compute_parametrised(new)
    return _folded(new)


@torch.no_grad()
def _compute_parametrised(model: nn.Module) -> None:
    """Let every parametrised tensor be what it is computed to be, in place."""
    for module in model.modules():
        if parametrize.is_parametrized(module):
            names = list(cast(nn.ModuleDict, module.parametrizations))
            values = {name: getattr(module, name).detach().clone() for name in names}
            # Not remove_parametrizations: it changes the class, which the given model has as well.
            del module._modules["parametrizations"]
            module.__class__ = type(module).__bases__[0]
            for name, value in values.items():
                module.register_parameter(name, nn.Parameter(value))


class MergedRing(ConvReplacement, nn.Sequential):
    """The plain convolutions that compute a ring layer, one after the other."""

    def __init__(self, layer: TRConv2d, convolutions: Sequence[nn.Conv2d]) -> None:
        super().__init__()
        for name in CONVOLUTION:
            setattr(self, name, getattr(layer, name))
        self.extend(convolutions)
        self._ring = layer.ring

    def kernel(self) -> Tensor:
        """The ring's, as it was when it was merged."""
        return self._ring.to_tensor().to(cast(nn.Conv2d, self[0]).weight)

    @property
    def bias(self) -> Tensor | None:
        """Of the last convolution."""
        return cast(nn.Conv2d, self[-1]).bias


class MergedLinear(LinearReplacement, nn.Sequential):
    """The plain layers that compute a linear ring layer, one after the other.

    in_channels: of the map that the first one takes, of the ring's map size; None where it takes
    vectors.
    """

    def __init__(
        self, layer: TRLinear, layers: Sequence[nn.Module], in_channels: int | None
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.map = None if in_channels is None else (in_channels, *layer.map_size)
        self.extend(layers)
        self._ring = layer.ring

    def kernel(self) -> Tensor:
        """The weight (O, I), as it was when it was merged."""
        return self._ring.to_tensor().flatten(1).to(cast(nn.Linear, self[0]).weight)

    @property
    def bias(self) -> Tensor | None:
        """Of the last layer."""
        return cast(nn.Linear, self[-1]).bias

    def forward(self, input: Tensor) -> Tensor:
        if input.ndim != 2:
            rows = self.forward(input.reshape(-1, input.shape[-1]))
            return rows.reshape(*input.shape[:-1], self.out_features)
        x = input if self.map is None else input.unflatten(1, self.map)
        for layer in self:
            x = layer(x.flatten(1) if isinstance(layer, nn.Linear) else x)
        return x


def merged(model: nn.Module) -> nn.Module:
    """The same network, where only its values count: every ring runs as one convolution.

    It costs what the dense network costs, while the paper's four sublayers take ten times as long
    at a small ε_p. A copy that shares all weights and buffers, whose modes and forms may be set
    while others use the model; the model itself where it has no ring.
    """
    if not any(isinstance(module, RingLayer) for module in model.modules()):
        return model
    new = sharing(model)
    for module in new.modules():
        if isinstance(module, RingLayer):
            module.form = "dense"
    return new


def plain_layers(layer: RingLayer) -> nn.Module:
    """torch's own layers that compute a ring layer in its form; only the last one has a bias."""
    if isinstance(layer, TRLinear):
        return plain_linears(layer)
    return plain_convolutions(cast(TRConv2d, layer))


@torch.no_grad()
def plain_linears(layer: TRLinear) -> nn.Linear | MergedLinear:
    """The convolutions and linear layers that compute a linear ring layer in its form."""
    plain: list[nn.Module] = []
    for step, whole, kernel in zip(layer.sublayers, layer.whole, layer.kernels(), strict=True):
        out_channels, in_channels, *size = step.kernel
        made: nn.Linear | nn.Conv2d
        if whole and step.copies == 1:
            made = nn.Linear(
                in_channels * size[0] * size[1], out_channels, False,
                device=kernel.device, dtype=kernel.dtype,
            )  # fmt: skip
            made.weight.copy_(kernel.flatten(1))
        else:
            made = nn.Conv2d(
                in_channels * step.copies, out_channels * step.copies, (size[0], size[1]),
                groups=step.copies, bias=False, device=kernel.device, dtype=kernel.dtype,
            )  # fmt: skip
            made.weight.copy_(kernel.repeat(step.copies, 1, 1, 1))
        plain.append(made)
    first = plain[0]
    if isinstance(first, nn.Linear) and any(isinstance(made, nn.Conv2d) for made in plain):
        plain[0] = _as_convolution(first)  # the map has one pixel, and stays a map
    last = cast(nn.Linear, plain[-1])
    if layer.bias is not None:
        last.bias = nn.Parameter(layer.bias.detach().clone())
    first = plain[0]
    channels = first.in_channels if isinstance(first, nn.Conv2d) else None
    whole_layer = last if len(plain) == 1 else MergedLinear(layer, plain, channels)
    whole_layer.requires_grad_(any(core.requires_grad for core in layer.cores))
    return whole_layer.train(layer.training)


def _as_convolution(linear: nn.Linear) -> nn.Conv2d:
    """The 1×1 convolution that computes what a linear layer without bias does."""
    conv = nn.Conv2d(
        linear.in_features, linear.out_features, 1, bias=False,
        device=linear.weight.device, dtype=linear.weight.dtype,
    )  # fmt: skip
    conv.weight.copy_(linear.weight[:, :, None, None])
    return conv


@torch.no_grad()
def plain_convolutions(layer: TRConv2d) -> nn.Conv2d | MergedRing:
    """The convolutions that compute a ring layer in its form; only the last one has a bias."""
    steps, kernels = layer.sublayers, layer.kernels()
    convolutions = [
        _convolution(layer, step, kernel) for step, kernel in zip(steps, kernels, strict=True)
    ]
    if layer.bias is not None:
        convolutions[-1].bias = nn.Parameter(layer.bias.detach().clone())
    (only, *others) = convolutions
    plain = MergedRing(layer, convolutions) if others else only
    plain.requires_grad_(any(core.requires_grad for core in layer.cores))
    return plain.train(layer.training)


def _convolution(layer: TRConv2d, step: Sublayer, kernel: Tensor) -> nn.Conv2d:
    padding = layer.padding
    if not isinstance(padding, str):
        padding = along((padding, padding) if isinstance(padding, int) else padding, step.axes, 0)
    out_channels, in_channels, *size = step.kernel
    conv = nn.Conv2d(
        in_channels * step.copies * step.groups,
        out_channels * step.copies,
        (size[0], size[1]),
        stride=along(layer.stride, step.axes, 1),
        padding=padding,
        dilation=along(layer.dilation, step.axes, 1),
        groups=step.copies * step.groups,
        bias=False,
        padding_mode=layer.padding_mode,
        device=kernel.device,
        dtype=kernel.dtype,
    )
    conv.weight.copy_(kernel.repeat(step.copies, 1, 1, 1))
    return conv


def _folded(model: nn.Module) -> nn.Module:
    """The model with each BatchNorm2d folded into the convolution before it, where that is safe."""
    pairs = _pairs(model)
    for conv, norm in pairs:
        state = {name: getattr(norm, name) for name in _STATE}
        weight, bias = fuse_conv_bn_weights(
            conv.weight, conv.bias, state["running_mean"], state["running_var"], state["eps"],
            state["weight"], state["bias"],
        )  # fmt: skip
        trained = conv.weight.requires_grad
        conv.weight = nn.Parameter(weight.detach(), requires_grad=trained)
        conv.bias = nn.Parameter(bias.detach(), requires_grad=trained)
    return sharing(model, [norm for _, norm in pairs])


def _pairs(model: nn.Module) -> list[tuple[nn.Conv2d, nn.Module]]:
    """Each convolution whose output is known to go to one BatchNorm2d and nowhere else."""
    return [
        (conv, norm)
        for part, graph in _traced(model).items()
        for conv, norm in _pairs_of(part, graph)
        if _only_within(part, conv, model) and _only_within(part, norm, model)
    ]


def _traced(model: nn.Module) -> dict[nn.Module, fx.Graph]:
    """The graph of a model, or else those of its parts that have one."""
    try:
        return {model: _Tracer().trace(model)}
    except Exception:  # whatever the model's own code raises at the sight of a proxy
        return {part: graph for child in model.children() for part, graph in _traced(child).items()}


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return _folds(m) or super().is_leaf_module(m, module_qualified_name)


def _pairs_of(part: nn.Module, graph: fx.Graph) -> Iterator[tuple[nn.Conv2d, nn.Module]]:
    modules = dict(part.named_modules())
    calls: dict[nn.Module, list[fx.Node]] = {}
    read = {str(node.target) for node in graph.nodes if node.op == "get_attr"}
    for node in graph.nodes:
        if node.op == "call_module":
            calls.setdefault(modules[str(node.target)], []).append(node)
    for norm, (call, *again) in calls.items():
        if not _folds(norm) or again:
            continue
        before = call.args[0] if call.args else None
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) > 1:
            continue
        conv = modules[str(before.target)]
        apart = not read & {f"{before.target}.weight", f"{before.target}.bias"}
        if type(conv) is nn.Conv2d and len(calls[conv]) == 1 and apart and not _hooked(conv, norm):
            yield conv, norm


def _only_within(part: nn.Module, module: nn.Module, model: nn.Module) -> bool:
    """Whether no other part of the model holds the module too."""
    return _places(model, module) == _places(model, part) * _places(part, module)


def _places(model: nn.Module, module: nn.Module) -> int:
    return sum(found is module for _, found in model.named_modules(remove_duplicate=False))


def _folds(module: nn.Module) -> bool:
    """Whether it is a BatchNorm that computes with statistics of its own.

    torchvision's frozen one is known by its name: torchvision is not loaded for its sake.
    """
    kind = f"{type(module).__module__}.{type(module).__qualname__}"
    known = type(module) is nn.BatchNorm2d or kind == "torchvision.ops.misc.FrozenBatchNorm2d"
    return known and module.running_mean is not None


def _hooked(*modules: nn.Module) -> bool:
    """Whether somebody looks at, or changes, what goes in or out of one of them."""
    return any(module._forward_hooks or module._forward_pre_hooks for module in modules)
