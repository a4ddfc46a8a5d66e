"""One zip for a folder of files: the same bytes for the same files, and unpacked with care."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from rsdtr.errors import ExportError
from rsdtr.system.atomic_files import SHARED, new_file

MOST_FILES = 32
MOST_BYTES = 8 << 30
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first moment that a zip can tell


def write_zip(folder: Path, target: Path) -> None:
    """Write the files of `folder` into the zip `target`, which appears whole or not at all.

    Names are sorted, times and permissions fixed. Weights do not compress: they are stored.
    """
    with new_file(target, SHARED) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for path in sorted(folder.iterdir()):
            entry = zipfile.ZipInfo(f"{target.stem}/{path.name}", _EPOCH)
            entry.create_system = 3  # Unix, on every system
            entry.external_attr = 0o644 << 16
            with path.open("rb") as content, archive.open(entry, "w") as out:
                shutil.copyfileobj(content, out)


@contextmanager
def unzipped(path: Path) -> Iterator[Path]:
    """The files of a zip in a temporary folder; names and sizes are checked before unpacking.

    ExportError for anything but a few plain files in one folder.
    """
    with tempfile.TemporaryDirectory(prefix="rsdtr-") as folder:
        try:
            _unpack(path, Path(folder))
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
            raise ExportError(
                f"{path} is no whole zip ({error}): give one that export wrote"
            ) from error
        yield Path(folder)


def _unpack(path: Path, folder: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        _check(path, members)
        for member in members:
            name = PurePosixPath(member.filename).name
            with archive.open(member) as content, (folder / name).open("xb") as out:
                shutil.copyfileobj(content, out)


def _check(path: Path, members: list[zipfile.ZipInfo]) -> None:
    places = [PurePosixPath(member.filename) for member in members]
    plain = all(
        1 <= len(place.parts) <= 2 and ".." not in place.parts and not place.is_absolute()
        and "\\" not in str(place)
        for place in places
    )  # fmt: skip
    names = {place.name for place in places}
    if not plain or len({str(place.parent) for place in places}) != 1 or len(names) < len(places):
        raise ExportError(f"{path} holds more than the files of one folder: give one of export's")
    if len(members) > MOST_FILES or sum(member.file_size for member in members) > MOST_BYTES:
        raise ExportError(f"{path} unpacks to too many files or bytes: give one of export's")
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise ExportError(f"{path} is compressed, which export's are not: give one of export's")
