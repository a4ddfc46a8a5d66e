"""python -m rsdtr …: the library's words on the command line.

Results go to stdout, progress and warnings to stderr. Exit codes: see console.Commands.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import click

from rsdtr.commands import options
from rsdtr.commands.bench import bench
from rsdtr.commands.compare import compare
from rsdtr.commands.console import Commands, emit, plan_table, progress, table
from rsdtr.commands.evaluate import evaluate
from rsdtr.commands.export import export
from rsdtr.commands.finetune import finetune
from rsdtr.commands.jobs import jobs
from rsdtr.commands.profile import profile as profile_command
from rsdtr.commands.ratio import ratio
from rsdtr.commands.report import report
from rsdtr.commands.requested import check_data_is_read, plan_of
from rsdtr.commands.study import study
from rsdtr.commands.verify import verify
from rsdtr.compress import compress as compressed
from rsdtr.data import load_data
from rsdtr.errors import UnknownName
from rsdtr.fast import measured_forms
from rsdtr.kinds.network import weights_told
from rsdtr.kinds.refit import queue_refit
from rsdtr.profile import profile
from rsdtr.recover import recalibrate
from rsdtr.refit import refit, refit_record
from rsdtr.saved import save, writable_folder
from rsdtr.targets import Choices
from rsdtr.zoo import ModelSpec, model_names, model_spec, weights_sha256


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Tensor-ring compression of pretrained CNNs: plan, compress, recover, evaluate, export."""


@cli.command()
@options.json
def models(as_json: bool) -> None:
    """List the models of the zoo."""
    specs = [model_spec(name) for name in model_names()]
    if as_json:
        emit({"models": [_model_row(spec) for spec in specs]})
        return
    rows = [
        (
            spec.name,
            spec.task,
            "×".join(map(str, spec.input_shape)),
            str(spec.classes),
            _weights_of(spec),
        )
        for spec in specs
    ]
    click.echo(table(("model", "task", "input", "classes", "weights"), rows))


def _model_row(spec: ModelSpec) -> dict[str, object]:
    return {
        "name": spec.name,
        "family": spec.family,
        "task": spec.task,
        "input_shape": list(spec.input_shape),
        "classes": spec.classes,
        "data": spec.data,
        "weights": _weights_of(spec),
        "source": spec.source,
    }


def _weights_of(spec: ModelSpec) -> str:
    if spec.bundled:
        return "bundled"
    return "download" if spec.weights_url else "own file"


@cli.command()
@click.argument("model")
@options.choices
@options.calibrate
@options.weights
@options.data
@options.json
def plan(
    model: str, choices: Choices, calibrate: int | None, weights: str | None,
    data: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Decide which ring every convolution of MODEL becomes; nothing is changed."""
    check_data_is_read(data, calibrate)
    _, _, decided = plan_of(model, choices, weights, calibrate, data)
    click.echo(decided.model_dump_json(indent=1) if as_json else plan_table(decided))


@cli.command()
@click.argument("model")
@options.choices
@options.calibrate
@options.weights
@options.data
@click.option("--out", metavar="DIR", help="Folder for the compressed model.")
@click.option(
    "--recalibrate",
    "images",
    type=click.IntRange(min=2),
    help="Re-estimate BatchNorm statistics from so many training images, without labels.",
)
@click.option(
    "--refit",
    "refit_images",
    type=click.IntRange(min=2),
    metavar="N",
    help="Refit the cores by least squares to what the dense network does on so many training "
    "images, without labels; after --recalibrate, if both are given.",
)
@click.option(
    "--fast",
    "batch",
    type=click.IntRange(min=1),
    metavar="BATCH",
    help="Let each ring run in the form that is fastest on this machine for so many images, with "
    "two threads; what was not measured before is.",
)
@click.option(
    "--job",
    is_flag=True,
    help="Queue the refit, and return: `jobs show` tells how far it is and where the result lies.",
)
def compress(
    model: str, choices: Choices, calibrate: int | None, weights: str | None, data: str | None,
    out: str | None, images: int | None, refit_images: int | None, batch: int | None, job: bool,
) -> None:  # fmt: skip
    """Compress MODEL and save it in a folder."""
    check_data_is_read(data, calibrate, images, refit_images)
    if job == (out is not None) or (job and refit_images is None):
        raise click.UsageError(
            "give --out DIR for the compressed model, or --job with --refit N: a job keeps its "
            "result itself"
        )
    folder = writable_folder(out) if out is not None else None
    dense, spec, decided = plan_of(model, choices, weights, calibrate, data)
    if batch is not None:
        with progress(f"measuring forms at batch {batch}", "layers") as show:
            decided = measured_forms(decided, profile(dense, spec), batch=batch, progress=show)
    with progress("computing the rings"):
        network = compressed(dense, decided)
    metrics: dict[str, Any] = weights_told(weights)
    if spec.task != "classification":  # `evaluate` compares with this network, and no other
        metrics["dense_sha256"] = weights_sha256(dense)
    if images is not None:
        train = load_data(data, spec).train
        with progress(f"recalibrating on {train.name}", "images") as show:
            network = recalibrate(network, train, images, reference=dense, progress=show)
        metrics["recalibrated"] = {"data": train.name, "images": min(images, len(train))}
    if folder is None and refit_images is not None:
        queued = queue_refit(
            network, decided, load_data(data, spec), refit_images,
            data=data, dense=dense, weights=weights,
        )  # fmt: skip
        click.echo(f"{queued.id}: {queued.state}, {queued.title}")
        return
    if refit_images is not None:
        train = load_data(data, spec).train
        with progress(f"refitting on {train.name}", "layers") as show:
            refitted = refit(network, dense, train, refit_images, progress=show)
        network = refitted.model
        metrics["refitted"] = refit_record(
            train.name, min(refit_images, len(train)), refitted.steps
        )
    assert folder is not None  # a job has returned
    save(network, decided, folder, metrics=metrics)
    click.echo(
        f"{folder}: {decided.model} at {decided.label}, "
        f"PCR {decided.pcr:.3f}, FCR {decided.fcr:.3f}"
        + (f" (as it runs: {decided.fcr_run:.3f})" if decided.fcr_run is not None else "")
    )


for command in (
    bench,
    compare,
    evaluate,
    export,
    finetune,
    jobs,
    profile_command,
    ratio,
    report,
    study,
    verify,
):
    cli.add_command(command)


@cli.command()
def app() -> int:
    """Start the explorer in the browser."""
    root = Path(__file__).parents[1]
    script = root / "app.py"
    if not script.is_file():
        raise UnknownName(f"{script} is not there: start the app from a copy of the repository")
    command = [sys.executable, "-m", "rsdtr.ui.server"]
    return subprocess.run(command, cwd=root, check=False).returncode
