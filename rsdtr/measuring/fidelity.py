"""How well a compressed network answers as the dense one does, where nobody labelled the images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rsdtr.compressed.fuse import merged
from rsdtr.data.image_sets import LabelledImages, fitting_batch
from rsdtr.data.tensor_images import ImageSource, images_of
from rsdtr.errors import DataError, RsdtrError
from rsdtr.measuring.accuracy import Z95, wilson
from rsdtr.measuring.picture_quality import psnr, restored
from rsdtr.models.outputs import (
    Boxes,
    answers,
    chooses_boxes,
    class_logits,
    detections,
    in_rows,
    tensors,
)
from rsdtr.models.run import evaluating, fresh_input


class Divergence:
    """The mean KL divergence, in nats, from a reference network on the same unlabelled images.

    Called with a network that tells classes apart, see `outputs.class_logits`; the largest number
    there is where it gives NaN. Modes are restored.
    """

    measure: Literal["divergence"] = "divergence"

    def __init__(self, reference: nn.Module, images: LabelledImages, batch_size: int = 100) -> None:
        self.images, self.batch_size = images, batch_size
        self._expected = self._log_probabilities(reference)

    def __call__(self, model: nn.Module) -> float:
        found = self._log_probabilities(model)
        value = F.kl_div(found, self._expected, reduction="batchmean", log_target=True)
        return float(value.nan_to_num(torch.finfo(value.dtype).max))

    def _log_probabilities(self, model: nn.Module) -> Tensor:
        batches = self.images.batches(self.batch_size)
        network = merged(model)
        with evaluating(network):
            logits = [
                class_logits(
                    network(fresh_input(network, x)), len(x), self.images.spec.classes
                ).cpu()
                for x, _ in batches
            ]
        return torch.cat(logits).detach().double().log_softmax(1)


class AnswerError:
    """The mean relative error of a network's answers, as in `Fidelity`, on unlabelled images.

    Called with a network that answers as the reference does, whatever that is.
    """

    measure: Literal["answer error"] = "answer error"

    def __init__(self, reference: nn.Module, images: LabelledImages, batch_size: int = 100) -> None:
        self.reference, self.images, self.batch_size = reference, images, batch_size

    def __call__(self, model: nn.Module) -> float:
        found = fidelity(model, self.reference, self.images, batch_size=self.batch_size)
        return found.relative_error


def distance_from(
    reference: nn.Module, images: LabelledImages, batch_size: int = 100
) -> Divergence | AnswerError:
    """What tells how far a network is from the reference: by its classes where it has at least two,
    else by its answers.
    """
    if images.spec.task == "classification" and images.spec.classes > 1:
        return Divergence(reference, images, batch_size)
    return AnswerError(reference, images, batch_size)


IOU = 0.5
LOST = 0.7  # half of the power of what a network changes in a picture is wrong
SCORE = 0.5
Counted = Literal["images", "pixels", "boxes", "positions"]


@dataclass(frozen=True)
class Fidelity:
    """What a network's answers have in common with the dense network's on n images.

    relative_error: the mean over images of ‖z − ẑ‖/‖z‖, z all numbers of an answer (see
    `answers.answers`); agreement: percent of the images with the same class, of the pixels with the
    same class, or of both networks' boxes that have a partner of the same label at an IoU of 0.5;
    of: how many images, pixels, boxes or positions of a text that is a percentage of; counted:
    which of these, None for answers of another kind. agreement is None where there is nothing to
    count, such as no box.

    residual_error: of a network that answers a picture with a picture of its shape, the mean of
    ‖f(x) − f̂(x)‖/‖x − f(x)‖ over images x: the part that compression took of what the network
    does to its input. Where that is small, as the noise of a photograph is, relative_error stays
    small when all of it is gone. None for other answers.

    interval: 95 % interval of `percent`, from 0 to 100, over images; None where nobody looked at
    them one by one.
    psnr: of answers that are pictures, in dB, against the dense network's, for values in 0..1 (100
    where nothing differs), the mean over images. None for other answers, and for pictures given as
    a tensor, which does not tell how they were prepared.
    """

    relative_error: float
    agreement: float | None
    counted: Counted | None
    of: int
    n: int
    residual_error: float | None = None
    interval: tuple[float, float] | None = None
    psnr: float | None = None

    @property
    def percent(self) -> float:
        """What is left of the dense network's answers, from 0 to 100: the agreement, or else 100
        less the error in percent, of what the network changes where it changes a picture.
        """
        if self.agreement is not None:
            return self.agreement
        error = self.relative_error if self.residual_error is None else self.residual_error
        return max(100.0 * (1 - error), 0.0)

    @property
    def warning(self) -> str | None:
        """That (nearly) nothing is left of what the network does to its input; None if enough is.

        An answer that is as far from the dense network's as the input is has won nothing.
        """
        if self.residual_error is None or self.residual_error < LOST:
            return None
        return (
            f"what the network does to a picture is lost: its answers differ from the dense "
            f"network's by {100 * self.residual_error:.0f} % of what that changes. Refit it, or "
            "compress it less"
        )

    def __str__(self) -> str:
        error = f"relative error of the answers {self.relative_error:.3f}"
        if self.residual_error is not None:
            error += f", of what they change {self.residual_error:.3f}"
        if self.psnr is not None:
            error += f", PSNR to the dense network's {self.psnr:.2f} dB"
        if self.counted is None:
            return error
        if self.agreement is None:
            return f"{error}, no {self.counted} to compare"
        alike = f"{self.agreement:.2f} % of {self.of:,} {self.counted} agree"
        return f"{error}, {alike}" + (f" at IoU {IOU}" if self.counted == "boxes" else "")


def fidelity(
    model: nn.Module,
    reference: nn.Module,
    images: ImageSource,
    *,
    batch_size: int = 32,
    score: float = SCORE,
    progress: Callable[[int, int], None] | None = None,
) -> Fidelity:
    """Compare a network with the dense one it was made from; labels are not looked at.

    images: a set, or pictures (n, C, H, W) as the networks take them; batch_size: of 224×224, fewer
    of larger ones; score: of the boxes that count. `progress` gets (seen, all) images. Modes are
    restored. DataError for no images, RsdtrError for answers that cannot be compared.
    """
    images = images if isinstance(images, Tensor) else images_of(images)
    if len(images) == 0:
        raise DataError("fidelity needs images and there are none: give at least one")
    errors: list[float] = []
    residuals: list[float] = []
    shares: list[tuple[int, int]] = []  # of each image: how many agree, of how many
    peaks: list[float] = []
    counted: Counted | None = None
    spec = images.spec if isinstance(images, LabelledImages) else None
    pictures = spec is None or spec.task == "other"
    dense, network = merged(reference), merged(model)
    with evaluating(dense), evaluating(network):
        for pixels in _batches(images, batch_size):
            expected, found = _answered(dense, pixels), _answered(network, pixels)
            errors += _relative(expected.numbers, found.numbers).tolist()
            picture = pictures and _is_picture(expected, pixels)
            if picture and expected.numbers.numel() == pixels.numel():
                residuals += _residual(pixels, expected.numbers, found.numbers).tolist()
            if pictures and spec is not None and _can_be_shown(expected, picture):
                shown = (restored(answer.first, spec) for answer in (found, expected))
                peaks += psnr(*shown).tolist()
            if not picture:
                counted, told = _agreement(expected, found, score)
                shares += told
            if progress:
                progress(len(errors), len(images))
    alike, of = (sum(numbers) for numbers in zip(*shares, strict=True)) if shares else (0, 0)
    agreement = 100 * alike / of if of else None
    if counted == "images":
        low, high = wilson(alike, of, Z95)
        interval = 100 * low, 100 * high
    elif of:
        interval = _interval([100 * same / whole for same, whole in shares if whole])
    else:
        interval = _interval([max(100 * (1 - error), 0.0) for error in residuals or errors])
    return Fidelity(
        sum(errors) / len(errors), agreement, counted, of, len(errors), _mean(residuals),
        interval, _mean(peaks),
    )  # fmt: skip


def _interval(percents: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of the mean of what images are worth; of a single one anything may be."""
    if len(percents) < 2:
        return 0.0, 100.0
    mean, half = fmean(percents), Z95 * stdev(percents) / len(percents) ** 0.5
    return max(mean - half, 0.0), min(mean + half, 100.0)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _batches(images: LabelledImages | Tensor, batch_size: int) -> Iterator[Tensor]:
    if isinstance(images, Tensor):
        yield from images.split(batch_size)
        return
    for pixels, _ in images.batches(fitting_batch(images.spec, batch_size)):
        yield pixels


@dataclass(frozen=True, eq=False)
class _Answered:
    """numbers: as `answers`, (B, N); first: the first tensor of the output, (B, …), if it is no
    boxes; boxes: of each image, if it is.
    """

    numbers: Tensor
    first: Tensor | None = None
    boxes: Sequence[Boxes] = ()


def _answered(model: nn.Module, pixels: Tensor) -> _Answered:
    if chooses_boxes(model):
        return _Answered(answers(model, pixels).cpu(), boxes=detections(model, pixels))
    said = [part.cpu() for part in tensors(model(fresh_input(model, pixels)))]
    return _Answered(in_rows(said, len(pixels)), first=said[0])


def _relative(expected: Tensor, found: Tensor) -> Tensor:
    """‖z − ẑ‖/‖z‖ of each row; what is not finite counts as all of the answer."""
    if expected.shape != found.shape:
        raise RsdtrError(
            f"the networks answer an image with {expected.shape[1]:,} and {found.shape[1]:,} "
            "numbers: give the dense network that the model was compressed from"
        )
    norms = torch.linalg.vector_norm(expected.double(), dim=1)
    off = torch.linalg.vector_norm((expected - found).double(), dim=1)
    return torch.where(off == 0, 0.0, off / norms).nan_to_num(1.0, 1.0, 1.0)


def _is_picture(answered: _Answered, pixels: Tensor) -> bool:
    """Whether pictures (B, C, H, W) are answered with pictures, of whatever height and width."""
    first = answered.first
    return first is not None and first.ndim == 4 and first.shape[1] == pixels.shape[1]


def _can_be_shown(answered: _Answered, picture: bool) -> bool:
    """Whether an answer is a picture of 1, 3 or 4 channels, or one map, as of an edge detector."""
    channels = answered.first.shape[1:-2] if answered.first is not None else ()
    return channels == (1,) or (picture and channels in ((3,), (4,)))


def _residual(pixels: Tensor, expected: Tensor, found: Tensor) -> Tensor:
    """‖f(x) − f̂(x)‖/‖x − f(x)‖ of each picture x (B, C, H, W); its answers are (B, C·H·W)."""
    wrong, changed = (
        torch.linalg.vector_norm(part.double(), dim=1)
        for part in (expected - found, pixels.cpu().flatten(1) - expected)
    )
    return torch.where(wrong == 0, 0.0, wrong / changed).nan_to_num(1.0, 1.0, 1.0)


def _agreement(
    expected: _Answered, found: _Answered, score: float
) -> tuple[Counted | None, list[tuple[int, int]]]:
    """What is counted, and of each image how many of them agree, of how many there are."""
    if expected.first is None or found.first is None:
        pairs = zip(expected.boxes, found.boxes, strict=True)
        return "boxes", [matched(one.above(score), other.above(score)) for one, other in pairs]
    if expected.first.ndim not in (2, 4) or expected.first.shape[1] < 2:
        return None, []
    agree = expected.first.argmax(1) == found.first.argmax(1)
    for answer in (expected.first, found.first):  # what is no number tells no class
        agree &= answer.isfinite().all(1)
    same = agree.reshape(len(agree), -1)
    alike = [(int(row.sum()), row.numel()) for row in same]
    return ("images" if expected.first.ndim == 2 else "pixels"), alike


def matched(one: Boxes, other: Boxes) -> tuple[int, int]:
    """Boxes of both networks that have a partner, and all of them.

    Each of `other`, the highest score first, takes the box of its label that it overlaps most and
    that is still free, if their IoU is at least 0.5.
    """
    from torchvision.ops import box_iou

    overlap = box_iou(other.boxes.cpu(), one.boxes.cpu())
    overlap[other.labels.cpu()[:, None] != one.labels.cpu()] = 0.0
    pairs = 0
    for row in range(len(other.boxes)):
        if len(one.boxes) == 0:
            break
        best = int(overlap[row].argmax())
        if overlap[row, best] >= IOU:
            pairs += 1
            overlap[:, best] = 0.0
    return 2 * pairs, len(one.boxes) + len(other.boxes)
