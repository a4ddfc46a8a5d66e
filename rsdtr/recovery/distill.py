"""Distillation without labels: the whole compressed network learns what the dense one answers.

The dense network is the only teacher, unlabelled images with augmentation are the only data. It
teaches its answers (class probabilities at a temperature, Hinton et al. 2015) and the outputs of
its blocks (Romero et al. 2015), end to end and with gradients: what a refit, layer by layer, cannot
trade between layers. Images held out decide whether the result is kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from rsdtr.data.augmentation import augmented
from rsdtr.data.image_sets import LabelledImages, fitting_batch
from rsdtr.data.tensor_images import ImageSource, images_of
from rsdtr.errors import DataError, RsdtrError
from rsdtr.measuring.fidelity import distance_from
from rsdtr.models.outputs import answers, class_logits
from rsdtr.models.run import device_of, fresh_input
from rsdtr.models.surgery import copied
from rsdtr.recovery.block_outputs import block_names, listening, relative_squared_error
from rsdtr.recovery.optimizer import fill_optimizer, optimizer_tensors
from rsdtr.recovery.options import DistillOptions
from rsdtr.recovery.refit import Step
from rsdtr.recovery.training_forms import laid_out_for_training
from rsdtr.system.device import usual_precision

NAME = "distillation"  # of its one step


@dataclass(frozen=True, eq=False)
class DistillBegun:
    """How far a distillation is: so many optimiser steps, and the state that they have led to.

    state: of the network, `model.…`, and of the optimiser, `optimizer.…`. A distillation goes on
    from it, to the bit on one machine's CPU as if it had never been interrupted.
    """

    steps: int
    state: Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class DistillStep:
    """One optimiser step, counted from 1; state: what `begun` may be given, made when called."""

    number: int
    total: int
    loss: float
    learning_rate: float
    state: Callable[[], DistillBegun]


@dataclass(frozen=True, eq=False)
class Distilled:
    """The network after a distillation, and how it was judged.

    model: a copy of what it began as where the judgement is not `kept`; steps: of the optimiser;
    options: as they were used, with the precision that "auto" stood for; device: in torch's words.
    """

    model: nn.Module
    judged: Step
    steps: int
    options: DistillOptions
    device: str

    @property
    def told(self) -> str:
        """What became of it, in one sentence."""
        judged = self.judged
        moved = f"{judged.measure} on held-out images {judged.before:.4f} → {judged.after:.4f}"
        return moved if judged.kept else f"{moved}: not kept, the network is as it was before"


def distill_record(data: str, images: int, found: Distilled) -> dict[str, object]:
    """What a saved model tells about its distillation, JSON-able."""
    judged = asdict(found.judged) | {"kept": found.judged.kept}
    if not math.isfinite(found.judged.after):
        judged["after"] = None
    return {
        "data": data,
        "images": images,
        "options": asdict(found.options),
        "device": found.device,
        "steps": found.steps,
        "judged": judged,
    }


def distill(
    model: nn.Module,
    reference: nn.Module,
    images: ImageSource,
    n: int = 5000,
    *,
    options: DistillOptions | None = None,
    begun: DistillBegun | None = None,
    on_step: Callable[[DistillStep], None] | None = None,
) -> Distilled:
    """A copy of the model that learnt on n unlabelled images what the reference answers.

    reference: the dense network that `model` was compressed from; it is not changed. The loss is
    T²·KL of the class probabilities at temperature T, or, of a network without classes, T² times
    the relative squared error of its answers, and `blocks` times the sum of the relative squared
    errors of its blocks' outputs, see `block_names`. AdamW without decay, one cycle. The result is
    kept only if on the images held out the divergence from the reference (the error of the
    answers) falls. batch_size is of images up to 224×224, fewer of larger ones; images that are no
    pictures but inputs of the network are not augmented. `on_step` is called after every step, and
    a state that it was given, of the same model, reference, images and options, may be given as
    `begun`. What it raises ends the distillation. A loss that is not finite ends it too, and
    nothing is kept.

    DataError for fewer than 3 images; RsdtrError for a model without ring layers, one that has
    nothing to train, or a reference of another structure.
    """
    asked = options or DistillOptions()
    device = device_of(model)
    if asked.precision == "auto":
        asked = replace(asked, precision=usual_precision(device))
    images = images_of(images)
    if n < 3 or len(images) < 3:
        raise DataError(
            f"a distillation was asked for with {min(n, len(images))} images: give at least 3"
        )
    learnt, judged = held_out_apart(images.subset(n, asked.seed), asked)
    size = fitting_batch(images.spec, asked.batch_size)
    distance = distance_from(reference, judged, size)
    run = _Distillation(copied(model), copied(reference).eval(), learnt, asked, size, on_step)
    after = math.inf
    if run.learn(begun):
        after = distance(run.model)
    step = Step(NAME, distance.measure, distance(model), after)
    return Distilled(run.model if step.kept else copied(model), step, run.total, asked, device.type)


def held_out_apart(
    images: LabelledImages, options: DistillOptions
) -> tuple[LabelledImages, LabelledImages]:
    """The images to learn from, and those that only judge."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(options.seed))
    held = min(max(1, round(options.held_out * len(images))), options.most_held_out)
    return images.select(order[held:]), images.select(order[:held])


def one_cycle(number: int, total: int, highest: float, warm_up: float) -> float:
    """The learning rate of a step, counted from 0, of so many: up from a 25th of the highest, and
    down to almost 0, each along half a cosine.
    """
    rise = max(1, round(warm_up * total))
    if number < rise:
        return highest * (1 + 12 * (1 - math.cos(math.pi * number / rise))) / 25
    return highest * (1 + math.cos(math.pi * (number - rise) / max(1, total - rise))) / 2


class _Distillation:
    """Both networks on their way through the steps; `model` is trained in place."""

    def __init__(
        self,
        model: nn.Module,
        reference: nn.Module,
        images: LabelledImages,
        options: DistillOptions,
        batch_size: int,
        on_step: Callable[[DistillStep], None] | None,
    ) -> None:
        self.model, self.reference, self.images = model, reference, images
        self.options, self.on_step = options, on_step
        self.batch_size = min(batch_size, len(images))
        self.total = options.steps_for(len(images), self.batch_size)
        self.has_classes = images.spec.task == "classification" and images.spec.classes > 1
        self.blocks = block_names(model)
        if not self.blocks:
            raise RsdtrError("the model has no ring layer to distil into: compress it first")
        trained = [p for p in model.parameters() if p.requires_grad]
        if not trained:
            raise RsdtrError("no weight is left to train, all are frozen: requires_grad_(True)")
        self.parameters = trained
        self.optimizer = torch.optim.AdamW(trained, lr=options.lr, weight_decay=0.0)

    def learn(self, begun: DistillBegun | None) -> bool:
        """Take all steps that are left; whether the loss stayed finite."""
        done = 0 if begun is None else self._continue_from(begun)
        with self._ready() as (heard, expected):
            for number in range(done, self.total):
                rate = one_cycle(number, self.total, self.options.lr, self.options.warm_up)
                self.optimizer.param_groups[0]["lr"] = rate
                loss = self._step(number, heard, expected)
                if not math.isfinite(loss):
                    return False
                if self.on_step:
                    state = partial(self._state, number + 1)
                    self.on_step(DistillStep(number + 1, self.total, loss, rate, state))
        return True

    @contextmanager
    def _ready(self) -> Iterator[tuple[dict[str, list[Tensor]], dict[str, list[Tensor]]]]:
        """Inside of the block both networks are laid out to train and tell what their blocks say;
        after it the model has the modes it came with.
        """
        modes = {module: module.training for module in self.model.modules()}
        sample = self._batch(0)[:2].to(device_of(self.model))
        with ExitStack() as prepared:
            for network in (self.model, self.reference):
                prepared.enter_context(laid_out_for_training(network, sample))
            ours = prepared.enter_context(listening(self.model, self.blocks))
            theirs = prepared.enter_context(listening(self.reference, self.blocks))
            self.model.eval()
            yield ours, theirs
        for module, training in modes.items():
            module.training = training

    def _step(
        self, number: int, heard: dict[str, list[Tensor]], expected: dict[str, list[Tensor]]
    ) -> float:
        """One optimiser step, counted from 0; its loss."""
        self._set_norms(number)
        pixels = self._batch(number).to(device_of(self.model))
        heard.clear()
        expected.clear()
        with torch.no_grad():
            wanted = self._answers(self.reference, pixels)
        found = self._answers(self.model, pixels)
        loss = self._answer_loss(wanted, found) + self.options.blocks * self._block_loss(
            expected, heard
        )
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, self.options.clip)
        self.optimizer.step()
        return float(loss.detach())

    def _set_norms(self, number: int) -> None:
        """BatchNorm takes the statistics of its batches for the first part of the steps."""
        follows = number < self.options.moving_norms * self.total
        for module in self.model.modules():
            if isinstance(module, _BatchNorm):
                module.train(follows)

    def _answers(self, network: nn.Module, pixels: Tensor) -> Tensor:
        """Logits (B, classes), or all numbers (B, N) where there are no classes, in float32."""
        mixed = self.options.precision == "bfloat16"
        with torch.autocast(pixels.device.type, torch.bfloat16, enabled=mixed):
            if not self.has_classes:
                return answers(network, pixels).float()
            answer = network(fresh_input(network, pixels))
        return class_logits(answer, len(pixels), self.images.spec.classes).float()

    def _answer_loss(self, wanted: Tensor, found: Tensor) -> Tensor:
        temperature = self.options.temperature
        if not self.has_classes:
            return temperature**2 * relative_squared_error(wanted, found)
        divergence = F.kl_div(
            F.log_softmax(found / temperature, 1),
            F.log_softmax(wanted / temperature, 1),
            reduction="batchmean",
            log_target=True,
        )
        return temperature**2 * divergence

    def _block_loss(
        self, wanted: dict[str, list[Tensor]], found: dict[str, list[Tensor]]
    ) -> Tensor:
        errors = [
            relative_squared_error(theirs, ours)
            for name in found
            for theirs, ours in zip(wanted[name], found[name], strict=True)
        ]
        return torch.stack(errors).sum() if errors else torch.zeros(())

    def _batch(self, number: int) -> Tensor:
        """The augmented images (B, C, H, W) of a step, which its number alone decides."""
        each = max(1, len(self.images) // self.batch_size)
        turn, place = divmod(number, each)
        order = torch.randperm(len(self.images), generator=self._generator(turn, 0))
        part = self.images.select(order[place * self.batch_size : (place + 1) * self.batch_size])
        pixels, _ = next(part.batches(self.batch_size), (None, None))
        if pixels is None:
            raise DataError(f"none of {len(part)} pictures of {part.name} could be read")
        how = "none" if self.images.are_inputs else self.options.augment
        return augmented(pixels, how, self._generator(number, 1))

    def _generator(self, number: int, what: int) -> torch.Generator:
        return torch.Generator().manual_seed((self.options.seed << 33) + (number << 1) + what)

    def _state(self, steps: int) -> DistillBegun:
        state = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        moments = optimizer_tensors(self.optimizer)
        state |= {f"optimizer.{name}": value for name, value in moments.items()}
        return DistillBegun(steps, state)

    def _continue_from(self, begun: DistillBegun) -> int:
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "optimizer": {}}
        for name, value in begun.state.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = value
        self.model.load_state_dict(parts["model"])
        fill_optimizer(self.optimizer, parts["optimizer"])
        return begun.steps
