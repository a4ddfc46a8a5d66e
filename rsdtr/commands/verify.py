"""python -m rsdtr verify."""

from __future__ import annotations

from typing import Any

import click

from rsdtr.commands import options
from rsdtr.commands.console import emit, progress, table
from rsdtr.commands.onnx import check_no_size, verify_onnx_file
from rsdtr.compressed.manifest import FILES
from rsdtr.exports.verify import verify as verified
from rsdtr.onnx_files.onnx_file import is_onnx
from rsdtr.ring.cost import Size


@click.command()
@click.argument("place", metavar="DIR_OR_ZIP_OR_ONNX")
@options.data
@options.factory
@options.trust_program
@click.option("--against", metavar="FILE.onnx", help="What a compressed ONNX file was made from.")
@options.size
@options.onnx_inputs
@options.json
def verify(
    place: str, data: str | None, factory: str | None, trust_program: bool, against: str | None,
    size: Size | None, pictures: dict[str, Any], as_json: bool,
) -> None:  # fmt: skip
    """Check that no byte of an export was changed, and prove every file again.

    Of an ONNX file that compress wrote: that it is whole and takes and gives what the original
    does, and how well both agree.
    """
    if is_onnx(place):
        verify_onnx_file(place, against, data, size, pictures, as_json)
        return
    check_no_size(size, pictures)
    if against is not None:
        raise click.UsageError("--against is for an ONNX file that compress wrote: leave it")
    with progress(f"verifying {place}", "files") as show:
        proofs = verified(place, data, factory=factory, trust_program=trust_program, progress=show)
    if as_json:
        emit({"place": place, "proofs": {form: p.model_dump() for form, p in proofs.items()}})
        return
    rows = [
        (
            FILES[form],
            f"{proof.max_difference:.1e}",
            f"{proof.mean_difference:.1e}",
            proof.told,
        )
        for form, proof in proofs.items()
    ]
    if not rows:
        click.echo(
            f"{place}: no byte was changed; without model.safetensors there is nothing to compare "
            "the other files with"
        )
        return
    click.echo(table(("file", "largest difference", "mean difference", "same class"), rows))
    click.echo(f"{place}: no byte was changed, and every file computes the same")
