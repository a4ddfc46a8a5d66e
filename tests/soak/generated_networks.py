"""Random small networks: each is compressed as promised, or refused in one sentence.

python -m tests.soak.generated_networks N   N of them, as `make soak` does
"""

from __future__ import annotations

import random
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune

from rsdtr.errors import RsdtrError
from tests.support.own_networks import ImageNetwork, Network, Normed, Padded, conv, decayed
from tests.support.whole_walk import walked

EPS = (0.05, 0.3, 0.5, 0.6, 0.9)
KINDS = (
    "plain", "plain", "plain", "grouped", "dilated", "strided", "rectangular", "subclass", "padded",
    "spectral", "weight norm", "old norm", "pruned", "hooked", "kwargs hook", "attribute", "frozen",
    "reflect", "half frozen", "transposed", "patched", "masked", "double call", "tokens", "excited",
)  # fmt: skip
WAYS = (
    "call", "call", "call", "keyword", "forward", "listed", "dict", "closure", "bound", "by type",
    "functional", "reads weight", "residual", "residual", "dense",
)  # fmt: skip


def layer(kind: str, channels: int, generator: random.Random) -> nn.Module:
    """A layer from so many channels to as many, of the same height and width."""
    size = generator.choice((1, 3, 3, 5))
    if kind == "grouped":
        return conv(channels, channels, size, groups=generator.choice((2, channels)))
    if kind == "dilated":
        return nn.Conv2d(channels, channels, 3, padding="same", dilation=2)
    if kind == "strided":
        return nn.Sequential(nn.Conv2d(channels, channels, 3, 2, 1), nn.Upsample(scale_factor=2))
    if kind == "rectangular":
        return nn.Conv2d(channels, channels, (1, 5), padding=(0, 2), bias=False)
    if kind == "subclass":
        return Normed(channels, channels)
    if kind == "padded":
        return Padded(channels, channels)
    if kind == "tokens":
        return Network(
            lambda net, x: net.inner(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2),
            inner=nn.Linear(channels, channels),
        )
    if kind == "excited":
        return Network(
            lambda net, x: x * net.inner(x.mean((2, 3)))[:, :, None, None].sigmoid(),
            inner=nn.Linear(channels, channels),
        )
    if kind == "reflect":
        return conv(channels, channels, 3, padding_mode="reflect")
    if kind == "transposed":
        return nn.ConvTranspose2d(channels, channels, 3, padding=1)
    found = conv(channels, channels, size, bias=generator.random() < 0.7)
    if kind == "spectral":
        parametrizations.spectral_norm(found)
    elif kind == "weight norm":
        parametrizations.weight_norm(found)
    elif kind == "old norm":
        nn.utils.weight_norm(found)
    elif kind == "pruned":
        prune.random_unstructured(found, "weight", amount=0.4)
    elif kind == "hooked":
        found.register_forward_hook(lambda _, inputs, output: 2 * output)
    elif kind == "kwargs hook":
        found.register_forward_pre_hook(
            lambda _, inputs, named: (tuple(x + 1 for x in inputs), named), with_kwargs=True
        )
    elif kind == "attribute":
        found.gain = 2.0
    elif kind == "frozen":
        found.requires_grad_(False)
    elif kind == "half frozen" and found.bias is not None:
        found.bias.requires_grad_(False)
    elif kind == "patched":
        before = found.forward
        found.forward = lambda x: before(x) + 1
    elif kind == "masked":
        found.register_buffer("mask", torch.ones(1))
    elif kind == "double call":
        return Network(lambda net, x: net.inner(net.inner(x)), inner=found)
    return found


def network(generator: random.Random) -> tuple[nn.Module, Any, str]:
    """A network in eval mode, its inputs (None: one image), and what it is made of, in words."""
    channels, depth = generator.choice((4, 8, 12)), generator.randint(1, 4)
    kinds = [generator.choice(KINDS) for _ in range(depth)]
    ways = [generator.choice(WAYS) for _ in range(depth)]
    parts = {f"c{k}": layer(kind, channels, generator) for k, kind in enumerate(kinds)}
    names = list(parts)
    form = generator.choice(("one", "one", "one", "two", "dict", "named"))
    end = generator.choice(("pooled", "pooled", "flattened", "reduced", "channels last"))

    def use(net: Any, image: Any, shift: Any = 0) -> Tensor:
        if form == "dict":
            image, shift = image["image"], image["shift"]
        x = net.stem(image) + shift
        for name, way in zip(names, ways, strict=True):
            x = _applied(net, name, way, x.relu())
        if end == "pooled":
            return net.head(x.mean((2, 3)))
        if end == "reduced":
            return net.head(net.hidden(F.max_pool2d(x, 2).flatten(1).relu()).relu())
        flat = x.permute(0, 2, 3, 1) if end == "channels last" else x
        return net.head(net.hidden(flat.flatten(1)).relu())

    kind = ImageNetwork if form == "one" else Network
    hidden, pixels = generator.choice((10, 24)), 12 if end == "reduced" else 48
    net = kind(
        use, stem=conv(3, channels), **parts,
        **({} if end == "pooled" else {"hidden": nn.Linear(channels * pixels, hidden)}),
        head=nn.Linear(channels if end == "pooled" else hidden, 4),
    )  # fmt: skip
    net.steps = list(parts.items())
    net.ways = dict(parts)
    net.closures = {name: (lambda x, part=part: part(x)) for name, part in parts.items()}
    net.bound = {name: part.forward for name, part in parts.items()}
    net.kernel = nn.Parameter(torch.randn(channels, channels, 1, 1) / channels)
    shared = [name for name in names if type(parts[name]) is nn.Conv2d]
    told = [end, *(f"{kind}/{way}" for kind, way in zip(kinds, ways, strict=True))]
    if len(shared) > 1 and generator.random() < 0.2:
        one, other = parts[shared[0]], parts[shared[1]]
        kernels = one._parameters.get("weight"), other._parameters.get("weight")
        if all(kernel is not None for kernel in kernels) and one.weight.shape == other.weight.shape:
            other.weight = one.weight
            told.append("shared")
    if generator.random() < 0.1:
        net.double()
        told.append("double")
    dtype = net.head.weight.dtype
    image, shift = torch.randn(1, 3, 8, 6, dtype=dtype), torch.randn(1, channels, 1, 1, dtype=dtype)
    examples: Any = {
        "one": None, "two": (image, shift), "dict": ({"image": image, "shift": shift},),
        "named": {"image": image, "shift": shift},
    }[form]  # fmt: skip
    return decayed(net), examples, f"{form}: {', '.join(told)}"


def _applied(net: Any, name: str, way: str, x: Tensor) -> Tensor:
    part = net.get_submodule(name)
    if way == "keyword" and hasattr(part, "weight"):  # asked by type, a ring is something else
        return part(input=x)
    if way == "forward":
        return part.forward(x)
    if way == "listed":
        return dict(net.steps)[name](x)
    if way == "dict":
        return net.ways[name](x)
    if way == "closure":
        return net.closures[name](x)
    if way == "bound":
        return net.bound[name](x)
    if way == "by type":
        return part(x) if isinstance(part, nn.Conv2d) else x
    if way == "functional":
        return F.conv2d(part(x), net.kernel)
    if way == "reads weight" and hasattr(part, "weight"):
        return part(x.to(part.weight.dtype)) * part.groups
    if way == "residual":
        return x + part(x)
    if way == "dense":
        return torch.cat([x, part(x)], 1).unflatten(1, (2, -1)).mean(1)
    return part(x)


def outcome(seed: int, folder: Path) -> str:
    """`rings` or `dense`, or the beginning of the sentence it was refused with.

    AssertionError for a promise that was broken, and whatever else is raised.
    """
    generator = random.Random(seed)
    torch.manual_seed(seed)
    net, examples, told = network(generator)
    eps = generator.choice(EPS)
    try:
        found = walked(
            net, folder, eps, shape=(3, 8, 6), examples=examples,
            exported=examples is None and seed % 10 == 0,
        )  # fmt: skip
    except RsdtrError as error:
        if "\n" in str(error):
            raise AssertionError(f"not one sentence: {error}") from error
        return f"refused: {str(error).partition(':')[0]}"
    except Exception as error:
        raise AssertionError(f"{told} at ε_p {eps}: {type(error).__name__}: {error}") from error
    return "rings" if found.rings else "dense"


def main(count: int) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of torch, of what it would rather have written otherwise
    found: Counter[str] = Counter()
    wrong = 0
    for seed in range(count):
        with tempfile.TemporaryDirectory() as folder:
            try:
                found[outcome(seed, Path(folder) / "saved")] += 1
            except Exception as error:
                wrong += 1
                print(f"{seed}: {error}", flush=True)
                if wrong == 1:
                    traceback.print_exc()
    for reason, times in found.most_common():
        print(f"{times:5,} {reason}")
    print(f"{wrong:5,} wrong")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main(int(sys.argv[1]))
