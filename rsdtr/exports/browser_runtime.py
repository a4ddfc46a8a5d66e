"""ONNX in a browser: the runtime that runs it there, and what the browser found.

onnxruntime-web is not part of this program: npm, the client of its registry, fetches the pinned
version once, and nothing is used whose SHA-256 is not the one below.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from rsdtr.errors import ExportError
from rsdtr.system.atomic_files import replace_file
from rsdtr.system.cache_folder import cache_folder, private_folder

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
SCRIPT, PROGRAM = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
# The files in dist/ of the package: their SHA-256.
FILES = {
    SCRIPT: "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    PROGRAM: "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
_ARCHIVE = f"{PACKAGE}-{VERSION}.tgz"
_MOST_BYTES = 32 << 20  # of a file
_SECONDS = 300


class WebProof(BaseModel):
    """What a browser found when it ran a network's ONNX file on n images, one by one.

    dense_ms, compressed_ms: medians of one image's time in ms, one thread; max_difference,
    argmax_agreement: of the compressed network's logits and classes against those that PyTorch
    computed, as in `Proof`; device: the browser's own words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    dense_ms: float = Field(gt=0, le=1e7)
    compressed_ms: float = Field(gt=0, le=1e7)
    max_difference: float = Field(ge=0)
    argmax_agreement: float = Field(ge=0, le=1)
    n: int = Field(ge=1)
    device: str = Field(max_length=300)

    @property
    def ratio(self) -> float:
        """Time of the compressed network over that of the dense one."""
        return self.compressed_ms / self.dense_ms


def runtime_folder() -> Path:
    """The folder of SCRIPT and PROGRAM in the cache folder; fetched if they are not there.

    A package that lies in the cache folder (onnxruntime-web-VERSION.tgz) is taken before npm is
    asked. ExportError where it is not to be had, or is another file than expected.
    """
    folder = cache_folder() / "web" / f"{PACKAGE}-{VERSION}"
    if all(_is(folder / name, sha256) for name, sha256 in FILES.items()):
        return folder
    own = cache_folder() / _ARCHIVE
    try:
        private_folder(folder)
        with tempfile.TemporaryDirectory(prefix=".web-", dir=folder.parent) as temporary:
            archive = own if own.is_file() else _fetched(Path(temporary))
            _unpack(archive, folder)
    except (OSError, tarfile.TarError, EOFError) as error:
        raise ExportError(
            f"{_ARCHIVE} could not be unpacked into the cache folder ({error}): make room, or "
            "give another folder in RSDTR_CACHE"
        ) from error
    return folder


def _fetched(folder: Path) -> Path:
    """The package from npm's registry, in `folder`."""
    npm = shutil.which("npm")
    if npm is None:
        raise ExportError(f"{PACKAGE} {VERSION} is fetched by npm, which is not here: {_ELSE}")
    try:
        subprocess.run(
            [npm, "pack", "--silent", "--ignore-scripts", f"{PACKAGE}@{VERSION}"],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SECONDS,
            check=True,
        )
    except subprocess.SubprocessError as error:
        raise ExportError(
            f"npm could not fetch {PACKAGE} {VERSION}, perhaps for want of a network: {_ELSE}"
        ) from error
    return folder / _ARCHIVE


_ELSE = f"install npm and try again online, or put {_ARCHIVE} into the cache folder"


def _unpack(archive: Path, folder: Path) -> None:
    contents = {}
    with tarfile.open(archive) as package:
        for name, sha256 in FILES.items():
            try:
                member = package.extractfile(f"package/dist/{name}")
            except KeyError:
                member = None
            content = b"" if member is None else member.read(_MOST_BYTES)
            if hashlib.sha256(content).hexdigest() != sha256:
                raise ExportError(
                    f"{name} in {archive.name} is not the published one: remove {archive.name} "
                    "from the cache folder, or ask the one who runs the registry that npm uses"
                )
            contents[name] = content
    for name, content in contents.items():
        replace_file(folder / name, content)


def _is(path: Path, sha256: str) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256
