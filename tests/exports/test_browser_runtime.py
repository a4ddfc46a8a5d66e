"""The runtime of the browser's proof: only the pinned files, or one sentence; and its answer."""

import hashlib
import io
import subprocess
import tarfile

import pytest
from pydantic import ValidationError

from rsdtr.errors import ExportError
from rsdtr.exports import browser_runtime
from rsdtr.system.cache_folder import cache_folder

CONTENT = {browser_runtime.SCRIPT: b"export default 1", browser_runtime.PROGRAM: b"\0asm"}
ANSWER = {
    "dense_ms": 2.0, "compressed_ms": 0.5, "max_difference": 1e-6, "argmax_agreement": 1.0,
    "n": 16, "device": "a browser",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _own(tmp_path, monkeypatch):
    """An empty cache folder, no npm, and two small files in place of the published ones."""
    monkeypatch.setenv("RSDTR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("shutil.which", lambda _: None)
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in CONTENT.items()}
    monkeypatch.setattr(browser_runtime, "FILES", hashes)


def package(**changed: bytes) -> bytes:
    """An npm package of those files."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as out:
        for name, content in (CONTENT | changed).items():
            entry = tarfile.TarInfo(f"package/dist/{name}")
            entry.size = len(content)
            out.addfile(entry, io.BytesIO(content))
    return file.getvalue()


def put_aside(content: bytes) -> None:
    cache_folder().mkdir(parents=True)
    (cache_folder() / f"{browser_runtime.PACKAGE}-{browser_runtime.VERSION}.tgz").write_bytes(
        content
    )


def test_a_package_in_the_cache_folder_is_unpacked_once():
    put_aside(package())
    folder = browser_runtime.runtime_folder()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == CONTENT
    (cache_folder() / f"{browser_runtime.PACKAGE}-{browser_runtime.VERSION}.tgz").unlink()
    assert browser_runtime.runtime_folder() == folder
    (folder / browser_runtime.PROGRAM).write_bytes(b"changed")
    with pytest.raises(ExportError, match="npm, which is not here"):
        browser_runtime.runtime_folder()


def test_a_file_that_is_not_the_published_one_is_refused_by_name():
    put_aside(package(**{browser_runtime.PROGRAM: b"something else"}))
    with pytest.raises(
        ExportError, match=f"{browser_runtime.PROGRAM} in .* is not the published one"
    ):
        browser_runtime.runtime_folder()
    assert not list((cache_folder() / "web").rglob("*.wasm"))


@pytest.mark.parametrize("content", [b"", b"no archive", package()[:-40]])
def test_a_broken_package_is_refused(content):
    put_aside(content)
    with pytest.raises(ExportError, match="could not be unpacked"):
        browser_runtime.runtime_folder()


def test_npm_packs_the_pinned_version(monkeypatch):
    asked = []

    def run(command, *, cwd, **_):
        asked.append(command[1:])
        (cwd / f"{browser_runtime.PACKAGE}-{browser_runtime.VERSION}.tgz").write_bytes(package())

    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    monkeypatch.setattr("subprocess.run", run)
    assert (browser_runtime.runtime_folder() / browser_runtime.SCRIPT).read_bytes() == CONTENT[
        browser_runtime.SCRIPT
    ]
    assert asked == [["pack", "--silent", "--ignore-scripts", "onnxruntime-web@1.30.0"]]


def test_without_a_network_one_sentence_says_what_to_do(monkeypatch):
    def run(command, **_):
        raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    monkeypatch.setattr("subprocess.run", run)
    with pytest.raises(ExportError, match=r"want of a network: install npm .* into the cache"):
        browser_runtime.runtime_folder()


def test_the_ratio_is_of_compressed_to_dense():
    assert browser_runtime.WebProof.model_validate(ANSWER).ratio == 0.25


@pytest.mark.parametrize(
    "changed",
    [
        {"dense_ms": 0},
        {"compressed_ms": float("nan")},
        {"n": 0},
        {"device": "x" * 301},
        {"more": 1},
    ],
)
def test_an_answer_that_no_browser_gives_is_refused(changed):
    with pytest.raises(ValidationError):
        browser_runtime.WebProof.model_validate(ANSWER | changed)
