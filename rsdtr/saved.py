"""A compressed model on disk: model.safetensors and manifest.json, complete or not there."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal
from uuid import uuid4

import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator
from torch import nn

from rsdtr.compress import skeleton
from rsdtr.errors import ExportError
from rsdtr.plan import CompressionPlan
from rsdtr.weights import fill, read_state_dict
from rsdtr.zoo import ModelSpec, model_spec

FORMAT_VERSION: Literal[1] = 1
WEIGHTS, MANIFEST = "model.safetensors", "manifest.json"
_LIBRARIES = ("torch", "torchvision", "safetensors", "numpy")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileRecord(_Frozen):
    """What a file must be: its SHA-256 in hex and its size in bytes."""

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    bytes: int = Field(ge=1)


class Manifest(_Frozen):
    """manifest.json: all that is needed to rebuild the model that model.safetensors fills."""

    format_version: Literal[1] = FORMAT_VERSION
    model: str
    plan: CompressionPlan
    metrics: dict[str, JsonValue] = {}
    libraries: dict[str, str]
    files: dict[str, FileRecord]

    @model_validator(mode="after")
    def _of_one_model(self) -> Manifest:
        if self.model != self.plan.model:
            raise ValueError(f"the model is {self.model} and its plan is for {self.plan.model}")
        if set(self.files) != {WEIGHTS}:
            raise ValueError(f"files are {', '.join(self.files) or 'none'}, expected {WEIGHTS}")
        return self


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

    metrics: numbers worth keeping, JSON-able. A folder that `save` wrote is replaced.
    ExportError if the place is taken by anything else or cannot be written.
    """
    target = writable_folder(folder)
    try:
        with _temporary_sibling(target) as temporary:
            write_into(temporary, model, plan, metrics)
            _swap(temporary, target)
    except OSError as error:
        raise ExportError(
            f"{target} could not be written ({error.strerror or error}): give another folder"
        ) from error
    return target


def load(folder: str | Path) -> Saved:
    """Read a folder that `save` wrote, after checking the SHA-256 of its file.

    ExportError for a folder that is incomplete, changed or of another format; UnknownName,
    PlanError or WeightsError if its content does not fit this program's models.
    """
    folder = Path(folder)
    manifest = _manifest(folder)
    for name, expected in manifest.files.items():
        _checked(folder / name, expected)
    spec = model_spec(manifest.model)
    with torch.random.fork_rng(devices=[]):  # fresh weights are drawn, and thrown away
        model = skeleton(spec.build(), manifest.plan)
    path = folder / WEIGHTS
    fill(model, read_state_dict(path), str(path))
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
        content = json.loads((folder / MANIFEST).read_bytes())
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
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    path = folder / WEIGHTS
    # Not save_file: its files can be read by nobody but their owner.
    path.write_bytes(safetensors.torch.save(state))
    manifest = Manifest(
        model=plan.model,
        plan=plan,
        metrics=_as_json(metrics or {}),
        libraries={"python": platform.python_version()}
        | {name: version(name) for name in _LIBRARIES},
        files={WEIGHTS: FileRecord(sha256=_sha256(path), bytes=path.stat().st_size)},
    )
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")


def _as_json(metrics: Mapping[str, object]) -> dict[str, JsonValue]:
    """What a reader of the manifest will find: tuples become lists."""
    try:
        found: dict[str, JsonValue] = json.loads(json.dumps(metrics, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ExportError(
            f"the metrics cannot be written as JSON ({error}): give finite numbers, texts, lists "
            "and dicts"
        ) from None
    return found


def _manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_bytes())
    except OSError:
        raise ExportError(
            f"{folder} holds no {MANIFEST}: give a folder that compress or export wrote"
        ) from None
    except ValueError:
        raise ExportError(f"{path} is not JSON: save or export the model again") from None
    found = content.get("format_version") if isinstance(content, dict) else None
    if found != FORMAT_VERSION:
        raise ExportError(
            f"{path} has format version {found}, this program reads {FORMAT_VERSION}: "
            "save the model again with this version"
        )
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise ExportError(
            f"{path} is not valid: {where}: {first['msg']}: save or export the model again"
        ) from None


def _checked(path: Path, expected: FileRecord) -> None:
    if not path.is_file():
        raise ExportError(f"{path} is missing: copy the whole folder, or save the model again")
    found = FileRecord(sha256=_sha256(path), bytes=max(path.stat().st_size, 1))
    if found != expected:
        raise ExportError(
            f"{path} was changed since it was saved ({found.bytes:,} bytes, SHA-256 "
            f"{found.sha256[:8]}…, expected {expected.bytes:,} and {expected.sha256[:8]}…): "
            "copy it again, or save the model again"
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _temporary_sibling(target: Path) -> Iterator[Path]:
    """A new folder beside `target`, on the same file system; whatever is left of it goes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid4().hex}")
    temporary.mkdir()  # not mkdtemp: the folder keeps the permissions that new folders have
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _swap(new: Path, target: Path) -> None:
    """Put `new` in the place of `target`; the old one comes back if that fails."""
    if not target.exists():
        new.rename(target)
        return
    old = target.with_name(f".{target.name}.{uuid4().hex}")
    target.rename(old)
    try:
        new.rename(target)
    except BaseException:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)
