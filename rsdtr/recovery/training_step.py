"""One optimiser step of a fine-tuning: its loss, its gradients, and what becomes of the weights."""

from __future__ import annotations

import math
from contextlib import nullcontext

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional as F

from rsdtr.errors import RsdtrError
from rsdtr.models.outputs import class_logits
from rsdtr.models.run import fresh_input
from rsdtr.recovery.options import FinetuneOptions

_FULL = ("out of memory", "can't allocate memory")  # as torch words it, on GPUs and on the CPU


class Learner:
    """What takes the gradient of a batch, in parts and together with other processes.

    `take` is what an optimiser step is; between `prepare` and the end of a training the weights are
    those of `model`, which nothing is wrapped around.
    """

    def __init__(
        self,
        model: nn.Module,
        teacher: nn.Module | None,
        optimizer: torch.optim.Optimizer,
        options: FinetuneOptions,
        classes: int,
        accelerator: Accelerator,
    ) -> None:
        self.model, self.teacher, self.options = model, teacher, options
        self.classes, self.accelerator = classes, accelerator
        self._answers: nn.Module = _Answers(model)
        self._optimizer = optimizer

    def prepare(self) -> None:
        """Once all that trains is chosen: processes agree on what they send each other."""
        self._answers, self._optimizer = self.accelerator.prepare(self._answers, self._optimizer)

    def take(self, pixels: Tensor, labels: Tensor, share: float = 1.0) -> float:
        """One optimiser step on (B, C, H, W) pictures and (B,) labels; the mean loss.

        share: of this process in the batch, 1 where the shares of all are equal. RsdtrError where
        the memory does not suffice.
        """
        try:
            value = self._gradients(pixels, labels, share)
        except RuntimeError as error:
            if not any(words in str(error) for words in _FULL):
                raise
            fits = max(2, len(labels) // 2)
            raise RsdtrError(
                f"a step on {len(labels)} pictures does not fit into the memory of "
                f"{pixels.device}: give a batch size of {fits}, or accumulate "
                f"{2 * self.options.accumulate}"
            ) from error
        if math.isfinite(value):
            trained = [p for p in self.model.parameters() if p.grad is not None]
            self.accelerator.clip_grad_norm_(trained, self.options.clip)
            self._optimizer.step()
        return value

    def _gradients(self, pixels: Tensor, labels: Tensor, share: float) -> float:
        """The mean loss of all processes; its gradient lies in the weights' `grad`."""
        self._optimizer.zero_grad()
        # Parts of at least two pictures, for BatchNorm.
        count = min(self.options.accumulate, len(labels) // 2)
        parts = list(zip(pixels.tensor_split(count), labels.tensor_split(count), strict=True))
        value = 0.0
        for place, (x, y) in enumerate(parts):
            last = place + 1 == len(parts)
            with nullcontext() if last else self.accelerator.no_sync(self._answers):
                loss = self._loss(x, y) * (share * len(y) / len(labels))
                value += loss.item()
                self.accelerator.backward(loss)
        if self.accelerator.num_processes == 1:
            return value
        told = torch.tensor(value, device=pixels.device)
        return float(self.accelerator.reduce(told, reduction="mean"))

    def _loss(self, pixels: Tensor, labels: Tensor) -> Tensor:
        """(1 − w)·cross-entropy + w·T²·KL(teacher ‖ model) at temperature T (Hinton et al. 2015).

        T² keeps the gradient of the second term as large as that of the first.
        """
        options = self.options
        logits = self._logits(self._answers, self.model, pixels)
        loss = F.cross_entropy(logits, labels, label_smoothing=options.label_smoothing)
        if self.teacher is None:
            return loss
        with torch.no_grad():
            answers = self._logits(self.teacher, self.teacher, pixels)
        divergence = F.kl_div(
            F.log_softmax(logits / options.temperature, 1),
            F.log_softmax(answers / options.temperature, 1),
            reduction="batchmean",
            log_target=True,
        )
        return (1 - options.distill) * loss + options.distill * options.temperature**2 * divergence

    def _logits(self, called: nn.Module, network: nn.Module, pixels: Tensor) -> Tensor:
        """(B, classes) in float32, computed in the precision of the recipe; called: what runs the
        network.
        """
        with self.accelerator.autocast():
            answer = called(fresh_input(network, pixels))
        return class_logits(answer, len(pixels), self.classes).float()


class _Answers(nn.Module):
    """A network inside of a module that accelerate may wrap and rewrite."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> object:
        return self.network(pixels)
