"""One call from any network to a smaller one: looked at, planned, compressed and refit."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

from torch import Tensor, nn

from rsdtr.compressed.compress import compress
from rsdtr.compressed.saved import carry
from rsdtr.data.image_folder import load_folder
from rsdtr.data.image_sets import LabelledImages
from rsdtr.data.tensor_images import ImageSource, images_of
from rsdtr.errors import DataError, RsdtrError
from rsdtr.measuring.speedup import Speedup, reach_speedup
from rsdtr.models.own_networks import OwnSpec, Preparation, described
from rsdtr.models.run import Example
from rsdtr.models.spec import Task
from rsdtr.planning.choices import Choices
from rsdtr.planning.model_profile import profile
from rsdtr.planning.plan import Target, TargetKind
from rsdtr.recovery.refit import refit
from rsdtr.search.candidate import Objective, Rule
from rsdtr.typing import Progress

_log = logging.getLogger(__name__)


def shrink(
    net: nn.Module,
    example_inputs: Example,
    *,
    eps: float | None = None,
    target_pcr: float | None = None,
    target_fcr: float | None = None,
    target_mb: float | None = None,
    target_speedup: float | None = None,
    rule: Rule = "paper",
    objective: Objective | None = None,
    layers: str | Sequence[str] = "auto",
    images: ImageSource | str | Path | None = None,
    n: int = 1000,
    name: str | None = None,
    task: Task | None = None,
    progress: Progress | None = None,
    **said: Unpack[Preparation],
) -> nn.Module:
    """A compressed copy of a network, with `.plan`; the network itself is not changed.

    example_inputs: what it is run on, as torch.export takes them: a tensor (B, C, H, W), a tuple of
    arguments or a dict of keyword arguments. One of eps (ε_p, the relative error of each kernel),
    target_pcr, target_fcr and target_mb says how small, or target_speedup how fast: then rings of
    fewest multiplications run in the forms that are fastest here, and `.speedup` is what the
    network, fused, was measured to reach in eager torch over the best dense one, for inputs like
    the example. rule, objective and layers are those of
    `plan`. images: refit the cores on up to n of them, without labels: a tensor, Dataset or
    DataLoader of what the network takes, or pictures or a folder of them, for which `mean` and
    `std` say how the network takes them, as in `own_model`. name, task: by default its class, and
    `classification` where it answers (n, C); progress: (layers planned, layers in all).

    The copy has the network's class and modes. It carries `.spec` too, so that `save`, `export` and
    `refit` know it; `load(folder, net)` reads it back. One line of what was done is `str(.plan)`,
    and logged. RsdtrError, PlanError, RingError or DataError for what cannot be done.
    """
    if target_speedup is None:
        choices = _choices(eps, target_pcr, target_fcr, target_mb, rule, objective, layers)
    else:
        _check_speedup(target_speedup, example_inputs, (eps, target_pcr, target_fcr, target_mb))
        policy = layers if isinstance(layers, str) else tuple(layers)
        choices = Choices(rule=rule, objective=objective, layers=policy)
    spec = described(net, example_inputs, name=name, task=task, **said)
    seen = None if images is None else _images(images, spec, said)
    fast: Speedup | None = None
    if target_speedup is not None:
        assert isinstance(example_inputs, Tensor)  # checked above
        costs = profile(net, spec)
        fast = reach_speedup(net, costs, choices, target_speedup, example_inputs, progress)
        decided, small = fast.plan, fast.network
    else:
        decided = choices.decide(profile(net, spec), None, progress)
        small = compress(net, decided)
    carry(small, decided, spec)
    done = str(decided)
    if fast is not None:
        done += f"; {fast.speedup:.2f} times as fast for {fast.batch} inputs, as measured here"
    if not any(layer.ranks for layer in decided.layers):
        reasons = {layer.kept_dense for layer in decided.layers}
        _log.warning("no layer became a ring: %s", "; ".join(sorted(map(str, reasons))[:3]))
    elif seen is not None:
        refitted = refit(small, net, seen, n)
        small = refitted.model
        kept = sum(step.kept for step in refitted.steps)
        done += (
            f"; refit on {min(n, len(seen)):,} images, {kept} of {len(refitted.steps)} steps kept"
        )
    if fast is not None:
        small.speedup = fast.speedup  # type: ignore[assignment]  # a number, no module
    _log.info("%s", done)
    return small


def _check_speedup(wanted: float, example: Example, others: Sequence[float | None]) -> None:
    if given := sum(value is not None for value in others):
        raise RsdtrError(
            f"shrink was given target_speedup and {given} of eps, target_pcr, target_fcr and "
            "target_mb: give one of them"
        )
    if not wanted > 0:
        raise RsdtrError(f"shrink was given target_speedup={wanted}: give a number above 0")
    if not isinstance(example, Tensor) or example.ndim != 4:
        raise RsdtrError(
            "target_speedup times networks of one batch of images (B, C, H, W): give such a tensor "
            "as example_inputs, or another target"
        )


def _choices(
    eps: float | None,
    pcr: float | None,
    fcr: float | None,
    mb: float | None,
    rule: Rule,
    objective: Objective | None,
    layers: str | Sequence[str],
) -> Choices:
    asked: dict[TargetKind, float | None] = {"pcr": pcr, "fcr": fcr, "mb": mb}
    targets = {kind: value for kind, value in asked.items() if value is not None}
    if len(targets) + (eps is not None) != 1:
        raise RsdtrError(
            f"shrink was given {len(targets) + (eps is not None)} of eps, target_pcr, target_fcr "
            "and target_mb: give one of them"
        )
    if any(not value > 0 for value in targets.values()):
        raise RsdtrError(f"shrink was given the targets {targets}: give a number above 0")
    target = next((Target(kind=kind, value=value) for kind, value in targets.items()), None)
    policy = layers if isinstance(layers, str) else tuple(layers)
    return Choices(
        eps=Choices.eps if eps is None else eps, target=target, rule=rule, objective=objective,
        layers=policy,
    )  # fmt: skip


def _images(source: ImageSource | str | Path, spec: OwnSpec, said: Preparation) -> LabelledImages:
    """The images that a refit looks at, as the network takes them."""
    if not isinstance(spec.example_inputs, Tensor | None):
        raise RsdtrError(
            f"{spec.name} takes several inputs, and images= are one for each answer: refit it by "
            "what you know of them, or leave images out"
        )
    if isinstance(source, str | Path):
        folder = Path(source).expanduser()
        if not folder.is_dir():
            raise DataError(f"{folder} is no folder of pictures: give one, or tensors")
        images = load_folder(folder.name, folder, spec.unlabelled).train.without_labels(spec)
    else:
        images = images_of(source, spec)
    if not images.are_inputs and (said.get("mean") is None or said.get("std") is None):
        raise DataError(
            f"{images.name} holds pictures, and nobody said how {spec.name} takes them: give mean= "
            "and std= as it was trained with, or floating-point tensors that it takes as they are"
        )
    return images
