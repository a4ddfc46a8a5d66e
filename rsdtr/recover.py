"""Winning accuracy back: BatchNorm statistics without gradients, and fine-tuning with them."""

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from rsdtr.data import DataSplits, LabelledImages
from rsdtr.errors import DataError, RsdtrError
from rsdtr.evaluate import Accuracy, accuracy, device_of

AUGMENTS = ("none", "crop", "crop+flip")


def recalibrate(
    model: nn.Module,
    images: LabelledImages,
    n: int = 2000,
    *,
    reference: nn.Module | None = None,
    batch_size: int = 200,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> nn.Module:
    """A copy of the model whose BatchNorm statistics are those of n unlabelled images.

    The statistics are the plain average over batches (momentum None); nothing else changes and
    no gradient is taken. reference: the dense network that `model` was made from. Its statistics
    come from training, on augmented images, and these n have others; with it, each mean is moved by
    as much, and each variance scaled by as much, as compression moves and scales them on the same
    images. A model without BatchNorm comes back as a copy. `progress` gets (seen, all) images.
    Raises DataError when n is below 2, RsdtrError when batch_size is, or when the reference is
    another network.
    """
    if n < 2 or len(images) < 2:
        raise DataError(
            f"recalibration was asked for with {min(n, len(images))} images: give at least 2"
        )
    if batch_size < 2:
        raise RsdtrError(f"recalibrate got batch_size={batch_size}: give at least 2")
    model = copy.deepcopy(model)
    norms = norms_of(model)
    if not norms:
        return model
    chosen = images.subset(n, seed)
    everything = len(chosen) * (1 if reference is None else 2)

    def show(seen: int) -> None:
        if progress:
            progress(seen, everything)

    if reference is None:
        _take_statistics(model, chosen, batch_size, seed, show)
        return model
    trained = norms_of(reference)
    if [norm.num_features for norm in trained] != [norm.num_features for norm in norms]:
        raise RsdtrError(
            "recalibrate was given a reference with other BatchNorm layers than the model: give "
            "the dense network that the model was compressed from"
        )
    here = copy.deepcopy(reference)
    _take_statistics(here, chosen, batch_size, seed, show)
    _take_statistics(model, chosen, batch_size, seed, lambda seen: show(len(chosen) + seen))
    for norm, before, own in zip(norms, norms_of(here), trained, strict=True):
        mean, variance = _statistics(norm)
        dense_mean, dense_variance = _statistics(before)
        own_mean, own_variance = _statistics(own)
        mean += own_mean - dense_mean
        variance *= own_variance / dense_variance.clamp_min(norm.eps)
    return model


def _statistics(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return norm.running_mean, norm.running_var


def norms_of(model: nn.Module) -> list[_BatchNorm]:
    """The BatchNorm layers that keep statistics, in the order of the modules."""
    return [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]


def _take_statistics(
    model: nn.Module,
    chosen: LabelledImages,
    batch_size: int,
    seed: int,
    show: Callable[[int], None],
) -> None:
    """Give every BatchNorm of `model`, in place, the average statistics of these images."""
    norms = norms_of(model)
    modes = {module: module.training for module in model.modules()}
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    device, seen = device_of(model), 0
    # Shuffled: folders come class by class, and a batch of one class has too small a variance.
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for pixels, labels in chosen.batches(batch_size, generator):
            if len(labels) > 1:  # a single picture has no variance in layers of 1×1 pixels
                model(pixels.to(device))
            seen += len(labels)
            show(seen)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    for module, training in modes.items():
        module.training = training


@dataclass(frozen=True)
class FinetuneOptions:
    """How to fine-tune: SGD with momentum under OneCycle, whose highest learning rate is `lr`.

    augment: "none", "crop" (shift by up to 1/8 of the side) or "crop+flip" (and mirror; not for
    digits or letters). clip: the largest gradient norm. Raises RsdtrError for impossible values.
    """

    epochs: int = 3
    lr: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch_size: int = 64
    label_smoothing: float = 0.0
    augment: str = "crop"
    clip: float = 5.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 2), ("seed", 0)):
            if getattr(self, name) < least:
                raise RsdtrError(f"{name} is {getattr(self, name)}: give at least {least}")
        for name in ("lr", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise RsdtrError(f"{name} is {getattr(self, name)}: give a number above 0")
        for name in ("momentum", "weight_decay", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise RsdtrError(f"{name} is {getattr(self, name)}: give a number in 0 ≤ x < 1")
        if self.augment not in AUGMENTS:
            raise RsdtrError(f"augment is {self.augment!r}: give one of {', '.join(AUGMENTS)}")


@dataclass(frozen=True)
class EpochResult:
    """One finished epoch (counted from 1): mean training loss, validation accuracy, wall time.

    learning_rate is the last one used; best says that no epoch so far was better.
    """

    epoch: int
    epochs: int
    train_loss: float
    validation: Accuracy
    learning_rate: float
    seconds: float
    best: bool


def finetune(
    model: nn.Module,
    data: DataSplits,
    options: FinetuneOptions | None = None,
    *,
    should_stop: Callable[[], bool] = lambda: False,
    on_step: Callable[[int, int, float], None] | None = None,
) -> Iterator[EpochResult]:
    """Trains `model` in place, on the device it is on, yielding after every epoch.

    When the generator ends, is closed or fails, the model holds the epoch with the best
    validation accuracy (the last of equals; the weights it came with when no epoch was
    finished) in the mode it came in. data.test is never looked at. `should_stop` is asked before
    every step; `on_step` gets (step, all steps, loss). The same seed on the same machine gives
    the same weights; torch's global random state is left alone.
    Raises DataError for fewer than 2 training images, RsdtrError when the loss is not finite.
    """
    options = options or FinetuneOptions()
    if len(data.train) < 2 or len(data.validation) < 1:
        raise DataError(
            f"fine-tuning was given {len(data.train)} training and {len(data.validation)} "
            "validation images: give at least 2 and 1"
        )
    return _Run(model, data, options, should_stop, on_step).epochs()


class _Run:
    """The state that the epochs of one fine-tuning share."""

    def __init__(
        self,
        model: nn.Module,
        data: DataSplits,
        options: FinetuneOptions,
        should_stop: Callable[[], bool],
        on_step: Callable[[int, int, float], None] | None,
    ) -> None:
        self.model, self.data, self.options = model, data, options
        self.should_stop, self.on_step = should_stop, on_step
        self.generator = torch.Generator().manual_seed(options.seed)
        full, last = divmod(len(data.train), options.batch_size)
        # BatchNorm cannot learn from a last batch of one picture; it is left out.
        self.steps = options.epochs * (full + (last > 1))
        self.step = 0
        self.optimizer = torch.optim.SGD(
            model.parameters(),
            lr=options.lr,
            momentum=options.momentum,
            weight_decay=options.weight_decay,
        )
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, options.lr, total_steps=max(self.steps, 2), cycle_momentum=False
        )

    def epochs(self) -> Iterator[EpochResult]:
        modes = {module: module.training for module in self.model.modules()}
        best, best_percent = copy.deepcopy(self.model.state_dict()), -1.0
        try:
            for epoch in range(1, self.options.epochs + 1):
                start = time.perf_counter()
                loss = self._epoch(epoch)
                if loss is None:
                    return
                reached = accuracy(self.model, self.data.validation)
                is_best = reached.percent >= best_percent
                if is_best:
                    best, best_percent = copy.deepcopy(self.model.state_dict()), reached.percent
                yield EpochResult(
                    epoch=epoch,
                    epochs=self.options.epochs,
                    train_loss=loss,
                    validation=reached,
                    learning_rate=self.learning_rate,
                    seconds=time.perf_counter() - start,
                    best=is_best,
                )
        finally:
            self.model.load_state_dict(best)
            for module, training in modes.items():
                module.training = training

    def _epoch(self, epoch: int) -> float | None:
        """The mean loss over the epoch's images; None when it was told to stop."""
        device = device_of(self.model)
        devices = [device] if device.type == "cuda" else []
        self.model.train()
        total, seen = 0.0, 0
        # Dropout draws from the global state: give it its own for as long as the epoch lasts.
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(self.options.seed + epoch)
            for pixels, labels in self.data.train.batches(self.options.batch_size, self.generator):
                if len(labels) < 2:
                    continue
                if self.should_stop():
                    return None
                loss = self._learn(self._augmented(pixels).to(device), labels.to(device))
                total, seen = total + loss * len(labels), seen + len(labels)
        return total / seen

    def _learn(self, pixels: Tensor, labels: Tensor) -> float:
        self.learning_rate = float(self.schedule.get_last_lr()[0])
        logits = self.model(pixels)  # (B, classes)
        loss = F.cross_entropy(logits, labels, label_smoothing=self.options.label_smoothing)
        value = loss.item()
        if not math.isfinite(value):
            raise RsdtrError(
                f"the loss became {value} at step {self.step + 1} of {self.steps}: "
                f"give a learning rate below {self.options.lr:g}"
            )
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.options.clip)
        self.optimizer.step()
        self.step += 1
        if self.step < self.steps:
            self.schedule.step()
        if self.on_step:
            self.on_step(self.step, self.steps, value)
        return value

    def _augmented(self, pixels: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape, every picture shifted and mirrored by its own draw."""
        if self.options.augment == "none":
            return pixels
        batch, _, height, width = pixels.shape
        reach_y, reach_x = height // 8, width // 8
        # The border is repeated: black would be an edge that no real picture has.
        padded = F.pad(pixels, (reach_x, reach_x, reach_y, reach_y), mode="replicate")
        top = torch.randint(2 * reach_y + 1, (batch, 1), generator=self.generator)
        left = torch.randint(2 * reach_x + 1, (batch, 1), generator=self.generator)
        columns = torch.arange(width).expand(batch, width)
        if self.options.augment == "crop+flip":
            mirror = torch.rand(batch, 1, generator=self.generator) < 0.5
            columns = torch.where(mirror, columns.flip(1), columns)
        rows, columns = torch.arange(height) + top, columns + left  # (B, H), (B, W)
        numbers = torch.arange(batch)[:, None, None]
        picked = padded[numbers, :, rows[:, :, None], columns[:, None, :]]  # (B, H, W, C)
        return picked.permute(0, 3, 1, 2).contiguous()
