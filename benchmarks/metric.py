"""Does it pay to cut kernels in the metric of their input? Accuracy at equal PCR, CIFAR-10.

    python benchmarks/metric.py [--powers 0,0.125,0.25,0.5] [--pcr 2.5,3.5] [--images 1000]
        [--test 2000]

A kernel (O, I, KH, KW) errs most where its input is strong, and ε_p does not know its input. Here
mode I is multiplied by C^power before the search, C the covariance of the layer's input channels
over `images` training images, and core I by its inverse afterwards: power 0 is the published rule,
0.5 makes ε_p the relative error of the layer's output (its channels, not its positions). `nothing`
is the accuracy as compressed, `recalibrated` and `refit` what the same images win back.
"""

from __future__ import annotations

import argparse
import copy
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rsdtr.compressed.compress import compress
from rsdtr.compressed.tr_conv2d import TRConv2d
from rsdtr.data.datasets import LabelledImages, load_data
from rsdtr.measuring.accuracy import accuracy
from rsdtr.measuring.stopwatch import machine
from rsdtr.models.model_loading import load_model
from rsdtr.models.zoo import ModelSpec, model_spec
from rsdtr.planning.model_profile import profile
from rsdtr.planning.plan import CompressionPlan, plan
from rsdtr.recovery.recalibrate import recalibrate
from rsdtr.recovery.refit import refit

FLOOR = 1e-3  # of the largest eigenvalue: what a channel that is never used counts for


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="cifar10_resnet20")
    parser.add_argument("--powers", default="0,0.125,0.25,0.5")
    parser.add_argument("--pcr", default="2.5,3.5")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--test", type=int, default=2000)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print(machine())
    spec, dense = model_spec(asked.model), load_model(asked.model).eval()
    data = load_data(spec.data, spec)
    train, test = data.train.subset(asked.images), data.test.subset(asked.test)
    covariances = input_covariances(dense, train)
    print("power   PCR     FCR     nothing  recalibrated   refit")
    for power in map(float, asked.powers.split(",")):
        weighted = copy.deepcopy(dense)
        for name, conv in convolutions(weighted):
            turn(conv, covariances[name], power)
        for pcr in map(float, asked.pcr.split(",")):
            decided = uniform(weighted, spec, pcr)
            ring = compress(weighted, decided)
            for name, layer in ring.named_modules():
                if isinstance(layer, TRConv2d):
                    turn_core(layer, covariances[name], -power)
                elif isinstance(layer, nn.Conv2d):
                    layer.load_state_dict(dense.get_submodule(name).state_dict())
            n = asked.images
            stages = (
                ring,
                recalibrate(ring, data.train, n, reference=dense),
                refit(copy.deepcopy(ring), dense, data.train, n).model,
            )
            percents = [accuracy(network, test).percent for network in stages]
            print(
                f"{power:5.3f}  {decided.pcr:5.3f}  {decided.fcr:5.3f}  {percents[0]:8.2f} %"
                f"  {percents[1]:10.2f} %  {percents[2]:5.2f} %",
                flush=True,
            )


def convolutions(network: nn.Module) -> list[tuple[str, nn.Conv2d]]:
    return [(n, m) for n, m in network.named_modules() if isinstance(m, nn.Conv2d)]


@torch.inference_mode()
def input_covariances(network: nn.Module, images: LabelledImages) -> dict[str, Tensor]:
    """Of every convolution's input channels, (I, I) in float64, of mean diagonal 1."""
    sums: dict[str, Tensor] = {}
    hooks = []
    for name, conv in convolutions(network):

        def add(_: nn.Module, given: tuple[Tensor, ...], __: Tensor, name: str = name) -> None:
            x = given[0]
            product = torch.einsum("bihw,bjhw->ij", x, x).double()
            sums[name] = sums[name] + product if name in sums else product

        hooks.append(conv.register_forward_hook(add))
    for pixels, _ in images.batches(200):
        network(pixels)
    for hook in hooks:
        hook.remove()
    return {name: total / total.diagonal().mean() for name, total in sums.items()}


def powered(covariance: Tensor, power: float) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values.clamp_min(FLOOR * float(values.max())) ** power) @ vectors.T


def turn(conv: nn.Conv2d, covariance: Tensor, power: float) -> None:
    kernel = conv.weight.detach().double()
    conv.weight.data = torch.einsum("oihw,ij->ojhw", kernel, powered(covariance, power)).float()


@torch.no_grad()
def turn_core(layer: TRConv2d, covariance: Tensor, power: float) -> None:
    core = layer.cores[1]
    turned = torch.einsum("rin,ij->rjn", core.double(), powered(covariance, power))
    core.copy_(turned.to(core.dtype))


def uniform(network: nn.Module, spec: ModelSpec, pcr: float) -> CompressionPlan:
    """The plan of one ε_p for all layers that has this PCR, or just more."""
    costs = profile(network, spec)
    low, high = 0.2, 0.95
    for _ in range(9):
        eps = (low + high) / 2
        low, high = (eps, high) if plan(costs, eps).pcr < pcr else (low, eps)
    return plan(costs, high)


if __name__ == "__main__":
    main()
