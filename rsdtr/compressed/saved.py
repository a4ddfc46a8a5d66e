"""A compressed model on disk: model.safetensors and manifest.json, complete or not there."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import JsonValue
from pydantic_core import from_json
from torch import nn

from rsdtr.compressed.compress import skeleton
from rsdtr.compressed.manifest import (
    MANIFEST,
    WEIGHTS,
    check_file,
    new_manifest,
    read_manifest,
)
from rsdtr.errors import ExportError, RsdtrError, UnknownName
from rsdtr.models.weights import fill, read_for
from rsdtr.models.weights_source import WeightsSource
from rsdtr.models.zoo import ModelSpec, model_names, model_spec
from rsdtr.planning.plan import CompressionPlan
from rsdtr.system.folder_exchange import put, sibling
from rsdtr.system.state_file import state_bytes


@dataclass(frozen=True, eq=False)
class Saved:
    """A model read back: in eval mode on the CPU, with its plan, spec and measured numbers."""

    model: nn.Module
    plan: CompressionPlan
    spec: ModelSpec
    metrics: dict[str, JsonValue]
    folder: Path


def save(
    model: nn.Module,
    plan: CompressionPlan,
    folder: str | Path,
    *,
    metrics: Mapping[str, object] | None = None,
) -> Path:
    """Write the compressed model into `folder`, which appears complete or not at all.

    metrics: numbers worth keeping, JSON-able. A folder that `save` wrote is replaced. It is read
    back before it gets its name. ExportError if the place is taken by anything else, or if the
    model cannot be written or read back; nothing is changed then.
    """
    target = writable_folder(folder)
    try:
        with sibling(target) as temporary:
            write_into(temporary, model, plan, metrics)
            _check_read_back(temporary)
            put(temporary, target)
    except OSError as error:
        raise ExportError(
            f"{target} could not be written ({error.strerror or error}): give another folder"
        ) from error
    return target


def check_writable(model: nn.Module, plan: CompressionPlan) -> None:
    """ExportError unless `save` will write this model: asked before hours of work on its values."""
    with tempfile.TemporaryDirectory() as temporary:
        write_into(Path(temporary), model, plan)
        _check_read_back(Path(temporary))


def _check_read_back(folder: Path) -> None:
    try:
        load(folder)
    except RsdtrError as error:
        reason = str(error).replace(f"{folder}{os.sep}", "")
        raise ExportError(
            f"the model would not be read back, and nothing was written ({reason}): "
            "keep it with torch.save(model.state_dict(), …)"
        ) from error


def load(folder: str | Path) -> Saved:
    """Read a folder that `save` wrote, after checking the SHA-256 of its file.

    ExportError for a folder that is incomplete, changed or of another format; UnknownName,
    PlanError or WeightsError if its content does not fit this program's models.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    path = folder / WEIGHTS
    if WEIGHTS not in manifest.files:
        raise ExportError(f"{folder} was exported without {WEIGHTS}: export it as safetensors")
    check_file(path, manifest.files[WEIGHTS])
    told = manifest.spec
    if told is not None and told.family.startswith("own ") and manifest.model not in model_names():
        raise UnknownName(
            f"{folder} holds {manifest.model}, a network of one's own that this process cannot "
            "build: name what builds it, --factory package.module:function, or make it known with "
            "rsdtr.models.own_model; evaluate and verify take --trust-program too, which runs "
            "rsdtr_model.py of an export"
        )
    spec = model_spec(manifest.model)
    rings = sum(layer.storage for layer in manifest.plan.layers if layer.ranks is not None)
    if rings > path.stat().st_size:  # before room is made for them
        raise ExportError(
            f"{folder / MANIFEST} plans rings of {rings:,} scalars and {WEIGHTS} has "
            f"{path.stat().st_size:,} bytes: save or export the model again"
        )
    with torch.random.fork_rng(devices=[]):  # fresh weights are drawn, and thrown away
        model = skeleton(spec.build(), manifest.plan)
    fill(model, read_for(model, path), str(path))
    return Saved(model.eval(), manifest.plan, spec, manifest.metrics, folder)


def writable_folder(folder: str | Path) -> Path:
    """The absolute path that `save` may write to; ExportError if something else is there.

    Asked before hours of work as well as after: only an absent or empty folder, or one that
    holds a saved model and nothing more, is ever replaced.
    """
    target = Path(folder).expanduser().resolve()
    if not target.exists():
        return target
    if not target.is_dir():
        raise ExportError(f"{target} is a file: give the name of a folder that does not exist yet")
    found = {path.name for path in target.iterdir()}
    if found and not is_saved(target):
        raise ExportError(
            f"{target} exists and holds no model of this program: give a folder that does not "
            "exist yet"
        )
    if others := sorted(found - {WEIGHTS, MANIFEST}):
        raise ExportError(
            f"{target} also holds {', '.join(others[:3])}, which would be lost: give another folder"
        )
    return target


def is_saved(folder: Path) -> bool:
    """Whether the folder has a manifest of this program, of whatever format version."""
    try:
        content = from_json((folder / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and {"format_version", "plan", "files"} <= content.keys()


def write_into(
    folder: Path,
    model: nn.Module,
    plan: CompressionPlan,
    metrics: Mapping[str, object] | None = None,
) -> None:
    """Write both files into an existing folder of one's own; the manifest last."""
    # Not save_file: its files can be read by nobody but their owner.
    (folder / WEIGHTS).write_bytes(state_bytes(model.state_dict()))
    new_manifest(folder, [WEIGHTS], plan, metrics).write(folder)


def weights_told(weights: WeightsSource) -> dict[str, JsonValue]:
    """What a network's metrics say of the weights it was made from: of published ones nothing."""
    return {} if weights.published else {"weights": weights.without_folder().word}
