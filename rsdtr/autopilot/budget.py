"""What somebody can spare, and what for: the question that the autopilot answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from rsdtr.baselines.benchmark import checked_engines
from rsdtr.data.image_sets import SPLIT_SEED
from rsdtr.errors import RsdtrError
from rsdtr.planning.plan import Target, TargetKind
from rsdtr.recovery.options import FinetuneOptions
from rsdtr.search.candidate import Objective

Purpose = Literal["size", "speed"]
PURPOSES: tuple[Purpose, ...] = get_args(Purpose)
# What a network is brought through without labels, the cheapest first.
Unlabelled = Literal["none", "recalibrate", "refit", "distill-unlabelled"]
UNLABELLED: tuple[Unlabelled, ...] = get_args(Unlabelled)
STEP = 1.15  # ratio of a network over that of the one before


@dataclass(frozen=True)
class Budget:
    """How many percentage points may be lost, for what, and by which means.

    purpose: "size", the fewest parameters, or "speed", the least time in `engine` at `batch`, on
    `threads` threads. recover: the most that a network is brought through without labels; epochs:
    of fine-tuning with labels, where that is not enough. int8: networks are judged, and written, as
    int8 ONNX files. seconds: after so long, if given, the best network so far is the answer.
    layers: as in `plan`; seed: of the split into the half that chooses and the one that reports.
    RsdtrError for impossible values.
    """

    max_drop: float = 1.0
    purpose: Purpose = "size"
    engine: str = "onnxruntime"
    batch: int = 1
    threads: int = 2
    recover: Unlabelled = "refit"
    epochs: int = 0
    int8: bool = False
    seconds: float | None = None
    layers: str | tuple[str, ...] | None = None
    seed: int = SPLIT_SEED

    def __post_init__(self) -> None:
        if not self.max_drop > 0:
            raise RsdtrError(f"max_drop is {self.max_drop}: give a number of points above 0")
        if self.seconds is not None and not self.seconds > 0:
            raise RsdtrError(f"the time is {self.seconds} s: give more than 0")
        for name, value, least in (
            ("epochs", self.epochs, 0), ("batch", self.batch, 1), ("threads", self.threads, 1),
        ):  # fmt: skip
            if value < least:
                raise RsdtrError(f"{name} is {value}: give at least {least}")
        if self.purpose not in PURPOSES:
            raise RsdtrError(f"purpose is {self.purpose!r}: give one of {', '.join(PURPOSES)}")
        if self.recover not in UNLABELLED:
            raise RsdtrError(f"recover is {self.recover!r}: give one of {', '.join(UNLABELLED)}")
        checked_engines([self.engine])
        if self.int8 and self.engine != "onnxruntime":
            raise RsdtrError(
                f"int8 was asked for in {self.engine}, and its files run in onnxruntime: ask for "
                "that engine"
            )

    @property
    def objective(self) -> Objective:
        """What the choice among the rings of a layer makes small."""
        return "storage" if self.purpose == "size" else "macs"

    def target(self, ratio: float) -> Target:
        """The network that is smaller by so much, in what the purpose counts."""
        kind: TargetKind = "pcr" if self.purpose == "size" else "fcr"
        return Target(kind=kind, value=round(ratio, 2))

    @property
    def training(self) -> FinetuneOptions | None:
        """How networks are fine-tuned; None where they are not."""
        if not self.epochs:
            return None
        return FinetuneOptions(epochs=self.epochs, lr=0.02, batch_size=128, distill=0.5)
