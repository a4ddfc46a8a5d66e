"""Looking at an export again: every changed byte shows, and nothing foreign is run."""

import json
import os
import random
import shutil
import zipfile
from pathlib import Path

import pytest

from rsdtr.compressed.compress import compress
from rsdtr.compressed.manifest import MANIFEST, WEIGHTS, read_manifest
from rsdtr.compressed.saved import save
from rsdtr.data.datasets import load_data
from rsdtr.errors import ExportError
from rsdtr.exports.export import export
from rsdtr.exports.verify import unchanged, verify
from rsdtr.models.model_loading import load_model
from rsdtr.models.zoo import model_spec
from rsdtr.planning.model_profile import profile
from rsdtr.planning.plan import plan
from rsdtr.system.zip_archive import unzipped, write_zip

pytestmark = pytest.mark.process

NAME = "digits_resnet20"


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    dense, spec = load_model(NAME), model_spec(NAME)
    decided = plan(profile(dense, spec), 0.8, layers=["layer3.2.*"])
    out = tmp_path_factory.mktemp("verify") / "out"
    export(compress(dense, decided), decided, load_data("digits", spec).test, ["safetensors"], out)
    return out


@pytest.fixture
def folder(original, tmp_path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "out"))


def test_what_was_exported_is_proved_again(folder):
    proofs = verify(folder)
    assert proofs == read_manifest(folder).proofs


def test_every_changed_byte_shows(folder):
    generator = random.Random(0)
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        for place in [0, len(content) - 1, *generator.choices(range(len(content)), k=20)]:
            changed = bytearray(content)
            changed[place] ^= 1 << generator.randrange(8)
            path.write_bytes(changed)
            with pytest.raises(ExportError):
                unchanged(folder)
        path.write_bytes(content)
    unchanged(folder)


def test_what_is_missing_or_too_much_shows(folder, tmp_path):
    (folder / "model.onnx").write_bytes(b"of somebody else")
    with pytest.raises(ExportError, match=r"holds model\.onnx, which its manifest\.json does not"):
        verify(folder)
    (folder / "model.onnx").unlink()
    (folder / "rsdtr_model.py").unlink()
    with pytest.raises(ExportError, match=r"rsdtr_model\.py is missing"):
        verify(folder)
    with pytest.raises(ExportError, match="does not exist: give a folder or a zip"):
        verify(tmp_path / "nothing")


def test_a_program_of_somebody_else_is_not_run(folder, tmp_path):
    """Even if every hash of the manifest was made to fit."""
    (folder / "rsdtr_model.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    read_manifest(folder).with_file(folder / "rsdtr_model.py").write(folder)
    unchanged(folder)
    with pytest.raises(ExportError, match=r"rsdtr_model\.py is not what .* and was not run"):
        verify(folder)
    assert not (tmp_path / "ran").exists()


def test_a_saved_model_verifies_and_a_bare_file_has_nothing_to_compare_with(folder, tmp_path):
    dense = load_model(NAME)
    decided = plan(profile(dense, model_spec(NAME)), 0.8, layers=["layer3.2.*"])
    assert set(verify(save(compress(dense, decided), decided, tmp_path / "saved"), "digits")) == {
        "safetensors"
    }
    manifest = read_manifest(folder)
    (folder / WEIGHTS).unlink()
    (folder / "rsdtr_model.py").unlink()
    (folder / "model.onnx").write_bytes(b"x")
    files = {"README.md": manifest.files["README.md"]}
    bare = manifest.model_copy(update={"files": files, "proofs": {}})
    bare.with_file(folder / "model.onnx").write(folder)
    assert verify(folder) == {}


def test_an_old_manifest_has_no_seal(folder):
    content = json.loads((folder / MANIFEST).read_text())
    for name in ("spec", "data", "proofs", "sha256"):
        del content[name]
    (folder / MANIFEST).write_text(json.dumps(content | {"format_version": 1}))
    with pytest.raises(ExportError, match="was changed, or comes from an older version"):
        unchanged(folder)


def test_images_that_are_no_data_set_here_must_be_named(folder):
    manifest = read_manifest(folder).model_copy(update={"data": "../../secret"})
    manifest.write(folder)
    with pytest.raises(ExportError, match="give its folder with --data"):
        verify(folder)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["../out"], "more than the files of one folder"),
        (["/etc/passwd"], "more than the files of one folder"),
        (["a\\..\\b"], "more than the files of one folder"),
        (["a/x", "b/y"], "more than the files of one folder"),
        (["a/x", "a/x"], "more than the files of one folder"),
        (["a/b/c"], "more than the files of one folder"),
        ([f"a/{n}" for n in range(40)], "too many files or bytes"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_zips_that_are_none_of_ours(tmp_path, names, message):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    with pytest.raises(ExportError, match=message), unzipped(path):
        pass


def test_a_zip_has_the_same_bytes_whatever_the_clock_and_the_order(tmp_path):
    written = []
    for number, names in enumerate((("a", "b"), ("b", "a"))):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name in names:
            (folder / name).write_text(name)
            os.utime(folder / name, (number * 1e6, number * 1e6))
        (tmp_path / f"to{number}").mkdir()
        write_zip(folder, tmp_path / f"to{number}" / "one.zip")
        written.append((tmp_path / f"to{number}" / "one.zip").read_bytes())
    assert written[0] == written[1]


def test_bombs_and_broken_zips(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/x", bytes(1 << 20))
    with pytest.raises(ExportError, match="is compressed, which export's are not"), unzipped(path):
        pass
    path.write_bytes(b"no zip")
    with pytest.raises(ExportError, match="is no whole zip"), unzipped(path):
        pass
