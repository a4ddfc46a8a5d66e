"""python -m rsdtr bench: every way to run a network, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import click

from rsdtr.baselines.benchmark import (
    ENGINES,
    checked_engines,
    layer_rows,
    network_rows,
    network_variants,
)
from rsdtr.commands import options
from rsdtr.commands.console import emit, progress, table
from rsdtr.commands.inputs import decide, find
from rsdtr.compressed.compress import compress as compressed
from rsdtr.measuring.fastest_forms import measured_forms
from rsdtr.measuring.stopwatch import Timing, machine
from rsdtr.models.weights_source import WeightsSource
from rsdtr.planning.choices import Choices
from rsdtr.planning.model_profile import profile
from rsdtr.planning.winners_on_disk import load_winners


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
    default="all",
    show_default=True,
    help="The whole network, each of its rings, or both.",
)
@options.json
def bench(
    model_or_dir: str, choices: Choices, weights: WeightsSource, factory: str | None,
    batch: str, threads: int, runs: int, engines: Sequence[str], scope: str, as_json: bool,
) -> None:  # fmt: skip
    """Time the dense network, the paper's pipeline, every form and the fastest, side by side.

    The forms of `auto` are chosen from this machine's device profile, which is measured first
    where it lacks a layer. Layers are timed eagerly.
    """
    try:
        batches = [int(text) for text in batch.split(",")]
    except ValueError:
        raise click.UsageError(f"--batch is {batch!r}: give whole numbers, as in 1,16") from None
    if min(batches) < 1:
        raise click.UsageError(f"--batch is {batch!r}: give batches of at least 1")
    engines = checked_engines(engines)
    dense, spec, decided = find(model_or_dir, weights, factory)
    if decided is None:
        costs = profile(dense, spec)
        load_winners(costs)
        decided = decide(costs, choices)
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
    rows: list[Timing] = []
    for size in batches:
        with progress(f"measuring forms at batch {size}", "layers") as show:
            fast = measured_forms(decided, found, batch=size, threads=threads, progress=show)
        variants = network_variants(dense.eval(), ring.eval(), fast, found)
        if scope != "layers":
            for engine in engines:
                with progress(f"timing {spec.name} at batch {size} in {engine}"):
                    rows += network_rows(
                        variants, spec, engine, batch=size, runs=runs, threads=threads
                    )
        if scope != "network":
            with progress(f"timing its rings at batch {size}", "layers") as show:
                rows += layer_rows(
                    variants, found, batch=size, runs=runs, threads=threads, progress=show
                )
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
