"""python -m rsdtr ratio: the FLOPs of tensorized rings beside those of a plan's rings."""

from __future__ import annotations

from dataclasses import asdict

import click

from rsdtr.baselines.costs import layer_ratios
from rsdtr.commands import options
from rsdtr.commands.console import emit, table
from rsdtr.commands.inputs import plan_of
from rsdtr.models.weights_source import WeightsSource
from rsdtr.planning.choices import Choices
from rsdtr.planning.model_profile import profile


@click.command("ratio")
@click.argument("model")
@options.choices
@options.weights
@options.json
def ratio(model: str, choices: Choices, weights: WeightsSource, as_json: bool) -> None:
    """Tell how many FLOPs a tensorized ring of equal storage needs for every ring of MODEL.

    ρ is FLOPs of the tensorized ring, in its best order, over those of the paper's four sublayers.
    """
    network, spec, decided = plan_of(model, choices, weights)
    found = layer_ratios(decided, profile(network, spec))
    above = sum(layer.rho > 1 for layer in found)
    if as_json:
        layers = [asdict(layer) | {"rho": layer.rho} for layer in found]
        emit({"model": decided.model, "plan": decided.label, "above_1": above, "layers": layers})
        return
    rows = [
        (
            layer.name,
            " ".join(map(str, layer.ranks)),
            f"{layer.storage:,}",
            f"{layer.macs:,}",
            str(layer.rank),
            f"{layer.tensorized_storage:,}",
            f"{layer.tensorized_macs:,}",
            f"{layer.rho:.2f}",
        )
        for layer in found
    ]
    click.echo(table(_HEADER, rows))
    click.echo(f"ρ is above 1 in {above} of {len(found)} layers ({decided.label})")


_HEADER = ("layer", "ranks", "storage", "MACs", "tensorized R", "storage", "MACs", "ρ")
