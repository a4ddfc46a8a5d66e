"""Fine-tuning a network from the weights it has, resumable to the bit on one machine's CPU."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rsdtr.data.augmentation import augmented
from rsdtr.data.datasets import DataSplits
from rsdtr.errors import DataError, RsdtrError
from rsdtr.measuring.accuracy import accuracy
from rsdtr.models.run import device_of
from rsdtr.models.surgery import copied
from rsdtr.recovery.accelerator import accelerator_on, average_buffers
from rsdtr.recovery.checkpoint import (
    Checkpoint,
    EpochResult,
    Record,
    check_same_training,
    read_checkpoint,
    training_identity,
    write_checkpoint,
)
from rsdtr.recovery.optimizer import (
    dense_parameters,
    fill_optimizer,
    optimizer_of,
    optimizer_tensors,
)
from rsdtr.recovery.options import FinetuneOptions
from rsdtr.recovery.training_forms import laid_out_for_training
from rsdtr.recovery.training_step import Learner
from rsdtr.system.state_file import stored


@dataclass(frozen=True)
class Step:
    """One optimiser step, counted from 1 over all epochs: its loss and its learning rate."""

    number: int
    total: int
    loss: float
    learning_rate: float


def finetune(
    model: nn.Module,
    data: DataSplits,
    options: FinetuneOptions | None = None,
    *,
    teacher: nn.Module | None = None,
    checkpoint: Path | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    on_step: Callable[[Step], None] | None = None,
) -> Iterator[EpochResult]:
    """Trains `model` in place, on the device it is on, yielding after every epoch.

    When the generator ends, is closed or fails, the model holds the epoch with the best
    validation accuracy (the last of equals) in the mode it came in, or the weights it came with
    where no epoch was finished or none was as good: it never ends worse than it began. data.test
    is never looked at. `should_stop` is asked before every step. The same seed on the same machine
    gives the same weights; torch's global random state is left alone. teacher: the original
    network, for options.distill; it is not changed.

    checkpoint: a file that is written after every epoch. If it is there already, from a training
    of the same start with the same data and options, that training goes on: its finished epochs
    are yielded again at once, and what follows is what would have followed.

    In a group of processes (see `accelerator.processes`) each decodes and computes its part of
    every batch, all end with the same weights, and the first one writes the checkpoint.

    Raises DataError for fewer than 2 training images, or none with labels; RsdtrError when the loss
    is not finite, no teacher is there to distill from, nothing is left to train, or the checkpoint
    belongs to another training or cannot be written.
    """
    options = options or FinetuneOptions()
    if len(data.train) < 2 or len(data.validation) < 1:
        raise DataError(
            f"fine-tuning was given {len(data.train)} training and {len(data.validation)} "
            "validation images: give at least 2 and 1"
        )
    data.train.check_labelled("fine-tuning")
    if options.distill > 0 and teacher is None:
        raise RsdtrError(
            f"distill is {options.distill:g} and there is no teacher: give the original network"
        )
    run = Run(model, data, options, teacher, on_step, should_stop)
    identity = training_identity(model, data, options, teacher) if checkpoint else ""
    return run.epochs(checkpoint, identity)


class Run:
    """The state that the epochs of one fine-tuning share."""

    def __init__(
        self,
        model: nn.Module,
        data: DataSplits,
        options: FinetuneOptions,
        teacher: nn.Module | None = None,
        on_step: Callable[[Step], None] | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.model, self.data, self.options = model, data, options
        self.should_stop, self.on_step = should_stop, on_step
        self.teacher = copied(teacher).eval() if teacher and options.distill else None
        self.average = copied(model) if options.ema else None
        self.generator = torch.Generator().manual_seed(options.seed)
        self.accelerator = accelerator_on(device_of(model), options.precision)
        full, last = divmod(len(data.train), options.batch_size)
        # BatchNorm cannot learn from a last batch of one picture a process; it is left out.
        self.steps = options.epochs * (full + (last >= 2 * self.accelerator.num_processes))
        self.step = 0
        self.results: list[EpochResult] = []
        self.best, self.best_percent, self.stale = copy.deepcopy(model.state_dict()), -1.0, 0
        self.frozen = dense_parameters(model) if options.freeze_dense else []
        skipped = {id(parameter) for parameter in self.frozen}
        trained = [
            p for p in model.parameters() if p.requires_grad and id(p) not in skipped
        ]  # fmt: skip
        if not trained:
            raise RsdtrError(
                "no weight is left to train: the network has no rings, leave freeze_dense out"
                if options.freeze_dense
                else "no weight is left to train, all are frozen: network.requires_grad_(True)"
            )
        self.optimizer = optimizer_of(trained, options)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, options.lr, total_steps=max(self.steps, 2), cycle_momentum=False
        )
        self.learner = Learner(
            model, self.teacher, self.optimizer, options, data.train.spec.classes, self.accelerator
        )

    def epochs(self, checkpoint: Path | None, identity: str) -> Iterator[EpochResult]:
        with self.ready():
            if checkpoint is not None and (found := read_checkpoint(checkpoint)):
                check_same_training(found, identity, checkpoint)
                self._continue_from(found)
                yield from tuple(self.results)
            elif not self.should_stop():
                self.best_percent = accuracy(self.model, self.data.validation).percent
            while len(self.results) < self.options.epochs and not self._is_idle:
                start = time.perf_counter()
                loss = self._epoch(len(self.results) + 1)
                if loss is None:
                    return
                self._measure(loss, start)
                if checkpoint is not None and self.accelerator.is_main_process:
                    write_checkpoint(checkpoint, self._state(identity))
                yield self.results[-1]

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Inside of the block the networks can take steps; after it the model is the best epoch's.

        It has its modes and its forms back then.
        """
        modes = {module: module.training for module in self.model.modules()}
        images = next(self.data.train.select(slice(0, 2)).batches(2))[0].to(device_of(self.model))
        for parameter in self.frozen:
            parameter.requires_grad_(False)
        try:
            with ExitStack() as laid_out:
                for network in (self.model, self.teacher, self.average):
                    if network is not None:
                        laid_out.enter_context(laid_out_for_training(network, images))
                self.learner.prepare()
                yield
        finally:
            self.model.load_state_dict(self.best)
            for parameter in self.frozen:
                parameter.requires_grad_(True)
            for module, training in modes.items():
                module.training = training

    @property
    def _is_idle(self) -> bool:
        return 0 < self.options.patience <= self.stale

    def _measure(self, loss: float, start: float) -> None:
        measured = self.model if self.average is None else self.average
        reached = accuracy(measured, self.data.validation)
        is_best = reached.percent >= self.best_percent
        self.stale = 0 if reached.percent > self.best_percent else self.stale + 1
        if is_best:
            self.best, self.best_percent = copy.deepcopy(measured.state_dict()), reached.percent
        self.results.append(
            EpochResult(
                epoch=len(self.results) + 1,
                epochs=self.options.epochs,
                train_loss=loss,
                validation=reached,
                learning_rate=self.learning_rate,
                seconds=time.perf_counter() - start,
                best=is_best,
            )
        )

    def _epoch(self, epoch: int) -> float | None:
        """The mean loss over the epoch's images; None when it was told to stop."""
        device = device_of(self.model)
        devices = [device] if device.type == "cuda" else []
        self.training_mode()
        total, seen = 0.0, 0.0
        # Dropout draws from the global state: give it its own for as long as the epoch lasts.
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(self.options.seed + epoch)
            for pixels, labels, share in self.batches(device):
                if self.should_stop():
                    return None
                loss, weight = self.learn(pixels, labels, share), len(labels) / share
                total, seen = total + loss * weight, seen + weight
        average_buffers(self.accelerator, self.model)
        return total / seen

    def batches(self, device: torch.device) -> Iterator[tuple[Tensor, Tensor, float]]:
        """This process's part of every batch of an epoch, augmented, with its share for `learn`."""
        here, count = self.accelerator.process_index, self.accelerator.num_processes
        size, left = self.options.batch_size, len(self.data.train)
        for pixels, labels in self.data.train.batches(size, self.generator, (here, count)):
            whole = min(size, left) if count > 1 else len(labels)
            left -= size
            if whole < 2 * count:  # BatchNorm cannot learn from one picture
                continue
            first = here * (whole // count) + min(here, whole % count)
            pixels = augmented(
                pixels.to(device), self.options.augment, self.generator, first, whole
            )
            yield pixels, labels.to(device), len(labels) * count / whole

    def training_mode(self) -> None:
        """Training mode, but for what keeps its statistics."""
        self.model.train()
        if self.options.freeze_bn:
            for module in self.model.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()

    def learn(self, pixels: Tensor, labels: Tensor, share: float = 1.0) -> float:
        """One optimiser step on pictures that are augmented already; arguments as of `Learner`."""
        rate = float(self.schedule.get_last_lr()[0])
        value = self.learner.take(pixels, labels, share)
        if not math.isfinite(value):
            raise RsdtrError(
                f"the loss became {value} at step {self.step + 1} of {self.steps}: "
                f"give a learning rate below {self.options.lr:g}"
            )
        self.learning_rate = rate
        self.step += 1
        if self.step < self.steps:
            self.schedule.step()
        if self.average is not None:
            self._take_average(self.average)
        if self.on_step:
            self.on_step(Step(self.step, self.steps, value, self.learning_rate))
        return value

    def _take_average(self, average: nn.Module) -> None:
        # Early averages would remember the start: the decay grows to its value with the steps.
        decay = min(self.options.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            now = self.model.state_dict()
            # A tensor of several names moves once; what a module says beside them stays its own.
            for name, value in stored(average.state_dict()).tensors.items():
                if name not in now:
                    continue
                if value.is_floating_point():
                    value.lerp_(now[name], 1 - decay)
                else:
                    value.copy_(now[name])

    def _state(self, identity: str) -> Checkpoint:
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in self.best.items()}
        if self.average is not None:
            state = self.average.state_dict()
            tensors |= {f"average.{name}": value for name, value in state.items()}
        moments = optimizer_tensors(self.optimizer)
        tensors |= {f"optimizer.{name}": value for name, value in moments.items()}
        tensors["generator"] = self.generator.get_state()
        record = Record(
            identity=identity,
            step=self.step,
            epochs=tuple(self.results),
            best=self.best_percent,
            stale=self.stale,
            rates=tuple(float(group["lr"]) for group in self.optimizer.param_groups),
            schedule=self.schedule.state_dict(),
        )
        return Checkpoint(record, tensors)

    def _continue_from(self, found: Checkpoint) -> None:
        record = found.record
        self.model.load_state_dict(found.part("model"))
        self.best = found.part("best")
        if self.average is not None:
            self.average.load_state_dict(found.part("average"))
        fill_optimizer(self.optimizer, found.part("optimizer"), record.rates)
        self.schedule.load_state_dict(dict(record.schedule))
        self.generator.set_state(found.tensors["generator"])
        self.step, self.results = record.step, list(record.epochs)
        self.best_percent, self.stale = record.best, record.stale
