"""A saved network of somebody's own in another process: by what builds it, or by its program.

Code of a folder is run only where its owner asks for it.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from torch import nn

from rsdtr.compressed.manifest import FILES, WEIGHTS, Manifest, check_file
from rsdtr.errors import ExportError, RsdtrError
from rsdtr.models.factories import network_factory
from rsdtr.models.own_networks import read_spec
from rsdtr.models.zoo import ModelSpec, know

PROGRAM = FILES["python"]


def make_known(manifest: Manifest, factory: str) -> ModelSpec:
    """Make the network of a manifest a model of this process, built by `package.module:function`.

    RsdtrError for a model of this program, or one that cannot be imported.
    """
    spec = own_spec(manifest)
    if spec is None:
        raise RsdtrError(f"{manifest.model} is a model of this program: leave out the factory")
    return know(read_spec(spec, network_factory(factory)))


def own_spec(manifest: Manifest) -> ModelSpec | None:
    """The spec of a network of somebody's own; None for a model of this program."""
    spec = manifest.spec
    return spec if spec is not None and spec.own else None


def program_network(folder: Path, manifest: Manifest) -> nn.Module:
    """The network that rsdtr_model.py of the folder computes: that file is run as it is.

    ExportError if it is not there, was changed, or is no program of an export.
    """
    for name in (PROGRAM, WEIGHTS):
        if name not in manifest.files:
            raise ExportError(
                f"{folder} has no {name}: name what builds the network, package.module:function"
            )
        check_file(folder / name, manifest.files[name])
    found = importlib.util.spec_from_file_location("rsdtr_model", folder / PROGRAM)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    try:
        found.loader.exec_module(module)
        network: nn.Module = module.load(folder / WEIGHTS)
    except Exception as error:  # whatever somebody's program raises
        raise ExportError(
            f"{folder / PROGRAM} cannot be run ({error}): export the model again"
        ) from error
    return network
