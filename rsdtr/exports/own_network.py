"""A saved network of somebody's own in another process: by what builds it, or by its program.

Code of a folder is run only where its owner asks for it.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

from torch import nn

from rsdtr.compressed.manifest import FILES, WEIGHTS, Manifest, check_file
from rsdtr.errors import ExportError, RsdtrError
from rsdtr.models.zoo import Interpolation, ModelSpec, own_model

PROGRAM = FILES["python"]


def imported_factory(name: str) -> Callable[[], nn.Module]:
    """What `package.module:function` names, also in the current folder; RsdtrError if nothing."""
    module_name, _, function = name.partition(":")
    if not module_name or not function:
        raise RsdtrError(f"{name!r} names no factory: give package.module:function")
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        found = getattr(importlib.import_module(module_name), function)
    except (ImportError, AttributeError) as error:
        raise RsdtrError(
            f"{name} cannot be imported ({error}): give package.module:function, and start in the "
            "folder that the package lies in"
        ) from error
    finally:
        sys.path.remove(here)
    if not callable(found):
        raise RsdtrError(f"{name} is {type(found).__name__}: name a function that builds a network")
    build: Callable[[], nn.Module] = found
    return build


def make_known(manifest: Manifest, factory: str) -> ModelSpec:
    """Make the network of a manifest a model of this process, built by `package.module:function`.

    RsdtrError for a model of this program, or one that cannot be imported.
    """
    spec = own_spec(manifest)
    if spec is None:
        raise RsdtrError(f"{manifest.model} is a model of this program: leave out the factory")
    return own_model(
        spec.name,
        imported_factory(factory),
        spec.input_shape,
        spec.classes,
        task=spec.task,
        mean=spec.mean,
        std=spec.std,
        class_names=spec.class_names or None,
        resize=spec.resize,
        crop=spec.crop,
        interpolation=cast(Interpolation, spec.interpolation),
        channel_order=spec.channel_order,
    )


def own_spec(manifest: Manifest) -> ModelSpec | None:
    """The spec of a network of somebody's own; None for a model of this program."""
    spec = manifest.spec
    return spec if spec is not None and spec.family.startswith("own ") else None


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
