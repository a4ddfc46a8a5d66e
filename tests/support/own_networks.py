"""Networks as people write them, each with something that compression has to see."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune

SHAPE = (3, 12, 10)


class Network(nn.Module):
    """Parts put together by a function of the network and its inputs."""

    def __init__(self, use: Callable[..., object], **parts: nn.Module) -> None:
        super().__init__()
        self.use = use
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs: Any, **named: Any) -> object:
        return self.use(self, *inputs, **named)


class ImageNetwork(Network):
    """One image is all that it takes, which torch.export has to read from its signature."""

    def forward(self, x: Tensor) -> object:
        return self.use(self, x)


def conv(inputs: int = 8, outputs: int = 8, size: int = 3, **more: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, **more)


def chain(*others: nn.Module) -> Network:
    """A stem, and after it these layers as c1, c2, …"""
    parts = {f"c{place}": part for place, part in enumerate(others, 1)}

    def use(net: Network, x: Tensor) -> Tensor:
        x = net.stem(x)
        for name in parts:
            x = net.get_submodule(name)(x.relu())
        return x

    return Network(use, stem=conv(3), **parts)


def decayed(net: nn.Module) -> nn.Module:
    """The network in eval mode, its kernels with spectra that decay, so that rings pay."""
    with torch.no_grad():
        for kernel in net.parameters():
            if kernel.ndim in (2, 4):
                u, s, vt = torch.linalg.svd(kernel.flatten(1), full_matrices=False)
                s = s * torch.exp(-0.6 * torch.arange(len(s), dtype=s.dtype))
                kernel.copy_((u * s @ vt).reshape(kernel.shape))
    return net.eval()


def shared_kernel() -> nn.Module:
    net = chain(conv(), conv(), conv())
    net.c2.weight = net.c1.weight
    return net


def kernel_held_by_parent() -> nn.Module:
    net = chain(conv(), conv())
    net.kernel = net.c1.weight
    return net


def kernels_in_the_same_memory() -> nn.Module:
    net = chain(conv(), conv())
    net.c2.weight = nn.Parameter(net.c1.weight.detach())
    return net


def tied_transposed() -> nn.Module:
    return Network(
        lambda net, x: F.conv_transpose2d(net.c1(net.stem(x)), net.c1.weight),
        stem=conv(3), c1=conv(),
    )  # fmt: skip


def tied_layers() -> nn.Module:
    """Of an autoencoder whose way up has the kernel of its way down."""
    net = chain(conv(), nn.ConvTranspose2d(8, 8, 3, padding=1), conv())
    net.c2.weight = net.c1.weight
    return net


def one_under_two_names() -> nn.Module:
    net = chain(conv(), nn.Identity())
    net.c2 = net.c1
    return net


def loop() -> nn.Module:
    """A recurrent cell: its gates see what they gave before."""

    def use(net: nn.Module, x: Tensor) -> Tensor:
        seen = torch.zeros(len(x), 8, *x.shape[2:])
        for _ in range(3):
            values, gate = net.gates(torch.cat([net.stem(x), seen], 1)).chunk(2, 1)
            seen = gate.sigmoid() * values.tanh()
        return seen

    return Network(use, stem=conv(3), gates=conv(16, 16))


def frames() -> nn.Module:
    """Of every picture its two halves, folded into the batch."""

    def use(net: nn.Module, x: Tensor) -> Tensor:
        halves = torch.cat(x.chunk(2, 2))
        return net.c1(net.stem(halves)).unflatten(0, (2, -1)).mean(0)

    return Network(use, stem=conv(3), c1=conv())


def made_for_inference() -> nn.Module:
    net = chain(conv(), conv())
    with torch.inference_mode():
        net.c1.weight = nn.Parameter(net.c1.weight.clone(), requires_grad=False)
    return net


def kernel_in_a_list() -> nn.Module:
    net = Network(
        lambda net, x: net.c1(F.conv2d(net.stem(x), net.kernels[0])), stem=conv(3), c1=conv()
    )
    net.kernels = [net.c1.weight]
    return net


def shared_bias() -> nn.Module:
    net = chain(conv(), conv())
    net.c2.bias = net.c1.bias
    return net


def listed() -> nn.Module:
    net = Network(lambda net, x: net.steps[1][1](net.steps[0][1](x)), stem=conv(3), c1=conv())
    net.steps = [("stem", net.stem), ("c1", net.c1)]
    return net


def in_tuple_and_dict() -> nn.Module:
    net = Network(lambda net, x: net.ways["c1"](net.pair[0](x)), stem=conv(3), c1=conv())
    net.pair, net.ways = (net.stem,), {"c1": net.c1}
    return net


def in_a_closure() -> nn.Module:
    net = Network(lambda net, x: net.step(net.stem(x)), stem=conv(3), c1=conv())
    hidden = net.c1
    net.step = lambda x: hidden(x)
    return net


def bound_method() -> nn.Module:
    net = Network(lambda net, x: net.step(net.stem(x)), stem=conv(3), c1=conv())
    net.step = net.c1.forward
    return net


def looked_for_by_type() -> nn.Module:
    def use(net: nn.Module, x: Tensor) -> Tensor:
        for part in net.children():
            if isinstance(part, nn.Conv2d):
                x = part(x)
        return x

    return Network(use, stem=conv(3), c1=conv())


def breaks_at_another_type() -> nn.Module:
    """It asks the second layer for what only a convolution has."""
    return Network(
        lambda net, x: net.c2(net.c1._conv_forward(net.stem(x), net.c1.weight, None)),
        stem=conv(3), c1=conv(), c2=conv(),
    )  # fmt: skip


def hooked() -> nn.Module:
    net = chain(conv(), conv())
    net.c1.register_forward_hook(lambda _, inputs, output: 3 * output)
    net.c2.register_forward_pre_hook(lambda _, inputs, named: ((inputs[0] + 1,), named),
                                     with_kwargs=True)  # fmt: skip
    return net


class Watching(nn.Module):
    """Hooks bound to the network itself."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.c1, self.gain = conv(3), conv(), nn.Parameter(torch.tensor(2.0))
        self.c1.register_forward_hook(self.scaled)

    def scaled(self, _module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        return self.gain * output

    def forward(self, x: Tensor) -> Tensor:
        return self.c1(self.stem(x))


def reads_its_kernel() -> nn.Module:
    def use(net: nn.Module, x: Tensor) -> Tensor:
        x = net.stem(x).to(net.c1.weight.dtype)
        assert (net.c1.transposed, net.c1.output_padding) == (False, (0, 0))
        assert net.c1.weight.shape[1] * net.c1.groups == x.shape[1]
        return net.c1(x)

    return Network(use, stem=conv(3), c1=conv())


class Normed(nn.Conv2d):
    """A convolution that owns its norm."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, input: Tensor) -> Tensor:
        return self.norm(super().forward(input))


class Padded(nn.Conv2d):
    """A convolution that owns its padding, as EfficientNet-Lite has it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3)
        self.padded = nn.ZeroPad2d(1)

    def forward(self, input: Tensor) -> Tensor:
        return F.conv2d(self.padded(input), self.weight, self.bias)


def spectral() -> nn.Module:
    net = chain(conv(), conv(), conv())
    parametrizations.spectral_norm(net.c1)
    parametrizations.weight_norm(net.c2)
    return net


def old_norms() -> nn.Module:
    net = chain(conv(), conv(), conv(), conv())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch would rather have the new ones
        nn.utils.weight_norm(net.c1)
    nn.utils.spectral_norm(net.c2)
    prune.l1_unstructured(net.c3, "weight", amount=0.3)
    return net


def functional() -> nn.Module:
    net = Network(lambda net, x: F.conv2d(net.c1(net.stem(x)), net.kernel), stem=conv(3), c1=conv())
    net.kernel = nn.Parameter(torch.randn(9, 8, 3, 3))
    return net


def with_transposed() -> nn.Module:
    return chain(conv(), nn.ConvTranspose2d(8, 4, 2, stride=2))


def by_keyword() -> nn.Module:
    return Network(lambda net, x: net.c1(input=net.stem(x)), stem=conv(3), c1=conv())


def by_forward() -> nn.Module:
    return Network(lambda net, x: net.c1.forward(net.stem(x)), stem=conv(3), c1=conv())


def patched_forward() -> nn.Module:
    net = chain(conv(), conv())
    before = net.c1.forward
    net.c1.forward = lambda x: 2 * before(x)
    return net


def with_mask() -> nn.Module:
    net = chain(conv(), conv())
    net.c1.register_buffer("mask", torch.ones(8, 8, 3, 3))
    return net


def with_attribute() -> nn.Module:
    net = Network(lambda net, x: net.c1.gain * net.c1(net.stem(x)), stem=conv(3), c1=conv())
    net.c1.gain = 4.0
    return net


def idle() -> nn.Module:
    net = chain(conv())
    net.never, net.flat = conv(), nn.Conv1d(3, 3, 3)
    return net


def attention() -> nn.Module:
    return Network(
        lambda net, x: net.mix(*[net.stem(x).flatten(2).transpose(1, 2)] * 3)[0],
        stem=conv(3), mix=nn.MultiheadAttention(8, 2, batch_first=True),
    )  # fmt: skip


def keeps_activations() -> nn.Module:
    def use(net: nn.Module, x: Tensor) -> Tensor:
        net.seen.append(net.stem(x))
        net.latest = net.c1(net.seen[-1])
        return net.latest

    net = Network(use, stem=conv(3), c1=conv())
    net.seen = []
    net(torch.zeros(1, *SHAPE))  # with a history: copy.deepcopy would refuse it
    return net


def writes_into_its_input() -> nn.Module:
    return Network(lambda net, x: net.c1(net.stem(x.sub_(0.5).mul_(2))), stem=conv(3), c1=conv())


def two_inputs() -> nn.Module:
    return Network(lambda net, x, y: net.c1(net.stem(x) + y), stem=conv(3), c1=conv())


def a_dict() -> nn.Module:
    return Network(
        lambda net, given: net.c1(net.stem(given["image"]) + given["shift"]),
        stem=conv(3), c1=conv(),
    )  # fmt: skip


def named_inputs() -> nn.Module:
    def use(net: nn.Module, *, image: Tensor, shift: Tensor) -> Tensor:
        return net.c1(net.stem(image) + shift)

    return Network(use, stem=conv(3), c1=conv())
