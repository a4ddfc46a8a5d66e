"""Every architecture of the zoo, made of rings, exported and read back: the same logits.

    python -m tests.soak.parity [MOST_MILLIONS] [NAME…]     as `make soak` does

The weights are seeded ones with a decaying spectrum, the pictures small. For each ε_p and form the
network in memory must compute what its rings rebuilt as whole kernels compute, and each file what
the network in memory computes. Networks of more than MOST_MILLIONS of parameters are left out.
"""

from __future__ import annotations

import math
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnxruntime
import torch
from torch import Tensor, nn
from torchvision.models import get_model_weights

from rsdtr.compressed.compress import compress
from rsdtr.compressed.saved import load, save
from rsdtr.compressed.tr_conv2d import TRConv2d
from rsdtr.errors import RsdtrError
from rsdtr.exports.onnx_export import onnx_file
from rsdtr.measuring.fastest_forms import in_one_form
from rsdtr.models.model_loading import load_model
from rsdtr.models.zoo import ModelSpec, model_names, model_spec
from rsdtr.planning.model_profile import profile
from rsdtr.planning.plan import plan
from rsdtr.ring.forms import FORMS, Form

EPS = (0.3, 0.6)
FORMATS = ("safetensors", "onnx")
SIDE = 96  # of ImageNet's networks: the least that all of them take
MOST_DIFFERENCE = 1e-4  # of the largest logit


@dataclass(frozen=True)
class Parity:
    """One comparison: the largest difference of a logit, as a share of the largest logit.

    what: "memory", or the format whose file was read back.
    """

    model: str
    eps: float
    form: Form
    what: str
    difference: float

    @property
    def right(self) -> bool:
        """Whether both compute the same."""
        return self.difference <= MOST_DIFFERENCE  # NaN is not


def small(spec: ModelSpec) -> ModelSpec:
    """The spec with pictures that do not take long."""
    channels, *sides = spec.input_shape
    return replace(spec, input_shape=(channels, *(min(side, SIDE) for side in sides)))


@torch.no_grad()
def parities(
    name: str,
    eps: float,
    forms: Sequence[Form] = FORMS,
    formats: Sequence[str] = FORMATS,
) -> Iterator[Parity]:
    """All comparisons of one network at one ε_p; nothing where no layer becomes a ring."""
    spec = small(model_spec(name))
    dense = load_model(name, "none").requires_grad_(False)
    found = profile(dense, spec)
    decided = plan(found, eps, layers="all")
    network = compress(dense, decided)
    rings = [module for module in network.modules() if isinstance(module, TRConv2d)]
    if not rings:
        return
    images = torch.randn(3, *spec.input_shape, generator=torch.Generator().manual_seed(0))
    for ring in rings:
        ring.form = "dense"
    exact = network(images)
    for form in forms:
        for ring in rings:
            ring.form = form
        logits = network(images)
        yield Parity(name, eps, form, "memory", _difference(logits, exact))
        for kind in formats:
            with tempfile.TemporaryDirectory() as folder:
                if kind == "safetensors":
                    save(network, in_one_form(decided, found, form), Path(folder) / "saved")
                    read = load(Path(folder) / "saved").model(images)
                else:
                    read = _by_onnxruntime(network, spec, images)
            yield Parity(name, eps, form, kind, _difference(read, logits))


def _by_onnxruntime(network: nn.Module, spec: ModelSpec, images: Tensor) -> Tensor:
    file = onnx_file(network, spec)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"images": images.numpy()})
    return torch.from_numpy(logits)


def _difference(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).abs().max() / expected.abs().max()).item()


def parameters(name: str) -> int:
    """Of an architecture; torchvision knows its own without making them."""
    spec = model_spec(name)
    if spec.family == "imagenet":
        return int(get_model_weights(name).DEFAULT.meta["num_params"])
    return sum(value.numel() for value in spec.build().parameters())


def main(most_millions: float = math.inf, *names: str) -> None:
    torch.set_num_threads(1)
    sizes = {name: parameters(name) for name in names or model_names()}
    wrong = done = 0
    for name, size in sorted(sizes.items(), key=lambda item: item[1]):
        if size > 1e6 * most_millions:
            print(f"{name}: left out, {size / 1e6:.0f} million parameters", flush=True)
            continue
        for eps in EPS:
            started = time.perf_counter()
            try:
                found = list(parities(name, eps))
            except RsdtrError as error:
                wrong += 1
                print(f"{name} at ε_p {eps}: {error}", flush=True)
                continue
            bad = [parity for parity in found if not parity.right]
            wrong, done = wrong + len(bad), done + len(found)
            largest = max((parity.difference for parity in found), default=0)
            seconds = time.perf_counter() - started
            print(
                f"{name} at ε_p {eps}: {len(found)} compared, {len(bad)} wrong, "
                f"largest difference {largest:.1e}, {seconds:.0f} s"
            )
            print(*bad, sep="\n", end="\n" if bad else "", flush=True)
    print(f"{done:,} compared, {wrong} wrong")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main(*(float(most) for most in sys.argv[1:2]), *sys.argv[2:])
