"""The device profile: how long each form of a ring layer takes on a machine, measured and kept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field, ValidationError, model_validator
from torch import nn

from rsdtr.compressed.ring_layer import RingLayer
from rsdtr.compressed.tr_conv2d import PaddingMode, TRConv2d
from rsdtr.compressed.tr_linear import TRLinear
from rsdtr.errors import RsdtrError, first_problem
from rsdtr.measuring.stopwatch import interleaved, machine, peak_bytes, thread_count
from rsdtr.planning.layer_profile import Kind
from rsdtr.ring.forms import FORMS, Form
from rsdtr.system.atomic_files import replace_file
from rsdtr.system.cache_folder import cache_folder, private_folder
from rsdtr.typing import Frozen

Mode = Literal["inference", "training"]
Positive = Field(ge=1)
# Below this share of the dense time a ring form is worth it; nearer, it may be noise.
WORTHWHILE = 0.98
KEPT_CASES = 5000  # of a machine: a megabyte for a thousand, written after each that is measured
_ALIKE = 1.03  # training times within this factor count as equal: memory decides


class LayerCase(Frozen):
    """All that decides how long a ring layer takes; none of it is a weight.

    shape (O, I/groups, KH, KW) and ranks R_0…R_3; stride to padding_mode as `nn.Conv2d` has them;
    input_size (H, W); images in a batch; torch's threads; forward pass, or training step
    (forward and backward, kernels merged anew); torch's device type; kind, groups: of the layer, as
    in a plan; of a linear layer input_size is that of the map it flattens, or where there is none
    the positions that it runs at. The input lies channels-last,
    as it does in a network that `fast.use_forms` has prepared.
    """

    shape: tuple[int, int, int, int]
    ranks: tuple[int, int, int, int]
    stride: tuple[int, int]
    padding: tuple[int, int] | Literal["same", "valid"]
    dilation: tuple[int, int] = (1, 1)
    padding_mode: PaddingMode = "zeros"
    input_size: tuple[int, int]
    batch: int = Positive
    threads: int = Positive
    mode: Mode = "inference"
    device: str = "cpu"
    kind: Kind = Field(default="conv", exclude_if=lambda kind: kind == "conv")
    groups: int = Field(default=1, ge=1, exclude_if=lambda groups: groups == 1)

    @model_validator(mode="after")
    def _possible(self) -> LayerCase:
        if min(*self.shape, *self.ranks, *self.stride, *self.dilation, *self.input_size) < 1:
            raise ValueError("every size, rank, stride and dilation is at least 1")
        return self

    def layer(self, form: Form) -> RingLayer:
        """Such a layer, with random cores and no bias."""
        o, i, kh, kw = self.shape
        layer: RingLayer
        if self.kind == "linear":
            layer = TRLinear(
                i * kh * kw, o, self.ranks, map_size=(kh, kw), bias=False, form=form,
                device=torch.device(self.device),
            )  # fmt: skip
        else:
            layer = TRConv2d(
                i * self.groups, o, (kh, kw), self.ranks,
                stride=self.stride, padding=self.padding, dilation=self.dilation, bias=False,
                padding_mode=self.padding_mode, groups=self.groups, form=form,
                device=torch.device(self.device),
            )  # fmt: skip
        return layer.train(self.mode == "training")

    def input(self) -> torch.Tensor:
        """Seeded noise that such a layer takes."""
        generator = torch.Generator().manual_seed(0)
        _, channels, *size = self.shape
        if self.kind == "linear":
            flat = channels * size[0] * size[1]
            positions = () if self.input_size in (tuple(size), (1, 1)) else self.input_size
            return torch.randn(self.batch, *positions, flat, generator=generator).to(self.device)
        channels *= self.groups
        x = torch.randn(self.batch, channels, *self.input_size, generator=generator)
        return x.to(self.device).contiguous(memory_format=torch.channels_last)


class FormTime(Frozen):
    """One form: median, interquartile range and best time in ms; for a training step also the
    most bytes that its tensors take at one time.

    Forms are compared by their best times, which suffer least from what else the machine does.
    """

    form: Form
    median_ms: float = Field(gt=0)
    iqr_ms: float = Field(ge=0)
    best_ms: float = Field(gt=0)
    peak_bytes: int | None = Field(default=None, ge=0)


class LayerTimes(Frozen):
    """The times of every form of one case, measured in turns in one process."""

    case: LayerCase
    forms: tuple[FormTime, ...]

    @model_validator(mode="after")
    def _complete(self) -> LayerTimes:
        if sorted(item.form for item in self.forms) != sorted(FORMS):
            raise ValueError(f"a case has one time for each of {', '.join(FORMS)}")
        return self

    def of(self, form: Form) -> FormTime:
        """The time of one form."""
        return next(item for item in self.forms if item.form == form)

    @property
    def fastest_ring(self) -> FormTime:
        """The fastest form that is not dense; in training, of the fastest ones the smallest."""
        rings = [item for item in self.forms if item.form != "dense"]
        best = min(item.best_ms for item in rings)
        if self.case.mode == "training":
            alike = [item for item in rings if item.best_ms <= _ALIKE * best]
            return min(alike, key=lambda item: item.peak_bytes or 0)
        return next(item for item in rings if item.best_ms == best)

    @property
    def fastest(self) -> FormTime:
        """What `auto` runs: the fastest ring form if it is worth it, else dense."""
        ring, dense = self.fastest_ring, self.of("dense")
        return ring if ring.best_ms < WORTHWHILE * dense.best_ms else dense


class DeviceProfile(Frozen):
    """Times of ring layers on one machine; `machine` says in words on which."""

    format_version: Literal[1] = 1
    machine: str
    layers: tuple[LayerTimes, ...] = ()

    @cached_property
    def _by_case(self) -> dict[LayerCase, LayerTimes]:
        return {times.case: times for times in self.layers}

    def times(self, case: LayerCase) -> LayerTimes | None:
        """What was measured for the case, or None."""
        return self._by_case.get(case)

    def missing(self, cases: Iterable[LayerCase]) -> tuple[LayerCase, ...]:
        """The cases that are not measured yet, each once."""
        return tuple(case for case in dict.fromkeys(cases) if case not in self._by_case)

    def extended(self, found: Iterable[LayerTimes]) -> DeviceProfile:
        """This profile with more, or newer, times; the oldest beyond KEPT_CASES are dropped."""
        newer = {times.case: times for times in found}
        older = {case: times for case, times in self._by_case.items() if case not in newer}
        layers = tuple((older | newer).values())
        return DeviceProfile(machine=self.machine, layers=layers[-KEPT_CASES:])

    def save(self, path: str | Path | None = None) -> Path:
        """Write it as JSON, to `path` or to where this machine's is kept; whole or not at all.

        RsdtrError if the file cannot be written.
        """
        target = own_path() if path is None else Path(path)
        try:
            private_folder(target.parent)
            replace_file(target, f"{self.model_dump_json(indent=1)}\n".encode())
        except OSError as error:
            raise RsdtrError(
                f"the device profile {target} could not be written ({error.strerror or error}): "
                "give another file, or another cache folder in RSDTR_CACHE"
            ) from error
        return target

    @classmethod
    def load(cls, path: str | Path) -> DeviceProfile:
        """Read what `save` wrote, perhaps on another machine; RsdtrError if it is not that."""
        try:
            return cls.model_validate_json(Path(path).read_bytes())
        except OSError as error:
            raise RsdtrError(
                f"the device profile {path} cannot be read ({error.strerror or error}): "
                "give a file that DeviceProfile.save wrote"
            ) from error
        except ValidationError as error:
            raise RsdtrError(
                f"{path} is no device profile: {first_problem(error)}: measure it again"
            ) from None

    @classmethod
    def own(cls) -> DeviceProfile:
        """This machine's, as far as it was measured; one that is damaged is begun anew."""
        here = machine()
        try:
            found = cls.load(own_path())
        except RsdtrError:
            return cls(machine=here)
        return found if found.machine == here else cls(machine=here)


def own_path() -> Path:
    """Where this machine's profile is kept: its name changes with the processor and with torch."""
    digest = hashlib.sha256(machine().encode()).hexdigest()[:16]
    return cache_folder() / "device" / f"{digest}.json"


def measure(
    cases: Iterable[LayerCase], *, runs: int = 20, seconds: float = 1.5
) -> Iterator[LayerTimes]:
    """Measure every form of each case, in turns, and yield one case after another.

    runs: rounds at most; seconds: spent on one case, about. A form that takes more than three
    times as long as the best is given up after three rounds.
    """
    for case in cases:
        yield _measured(case, runs, seconds)


def measured_profile(
    cases: Iterable[LayerCase],
    profile: DeviceProfile | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    again: bool = False,
) -> DeviceProfile:
    """`profile`, or this machine's own, with the cases it lacks measured and saved.

    A profile that is given is not saved. Each case is kept as soon as it is measured, whatever
    happens afterwards. progress: called with (cases done, cases to measure). again: measure what is
    known anew, too.
    """
    known = DeviceProfile.own() if profile is None else profile
    lacking = tuple(dict.fromkeys(cases)) if again else known.missing(cases)
    found: list[LayerTimes] = []
    for done, case in enumerate(lacking):
        if progress:
            progress(done, len(lacking))
        if should_stop():
            break
        latest = tuple(measure([case]))
        found.extend(latest)
        if profile is None:
            # Read again: another process may have measured meanwhile.
            DeviceProfile.own().extended(latest).save()
    if progress:
        progress(len(found), len(lacking))
    return known.extended(found)


def _measured(case: LayerCase, runs: int, seconds: float) -> LayerTimes:
    x = case.input()
    training = case.mode == "training"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = {form: case.layer(form) for form in FORMS}
    works: dict[str, Callable[[], object]] = {
        form: _step(layer, x.clone().requires_grad_()) if training else _pass(layer, x)
        for form, layer in layers.items()
    }
    with thread_count(case.threads):
        spreads = interleaved(
            works, runs=runs, seconds=seconds, at_least_ms=1.0, hopeless=3.0, device=case.device
        )
        peaks = {form: peak_bytes(works[form]) for form in FORMS} if training else {}
    return LayerTimes(
        case=case,
        forms=tuple(
            FormTime(
                form=form,
                median_ms=spreads[form].median_ms,
                iqr_ms=spreads[form].iqr_ms,
                best_ms=spreads[form].best_ms,
                peak_bytes=peaks.get(form),
            )
            for form in FORMS
        ),
    )


def _pass(layer: nn.Module, x: torch.Tensor) -> Callable[[], object]:
    def run() -> None:
        with torch.inference_mode():
            layer(x)

    return run


def _step(layer: nn.Module, x: torch.Tensor) -> Callable[[], object]:
    with torch.no_grad():
        gradient = torch.ones_like(layer(x))

    def run() -> None:
        x.grad = None
        layer.zero_grad()
        layer(x).backward(gradient)

    return run
