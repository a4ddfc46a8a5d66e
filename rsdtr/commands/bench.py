"""python -m rsdtr bench: every way to run a network, side by side."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict

import click
import torch
from torch import nn

from rsdtr.baselines.benchmark import (
    ENGINES,
    checked_engines,
    layer_rows,
    network_forms,
    network_rows,
    network_variants,
)
from rsdtr.commands import options
from rsdtr.commands.console import Progress, emit, progress, table
from rsdtr.commands.inputs import decide, find
from rsdtr.compressed.compress import compress as compressed
from rsdtr.measuring.fastest_forms import layer_cases, with_forms
from rsdtr.measuring.stopwatch import Timing, machine
from rsdtr.measuring.times_in_network import profile_in_network
from rsdtr.models.weights_source import WeightsSource
from rsdtr.planning.choices import Choices
from rsdtr.planning.model_profile import profile
from rsdtr.planning.winners_on_disk import load_winners

_SECONDS, _SECONDS_WITH_LAYERS = 110.0, 240.0
_RUNS_OF_FORMS = 10  # are enough to tell which is faster


@click.command()
@click.argument("model_or_dir")
@options.choices
@options.weights
@options.factory
@click.option("--batch", default="1", show_default=True, help="Batch sizes, as in 1,16.")
@click.option("--threads", type=click.IntRange(min=1), default=2, show_default=True)
@click.option("--runs", type=click.IntRange(min=2), default=30, show_default=True)
@click.option(
    "--engine",
    "engines",
    multiple=True,
    default=("eager", "onnxruntime"),
    metavar="|".join(ENGINES),
    help="What runs the network; may be repeated.  [default: eager, onnxruntime]",
)
@click.option(
    "--scope",
    type=click.Choice(["network", "layers", "all"]),
    default="network",
    show_default=True,
    help="The whole network, each of its rings as it runs inside, or both.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=1),
    default=None,
    help="How long it may take in all: there are fewer runs then, and no row where no time is left."
    "  [default: 110; with layers 240]",
)
@options.json
def bench(
    model_or_dir: str, choices: Choices, weights: WeightsSource, factory: str | None,
    batch: str, threads: int, runs: int, engines: Sequence[str], scope: str,
    seconds: float | None, as_json: bool,
) -> None:  # fmt: skip
    """Time the dense network, the paper's pipeline, every form and the fastest, side by side.

    A target is met by one ε_p for all layers, which is found soon: a folder that compress wrote is
    timed as it was planned. The forms of `auto` are those whose layers take least inside the
    network, eagerly.
    """
    try:
        batches = [int(text) for text in batch.split(",")]
    except ValueError:
        raise click.UsageError(f"--batch is {batch!r}: give whole numbers, as in 1,16") from None
    if min(batches) < 1:
        raise click.UsageError(f"--batch is {batch!r}: give batches of at least 1")
    engines = checked_engines(engines)
    whole, parts = scope != "layers", scope != "network"
    budget = seconds or (_SECONDS_WITH_LAYERS if parts else _SECONDS)
    steps = _Steps(budget, len(batches) * (1 + whole * len(engines) + parts))
    dense, spec, decided = find(model_or_dir, weights, factory)
    if decided is None:
        found = profile(dense, spec)
        load_winners(found)
        decided = decide(found, choices, uniform=True)
        with progress("computing the rings"):
            ring = compressed(dense, decided)
    else:
        if choices != Choices():
            raise click.UsageError(
                "what decides a plan (--eps, --layers and so on) is for a model: a saved folder "
                "has a plan"
            )
        # How long a network takes does not depend on the values of its weights.
        ring, dense = dense, spec.build()
        found = profile(dense, spec)
    forms = network_forms(ring.eval(), decided, found)
    written: dict[nn.Module, bytes] = {}
    rows: list[Timing] = []
    for size in batches:
        if rows and steps.over:
            steps.skip(f"batch {size}", 1 + whole * len(engines) + parts)
            continue
        with steps.next(f"timing forms inside {spec.name} at batch {size}") as (show, share):
            measured = profile_in_network(
                forms, layer_cases(decided, found, batch=size, threads=threads),
                torch.randn(size, *spec.input_shape), runs=min(runs, _RUNS_OF_FORMS),
                seconds=share, threads=threads, progress=show,
            )  # fmt: skip
        fast = with_forms(decided, found, measured, batch=size, threads=threads)
        variants = network_variants(dense.eval(), ring, forms, fast)
        for engine in engines if whole else ():
            if rows and steps.over:
                steps.skip(f"{engine} at batch {size}")
                continue
            with steps.next(f"timing {spec.name} at batch {size} in {engine}") as (show, share):
                rows += network_rows(
                    variants, spec, engine, batch=size, runs=runs, threads=threads,
                    seconds=share, written=written, progress=show,
                )  # fmt: skip
        if parts and rows and steps.over:
            steps.skip(f"the rings at batch {size}")
        elif parts:
            with steps.next(f"timing its rings at batch {size}") as (show, share):
                rows += layer_rows(
                    variants, spec, batch=size, runs=runs, threads=threads, seconds=share,
                    progress=show,
                )  # fmt: skip
    if as_json:
        emit({"machine": machine(), "threads": threads, "rows": [asdict(row) for row in rows]})
        return
    click.echo(f"{spec.name} on {machine()}, {threads} threads, {runs} runs")
    dense_ms = {
        (row.scope, row.engine, row.batch): row.median_ms for row in rows if row.variant == "dense"
    }
    cells = [
        (
            row.scope,
            row.engine,
            str(row.batch),
            row.variant,
            f"{row.median_ms:.2f}",
            f"{row.iqr_ms:.2f}",
            f"{row.median_ms / dense_ms[row.scope, row.engine, row.batch]:.2f}",
        )
        for row in rows
    ]
    header = ("scope", "engine", "batch", "variant", "median ms", "IQR ms", "of dense")
    click.echo(table(header, cells))


class _Steps:
    """The steps of a benchmark, which share the time that it may take, from now on.

    What a step leaves of its share is the next ones'.
    """

    def __init__(self, seconds: float, count: int) -> None:
        self._ends, self._count, self._done = time.perf_counter() + seconds, count, 0

    @property
    def left(self) -> float:
        """Seconds that are left for all steps."""
        return max(0.0, self._ends - time.perf_counter())

    @property
    def over(self) -> bool:
        """Whether none is."""
        return not self.left

    def skip(self, what: str, count: int = 1) -> None:
        """Say that no time was left for so many steps."""
        self._done += count
        click.echo(f"no time was left for {what}: give more --seconds", err=True)

    @contextmanager
    def next(self, doing: str) -> Iterator[tuple[Progress, float]]:
        """The next step's progress on stderr, with the time left in all; its share in seconds."""
        share = self.left / (self._count - self._done)
        self._done += 1
        with progress(f"step {self._done} of {self._count}, {doing}", "runs") as show:

            def told(done: int, total: int, _: float | None = None, /) -> None:
                show(done, total, self.left)

            yield told, share
