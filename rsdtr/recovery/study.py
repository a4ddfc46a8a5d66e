"""Factors against scratch: is a ring network better fine-tuned from its cores than trained anew?

The paper (arXiv 2405.10802, section 4) fine-tunes from the decomposed factors instead of training
the ring from random cores. Here both happen, side by side: the same architecture, data, recipe and
number of steps, several seeds.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from rsdtr.compressed.compress import compress
from rsdtr.data.datasets import DataSplits
from rsdtr.errors import RsdtrError, first_problem
from rsdtr.measuring.accuracy import Accuracy, accuracy
from rsdtr.planning.plan import CompressionPlan
from rsdtr.recovery.checkpoint import EpochResult
from rsdtr.recovery.finetune import Step, finetune
from rsdtr.recovery.options import FinetuneOptions
from rsdtr.system.atomic_files import replace_file

Start = Literal["factors", "scratch"]
STARTS: tuple[Start, ...] = get_args(Start)


@dataclass(frozen=True)
class StudyRun:
    """One training: where it started, what it reached after each epoch, and on the test images.

    seed: of the shuffling and augmentation, and of the random weights; untrained: validation
    accuracy before the first step; test: of the epoch with the best validation accuracy.
    """

    start: Start
    seed: int
    untrained: Accuracy
    epochs: tuple[EpochResult, ...]
    test: Accuracy


@dataclass(frozen=True)
class Study:
    """All runs of one plan under one recipe; runs are by start, then seed, as they were made."""

    plan: CompressionPlan
    data: str
    options: FinetuneOptions
    runs: tuple[StudyRun, ...] = ()

    def of(self, start: Start) -> tuple[StudyRun, ...]:
        """The runs from one start."""
        return tuple(run for run in self.runs if run.start == start)

    def spread(self, start: Start) -> tuple[float, float]:
        """Mean test accuracy in percent, and its standard deviation over seeds (0 for one)."""
        reached = [run.test.percent for run in self.of(start)]
        return statistics.mean(reached), statistics.stdev(reached) if len(reached) > 1 else 0.0

    @property
    def assumed(self) -> str | None:
        """What the labels of its accuracies take for granted, if anything."""
        return next((run.test.assumed for run in self.runs if run.test.assumed), None)

    def save(self, path: Path) -> None:
        """Write it as JSON, whole or not at all; RsdtrError if that is not possible."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, _STUDY.dump_json(self, indent=1))
        except OSError as error:
            raise RsdtrError(
                f"the study {path} could not be written ({error.strerror or error}): "
                "give another folder"
            ) from error

    @classmethod
    def load(cls, path: Path) -> Study:
        """Read what `save` wrote; RsdtrError if it is not that."""
        try:
            return _STUDY.validate_json(path.read_bytes())
        except OSError as error:
            raise RsdtrError(f"the study {path} cannot be read ({error.strerror})") from error
        except ValidationError as error:
            raise RsdtrError(
                f"{path} is no study: {first_problem(error)}: give another folder, or delete it"
            ) from None


_STUDY = TypeAdapter(Study)


def factors_vs_scratch(
    dense: nn.Module,
    begun: Study,
    data: DataSplits,
    seeds: Sequence[int],
    *,
    should_stop: Callable[[], bool] = lambda: False,
    on_step: Callable[[int, Step], None] | None = None,
) -> Iterator[Study]:
    """Make the runs that `begun` lacks, and yield the study after each of them.

    dense: the network that the plan is for; it is not changed. From scratch, every weight of the
    network is random, as its layers initialise themselves. on_step: called with how many runs are
    done and the step of the one that is being made. A run that is stopped does not count.
    """
    study = begun
    for seed in seeds:
        for start in STARTS:
            if any((run.start, run.seed) == (start, seed) for run in study.runs):
                continue
            note = partial(on_step, len(study.runs)) if on_step else None
            run = _run(dense, study, data, start, seed, should_stop, note)
            if run is None:
                return
            study = replace(study, runs=(*study.runs, run))
            yield study


def from_scratch(model: nn.Module, seed: int) -> None:
    """Give every layer of the model, in place, new random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in model.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()


def _run(
    dense: nn.Module,
    study: Study,
    data: DataSplits,
    start: Start,
    seed: int,
    should_stop: Callable[[], bool],
    on_step: Callable[[Step], None] | None,
) -> StudyRun | None:
    model = compress(dense, study.plan)
    if start == "scratch":
        from_scratch(model, seed)
    untrained = accuracy(model, data.validation)
    options = replace(study.options, seed=seed)
    epochs = tuple(finetune(model, data, options, should_stop=should_stop, on_step=on_step))
    if len(epochs) < options.epochs and not options.patience:
        return None
    return StudyRun(start, seed, untrained, epochs, accuracy(model, data.test))
