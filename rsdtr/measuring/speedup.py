"""How many times faster a network gets, and the smallest ε_p that makes it so much faster."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from rsdtr.compressed.compress import compress
from rsdtr.compressed.fuse import fuse
from rsdtr.errors import PlanError
from rsdtr.measuring.fastest_forms import measured_forms, use_forms
from rsdtr.measuring.stopwatch import eager, interleaved, thread_count
from rsdtr.models.run import fresh_input
from rsdtr.models.surgery import copied
from rsdtr.planning.choices import Choices
from rsdtr.planning.model_profile import ModelProfile
from rsdtr.planning.plan import CompressionPlan
from rsdtr.typing import Progress

TRIED = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_RUNS, _SECONDS = 15, 10.0


@dataclass(frozen=True, eq=False)
class Speedup:
    """A plan whose forms were measured, the network that it makes, and what that reaches.

    speedup: best time of the dense network over that of the compressed one, both fused and
    channels-last, in eager torch for a batch as large as the inputs, on so many threads.
    """

    plan: CompressionPlan
    network: nn.Module
    speedup: float
    batch: int
    threads: int


def reach_speedup(
    net: nn.Module,
    costs: ModelProfile,
    choices: Choices,
    wanted: float,
    images: Tensor,
    progress: Progress | None = None,
) -> Speedup:
    """The network at the smallest of a few ε_p at which it runs `wanted` times as fast as the best
    dense one, by halving.

    Of rings those with fewest multiplications are taken, unless `choices` has another objective,
    each in the form that is fastest on this machine. images: (B, C, H, W), what is timed. progress:
    (ε_p tried, ε_p to try at most). PlanError with what the largest ε_p reaches where that is less.
    """
    threads = torch.get_num_threads()
    tries = len(TRIED).bit_length()
    low, high = 0, len(TRIED) - 1
    best = _at(net, costs, choices, TRIED[high], images, threads)
    if best.speedup < wanted:
        raise PlanError(
            f"{costs.model} gets {best.speedup:.2f} times as fast at ε_p {TRIED[high]:g} in eager "
            f"torch on this machine, for {len(images)} input{'s' * (len(images) > 1)} and "
            f"{threads} thread{'s' * (threads > 1)}, and {wanted:g} was asked for: ask for less, "
            "or take another engine"
        )
    done = 1
    while low < high:
        if progress:
            progress(done, tries)
        middle = (low + high) // 2
        found = _at(net, costs, choices, TRIED[middle], images, threads)
        if found.speedup >= wanted:
            best, high = found, middle
        else:
            low = middle + 1
        done += 1
    if progress:
        progress(tries, tries)
    return best


def _at(
    net: nn.Module, costs: ModelProfile, choices: Choices, eps: float, images: Tensor, threads: int
) -> Speedup:
    asked = replace(choices, eps=eps, target=None, objective=choices.objective or "macs")
    decided = measured_forms(asked.decide(costs), costs, batch=len(images), threads=threads)
    small = compress(net, decided)
    use_forms(small, decided)
    ran = {"dense": fuse(copied(net)), "small": fuse(small)}
    works = {}
    for name, network in ran.items():
        network.to(memory_format=torch.channels_last)
        run, given = eager(network), fresh_input(network, images)
        works[name] = lambda run=run, given=given: run(given.clone())
    with thread_count(threads):
        spread = interleaved(works, runs=_RUNS, seconds=_SECONDS)
    speedup = spread["dense"].best_ms / spread["small"].best_ms
    return Speedup(decided, small, speedup, len(images), threads)
