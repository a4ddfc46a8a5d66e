"""What refitting wins back on CIFAR-10: accuracy on test images, without labels or gradients.

    python benchmarks/recovery.py [--models cifar10_resnet20] [--plans pcr2.5,pcr3.5,eps0.6,eps0.7]
        [--steps nothing,recalibrated,O,all] [--images 1000] [--test 10000] [--calibrate 512]

plans: pcr2.5 is the target PCR 2.5 by the tight rule, its damage measured on --calibrate images (0:
not measured); eps0.6 is one ε_p for all layers by the published rule. steps: what is done with the
compressed network: nothing, BatchNorm recalibrated relative to the dense network, O-cores refit,
all cores refit. Seconds are those of that step on one thread: elapsed, and of this process alone.
Every ring is evaluated as one dense convolution, which computes the same. Weights from
RSDTR_WEIGHTS, pictures from RSDTR_DATA.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rsdtr.compressed.compress import compress
from rsdtr.compressed.tr_conv2d import TRConv2d
from rsdtr.data.datasets import LabelledImages, load_data
from rsdtr.measuring.accuracy import accuracy
from rsdtr.measuring.stopwatch import machine
from rsdtr.models.model_loading import load_model
from rsdtr.models.zoo import model_spec
from rsdtr.planning.choices import Choices
from rsdtr.planning.damage import measure_damage
from rsdtr.planning.model_profile import ModelProfile, profile
from rsdtr.planning.plan import CompressionPlan, Target
from rsdtr.planning.target_solver import Damage
from rsdtr.planning.winners_on_disk import load_winners
from rsdtr.recovery.options import RefitOptions
from rsdtr.recovery.recalibrate import recalibrate
from rsdtr.recovery.refit import refit


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", default="cifar10_resnet20")
    parser.add_argument("--plans", default="pcr2.5,pcr3.5,eps0.6,eps0.7")
    parser.add_argument("--steps", default="nothing,recalibrated,O,all")
    parser.add_argument("--images", default="1000")
    parser.add_argument("--test", type=int, default=10_000)
    parser.add_argument("--calibrate", type=int, default=512)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print(machine())
    print(
        "model             plan    PCR    step          images  accuracy  seconds  of the process"
    )
    for model in asked.models.split(","):
        spec = model_spec(model)
        dense, data = load_model(model), load_data(spec.data, spec)
        test = data.test.subset(asked.test)
        costs = profile(dense, spec)
        load_winners(costs)
        damage = None
        if asked.calibrate and "pcr" in asked.plans:
            damage = measure_damage(dense, costs, data.train, asked.calibrate, rule="tight")
        _show(model, "", 1.0, "dense", 0, accuracy(dense, test).percent, 0.0, 0.0)
        for name in asked.plans.split(","):
            decided = _plan(costs, name, damage)
            network = compress(dense, decided)
            for step in asked.steps.split(","):
                for images in [0] if step == "nothing" else map(int, asked.images.split(",")):
                    start, own = time.perf_counter(), time.process_time()
                    new = _recovered(network, dense, data.train, step, images)
                    spent = time.perf_counter() - start, time.process_time() - own
                    reached = accuracy(_as_dense_convolutions(copy.deepcopy(new)), test).percent
                    _show(model, name, decided.pcr, step, images, reached, *spent)


def _plan(costs: ModelProfile, name: str, damage: Damage | None) -> CompressionPlan:
    if name.startswith("eps"):
        return Choices(eps=float(name.removeprefix("eps"))).decide(costs)
    target = Target(kind="pcr", value=float(name.removeprefix("pcr")))
    return Choices(target=target, rule="tight").decide(costs, damage)


def _recovered(
    network: nn.Module, dense: nn.Module, train: LabelledImages, step: str, images: int
) -> nn.Module:
    if step == "nothing":
        return network
    if step == "recalibrated":
        return recalibrate(network, train, images, reference=dense)
    options = RefitOptions(cores="O" if step == "O" else "all")
    return refit(network, dense, train, images, options=options).model


def _as_dense_convolutions(network: nn.Module) -> nn.Module:
    for module in network.modules():
        if isinstance(module, TRConv2d):
            module.form = "dense"
    return network


def _show(
    model: str, plan: str, pcr: float, step: str, images: int,
    reached: float, seconds: float, own: float,
) -> None:  # fmt: skip
    print(
        f"{model:17} {plan:7} {pcr:.3f}  {step:12}  {images:6,}  {reached:6.2f} %  "
        f"{seconds:7.1f}  {own:7.1f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
