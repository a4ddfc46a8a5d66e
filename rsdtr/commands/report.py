"""python -m rsdtr report: the report or the model card of a plan, as one file."""

from __future__ import annotations

from pathlib import Path

import click

from rsdtr.commands import options
from rsdtr.commands.console import progress
from rsdtr.commands.inputs import check_data_is_read, plan_of
from rsdtr.compressed.compress import compress
from rsdtr.data.datasets import load_data
from rsdtr.errors import ExportError
from rsdtr.exports.model_card import model_card
from rsdtr.measuring.accuracy import Accuracy, accuracy
from rsdtr.measuring.fidelity import fidelity
from rsdtr.models.weights_source import WeightsSource
from rsdtr.planning.choices import Asked, Choices
from rsdtr.planning.model_profile import profile
from rsdtr.system.atomic_files import SHARED, replace_file

SUFFIXES = (".html", ".json")


@click.command("report")
@click.argument("model")
@options.choices
@options.calibrate
@options.weights
@options.data
@click.option(
    "--accuracy",
    "measured",
    is_flag=True,
    help="Measure the dense and the compressed network on the test images; of one without "
    "classes, what the answers of both have in common.",
)
@click.option("--out", required=True, metavar="FILE", help=".html: report; .json: model card.")
def report(
    model: str, choices: Choices, calibrate: int | None, weights: WeightsSource, data: str | None,
    measured: bool, out: str,
) -> None:  # fmt: skip
    """Write what becomes of MODEL into one file: a report to read, or a model card."""
    path = Path(out).expanduser()
    if path.suffix.lower() not in SUFFIXES:
        raise click.UsageError(f"--out is {out!r}: give a file that ends in .html or .json")
    if not path.parent.is_dir():
        raise click.UsageError(f"--out: there is no folder {path.parent}: make it first")
    check_data_is_read(data, calibrate, measured)
    network, spec, decided = plan_of(model, choices, weights, calibrate, data)
    accuracies: list[tuple[str, Accuracy]] = []
    alike = None
    test = load_data(data, spec).test if measured else None
    if test is not None and spec.task != "classification":
        with progress(f"comparing with the dense network on {test.name}", "images") as show:
            alike = fidelity(compress(network, decided), network, test, progress=show)
    elif test is not None:
        for stage, one in (("dense", network), ("compressed", compress(network, decided))):
            with progress(f"evaluating the {stage} network on {test.name}", "images") as show:
                accuracies.append((stage, accuracy(one, test, progress=show)))
    asked = Asked(model, choices, weights, calibrate, data if calibrate else None)
    card = model_card(
        profile(network, spec), decided, accuracies=accuracies, fidelity=alike, asked=asked
    )
    if path.suffix.lower() == ".json":
        text = card.model_dump_json(indent=1)
    else:
        from rsdtr.charts.html_report import report_html  # draws, and so loads Plotly

        text = report_html(card)
    write(path, text)
    click.echo(f"{path}: {card.label}, PCR {decided.pcr:.3f}, FCR {decided.fcr:.3f}")


def write(path: Path, text: str) -> None:
    """Put a text into a file, all or nothing; ExportError if the place cannot be written."""
    try:
        replace_file(path, text.encode(), SHARED)
    except OSError as error:
        raise ExportError(f"{path} cannot be written ({error}): give another place") from error
