"""python -m rsdtr profile: the whole grid of a model, computed ahead and kept on disk."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase

import click
import torch

from rsdtr.commands import options
from rsdtr.commands.console import INTERRUPTED, emit, progress
from rsdtr.jobs.kinds.grid_search import searching_here
from rsdtr.models.model_loading import load_model
from rsdtr.models.weights_source import WeightsSource
from rsdtr.models.zoo import model_spec
from rsdtr.planning.model_profile import profile as profiled
from rsdtr.planning.winners_on_disk import fill_store, load_winners
from rsdtr.search.candidate import GRID, OBJECTIVES, RULES


@click.command("profile")
@click.argument("model")
@options.weights
@options.json
@click.option("--layers", multiple=True, hidden=True, metavar="GLOB", help="Only these layers.")
def profile(model: str, weights: WeightsSource, as_json: bool, layers: Sequence[str]) -> int:
    """Search the rings of MODEL for every ε_p of the slider, and keep them on disk.

    What is stored already is not searched again. Ctrl-C stops it, and keeps what was found. If
    another process is at work on the model, this one says so and ends.
    """
    started = time.perf_counter()
    torch.set_num_threads(1)  # before anything runs: then every core can get a process by a fork
    spec = model_spec(model)
    with progress(f"reading the weights of {model}", "bytes") as show:
        found = profiled(load_model(model, weights, progress=show), spec)
    names = [
        layer.name
        for layer in found.layers
        if layer.obstacle is None
        and (not layers or any(fnmatchcase(layer.name, glob) for glob in layers))
    ]
    last = None
    with (
        _stop_signals() as stop,
        progress(f"searching the rings of {model}", "winners") as show,
        searching_here(found, weights, stop) as tell,
    ):
        if tell is not None:
            for last in fill_store(found, stop.is_set, layers=names):
                show(last.done, last.total, last.seconds_left)
                tell(last)
    if last is None:
        click.echo(f"another process is searching the rings of {model}: nothing to do", err=True)
        load_winners(found)
    elif stop.is_set():
        click.echo(f"stopped at {last.done:,} of {last.total:,}: what was found is kept", err=True)
    chosen = set(names)
    known = sum(name in chosen and question.eps in GRID for name, question, _ in found.winners)
    questions = len(names) * len(GRID) * len(RULES) * len(OBJECTIVES)
    if as_json:
        emit(
            {
                "model": model,
                "weights_sha256": found.weights_sha256,
                "layers": len(names),
                "questions": questions,
                "known": known,
                "seconds": time.perf_counter() - started,
                "coarse_seconds": None if last is None else last.coarse_seconds,
            }
        )
    else:
        click.echo(f"{model}: {known:,} of {questions:,} winners known, {len(names)} layers")
    return INTERRUPTED if stop.is_set() else 0


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """Ctrl-C and SIGTERM as an event, so that nothing is lost on the way out."""
    stop = threading.Event()
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in signals}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
