"""What a network answers, as numbers that can be compared: logits, maps, or those behind boxes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass

import torch
from torch import Tensor, nn

from rsdtr.errors import RsdtrError
from rsdtr.models.run import fresh_input

_GRID = (1, 2, 4)  # boxes along each side of an image that every box head is asked about


@dataclass(frozen=True, eq=False)
class Boxes:
    """What was found in one image: boxes (n, 4) as (x1, y1, x2, y2), labels (n,), scores (n,)."""

    boxes: Tensor
    labels: Tensor
    scores: Tensor

    def above(self, score: float) -> Boxes:
        """Those of at least this score, the highest first."""
        order = self.scores.argsort(descending=True, stable=True)
        order = order[self.scores[order] >= score]
        return Boxes(self.boxes[order], self.labels[order], self.scores[order])


def answers(model: nn.Module, images: Tensor) -> Tensor:
    """All numbers that images (B, C, H, W) are answered with, (B, N), in the same order each time.

    The floating-point tensors of the output, whatever holds them. A network of torchvision that
    answers boxes does so by choice, which no two networks share: of it, what all anchors are given
    before the choice, and what a second stage says of the same 21 boxes in every image.
    RsdtrError for an output whose tensors have not all a row for each image.
    """
    images = fresh_input(model, images)
    found = _behind_boxes(model, images) if chooses_boxes(model) else tensors(model(images))
    return in_rows(list(found), len(images))


def class_logits(answer: object, n: int, classes: int) -> Tensor:
    """The logits (n, classes) in what a network that tells `classes` apart answers n images with.

    answer: that tensor, or a sequence, mapping or dataclass that holds one. A network of two
    classes may answer one logit z, (n, 1) or (n,): class 1 where it is positive. It comes back as
    (0, z), which has the same probabilities. RsdtrError for anything else.
    """
    found = answered_classes(answer, n, classes)
    return found if found.shape[1] > 1 else torch.cat([torch.zeros_like(found), found], 1)


def answered_classes(answer: object, n: int, classes: int) -> Tensor:
    """The same as the network has it: (n, classes), or the one logit, (n, 1)."""
    held = list(tensors(answer))
    rows = [row for part in held if (row := _in_row(part, n)) is not None]
    named = answer.get("logits") if isinstance(answer, Mapping) else None
    if named is None:
        named = getattr(answer, "logits", None)
    said = _in_row(named, n) if isinstance(named, Tensor) else None
    for found in (
        [] if said is None else [said],
        [row for row in rows if row.shape[1] == classes],
        [row for row in rows if row.shape[1] == 1],
        rows if len(held) == 1 else [],
    ):
        if len(found) == 1 and (found[0].shape[1] > 1 or classes <= 2):
            return found[0]
    shapes = ", ".join(str(tuple(part.shape)) for part in held) or type(answer).__name__
    raise RsdtrError(
        f"the network answers {n} images with {shapes} where one tensor of logits ({n}, {classes}) "
        "was expected: let it answer its logits alone, or under the name logits"
    )


def _in_row(part: Tensor, n: int) -> Tensor | None:
    """(n, C) of (n, C), (n,) or (n, C, 1, 1); None for any other shape."""
    if part.ndim == 0 or len(part) != n or any(size != 1 for size in part.shape[2:]):
        return None
    return part.reshape(n, -1)


def compared_output(model: nn.Module, images: Tensor) -> Tensor:
    """What two runs of one network are compared by: the output, (B, …), if it is one tensor."""
    if not chooses_boxes(model):
        output = model(fresh_input(model, images))
        if isinstance(output, Tensor):
            return output
    return answers(model, images)


def in_rows(found: Sequence[Tensor], n: int) -> Tensor:
    """Tensors (n, …) side by side, (n, N); RsdtrError as `answers`."""
    rows = [part.reshape(n, -1) for part in found if part.ndim > 0 and len(part) == n]
    if not rows or len(rows) < len(found):
        shapes = ", ".join(str(tuple(part.shape)) for part in found) or "no tensor"
        raise RsdtrError(
            f"the network answers {n} images with {shapes}: only tensors with a row for each image "
            "can be compared"
        )
    return torch.cat(rows, 1)


def chooses_boxes(model: nn.Module) -> bool:
    """Whether a network answers boxes the way torchvision's do."""
    return all(hasattr(model, part) for part in ("transform", "backbone")) and (
        all(hasattr(model, part) for part in ("rpn", "roi_heads"))
        or all(hasattr(model, part) for part in ("head", "anchor_generator"))
    )


def detections(model: nn.Module, images: Tensor) -> list[Boxes]:
    """The boxes that a network finds in each of the images (B, C, H, W)."""
    found = model(list(fresh_input(model, images)))
    return [Boxes(one["boxes"], one["labels"], one["scores"]) for one in found]


def tensors(answer: object) -> Iterator[Tensor]:
    """The floating-point tensors in nested mappings, sequences and dataclasses, in order."""
    if isinstance(answer, Tensor):
        if answer.is_floating_point():
            yield answer
    elif isinstance(answer, Mapping):
        for value in answer.values():
            yield from tensors(value)
    elif isinstance(answer, Sequence) and not isinstance(answer, str):
        for value in answer:
            yield from tensors(value)
    elif is_dataclass(answer):
        for part in fields(answer):
            yield from tensors(getattr(answer, part.name))


def _behind_boxes(model: nn.Module, images: Tensor) -> Iterator[Tensor]:
    part = model.get_submodule
    prepared, _ = part("transform")(list(images))
    features = part("backbone")(prepared.tensors)
    features = {"0": features} if isinstance(features, Tensor) else features
    if not hasattr(model, "roi_heads"):
        yield from tensors(part("head")(list(features.values())))
        return
    yield from tensors(part("rpn.head")(list(features.values())))
    grids = [_grid(height, width).to(images.device) for height, width in prepared.image_sizes]
    pooled = part("roi_heads.box_roi_pool")(features, grids, prepared.image_sizes)
    said = part("roi_heads.box_predictor")(part("roi_heads.box_head")(pooled))
    for told in tensors(said):  # (B·21, n)
        yield told.unflatten(0, (len(images), -1))


def _grid(height: int, width: int) -> Tensor:
    """An image's boxes of the grids: the whole, its quarters, their quarters; (21, 4)."""
    boxes = [
        (width * column / n, height * row / n, width * (column + 1) / n, height * (row + 1) / n)
        for n in _GRID
        for row in range(n)
        for column in range(n)
    ]
    return torch.tensor(boxes)
