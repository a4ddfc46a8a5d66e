"""python -m rsdtr verify."""

from __future__ import annotations

import click

from rsdtr.commands import options
from rsdtr.commands.console import emit, progress, table
from rsdtr.compressed.manifest import FILES
from rsdtr.exports.verify import verify as verified


@click.command()
@click.argument("place", metavar="DIR_OR_ZIP")
@options.data
@options.factory
@options.trust_program
@options.json
def verify(
    place: str, data: str | None, factory: str | None, trust_program: bool, as_json: bool
) -> None:
    """Check that no byte of an export was changed, and prove every file again."""
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
