"""Times of networks, their layers and other work, side by side on this machine, and peak memory."""

from __future__ import annotations

import functools
import math
import os
import platform
import statistics
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rsdtr.errors import RsdtrError

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]  # asked for before it is used

Work = Callable[[], object]
Told = Callable[[int, int, float], None]  # measurements done, in all, seconds left at most
_LEAST_ROUNDS = 3
_WARM_MS = 1000.0  # a work that takes longer is warm after one run


@dataclass(frozen=True)
class Spread:
    """Wall time of one run in ms over `runs` measurements: median, interquartile range, best.

    disturbed: of these measurements, how many another program interrupted. Those are left out
    where there are others; where there are not, the best time says most: others only ever add.
    """

    median_ms: float
    iqr_ms: float
    best_ms: float
    runs: int
    disturbed: int


def interleaved(
    works: Mapping[str, Work],
    *,
    runs: int,
    seconds: float = math.inf,
    at_least: int = _LEAST_ROUNDS,
    at_least_ms: float = 0.0,
    hopeless: float = math.inf,
    device: torch.device | str = "cpu",
    clock: Callable[[], float] = time.perf_counter,
    progress: Told | None = None,
) -> dict[str, Spread]:
    """Time several works, one run of each in turn, after two rounds that warm up (one of a work
    that takes longer than a second).

    Only so are their times comparable: what else the machine does meanwhile meets all of them.
    Threads that wait for each other lose whole time slices when another program takes a core, so
    that a measurement may be ten times the truth: the system tells which ones were interrupted,
    and rounds go on until each work has `runs` undisturbed ones, up to four times as many rounds.

    A measurement repeats its work until it takes about `at_least_ms` and is the mean. After
    `at_least` rounds there is none once `seconds` have passed, and after three none of a work whose
    best time is more than `hopeless` times the best of all, unless it was interrupted each time.
    clock: tells the
    time in seconds; with one thread, `time.process_time` leaves out what other programs take.
    progress: called before every measurement with (done, in all, seconds left at most).
    """
    synchronise = torch.cuda.synchronize if torch.device(device).type == "cuda" else lambda: None

    def measure(work: Work, repeats: int) -> tuple[float, bool]:
        synchronise()
        interruptions, start = _interruptions(), clock()
        for _ in range(repeats):
            work()
        synchronise()
        spent = (clock() - start) * 1000
        return spent / repeats, _interruptions() > interruptions

    started = time.perf_counter()
    repeats = {}
    for name, work in works.items():
        warm = measure(work, 1)[0]
        if warm <= _WARM_MS:
            warm = min(warm, measure(work, 1)[0])
        repeats[name] = max(1, min(1000, math.ceil(at_least_ms / max(warm, 1e-6))))
    quiet: dict[str, list[float]] = {name: [] for name in works}
    disturbed: dict[str, list[float]] = {name: [] for name in works}
    running = list(works)
    for done in range(4 * runs):
        if done >= _LEAST_ROUNDS:
            bests = {name: min(quiet[name] + disturbed[name]) for name in works}
            limit = hopeless * min(bests.values())
            running = [
                name
                for name in running
                if len(quiet[name]) < runs and (bests[name] <= limit or not quiet[name])
            ]
        if not running:
            break
        for name in running:
            if done >= at_least and time.perf_counter() - started > seconds:
                running = []
                break
            if progress:
                _tell_left(progress, quiet, disturbed, runs, started, seconds)
            spent, interrupted = measure(works[name], repeats[name])
            (disturbed if interrupted else quiet)[name].append(spent)
    return {name: spread(quiet[name], disturbed[name]) for name in works}


def _tell_left(
    progress: Told, quiet: Mapping[str, list[float]], disturbed: Mapping[str, list[float]],
    runs: int, started: float, seconds: float,
) -> None:  # fmt: skip
    done, total = sum(map(len, quiet.values())), runs * len(quiet)
    spent = time.perf_counter() - started
    made = done + sum(map(len, disturbed.values()))
    at_this_pace = spent / made * (total - done) if made else seconds
    progress(done, total, max(0.0, min(at_this_pace, seconds - spent)))


def _interruptions() -> int:
    """How often the system has taken a core from this process; 0 where it does not tell."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw if resource is not None else 0


def spread(quiet: list[float], disturbed: list[float]) -> Spread:
    """Of times in ms, those that nothing interrupted and the others."""
    times = quiet or disturbed
    low, _, high = statistics.quantiles(times, n=4) if len(times) > 1 else times * 3
    return Spread(
        median_ms=statistics.median(times),
        iqr_ms=high - low,
        best_ms=min(quiet + disturbed),
        runs=len(times),
        disturbed=len(times) - len(quiet),
    )


@contextmanager
def thread_count(count: int) -> Iterator[None]:
    """torch computes with so many threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def peak_bytes(work: Work) -> int:
    """The most bytes that tensors made during the work take at one time, on whatever device.

    Counted from the tensors themselves, so that it is the same at every run: what a library takes
    inside of one operation, and frees again, is not in it.
    """
    with _LiveStorages() as live:
        work()
    return live.peak


class _LiveStorages(TorchDispatchMode):
    """Adds up the storages that operations return, for as long as each lives."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        for value in tree_leaves((args, kwargs)):
            if isinstance(value, Tensor):
                self._known.add(value.untyped_storage())  # its own, or from before
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor):
                self._add(value.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        if storage in self._known:
            return
        self._known.add(storage)
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._freed, size)

    def _freed(self, size: int) -> None:
        self.now -= size


@functools.cache
def machine() -> str:
    """Processor, cores and the versions that decide a timing, in words."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")  # Linux only; platform.processor() is empty on many of those
    if cpuinfo.is_file():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        name = models[0] if models else name
    return (
        f"{name}, {os.cpu_count()} cores, {platform.system()}, "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )


__all__ = ["Timing", "eager", "machine", "timings"]

Run = Callable[[Tensor], object]


@dataclass(frozen=True)
class Timing:
    """Median and interquartile range in ms of a forward pass.

    scope: `network` or a layer's name; engine: `eager`, `onnxruntime`, …; variant: `dense`,
    `paper` (the paper's pipeline as its program computes it), a form, or `auto`.
    """

    scope: str
    engine: str
    batch: int
    variant: str
    median_ms: float
    iqr_ms: float


def timings(
    variants: Mapping[str, Run],
    input_shape: tuple[int, ...],
    *,
    scope: str = "network",
    engine: str = "eager",
    batch: int = 1,
    runs: int = 30,
    threads: int = 2,
    seconds: float = math.inf,
    progress: Told | None = None,
) -> list[Timing]:
    """Time functions of the same (batch, *input_shape) noise in turns; a row for each.

    Measurements that another program interrupted are made again, and after the first of each there
    are no more once `seconds` have passed, see `interleaved`.
    RsdtrError when batch, runs or threads is not at least 1.
    """
    for name, value in (("batch", batch), ("runs", runs), ("threads", threads)):
        if value < 1:
            raise RsdtrError(f"timing got {name}={value}: give at least 1")
    noise = torch.randn(batch, *input_shape, generator=torch.Generator().manual_seed(0))
    works = {name: _work(run, noise.clone()) for name, run in variants.items()}
    with thread_count(threads):
        found = interleaved(works, runs=runs, seconds=seconds, at_least=1, progress=progress)
    return [
        Timing(scope, engine, batch, name, taken.median_ms, taken.iqr_ms)
        for name, taken in found.items()
    ]


def eager(model: nn.Module) -> Run:
    """The model as a function without gradients, in whatever mode it is in."""

    def run(images: Tensor) -> None:
        with torch.inference_mode():
            model(images)

    return run


def _work(run: Run, noise: Tensor) -> Callable[[], object]:
    return lambda: run(noise)
