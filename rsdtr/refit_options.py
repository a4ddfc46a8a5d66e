"""How to refit: the choices of one refit, checked when they are made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rsdtr.errors import RsdtrError

Cores = Literal["all", "O"]
# The O core last: it is the only one that sees every output, and ends at its optimum.
SWEEP: dict[str, tuple[int, ...]] = {"all": (1, 2, 3, 0), "O": (0,)}


@dataclass(frozen=True)
class RefitOptions:
    """How to refit.

    cores: `all`, or `O` for the output channels' core and the bias alone; sweeps: how often all
    cores are solved in turn; rounds: how often the targets before a ReLU are set anew; ridge: how
    far to trust the dense kernel rather than the images, see `Moments.with_prior`; held_out: the
    part of the images that only judges; pixels: how many output pixels of an image are looked at;
    batch_size: images; budget: bytes of activations that may be kept. Raises RsdtrError for
    impossible values.
    """

    cores: Cores = "all"
    sweeps: int = 3
    rounds: int = 2
    ridge: float = 1e-3
    held_out: float = 0.2
    pixels: int = 256
    batch_size: int = 100
    budget: float = 2e9
    seed: int = 0

    def __post_init__(self) -> None:
        if self.cores not in SWEEP:
            raise RsdtrError(f"cores is {self.cores!r}: give one of {', '.join(SWEEP)}")
        for name in ("sweeps", "rounds", "pixels", "batch_size"):
            if getattr(self, name) < 1:
                raise RsdtrError(f"{name} is {getattr(self, name)}: give at least 1")
        for name in ("ridge", "budget"):
            if not getattr(self, name) >= 0:
                raise RsdtrError(f"{name} is {getattr(self, name)}: give a number of at least 0")
        if not 0 < self.held_out < 1:
            raise RsdtrError(f"held_out is {self.held_out}: give a number in 0 < x < 1")
