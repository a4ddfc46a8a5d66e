"""Looking at an export again: that no byte was changed, and that every file still computes it."""

from __future__ import annotations

import tempfile
from contextlib import nullcontext
from pathlib import Path

from torch import nn

from rsdtr.compressed.manifest import (
    FILES,
    MANIFEST,
    MEMBERS,
    WEIGHTS,
    Manifest,
    Proof,
    check_file,
    read_manifest,
)
from rsdtr.compressed.saved import load
from rsdtr.data.datasets import NAMES, LabelledImages, load_data
from rsdtr.errors import ExportError
from rsdtr.exports.formats import Writer
from rsdtr.exports.own_network import make_known, own_spec, program_network
from rsdtr.exports.proof import prepare_proofs, proved, write_cases
from rsdtr.models.zoo import model_names, model_spec
from rsdtr.system.zip_archive import unzipped
from rsdtr.typing import Progress

_PROGRAMS = ("python", "pt2")  # formats whose file is run, not only read


def verify(
    place: str | Path,
    data: str | Path | None = None,
    *,
    factory: str | None = None,
    trust_program: bool = False,
    progress: Progress | None = None,
) -> dict[str, Proof]:
    """The proofs of an export, a folder or a zip, made anew: by format.

    Every file must have the SHA-256 that the manifest tells, and the manifest its own. Then each
    is run by a fresh process as it was at its export, on the test images of `data`, by default
    those of the manifest. rsdtr_model.py and model.pt2 are programs: they are only run if writing
    them again out of model.safetensors gives the very same bytes.

    factory: `package.module:function` that builds a network of one's own which this process does
    not know; trust_program: without it, run rsdtr_model.py of the folder and compare the others
    with that (but model.pt2, which is a program too and is left out).
    ExportError that names what was changed, is missing, or computes something else; without
    model.safetensors there is nothing to compare with, and the answer is empty.
    """
    place = Path(place).expanduser()
    if not place.exists():
        raise ExportError(f"{place} does not exist: give a folder or a zip that export wrote")
    with nullcontext(place) if place.is_dir() else unzipped(place) as folder:
        manifest = unchanged(folder)
        if WEIGHTS not in manifest.files:
            return {}
        trusted = None
        if factory is not None:
            make_known(manifest, factory)
        elif trust_program:
            trusted = program_network(folder, manifest)
        told = own_spec(manifest) if trust_program else None
        if told is None and manifest.model not in model_names():
            load(folder)  # says what is missing
        spec = told or model_spec(manifest.model)
        if data is None and manifest.data not in (None, *NAMES):
            raise ExportError(
                f"{place} was proved on {manifest.data}, which is no data set of this program: "
                "give its folder with --data"
            )
        splits = load_data(manifest.data if data is None else data, spec)
        if trusted is not None:
            return _proofs_by_program(folder, manifest, trusted, splits.test, progress)
        return _proofs(folder, manifest, splits.test, splits.train, progress)


def _proofs_by_program(
    folder: Path,
    manifest: Manifest,
    network: nn.Module,
    images: LabelledImages,
    progress: Progress | None,
) -> dict[str, Proof]:
    """The proofs of the files beside rsdtr_model.py, as which `network` was read, and its own."""
    forms = [form for form in ("python", "onnx", "int8") if FILES[form] in manifest.files]
    found = {}
    with tempfile.TemporaryDirectory(prefix="rsdtr-") as temporary:
        cases = Path(temporary) / "cases.safetensors"
        bound = write_cases(network, images, cases)
        for done, form in enumerate(forms):
            if progress:
                progress(done, len(forms))
            found[form] = proved(form, folder / FILES[form], cases, bound)
    if progress:
        progress(len(forms), len(forms))
    return found | {"safetensors": found["python"]}


def unchanged(folder: Path) -> Manifest:
    """The manifest of a folder of which no byte was changed; ExportError that names what was."""
    manifest = read_manifest(folder)
    if (folder / MANIFEST).read_bytes() != manifest.text or manifest.sha256 != manifest.digest:
        raise ExportError(
            f"{folder / MANIFEST} was changed, or comes from an older version, which did not seal "
            "it: export the model again"
        )
    for name, expected in manifest.files.items():
        check_file(folder / name, expected)
    if others := sorted({path.name for path in folder.iterdir()} & MEMBERS - manifest.files.keys()):
        raise ExportError(
            f"{folder} holds {', '.join(others)}, which its {MANIFEST} does not know: "
            "export the model again"
        )
    return manifest


def _proofs(
    folder: Path,
    manifest: Manifest,
    images: LabelledImages,
    calibration: LabelledImages,
    progress: Progress | None,
) -> dict[str, Proof]:
    prepare_proofs()
    saved = load(folder)
    saved.model.requires_grad_(False)  # as at the export
    forms = [form for form, name in FILES.items() if name in manifest.files]
    own = images.spec.own
    writer = Writer(saved.model, saved.plan, calibration, saved.metrics)
    found = {}
    with tempfile.TemporaryDirectory(prefix="rsdtr-") as temporary:
        cases = Path(temporary) / "cases.safetensors"
        bound = write_cases(saved.model, images, cases)
        again = Path(temporary) / "again"
        again.mkdir()
        writer.write("safetensors", again / WEIGHTS)
        for done, form in enumerate(forms):
            if own and form == "safetensors":
                continue  # as at the export: the program beside it reads that very file
            if progress:
                progress(done, len(forms))
            path = folder / FILES[form]
            if form in _PROGRAMS:
                writer.write(form, again / path.name)
                if (again / path.name).read_bytes() != path.read_bytes():
                    raise ExportError(
                        f"{path.name} is not what this program and torch write for {WEIGHTS}, and "
                        "was not run: it was written by somebody else, or with torch "
                        f"{manifest.libraries.get('torch')}"
                    )
            found[form] = proved(form, path, cases, bound)
        if own:
            found["safetensors"] = found["python"]
        if progress:
            progress(len(forms), len(forms))
    return found
