"""A compressed model on disk: model.safetensors and manifest.json, complete or not there."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import JsonValue
from pydantic_core import from_json
from torch import nn

from rsdtr.compressed.compress import skeleton
from rsdtr.compressed.manifest import (
    CARD,
    MANIFEST,
    WEIGHTS,
    check_file,
    new_manifest,
    read_manifest,
)
from rsdtr.errors import ExportError, RsdtrError, UnknownName
from rsdtr.models import hub
from rsdtr.models.factories import is_factory
from rsdtr.models.own_networks import read_spec
from rsdtr.models.weights import fill, read_for
from rsdtr.models.weights_source import WeightsSource
from rsdtr.models.zoo import ModelSpec, is_model, model_spec, remember, spec_of
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
    card: str | None = None,
) -> Path:
    """Write the compressed model into `folder`, which appears complete or not at all.

    metrics: numbers worth keeping, JSON-able; card: the text of README.md. A folder that `save`
    wrote is replaced. It is read
    back before it gets its name. ExportError if the place is taken by anything else, or if the
    model cannot be written or read back; nothing is changed then.
    """
    target = writable_folder(folder)
    try:
        with sibling(target) as temporary:
            write_into(temporary, model, plan, metrics, card)
            _check_read_back(temporary, model, plan)
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
        _check_read_back(Path(temporary), model, plan)


def _check_read_back(folder: Path, model: nn.Module, plan: CompressionPlan) -> None:
    spec = spec_of(model, plan.model)
    try:
        load(folder, spec.build if spec.own else None)
    except RsdtrError as error:
        reason = str(error).replace(f"{folder}{os.sep}", "")
        raise ExportError(
            f"the model would not be read back, and nothing was written ({reason}): "
            "keep it with torch.save(model.state_dict(), …)"
        ) from error


def load(folder: str | Path, network: nn.Module | Callable[[], nn.Module] | None = None) -> Saved:
    """Read a folder that `save` wrote, after checking the SHA-256 of its file; or the repository
    hf:owner/name that it was pushed to, from the hub's cache folder or downloaded.

    network: that of one's own which was compressed, or what answers it, where no name stands for
    it; its weights do not matter, and it is not changed. The model read has then `.plan` and
    `.spec`, as one of `rsdtr.shrink`.
    ExportError for a folder that is incomplete, changed or of another format; UnknownName,
    PlanError or WeightsError if its content does not fit this program's models.
    """
    folder = place_of(folder)
    manifest = read_manifest(folder)
    path = folder / WEIGHTS
    if WEIGHTS not in manifest.files:
        raise ExportError(f"{folder} was exported without {WEIGHTS}: export it as safetensors")
    check_file(path, manifest.files[WEIGHTS])
    told = manifest.spec
    if network is not None and told is not None:
        spec: ModelSpec = read_spec(told, network)
    elif told is not None and told.own and not is_model(manifest.model):
        raise UnknownName(
            f"{folder} holds {manifest.model}, a network of one's own that this process cannot "
            f"build: name what builds it, --factory {_factory(manifest.model)}, or in Python give "
            "it to load, or make it known with rsdtr.models.own_model; evaluate and verify take "
            "--trust-program too, which runs rsdtr_model.py of an export"
        )
    else:
        if told is not None:
            remember(told)
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
    if network is not None:
        carry(model, manifest.plan, spec)
    return Saved(model.eval(), manifest.plan, spec, manifest.metrics, folder)


def carry(model: nn.Module, plan: CompressionPlan, spec: ModelSpec) -> None:
    """Let a compressed network say `.plan` and `.spec` itself.

    RsdtrError for one that says something else by these names.
    """
    for name, kind in (("plan", CompressionPlan), ("spec", ModelSpec)):
        if hasattr(model, name) and not isinstance(getattr(model, name), kind):
            raise RsdtrError(
                f"{type(model).__name__} has an attribute {name!r} of its own, where that of the "
                "compressed network would stand: use rsdtr.compress, and own_model"
            )
    model.plan, model.spec = plan, spec  # type: ignore[assignment]  # no submodules


def _factory(model: str) -> str:
    return model if is_factory(model) else "package.module:function"


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
    if others := sorted(found - {WEIGHTS, MANIFEST, *_own_card(target, found)}):
        raise ExportError(
            f"{target} also holds {', '.join(others[:3])}, which would be lost: give another folder"
        )
    return target


def _own_card(folder: Path, found: Set[str]) -> Set[str]:
    """The model card in a folder, if it is as it was written: it is replaced with the rest."""
    try:
        if CARD in found:
            check_file(folder / CARD, read_manifest(folder).files[CARD])
            return {CARD}
    except (ExportError, LookupError):  # somebody has changed it, or written it
        pass
    return set()


def place_of(word: str | Path) -> Path:
    """The folder that a word for a saved network names, a repository's in the hub's cache folder.

    WeightsError where a repository hf:owner/name of such a network is not to be had.
    """
    if isinstance(word, str) and hub.is_compressed(word):
        return hub.compressed_folder(word.removeprefix(hub.PREFIX))
    return Path(word).expanduser()


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
    card: str | None = None,
) -> None:
    """Write the files into an existing folder of one's own; the manifest last."""
    # Not save_file: its files can be read by nobody but their owner.
    (folder / WEIGHTS).write_bytes(state_bytes(model.state_dict()))
    names = [WEIGHTS]
    if card is not None:
        (folder / CARD).write_bytes(card.encode())
        names.append(CARD)
    spec = spec_of(model, plan.model)
    new_manifest(folder, names, plan, metrics, spec=spec).write(folder)


def weights_told(weights: WeightsSource) -> dict[str, JsonValue]:
    """What a network's metrics say of the weights it was made from: of published ones nothing."""
    return {} if weights.published else {"weights": weights.without_folder().word}
