"""manifest.json: what a folder of a model holds, and what each of its files must be."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from pydantic import Field, JsonValue, ValidationError, model_validator
from pydantic_core import from_json

from rsdtr.errors import ExportError, first_problem
from rsdtr.models.zoo import ModelSpec, model_spec
from rsdtr.planning.plan import CompressionPlan
from rsdtr.typing import Frozen

FORMAT_VERSION: Literal[2] = 2
WEIGHTS, MANIFEST, CARD = "model.safetensors", "manifest.json", "README.md"
REPORT = "report.html"
# The files of an export that are proved, by format; the last one comes with safetensors.
FILES = {
    "safetensors": WEIGHTS,
    "onnx": "model.onnx",
    "pt2": "model.pt2",
    "int8": "model.int8.onnx",
    "python": "rsdtr_model.py",
}
MEMBERS = frozenset({CARD, REPORT, *FILES.values()})  # all that a manifest may name
_MOST_MANIFEST_BYTES = 64 << 20
_LIBRARIES = ("torch", "torchvision", "safetensors", "numpy")


class FileRecord(Frozen):
    """What a file must be: its SHA-256 in hex and its size in bytes."""

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    bytes: int = Field(ge=1)


class Proof(Frozen):
    """What a fresh process found when it ran a file on n real images, one by one and in fives:
    largest and mean absolute difference of a logit, and the share of images with the same class,
    None where there are no classes.

    relative_error: the mean over images of ‖z − ẑ‖/‖z‖, z all numbers of an answer; residual_error:
    of ‖z − ẑ‖/‖x − z‖ where an image x is answered with a picture of its shape, else None. Older
    proofs have neither.
    """

    max_difference: float = Field(ge=0)
    mean_difference: float = Field(ge=0)
    argmax_agreement: float | None = Field(ge=0, le=1)
    n: int = Field(ge=1)
    relative_error: float | None = Field(default=None, ge=0)
    residual_error: float | None = Field(default=None, ge=0)

    @property
    def told(self) -> str:
        """What it says of all answers together, in words."""
        if self.argmax_agreement is not None:
            return f"{100 * self.argmax_agreement:.4g} % of {self.n}"
        return f"no classes; answers off by {100 * (self.relative_error or 0):.2g} % in {self.n}"


class Manifest(Frozen):
    """manifest.json: all that is needed to rebuild the model that model.safetensors fills.

    proofs: of an export, by format; data: the images they were made on. sha256: of everything
    else in the manifest, so that a change of any byte shows. Version 1 had none of the three, nor
    the spec; it is read as if they were empty.
    """

    format_version: Literal[2] = FORMAT_VERSION
    model: str
    plan: CompressionPlan
    spec: ModelSpec | None = None
    metrics: dict[str, JsonValue] = Field(default_factory=dict)
    libraries: dict[str, str]
    files: dict[str, FileRecord]
    data: str | None = None
    proofs: dict[str, Proof] = Field(default_factory=dict)
    sha256: str = ""

    @model_validator(mode="after")
    def _of_one_model(self) -> Manifest:
        if self.model != self.plan.model:
            raise ValueError(f"the model is {self.model} and its plan is for {self.plan.model}")
        if not self.files or not self.files.keys() <= MEMBERS:
            found = ", ".join(self.files) or "none"
            raise ValueError(f"files are {found}, expected {WEIGHTS} or others of an export")
        if not self.proofs.keys() <= FILES.keys():
            raise ValueError(f"proofs are of {', '.join(self.proofs)}, expected some of its files")
        return self

    @property
    def digest(self) -> str:
        """What `sha256` must be."""
        return hashlib.sha256(self.model_dump_json(exclude={"sha256"}).encode()).hexdigest()

    def with_file(self, path: Path) -> Manifest:
        """This manifest with the record of one more file."""
        return self.model_copy(update={"files": self.files | {path.name: _record(path)}})

    def write(self, folder: Path) -> None:
        """Write manifest.json, sealed by its hash; the same bytes for the same manifest."""
        sealed = self.model_copy(update={"sha256": self.digest})
        (folder / MANIFEST).write_bytes(sealed.text)

    @property
    def text(self) -> bytes:
        """The bytes of manifest.json."""
        return (self.model_dump_json(indent=1) + "\n").encode()


def new_manifest(
    folder: Path,
    files: Sequence[str],
    plan: CompressionPlan,
    metrics: Mapping[str, object] | None = None,
    data: str | None = None,
    proofs: Mapping[str, Proof] | None = None,
    spec: ModelSpec | None = None,
) -> Manifest:
    """The manifest of files that lie in `folder`; ExportError for metrics that are no JSON.

    spec: of the model, by default what its name stands for.
    """
    return Manifest(
        model=plan.model,
        plan=plan,
        spec=(spec or model_spec(plan.model)).written,
        metrics=_as_json(metrics or {}),
        libraries={"python": platform.python_version()}
        | {name: version(name) for name in _LIBRARIES},
        files={name: _record(folder / name) for name in sorted(files)},
        data=data,
        proofs=dict(proofs or {}),
    )


def read_manifest(folder: Path) -> Manifest:
    """The manifest in a folder; ExportError if there is none that this program reads."""
    path = folder / MANIFEST
    try:
        if path.stat().st_size > _MOST_MANIFEST_BYTES:
            raise ValueError("too long")
        # Not json.loads: it takes half characters for text, and deep nests for no error.
        content = from_json(path.read_bytes(), allow_inf_nan=False)
    except OSError:
        raise ExportError(
            f"{folder} holds no {MANIFEST}: give a folder that compress or export wrote"
        ) from None
    except ValueError:
        raise ExportError(f"{path} is not JSON: save or export the model again") from None
    found = content.get("format_version") if isinstance(content, dict) else None
    if found not in (1, FORMAT_VERSION) or isinstance(found, bool):
        raise ExportError(
            f"{path} has format version {str(found)[:20]}, this program reads 1 and "
            f"{FORMAT_VERSION}: save the model again with this version"
        )
    if found == 1:
        content |= {"format_version": FORMAT_VERSION}
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        raise ExportError(
            f"{path} is not valid: {first_problem(error)}: save or export the model again"
        ) from None


def check_file(path: Path, expected: FileRecord) -> None:
    """ExportError if a file of a manifest is missing or was changed."""
    if not path.is_file():
        raise ExportError(f"{path} is missing: copy the whole folder, or save the model again")
    found = _record(path)
    if found != expected:
        raise ExportError(
            f"{path} was changed since it was saved ({found.bytes:,} bytes, SHA-256 "
            f"{found.sha256[:8]}…, expected {expected.bytes:,} and {expected.sha256[:8]}…): "
            "copy it again, or save the model again"
        )


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


def _record(path: Path) -> FileRecord:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileRecord(sha256=digest, bytes=max(path.stat().st_size, 1))
