"""The whole slider of a model, computed ahead by one process per core.

One task is one layer and a set of questions, so that a process uses again what it knows of a
kernel. The answers come back one by one: whoever stops in the middle keeps them.
"""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Collection, Generator, Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess

import torch

from rsdtr.planning.layer_profile import LayerProfile
from rsdtr.planning.model_profile import ModelProfile
from rsdtr.search.candidate import (
    COARSE,
    GRID,
    OBJECTIVES,
    RULES,
    Candidate,
    Question,
)

PATIENCE = 0.2  # seconds between two looks at `should_stop`
SPLIT_SCALARS = 1 << 19  # kernels this large are several tasks, lest one of them ends last alone
SPLIT_EPS = 16  # ε_p of the fine grid in each of those
TIGHT_WEIGHT = 4  # seconds of rule=tight for each of rule=paper, roughly; for the time left
Questions = tuple[Question, ...]
Answer = tuple[str, Question, Candidate | None]

FIRST = tuple(Question("paper", "storage", eps) for eps in COARSE)
_EVERY = [(rule, objective) for rule in RULES for objective in OBJECTIVES]
COARSE_REST = tuple(
    Question(rule, objective, eps)
    for rule, objective in _EVERY
    for eps in COARSE
    if (rule, objective) != ("paper", "storage")
)
# Neighbouring ε_p of all rules and objectives look at the same matrices.
FINE = tuple(Question(rule, objective, eps) for eps in GRID for rule, objective in _EVERY)

_log = logging.getLogger("rsdtr.planning.grid_search")


@dataclass(frozen=True)
class GridProgress:
    """How far the grid is: questions answered and in all, since when, and how long it may take.

    coarse_seconds: when every layer of the paper's policy had its coarse grid of rule=paper and
    objective=storage, or None before that.
    """

    done: int
    total: int
    seconds: float
    seconds_left: float | None
    coarse_seconds: float | None


@dataclass(frozen=True)
class Task:
    """Questions about one layer, for one process."""

    layer: LayerProfile
    questions: Questions
    first: bool

    @property
    def weight(self) -> float:
        """About how long it takes, in no unit."""
        return sum(_weight(self.layer, question) for question in self.questions)


def grid_tasks(profile: ModelProfile, layers: Collection[str] | None = None) -> list[Task]:
    """What is not known yet, in the order of its usefulness, the largest layers first.

    The coarse grid of the paper's rule and policy, its rest, the fine grid, then other layers; of
    layers so large that each search takes seconds, the coarse grid of the paper's rule alone.
    """
    possible = [
        layer
        for layer in sorted(profile.layers, key=lambda layer: -layer.kernel.numel())
        if layer.obstacle is None and (layers is None or layer.name in layers)
    ]
    large = [layer for layer in possible if layer.grid != GRID]
    policy = [layer for layer in possible if layer.in_paper_policy and layer not in large]
    others = [layer for layer in possible if not layer.in_paper_policy and layer not in large]
    taken: set[tuple[str, Question]] = set()
    tasks = []
    for group, questions in (
        (policy, FIRST), (policy, COARSE_REST), (policy, FINE), (others, FIRST), (others, FINE),
        (large, FIRST),
    ):  # fmt: skip
        for layer in group:
            for part in _parts(layer, questions):
                missing = tuple(
                    question
                    for question in part
                    if (layer.name, question) not in taken
                    and profile.winners.known(layer.name, question) is None
                )
                taken.update((layer.name, question) for question in missing)
                if missing:
                    tasks.append(Task(layer, missing, layer in policy and questions is FIRST))
    return tasks


def grid_size(profile: ModelProfile, layers: Collection[str] | None = None) -> int:
    """How many questions the whole grid has, known or not."""
    return sum(
        len(FINE) if layer.grid == GRID else len(FIRST)
        for layer in profile.layers
        if layer.obstacle is None and (layers is None or layer.name in layers)
    )


def profile_grid(
    profile: ModelProfile,
    should_stop: Callable[[], bool] = lambda: False,
    *,
    processes: int | None = None,
    layers: Collection[str] | None = None,
) -> Generator[GridProgress, None, None]:
    """Fill `profile.winners` over the whole grid, and yield after every few answers.

    should_stop: asked several times a second; processes: by default one per core; layers: names,
    by default all that can be a ring. When it ends or is closed no process of its own is left.
    """
    started = time.perf_counter()
    waiting = grid_tasks(profile, layers)
    first_left = sum(len(task.questions) for task in waiting if task.first)
    total = grid_size(profile, layers)
    done = total - sum(len(task.questions) for task in waiting)
    weight_left, weight_done = sum(task.weight for task in waiting), 0.0
    coarse_seconds = None if first_left else 0.0
    by_name = {layer.name: layer for layer in profile.layers}

    def now() -> GridProgress:
        seconds = time.perf_counter() - started
        left = seconds * weight_left / weight_done if weight_done else None
        return GridProgress(done, total, seconds, left if waiting or busy else 0.0, coarse_seconds)

    busy: dict[Connection, Task] = {}
    pool = _Pool(profile, min(processes or cores(), len(waiting)))
    try:
        yield now()
        while (waiting or busy) and not should_stop():
            for connection in [c for c in pool.connections if c not in busy]:
                if waiting:
                    busy[connection] = waiting.pop(0)
                    pool.send(connection, busy[connection])
            if not busy:  # every process has died
                return
            for connection, answers in pool.answers(PATIENCE):
                for name, question, winner in answers:
                    if winner is not None:
                        profile.winners.put(name, question, winner)
                        done += 1
                    weight = _weight(by_name[name], question)
                    weight_left, weight_done = weight_left - weight, weight_done + weight
                    first_left -= busy[connection].first
                if not answers or answers[-1][1] == busy[connection].questions[-1]:
                    del busy[connection]
            if coarse_seconds is None and first_left <= 0:
                coarse_seconds = time.perf_counter() - started
            yield now()
    finally:
        pool.close()


def cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _parts(layer: LayerProfile, questions: Questions) -> list[Questions]:
    if questions is not FINE or layer.kernel.numel() < SPLIT_SCALARS:
        return [questions]
    size = SPLIT_EPS * len(_EVERY)
    return [questions[start : start + size] for start in range(0, len(questions), size)]


def _weight(layer: LayerProfile, question: Question) -> float:
    return layer.kernel.numel() ** 1.3 * (TIGHT_WEIGHT if question.rule == "tight" else 1)


class _Pool:
    """Processes that answer questions, each at its own pipe: one that dies blocks nobody."""

    def __init__(self, profile: ModelProfile, processes: int) -> None:
        self._processes: dict[Connection, BaseProcess] = {}
        context = _context()
        for _ in range(processes):
            ours, theirs = context.Pipe()
            inherited = (*self._processes, ours) if context.get_start_method() == "fork" else ()
            process = context.Process(  # type: ignore[attr-defined]  # every context has it
                target=_answer, args=(profile.layers, theirs, inherited), daemon=True
            )
            with warnings.catch_warnings():
                # Python 3.12 warns of threads beside a fork: here they are idle ones of BLAS.
                warnings.simplefilter("ignore", DeprecationWarning)
                process.start()
            theirs.close()
            self._processes[ours] = process

    @property
    def connections(self) -> list[Connection]:
        return list(self._processes)

    def send(self, connection: Connection, task: Task) -> None:
        try:
            connection.send((task.layer.name, task.questions))
        except OSError:
            _log.debug("a process died before its next task")

    def answers(self, seconds: float) -> Iterator[tuple[Connection, list[Answer]]]:
        """What has come in by connection; an empty list from a process that has died."""
        for connection in wait(self.connections, seconds):
            assert isinstance(connection, Connection)
            found: list[Answer] = []
            try:
                while not found or connection.poll():
                    found.append(connection.recv())
                yield connection, found
            except (EOFError, OSError):
                _log.warning("a process that searched rings has died")
                self._processes.pop(connection).join()
                connection.close()
                yield connection, []

    def close(self) -> None:
        for connection, process in self._processes.items():
            process.terminate()
            connection.close()
        for process in self._processes.values():
            process.join()


def _context() -> BaseContext:
    """Fork where that is safe, as with one thread in torch: it starts at once."""
    forking = sys.platform == "linux" and torch.get_num_threads() == 1
    return multiprocessing.get_context("fork" if forking else "spawn")


def _answer(
    layers: tuple[LayerProfile, ...], pipe: Connection, inherited: tuple[Connection, ...]
) -> None:
    """The life of one process: a task, its answers one by one, the next task."""
    for other in inherited:  # else no end of a pipe would ever be noticed
        other.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)
    gc.freeze()  # else every collection looks through all of the libraries
    by_name = {layer.name: layer for layer in layers}
    try:
        while True:
            name, questions = pipe.recv()
            published: dict[Question, Candidate | None] = {}  # what rule=tight starts from
            for question in questions:
                start = published.pop(replace(question, rule="paper"), None)
                winner = _winner(by_name[name], question, start)
                if question.rule == "paper":
                    published[question] = winner
                pipe.send((name, question, winner))
    except (EOFError, OSError):
        return  # the parent is gone


def _winner(
    layer: LayerProfile, question: Question, published: Candidate | None
) -> Candidate | None:
    try:
        return layer.search(question, published).winner
    except Exception:  # a plan that asks the same will say it; the other questions go on
        _log.exception("no ring of %s for %s", layer.name, question)
        return None
