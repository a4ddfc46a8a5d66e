"""python -m rsdtr export: hand a compressed model out as files that are proved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import click

from rsdtr.commands import options
from rsdtr.commands.console import emit, progress, table
from rsdtr.commands.inputs import read_saved
from rsdtr.data.datasets import load_data
from rsdtr.exports.export import FORMATS
from rsdtr.exports.export import export as exported
from rsdtr.jobs.kinds.export import queue_export


@click.command()
@click.argument("folder", metavar="DIR")
@click.option(
    "--format",
    "formats",
    type=click.Choice(FORMATS),
    multiple=True,
    required=True,
    help="May be repeated.",
)
@click.option("--out", metavar="DIR", help="Folder for the files, or one .zip.")
@options.data
@options.factory
@click.option(
    "--job",
    is_flag=True,
    help="Queue it, and return: `jobs show` tells how far it is and where the files lie.",
)
@options.json
def export(
    folder: str, formats: Sequence[str], out: str | None, data: str | None,
    factory: str | None, job: bool, as_json: bool,
) -> None:  # fmt: skip
    """Write the model in DIR as files that a fresh process has read back and found equal."""
    if job == (out is not None) or (job and as_json):
        raise click.UsageError(
            "give --out DIR for the files, or --job: a job keeps its files itself, and `jobs show "
            "--json` tells of it"
        )
    from rsdtr.charts.html_report import saved_report  # draws, and so loads Plotly

    saved = read_saved(folder, factory)
    splits = load_data(data, saved.spec)
    if out is None:
        queued = queue_export(
            saved.model, saved.plan, splits, formats, data=data, metrics=saved.metrics
        )
        click.echo(f"{queued.id}: {queued.state}, {queued.title}")
        return
    with progress(f"exporting {saved.spec.name}", "steps") as show:
        artefacts = exported(
            saved.model, saved.plan, splits.test, formats, out,
            calibration=splits.train, metrics=saved.metrics, report=saved_report(saved),
            progress=show,
        )  # fmt: skip
    if as_json:
        emit(
            {
                "model": saved.spec.name,
                "artefacts": [asdict(item) | {"path": str(item.path)} for item in artefacts],
            }
        )
        return
    rows = [
        (
            str(item.path),
            f"{item.bytes:,}",
            "" if item.dense_bytes is None else f"{item.dense_bytes:,}",
            f"{item.max_difference:.1e}",
            item.proof.told,
        )
        for item in artefacts
    ]
    header = ("file", "bytes", "dense model's", "largest difference of logits", "same class")
    click.echo(table(header, rows))
