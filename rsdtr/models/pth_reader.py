"""Where a .pth is read: a process of its own, with limits, that leaves a safetensors file.

    python -P pth_reader.py FILE OUT.safetensors

Exit code 0: OUT is written. 3: the last line of standard error says, in words that follow the
file's name, what is wrong with it. Run as a file, not as a module: it needs torch alone.
`torch.load(weights_only=True)` runs no code of the file; the limits are for what it may still do.
"""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

REFUSED = 3
_OLD = bytes.fromhex("80028a0a6cfc9c46f9206aa85019")  # the number torch's older files begin with
CPU_SECONDS = 120
SPARE_BYTES = 512 << 20  # beside four times the file: read, unwrapped, copied, written
READ = {  # header.DTYPES, whose module this process does not need
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
    torch.float16, torch.bfloat16, torch.float32, torch.float64,
}  # fmt: skip
NO_STATE = "holds no state_dict: save one with torch.save(model.state_dict(), …)"
UNREADABLE = (
    "cannot be read: give a .safetensors file, or a .pth that holds only tensors "
    "(torch.save(model.state_dict(), …))"
)


class Refused(Exception):
    """What is wrong with the file, in words that follow its name."""


def limit(file_bytes: int) -> None:
    """Bound this process's memory, processor time and what it writes, where the system can."""
    try:
        import resource
    except ImportError:  # Windows
        return
    used = 0
    if (statm := Path("/proc/self/statm")).exists():
        used = int(statm.read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    bounds = {
        resource.RLIMIT_CPU: CPU_SECONDS,
        resource.RLIMIT_FSIZE: 2 * file_bytes + SPARE_BYTES,
        resource.RLIMIT_CORE: 0,
    }
    if used:
        bounds[resource.RLIMIT_AS] = used + 4 * file_bytes + SPARE_BYTES
    for what, most in bounds.items():
        hard = resource.getrlimit(what)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))


def check_archive(path: Path) -> bool:
    """Whether the file is a zip, as torch writes it since 1.6, or begins like torch's older files;
    Refused if it is neither, carries code, or unpacks to more than it has.
    """
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            if file.read(len(_OLD)) != _OLD:
                raise Refused(UNREADABLE)
        return False
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    names = {member.filename.partition("/")[2] for member in members}
    if "constants.pkl" in names or any(name.startswith("code/") for name in names):
        raise Refused(
            "is a TorchScript archive, which carries code: "
            "give torch.save(model.state_dict(), …) instead"
        )
    if "archive_format" in names or any(name.startswith("models/") for name in names):
        raise Refused(
            "is a torch.export archive, which carries a program: "
            "give torch.save(model.state_dict(), …) instead"
        )
    if sum(member.file_size for member in members) > path.stat().st_size:
        raise Refused("unpacks to more bytes than it has: give a file that torch.save wrote")
    return True


def tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, int]]:
    """The file's state_dict and the versions of its modules; Refused if there is none."""
    zipped = check_archive(path)
    try:
        content = torch.load(path, weights_only=True, map_location="cpu", mmap=zipped)
    except Exception as error:
        raise Refused(UNREADABLE) from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if (
        not isinstance(content, Mapping)
        or not content
        or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items())
    ):
        raise Refused(NO_STATE)
    if any(v.layout != torch.strided or v.is_quantized or v.is_complex() for v in content.values()):
        raise Refused("holds sparse, quantised or complex tensors: give plain ones")
    if not {v.dtype for v in content.values()} <= READ:
        raise Refused("holds tensors of a type that no network here has: give float32 ones")
    # A view may repeat one value a billion times.
    if sum(v.numel() * v.element_size() for v in content.values()) > 2 * path.stat().st_size:
        raise Refused("holds views of more bytes than it has: save copies of the tensors")
    versions = {
        str(module): told["version"]
        for module, told in getattr(content, "_metadata", {}).items()
        if isinstance(told, Mapping) and isinstance(told.get("version"), int)
    }
    return dict(content), versions


def main(path: str, out: str) -> None:
    torch.set_num_threads(1)
    limit(Path(path).stat().st_size)
    try:
        state, versions = tensors(Path(path))
        copies = {name: value.detach().clone().contiguous() for name, value in state.items()}
        save_file(copies, out, {"versions": json.dumps(versions)})
    except Refused as refused:
        print(refused, file=sys.stderr)  # noqa: T201  # it is this process's answer
        sys.exit(REFUSED)


if __name__ == "__main__":
    main(*sys.argv[1:])
