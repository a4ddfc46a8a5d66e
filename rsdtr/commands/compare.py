"""python -m rsdtr compare: methods beside each other, as a table and a figure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from rsdtr.baselines.catalogue import METHODS, Subject, check_methods, methods_for
from rsdtr.baselines.comparison import Cell, Comparison, run
from rsdtr.commands import options
from rsdtr.commands.console import emit, progress, table
from rsdtr.compressed.saved import writable_folder
from rsdtr.data.datasets import load_data
from rsdtr.errors import RsdtrError
from rsdtr.measuring.stopwatch import machine
from rsdtr.models.model_loading import load_model
from rsdtr.models.weights_source import WeightsSource
from rsdtr.models.zoo import model_spec
from rsdtr.recovery.recalibrate import nothing_to_recalibrate
from rsdtr.system.atomic_files import replace_file

TABLE, FIGURE = "compare", "compare.html"
ALL = "all"


@click.command()
@click.argument("model")
@click.option(
    "--methods",
    default=ALL,
    show_default=True,
    metavar="A,B,C",
    help=f"all, or some of {', '.join(METHODS)}; int8 alone, or after one: NAME+int8.",
)
@click.option("--pcr", "pcrs", default="2,3,4,6", show_default=True, metavar="P,Q,…")
@click.option(
    "--recalibrate",
    type=click.IntRange(min=2),
    metavar="N",
    help="Re-estimate BatchNorm statistics from so many training images, without labels.",
)
@click.option("--epochs", type=click.IntRange(min=0), default=0, help="Fine-tune for so many.")
@options.weights
@options.data
@click.option("--limit", type=click.IntRange(min=1), help="Look at so many test images only.")
@click.option("--out", required=True, metavar="DIR", help="Folder of the cells, table and figure.")
@options.json
def compare(
    model: str, methods: str, pcrs: str, recalibrate: int | None, epochs: int,
    weights: WeightsSource, data: str | None, limit: int | None, out: str, as_json: bool,
) -> None:  # fmt: skip
    """Compress MODEL by several methods to several PCRs, and test each.

    Every finished cell is kept in DIR: asked again, only what is missing or failed is computed.
    """
    asked = comparison(model, methods, pcrs, recalibrate, epochs, weights, data, limit)
    folder = Path(out)
    if not folder.exists():
        writable_folder(out)
    spec = model_spec(model)
    subject = Subject(load_model(model, weights), spec, load_data(data, spec))
    if asked.recalibrate is not None and (reason := nothing_to_recalibrate(subject.model)):
        click.echo(f"{model} has {reason}", err=True)
    asked = asked.for_network(subject.model)
    cells: list[Cell] = []
    with progress(f"comparing methods on {model}", "cells") as show:
        for cell in run(asked, subject, folder, progress=lambda _, done, total: show(done, total)):
            cells.append(cell)
            write_results(folder, asked, tuple(cells))
    if as_json:
        emit(_content(asked, tuple(cells)))
        return
    click.echo(table(_HEADER, [_row(cell) for cell in cells]))
    for assumed in dict.fromkeys(cell.assumed for cell in cells if cell.assumed):
        click.echo(f"By labels of which {assumed}")
    click.echo(", ".join(str(folder / name) for name in (f"{TABLE}.csv", f"{TABLE}.json", FIGURE)))


def comparison(
    model: str, methods: str, pcrs: str, recalibrate: int | None, epochs: int,
    weights: WeightsSource, data: str | None, limit: int | None,
) -> Comparison:  # fmt: skip
    """What was asked for, from text; a usage error where it makes no sense."""
    names = methods_for(model) if methods == ALL else tuple(filter(None, methods.split(",")))
    check_methods(names)
    try:
        numbers = tuple(float(text) for text in pcrs.split(","))
    except ValueError:
        raise click.UsageError(f"--pcr is {pcrs!r}: give numbers, as in 2,3,4") from None
    try:
        return Comparison(
            model=model, methods=names, pcrs=numbers, recalibrate=recalibrate, epochs=epochs,
            data=data, weights=weights, limit=limit,
        )  # fmt: skip
    except ValidationError as error:
        first = error.errors()[0]
        raise click.UsageError(f"{first['loc'][0]}: {first['msg']}") from None


def write_results(folder: Path, asked: Comparison, cells: tuple[Cell, ...]) -> None:
    """The table as CSV and JSON and the figure as HTML, each whole or not at all."""
    # Plotly and pandas are only needed here.
    from rsdtr.charts.comparison import comparison_figure
    from rsdtr.charts.tables import cells_table

    figure = comparison_figure(cells, asked.model)
    try:
        content = json.dumps(_content(asked, cells), ensure_ascii=False, indent=1)
        replace_file(folder / f"{TABLE}.json", content.encode())
        replace_file(folder / f"{TABLE}.csv", cells_table(cells).to_csv(index=False).encode())
        replace_file(folder / FIGURE, figure.to_html(include_plotlyjs=True).encode())
    except OSError as error:
        raise RsdtrError(f"{folder} could not be written ({error.strerror or error})") from error


def _content(asked: Comparison, cells: tuple[Cell, ...]) -> dict[str, Any]:
    return {
        "machine": machine(),
        "asked": asked.model_dump(mode="json"),
        "cells": [cell.model_dump(mode="json") for cell in cells],
    }


_HEADER = ("method", "PCR", "FCR", "latency", "bytes", "accuracy", "95 % interval", "seconds")


def _row(cell: Cell) -> tuple[str, ...]:
    if cell.failed is not None or cell.interval is None:
        return cell.method, f"({cell.asked:g})", f"failed: {cell.failed}", *[""] * 5
    low, high = cell.interval
    return (
        cell.method, f"{cell.pcr:.3f}", f"{cell.fcr:.3f}", f"{cell.latency_ratio:.2f}",
        f"{cell.bytes:,}", f"{cell.accuracy:.2f} %", f"{low:.2f} to {high:.2f}",
        f"{cell.seconds:.1f}",
    )  # fmt: skip
