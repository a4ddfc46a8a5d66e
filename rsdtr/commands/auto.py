"""rsdtr auto: name the accuracy you can spare, get the smallest network, exported and proved."""

from __future__ import annotations

from dataclasses import asdict
from typing import get_args

import click

from rsdtr.commands import options
from rsdtr.commands.console import emit, progress
from rsdtr.commands.inputs import profiled
from rsdtr.commands.options import Layers
from rsdtr.compressed.saved import writable_folder
from rsdtr.data.datasets import load_data
from rsdtr.exports.export import FORMATS, export
from rsdtr.exports.model_card import model_card
from rsdtr.models.weights_source import WeightsSource
from rsdtr.planning.choices import Asked, Choices
from rsdtr.recovery.autopilot import Found, Trial, smallest_within
from rsdtr.recovery.recover import STAGES, Recover


@click.command()
@click.argument("model")
@options.weights
@options.data
@click.option(
    "--max-drop",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="Percentage points of top-1 accuracy that may be lost.",
)
@options.layers
@click.option(
    "--recover",
    type=click.Choice([how for how in get_args(Recover) if how != "none"]),
    default="refit",
    show_default=True,
    help="The most that a network is brought through, without labels.",
)
@click.option(
    "--format",
    "formats",
    type=click.Choice(FORMATS),
    multiple=True,
    default=("safetensors", "onnx"),
    help="Of the files; may be repeated.  [default: safetensors, onnx]",
)
@click.option("--out", metavar="DIR", required=True, help="Folder for the files, or one .zip.")
@options.json
def auto(
    model: str, weights: WeightsSource, data: str | None, max_drop: float, layers: Layers,
    recover: Recover, formats: tuple[str, ...], out: str, as_json: bool,
) -> None:  # fmt: skip
    """The smallest network that loses at most --max-drop points, as files that are proved.

    One half of the labelled test images chooses among the networks, the other reports what was
    lost. Ctrl-C ends without a file.
    """
    from rsdtr.charts.html_report import report_html  # draws, and so loads Plotly

    if not out.endswith(".zip"):
        writable_folder(out)
    dense, spec, costs = profiled(model, weights)
    splits = load_data(data, spec)
    recovers: tuple[Recover, ...] = ("recalibrate",) if recover == "recalibrate" else (
        "recalibrate", "refit",
    )  # fmt: skip
    with progress(f"searching the smallest {model} within {max_drop:g} points", "sizes") as show:

        def note(trial: Trial, decided: int, about: int) -> None:
            show(min(decided, about), about)
            held = "holds" if trial.held else "does not hold"
            click.echo(
                f"PCR {trial.plan.pcr:.2f}, {STAGES[trial.recover]}: "
                f"{trial.drop.points:.2f} points lost on {trial.drop.n:,} images, "
                f"{held} ({trial.seconds:.0f} s)",
                err=True,
            )

        found = smallest_within(
            dense, costs, splits, max_drop, layers=layers, recovers=recovers, on_trial=note
        )
    asked = Asked(
        model, Choices(rule="tight", target=found.plan.target, layers=layers), weights, None, None
    )
    card = model_card(
        costs, found.plan, asked=asked,
        accuracies=[("dense", found.dense), (STAGES[found.recover], found.reached)],
    )  # fmt: skip
    with progress(f"exporting {model}", "steps") as show:
        artefacts = export(
            found.model, found.plan, splits.test, formats, out,
            calibration=splits.train, metrics=_told(found, splits.test.name),
            report=report_html(card), progress=show,
        )  # fmt: skip
    if as_json:
        steps = [
            {"pcr": t.plan.pcr, "recover": t.recover, "drop": t.drop.points, "held": t.held,
             "seconds": t.seconds}
            for t in found.trials
        ]  # fmt: skip
        files = [asdict(item) | {"path": str(item.path)} for item in artefacts]
        costs_told = {
            "params": found.plan.params.compressed, "macs": found.plan.macs.compressed,
            "bytes": artefacts[0].bytes,
        }  # fmt: skip
        ratios = {"pcr": found.plan.pcr, "fcr": found.plan.fcr}
        told = {"model": model} | _told(found, splits.test.name) | costs_told | ratios
        emit(told | {"steps": steps, "files": files})
        return
    click.echo(str(found))
    for item in artefacts:
        click.echo(f"{item.path}  {item.bytes:,} bytes")


def _told(found: Found, data: str) -> dict[str, object]:
    """In the words of `evaluate --json`, beside the dense network's."""
    return {
        "data": data,
        **found.reached.told,
        "dense_accuracy": found.dense.percent,
        "drop": found.drop.points,
        "drop_interval": list(found.drop.interval),
        "recovered": STAGES[found.recover],
    }
