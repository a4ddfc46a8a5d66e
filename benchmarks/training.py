"""What a training step costs: dense and ring, in float32 and in mixed precision, side by side.

    python benchmarks/training.py [--model cifar10_resnet20] [--eps 0.6] [--batch 128]
        [--threads 1,2] [--rounds 5]

variants: the dense network as torch lays it out; the dense network and its ring as fine-tuning
does, channels-last and each ring in its training form; and the ring in the paper's four sublayers.
A round is one step of each, in turn; a row has the fastest one, and what an epoch of CIFAR-10's
50,000 images would take with steps like it, without its validation. bfloat16 only pays where the
processor has it.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rsdtr.compressed.compress import compress
from rsdtr.measuring.stopwatch import machine
from rsdtr.models.model_loading import load_model
from rsdtr.models.zoo import model_spec
from rsdtr.planning.model_profile import profile
from rsdtr.planning.plan import plan
from rsdtr.planning.winners_on_disk import load_winners
from rsdtr.recovery.options import PRECISIONS
from rsdtr.recovery.training_forms import laid_out_for_training

IMAGES = 50_000


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="cifar10_resnet20")
    parser.add_argument("--eps", type=float, default=0.6)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    spec, dense = model_spec(asked.model), load_model(asked.model)
    costs = profile(dense, spec)
    load_winners(costs)
    decided = plan(costs, asked.eps)
    ring = compress(dense, decided)
    print(f"{machine()}; {asked.model} at {decided.label}, PCR {decided.pcr:.3f}")
    print("threads  variant  precision  step, ms  of torch's float32  epoch, s")
    images = torch.randn(asked.batch, *spec.input_shape, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(asked.batch) % spec.classes
    for threads in map(int, asked.threads.split(",")):
        torch.set_num_threads(threads)
        laid_out = {"dense": copy.deepcopy(dense), "ring": copy.deepcopy(ring)}
        with ExitStack() as training:
            for network in laid_out.values():
                training.enter_context(laid_out_for_training(network, images[:2]))
            variants = {"torch": copy.deepcopy(dense), **laid_out, "paper": copy.deepcopy(ring)}
            times = timed(variants, images, labels, asked.rounds)
        whole = times["torch", "float32"]
        for (name, precision), seconds in times.items():
            print(
                f"{threads:7}  {name:7}  {precision:9}  {1e3 * seconds:8.1f}  "
                f"{seconds / whole:18.2f}  {seconds * IMAGES / asked.batch:8.1f}"
            )


def timed(
    variants: dict[str, nn.Module], images: torch.Tensor, labels: torch.Tensor, rounds: int
) -> dict[tuple[str, str], float]:
    """Seconds of the fastest step of each variant in each precision."""
    best: dict[tuple[str, str], float] = {}
    for turn in range(rounds + 1):
        for name, network in variants.items():
            network.train()
            for precision in PRECISIONS:
                start = time.perf_counter()
                with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
                    loss = nn.functional.cross_entropy(network(images), labels)
                loss.backward()
                spent = time.perf_counter() - start
                if turn:  # the first one warms up
                    best[name, precision] = min(spent, best.get((name, precision), spent))
    return best


if __name__ == "__main__":
    main()
