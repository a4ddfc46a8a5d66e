"""How to fine-tune and how to refit: the choices of one run, checked when they are made."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from rsdtr.errors import RsdtrError

AUGMENTS = ("none", "crop", "crop+flip")
OPTIMIZERS = ("sgd", "adamw")
PRECISIONS = ("float32", "bfloat16", "float16")
USUAL_LR = {"sgd": 0.02, "adamw": 0.002}


@dataclass(frozen=True)
class FinetuneOptions:
    """How to fine-tune, under a one-cycle schedule whose highest learning rate is `lr`.

    optimizer: "sgd", with `momentum`, or "adamw", for which lr is usually 0.002.
    augment: "none", "crop" (shift by up to 1/8 of the side) or "crop+flip" (and mirror; not for
    digits or letters). clip: the largest gradient norm. distill: the weight, 0 to 1, of the
    original network's answers at `temperature` beside the labels' cross-entropy. ema: decay per
    step of averaged weights, which are then what is measured and kept; 0 is none. freeze_bn:
    BatchNorm keeps its statistics. freeze_dense: convolutions and linear layers that are no rings
    keep their weights. patience: stop after so many epochs in a row without a higher validation
    accuracy; 0 is never. accumulate: the parts that the gradient of one batch is computed in, to
    save memory. precision: "float32", or "bfloat16" or, on a GPU, "float16" for what torch's
    autocast computes in it, with weights, statistics and loss in float32. Raises RsdtrError
    for impossible values.
    """

    epochs: int = 3
    lr: float = USUAL_LR["sgd"]
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch_size: int = 64
    label_smoothing: float = 0.0
    augment: str = "crop"
    clip: float = 5.0
    seed: int = 0
    optimizer: str = "sgd"
    distill: float = 0.0
    temperature: float = 4.0
    ema: float = 0.0
    freeze_bn: bool = False
    freeze_dense: bool = False
    patience: int = 0
    accumulate: int = 1
    precision: str = "float32"

    def __post_init__(self) -> None:
        for name, least in (
            ("epochs", 1), ("batch_size", 2), ("seed", 0), ("patience", 0), ("accumulate", 1),
        ):  # fmt: skip
            if getattr(self, name) < least:
                raise RsdtrError(f"{name} is {getattr(self, name)}: give at least {least}")
        for name in ("lr", "clip", "temperature"):
            if not 0 < getattr(self, name) < math.inf:
                raise RsdtrError(f"{name} is {getattr(self, name)}: give a number above 0")
        for name in ("momentum", "weight_decay", "label_smoothing", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise RsdtrError(f"{name} is {getattr(self, name)}: give a number in 0 ≤ x < 1")
        if not 0 <= self.distill <= 1:
            raise RsdtrError(f"distill is {self.distill}: give a weight in 0 ≤ x ≤ 1")
        for name, known in (
            ("augment", AUGMENTS), ("optimizer", OPTIMIZERS), ("precision", PRECISIONS),
        ):  # fmt: skip
            if getattr(self, name) not in known:
                raise RsdtrError(
                    f"{name} is {getattr(self, name)!r}: give one of {', '.join(known)}"
                )


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


@dataclass(frozen=True)
class DistillOptions:
    """How to distil without labels.

    steps: of the optimiser; 0 is 400, or as many as go two and a half times through the images
    where that is more. lr: the highest learning rate, reached after the part `warm_up` of the
    steps. temperature: T of the class probabilities; blocks: the weight of the blocks' errors;
    augment: as in `FinetuneOptions`; clip: the largest gradient norm; moving_norms: for which part
    of the steps, from the first, BatchNorm follows the statistics of its batches, before it keeps
    them; held_out: the part of the images that only judges, at most `most_held_out` of them;
    precision: as in `FinetuneOptions`, or "auto", see `usual_precision`. Raises RsdtrError for
    impossible values.
    """

    steps: int = 0
    lr: float = 2e-3
    warm_up: float = 0.2
    batch_size: int = 128
    temperature: float = 4.0
    blocks: float = 3.0
    augment: str = "crop+flip"
    clip: float = 5.0
    moving_norms: float = 0.5
    held_out: float = 0.1
    most_held_out: int = 1000
    precision: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("steps", 0), ("batch_size", 2), ("most_held_out", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise RsdtrError(f"{name} is {getattr(self, name)}: give at least {least}")
        for name in ("lr", "temperature", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise RsdtrError(f"{name} is {getattr(self, name)}: give a number above 0")
        if not 0 <= self.blocks < math.inf:
            raise RsdtrError(f"blocks is {self.blocks}: give a number of at least 0")
        if not 0 <= self.moving_norms <= 1:
            raise RsdtrError(f"moving_norms is {self.moving_norms}: give a number in 0 ≤ x ≤ 1")
        for name in ("held_out", "warm_up"):
            if not 0 < getattr(self, name) < 1:
                raise RsdtrError(f"{name} is {getattr(self, name)}: give a number in 0 < x < 1")
        for name, known in (("augment", AUGMENTS), ("precision", ("auto", *PRECISIONS))):
            if getattr(self, name) not in known:
                raise RsdtrError(
                    f"{name} is {getattr(self, name)!r}: give one of {', '.join(known)}"
                )

    def steps_for(self, images: int, batch_size: int) -> int:
        """How many steps are taken on so many images."""
        return self.steps or max(400, math.ceil(2.5 * images / batch_size))
