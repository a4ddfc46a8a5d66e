"""What a network is worth, on the command line: accuracy, or fidelity where nobody has labels."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click
from torch import nn

from rsdtr.commands import options
from rsdtr.commands.console import emit, progress
from rsdtr.commands.inputs import find, read_model
from rsdtr.compressed.manifest import WEIGHTS, read_manifest
from rsdtr.compressed.saved import place_of
from rsdtr.data.datasets import load_data
from rsdtr.data.image_sets import LabelledImages
from rsdtr.errors import DataError, WeightsError
from rsdtr.measuring.accuracy import accuracy
from rsdtr.measuring.fidelity import Fidelity, fidelity
from rsdtr.measuring.picture_quality import PictureQuality, picture_quality, targets_spec
from rsdtr.models.weights_source import WeightsSource
from rsdtr.models.zoo import ModelSpec, is_model, weights_sha256
from rsdtr.planning.model_profile import profile
from rsdtr.system.safetensors_format import saved_bytes


@click.command()
@click.argument("model_or_dir")
@options.weights
@options.data
@click.option(
    "--dense",
    metavar="FILE|none",
    help="Weights of the dense network that fidelity compares with.  [default: the published ones]",
)
@options.factory
@options.trust_program
@click.option(
    "--targets",
    metavar="DIR",
    help="What a network that answers pictures should answer those of --data with, by file name: "
    "PSNR and SSIM.",
)
@click.option("--limit", type=click.IntRange(min=1), help="Look at so many test images only.")
@options.json
def evaluate(
    model_or_dir: str, weights: WeightsSource, data: str | None, dense: str | None,
    factory: str | None, trust_program: bool, targets: str | None, limit: int | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Top-1 accuracy on the test images, parameters, MACs and bytes of a model or saved folder.

    Where the images have no labels, or the model tells no classes apart: fidelity, which is what
    the answers of a saved folder have in common with those of the dense network; with --targets,
    how near its pictures come to those.
    """
    network, spec, decided = find(model_or_dir, weights, factory, trust_program)
    test = _limited(load_data(data, spec).test, limit)
    if decided is not None:
        params, macs = decided.params.compressed, decided.macs.compressed
    elif test.labelled or targets is not None:
        costs = profile(network, spec)
        params, macs = costs.params, costs.macs
    else:
        raise DataError(
            f"{test.name} has no labels for {spec.name}, so that it is compared with the dense "
            f"network, which it is: give the folder of a compressed one"
        )
    doing = f"evaluating {spec.name} on {test.name}"
    folder = place_of(model_or_dir)
    size = saved_bytes(network) if decided is None else (folder / WEIGHTS).stat().st_size
    costs_told = {"params": params, "macs": macs, "bytes": size}
    if test.labelled:
        if targets is not None:
            raise click.UsageError("--targets is for a network that answers pictures")
        if dense is not None:
            raise click.UsageError(f"--dense is for images without labels: {test.name} has some")
        with progress(doing, "images") as show:
            reached = accuracy(network, test, progress=show)
        low, high = reached.interval
        found: dict[str, object] = {**reached.told}
        said = (
            f"{reached.percent:.2f} % of {reached.n:,} images "
            f"(95 % interval {low:.2f} to {high:.2f})"
        )
        if reached.assumed:
            said += f" ({reached.assumed})"
    else:
        found, parts = {"n": len(test)}, []
        if targets is not None:
            quality = _quality(network, spec, test, targets, limit, doing)
            found["quality"] = {"psnr": quality.psnr, "ssim": quality.ssim}
            parts.append(str(quality))
        if decided is not None and (targets is None or is_model(spec.name)):
            alike = _fidelity(folder, network, spec, dense, test, doing)
            told = asdict(alike)
            found |= {"n": told.pop("n"), "fidelity": told}
            parts.append(str(alike))
            if alike.warning:
                click.echo(f"warning: {alike.warning}", err=True)
        said = f"{', '.join(parts)} ({found['n']:,} images)"
    if as_json:
        emit({"model": spec.name, "data": test.name} | found | costs_told)
        return
    click.echo(
        f"{spec.name} on {test.name}: {said}, {params:,} parameters, {macs:,} MACs, {size:,} bytes"
    )


def _limited(images: LabelledImages, limit: int | None) -> LabelledImages:
    return images if limit is None else images.subset(limit)


def _quality(
    network: nn.Module,
    spec: ModelSpec,
    test: LabelledImages,
    targets: str,
    limit: int | None,
    doing: str,
) -> PictureQuality:
    """Against the pictures of the same names, split and drawn in the same way."""
    wanted = _limited(load_data(targets, targets_spec(network, spec)).test, limit)
    with progress(f"{doing} against {targets}", "images") as show:
        return picture_quality(network, test, wanted, progress=show)


def _fidelity(
    folder: Path,
    network: nn.Module,
    spec: ModelSpec,
    dense: str | None,
    test: LabelledImages,
    doing: str,
) -> Fidelity:
    """Compared with the dense network; WeightsError if it is another than was compressed."""
    if not is_model(spec.name):
        raise DataError(
            f"{test.name} has no labels for {spec.name}, so that it is compared with the dense "
            "network, which is not in its folder: name what builds it by --factory, or give "
            "--targets"
        )
    reference = read_model(spec.name, WeightsSource.of(dense))
    expected = read_manifest(folder.expanduser()).metrics.get("dense_sha256")
    if expected not in (None, weights_sha256(reference)):
        raise WeightsError(
            f"{folder} was compressed from other weights of {spec.name}: name them by --dense"
        )
    with progress(doing, "images") as show:
        return fidelity(network, reference, test, progress=show)
