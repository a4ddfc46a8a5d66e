"""python -m rsdtr compress: make a network smaller, and recover it without labels."""

from __future__ import annotations

from typing import Any

import click

from rsdtr.commands import options
from rsdtr.commands.console import emit, progress
from rsdtr.commands.inputs import check_data_is_read, plan_of
from rsdtr.commands.onnx import check_no_size, check_without_images, compress_onnx_file
from rsdtr.commands.recoveries import Recoveries
from rsdtr.compressed.compress import compress as compressed
from rsdtr.compressed.saved import check_writable, save, weights_told, writable_folder
from rsdtr.data.datasets import load_data
from rsdtr.measuring.fastest_forms import measured_forms
from rsdtr.models.weights_source import WeightsSource
from rsdtr.models.zoo import weights_sha256
from rsdtr.onnx_files.onnx_file import is_onnx
from rsdtr.planning.choices import Choices
from rsdtr.planning.model_profile import profile
from rsdtr.recovery.recalibrate import nothing_to_recalibrate
from rsdtr.ring.cost import Size


@click.command()
@click.argument("model")
@options.choices
@options.calibrate
@options.weights
@options.data
@click.option(
    "--out",
    metavar="DIR|FILE.onnx",
    help="Folder, or of an ONNX file the file, to write.",
)
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
    "--distill-unlabelled",
    "distill_images",
    type=click.IntRange(min=3),
    metavar="N",
    help="Train the whole network to answer as the dense one does on so many training images, "
    "without labels; after --refit, if both are given.",
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
    help="Queue the last recovery, and return: `jobs show` tells how far it is and where the "
    "result lies.",
)
@options.onnx_inputs
@options.json
def compress(
    model: str, choices: Choices, calibrate: int | None, weights: WeightsSource, data: str | None,
    out: str | None, images: int | None, refit_images: int | None, distill_images: int | None,
    batch: int | None, job: bool, size: Size | None, pictures: dict[str, Any], as_json: bool,
) -> None:  # fmt: skip
    """Compress MODEL and save it in a folder, or an ONNX file and write another one."""
    if is_onnx(model):
        check_without_images(calibrate, None)
        if images is not None or distill_images is not None or job:
            raise click.UsageError(
                "--recalibrate, --distill-unlabelled and --job are for networks in torch: give "
                "--refit N for an ONNX file"
            )
        compress_onnx_file(model, choices, size, out, refit_images, batch, data, pictures, as_json)
        return
    check_no_size(size, pictures)
    check_data_is_read(data, calibrate, images, refit_images, distill_images)
    if job == (out is not None) or (job and refit_images is None and distill_images is None):
        raise click.UsageError(
            "give --out DIR for the compressed model, or --job with --refit N or "
            "--distill-unlabelled N: a job keeps its result itself"
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
    nothing = nothing_to_recalibrate(network)
    if images is not None and nothing:
        click.echo(f"{spec.name} has {nothing}", err=True)
        images = None
    recoveries = Recoveries(images, refit_images, distill_images)
    if recoveries.are_asked:
        check_writable(network, decided)
        splits = load_data(data, spec)
        if job:
            network = recoveries.but_the_last.of(network, dense, splits.train, metrics)
            queued = recoveries.queued(network, decided, splits, data, dense, weights, metrics)
            click.echo(f"{queued.id}: {queued.state}, {queued.title}")
            return
        network = recoveries.of(network, dense, splits.train, metrics)
    assert folder is not None  # a job has returned
    save(network, decided, folder, metrics=metrics)
    if as_json:
        emit(decided.model_dump(mode="json") | {"out": str(folder)})
        return
    click.echo(
        f"{folder}: {decided.model} at {decided.label}, "
        f"PCR {decided.pcr:.3f}, FCR {decided.fcr:.3f}"
        + (f" (as it runs: {decided.fcr_run:.3f})" if decided.fcr_run is not None else "")
    )
