"""What a network is worth, on the command line: accuracy, or fidelity where nobody has labels."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click
from torch import nn

from rsdtr.commands import options
from rsdtr.commands.console import emit, progress
from rsdtr.commands.inputs import find, read_model
from rsdtr.compressed.manifest import read_manifest
from rsdtr.data.datasets import load_data
from rsdtr.data.image_sets import LabelledImages
from rsdtr.errors import DataError, WeightsError
from rsdtr.measuring.accuracy import accuracy
from rsdtr.measuring.fidelity import Fidelity, fidelity
from rsdtr.models.zoo import ModelSpec, weights_sha256
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
@click.option("--limit", type=click.IntRange(min=1), help="Look at so many test images only.")
@options.json
def evaluate(
    model_or_dir: str, weights: str | None, data: str | None, dense: str | None,
    limit: int | None, as_json: bool,
) -> None:  # fmt: skip
    """Top-1 accuracy on the test images, parameters, MACs and bytes of a model or saved folder.

    Where the images have no labels, or the model tells no classes apart: fidelity, which is what
    the answers of a saved folder have in common with those of the dense network.
    """
    network, spec, decided = find(model_or_dir, weights)
    test = load_data(data, spec).test
    test = test if limit is None else test.subset(limit)
    if decided is not None:
        params, macs = decided.params.compressed, decided.macs.compressed
    elif test.labelled:
        costs = profile(network, spec)
        params, macs = costs.params, costs.macs
    else:
        raise DataError(
            f"{test.name} has no labels for {spec.name}, so that it is compared with the dense "
            f"network, which it is: give the folder of a compressed one"
        )
    doing = f"evaluating {spec.name} on {test.name}"
    size = saved_bytes(network)
    costs_told = {"params": params, "macs": macs, "bytes": size}
    if test.labelled:
        if dense is not None:
            raise click.UsageError(f"--dense is for images without labels: {test.name} has some")
        with progress(doing, "images") as show:
            reached = accuracy(network, test, progress=show)
        low, high = reached.interval
        found: dict[str, object] = {
            "accuracy": reached.percent,
            "interval": list(reached.interval),
            "n": reached.n,
        }
        said = (
            f"{reached.percent:.2f} % of {reached.n:,} images "
            f"(95 % interval {low:.2f} to {high:.2f})"
        )
        if reached.assumed:
            found["assumed"] = reached.assumed
            said += f" ({reached.assumed})"
    else:
        alike = _fidelity(Path(model_or_dir), network, spec, dense, test, doing)
        told = asdict(alike)
        found = {"n": told.pop("n"), "fidelity": told}
        said = f"{alike} ({alike.n:,} images)"
    if as_json:
        emit({"model": spec.name, "data": test.name} | found | costs_told)
        return
    click.echo(
        f"{spec.name} on {test.name}: {said}, {params:,} parameters, {macs:,} MACs, {size:,} bytes"
    )


def _fidelity(
    folder: Path,
    network: nn.Module,
    spec: ModelSpec,
    dense: str | None,
    test: LabelledImages,
    doing: str,
) -> Fidelity:
    """Compared with the dense network; WeightsError if it is another than was compressed."""
    reference = read_model(spec.name, dense)
    expected = read_manifest(folder.expanduser()).metrics.get("dense_sha256")
    if expected not in (None, weights_sha256(reference)):
        raise WeightsError(
            f"{folder} was compressed from other weights of {spec.name}: name them by --dense"
        )
    with progress(doing, "images") as show:
        return fidelity(network, reference, test, progress=show)
