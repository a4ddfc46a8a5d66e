"""rsdtr auto: name the accuracy you can spare, get the smallest network, exported and proved."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import asdict

import click

from rsdtr.autopilot.budget import PURPOSES, UNLABELLED, Budget, Purpose, Unlabelled
from rsdtr.autopilot.files import card_of, formats_for, told, write_files
from rsdtr.autopilot.search import Found, Trial, smallest_within
from rsdtr.baselines.benchmark import ENGINES
from rsdtr.commands import options
from rsdtr.commands.console import emit, progress
from rsdtr.commands.inputs import profiled
from rsdtr.commands.options import Layers
from rsdtr.compressed.saved import writable_folder
from rsdtr.data.datasets import data_identity, load_data
from rsdtr.exports.export import FORMATS, Artefact
from rsdtr.models.weights_source import WeightsSource
from rsdtr.recovery.curves_on_disk import known_smallest

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def _duration(_: click.Context, __: click.Parameter, text: str | None) -> float | None:
    """Seconds, from 30m, 90s, 2h, or a number of minutes."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip().lower())
    if found is None or float(found[1]) == 0:
        raise click.UsageError(f"--time is {text!r}: give a time as in 30m, 90s or 2h")
    return float(found[1]) * _SECONDS[found[2] or "m"]


@click.command()
@click.argument("model")
@options.weights
@options.data
@click.option(
    "--max-drop",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="Percentage points of top-1 accuracy that may be lost; without labels, of fidelity.",
)
@click.option(
    "--for",
    "purpose",
    type=click.Choice(PURPOSES),
    default="size",
    show_default=True,
    help="What is made small: parameters, or time.",
)
@click.option(
    "--engine",
    type=click.Choice(ENGINES),
    default="onnxruntime",
    show_default=True,
    help="For speed: what runs the network.",
)
@click.option("--batch", type=click.IntRange(min=1), default=1, show_default=True,
              help="For speed: images in a batch.")  # fmt: skip
@click.option("--threads", type=click.IntRange(min=1), default=2, show_default=True,
              help="For speed: threads that the engine may use.")  # fmt: skip
@options.layers
@click.option(
    "--recover",
    type=click.Choice(UNLABELLED[1:]),
    default="refit",
    show_default=True,
    help="The most that a network is brought through, without labels.",
)
@click.option("--epochs", type=click.IntRange(min=0), default=0, show_default=True,
              help="Of fine-tuning with labels, where less does not hold.")  # fmt: skip
@click.option("--int8", is_flag=True, help="Judge networks, and write the best, in int8.")
@click.option("--time", "seconds", callback=_duration, metavar="30m",
              help="After so long, the best so far is written.")  # fmt: skip
@click.option(
    "--format",
    "formats",
    type=click.Choice(FORMATS),
    multiple=True,
    help="Of the files; may be repeated.  [default: safetensors, onnx; int8 with --int8]",
)
@click.option("--out", metavar="DIR", required=True, help="Folder for the files, or one .zip.")
@options.json
def auto(
    model: str, weights: WeightsSource, data: str | None, max_drop: float, purpose: Purpose,
    engine: str, batch: int, threads: int, layers: Layers, recover: Unlabelled, epochs: int,
    int8: bool, seconds: float | None, formats: tuple[str, ...], out: str, as_json: bool,
) -> None:  # fmt: skip
    """The smallest network, or the fastest, that loses at most --max-drop points, as proved files.

    One half of the test images chooses among the networks, the other reports what was lost. What
    was tried is kept: another budget, or the same command after Ctrl-C, goes on from there.
    """
    budget = Budget(
        max_drop, purpose, engine, batch, threads, recover, epochs, int8, seconds, layers
    )
    if not out.endswith(".zip"):
        writable_folder(out)
    dense, spec, costs = profiled(model, weights)
    splits = load_data(data, spec)
    guess = known_smallest(costs, data_identity(data, spec), max_drop, layers)
    with progress(f"searching the smallest {model} within {max_drop:g} points", "sizes") as show:
        found = smallest_within(dense, costs, splits, budget, guess=guess, on_trial=_noted(show))
    card = card_of(found, costs, model, weights, layers)
    with progress(f"exporting {model}", "steps") as show:
        artefacts = write_files(
            found, splits, formats_for(int8, formats), out, card=card, progress=show
        )
    if as_json:
        emit(_told(found, model, splits.test.name, artefacts))
        return
    click.echo(str(found))
    if found.reached.assumed is not None:
        click.echo(f"warning: {found.reached.assumed}", err=True)
    for item in artefacts:
        click.echo(f"{item.path}  {item.bytes:,} bytes")


def _noted(show: Callable[[int, int, float | None], None]) -> Callable[[Trial, int, int], None]:
    """What tells each trial on stderr, with the time that the search may still take."""
    began = time.monotonic()

    def note(trial: Trial, decided: int, about: int) -> None:
        show(decided, about, (time.monotonic() - began) / decided * (about - decided))
        held = "holds" if trial.held else "does not hold"
        took = "known" if trial.known else f"{trial.seconds:.0f} s"
        click.echo(
            f"PCR {trial.plan.pcr:.2f}, FCR {trial.plan.fcr:.2f}, {trial.stage}: "
            f"{trial.drop.points:.2f} points lost on {trial.drop.n:,} images, {held} ({took})",
            err=True,
        )

    return note


def _told(found: Found, model: str, data: str, files: list[Artefact]) -> dict[str, object]:
    """The object of `auto --json`."""
    steps = [
        {"pcr": t.plan.pcr, "fcr": t.plan.fcr, "recover": t.stage, "drop": t.drop.points,
         "held": t.held, "seconds": t.seconds}
        for t in found.trials
    ]  # fmt: skip
    costs = {
        "params": found.plan.params.compressed, "macs": found.plan.macs.compressed,
        "bytes": files[0].bytes, "pcr": found.plan.pcr, "fcr": found.plan.fcr,
    }  # fmt: skip
    paths = [asdict(item) | {"path": str(item.path)} for item in files]
    return {"model": model} | told(found, data) | costs | {"steps": steps, "files": paths}
