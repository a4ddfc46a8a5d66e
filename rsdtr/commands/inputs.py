"""What a command was asked about: the model, its plan, the folder it was saved in."""

from __future__ import annotations

from pathlib import Path

import click
from torch import nn

from rsdtr.commands.console import progress
from rsdtr.compressed.manifest import read_manifest
from rsdtr.compressed.saved import Saved, is_saved, load, place_of
from rsdtr.data.datasets import load_data
from rsdtr.exports.own_network import make_known, own_spec, program_network
from rsdtr.measuring.fastest_rings import fastest_rings
from rsdtr.models import hub, timm_networks
from rsdtr.models.model_loading import load_model
from rsdtr.models.weights_source import WeightsSource
from rsdtr.models.zoo import ModelSpec, model_names, model_spec
from rsdtr.planning.choices import Choices
from rsdtr.planning.damage import measure_damage
from rsdtr.planning.model_profile import ModelProfile, profile
from rsdtr.planning.plan import CompressionPlan
from rsdtr.planning.target_solver import Damage
from rsdtr.planning.winners_on_disk import load_winners


def read_saved(folder: str | Path, factory: str | None = None) -> Saved:
    """What a folder holds; factory: what builds the network of one's own that is in it."""
    place = place_of(folder)
    if factory is not None:
        make_known(read_manifest(place), factory)
    return load(place)


def check_data_is_read(data: str | None, *readers: object) -> None:
    """A usage error where --data is given and nothing reads it."""
    if data is not None and not any(readers):
        raise click.UsageError(
            "--data is what --calibrate, --recalibrate, --refit and --distill-unlabelled read: "
            "give one of them as well"
        )


def plan_of(
    model: str,
    choices: Choices,
    weights: WeightsSource,
    calibrate: int | None = None,
    data: str | None = None,
) -> tuple[nn.Module, ModelSpec, CompressionPlan]:
    """A model of the zoo, dense, and the plan that answers the choices."""
    if calibrate is not None and choices.target is None:
        raise click.UsageError("--calibrate measures damage for a target: give one, or leave it")
    network, spec, costs = profiled(model, weights)
    damage = None
    if calibrate is not None:
        train = load_data(data, spec).train
        with progress(f"measuring damage on {train.name}", "runs") as show:
            damage = measure_damage(
                network, costs, train, calibrate,
                rule=choices.rule, objective=choices.solved_objective, layers=choices.layers,
                progress=show,
            )  # fmt: skip
    return network, spec, decide(costs, choices, damage)


def profiled(model: str, weights: WeightsSource) -> tuple[nn.Module, ModelSpec, ModelProfile]:
    """A model of the zoo, dense, and its profile with the rings that are known already."""
    spec = model_spec(model)
    network = read_model(model, weights)
    costs = profile(network, spec)
    load_winners(costs)
    return network, spec, costs


def read_model(model: str, weights: WeightsSource) -> nn.Module:
    """A model of the zoo, with its progress on stderr."""
    with progress(f"reading the weights of {model}", "bytes") as show:
        return load_model(model, weights, progress=show)


def decide(
    costs: ModelProfile,
    choices: Choices,
    damage: Damage | None = None,
    uniform: bool = False,
) -> CompressionPlan:
    """The plan that answers the choices, with its progress on stderr; errors and `uniform` as of
    `Choices.decide`.
    """
    with progress(f"planning {costs.model}", "layers") as show:
        decided = choices.decide(costs, damage, show, uniform)
    if choices.objective != "latency":
        return decided
    with progress(f"measuring rings at batch {choices.latency_batch}", "rings") as show:
        return fastest_rings(decided, costs, batch=choices.latency_batch, progress=show)


def find(
    model_or_dir: str,
    weights: WeightsSource,
    factory: str | None = None,
    trust_program: bool = False,
) -> tuple[nn.Module, ModelSpec, CompressionPlan | None]:
    """What a saved folder holds, with its plan, or else the model of that name.

    factory, trust_program: as in `verify`, for a folder of a network of one's own.
    """
    path = place_of(model_or_dir)
    named = (
        model_or_dir in model_names()
        or model_or_dir.startswith((hub.PREFIX, timm_networks.PREFIX))
        or hub.is_pretrained(path)
        or not (path.exists() or len(path.parts) > 1)
    )
    if named and not is_saved(path):
        return read_model(model_or_dir, weights), model_spec(model_or_dir), None
    if not weights.published:
        raise click.UsageError("--weights is for a model of the zoo: a saved folder has its own")
    if factory is None and trust_program:
        manifest = read_manifest(path)
        if (spec := own_spec(manifest)) is not None:
            return program_network(path, manifest), spec, manifest.plan
    saved = read_saved(path, factory)
    return saved.model, saved.spec, saved.plan
