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
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

REFUSED = 3
_OLD = bytes.fromhex("80028a0a6cfc9c46f9206aa85019")  # the number torch's older files begin with
CPU_SECONDS = 120
SPARE_BYTES = 512 << 20  # beside four times the file: read, unwrapped, copied, written
READ = {  # safetensors_format.DTYPES, whose module this process does not need
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
    torch.float16, torch.bfloat16, torch.float32, torch.float64,
}  # fmt: skip
# Where trainers put a state_dict, the plainest first: averages come after what they are of.
USUAL = (
    "state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "weights",
    "params", "state_dict_ema", "model_ema", "ema", "params_ema",
)  # fmt: skip
OF_TRAINING = {(k,) for k in ("optimizer", "optimizer_states", "lr_schedulers", "scaler")}
EXTRA = "_extra_state"
DEEPEST = 3  # mappings around a state_dict
# Of the standard library, what only holds values.
HOLDERS = {
    "argparse.Namespace", "types.SimpleNamespace", "pathlib.Path", "pathlib.PosixPath",
    "pathlib.WindowsPath", "pathlib.PurePosixPath", "datetime.datetime", "datetime.timedelta",
    "collections.defaultdict", "collections.deque", "enum.Enum", "uuid.UUID", "functools.partial",
    *(f"{module}.{name}" for module in ("builtins", "__builtin__") for name in (
        "bool", "bytearray", "complex", "dict", "float", "frozenset", "int", "list", "range", "set",
        "slice", "str", "tuple",
    )),
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


class Inert:
    """What an object of somebody else's class becomes: it takes any state and does nothing."""

    def __init__(self, *args: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


class InertMapping(Inert):
    """The same of a class that is filled as a dict is, which torch only does with its own kinds."""

    def __new__(cls, *args: object) -> Any:
        return OrderedDict()


def loaded(path: Path, zipped: bool) -> object:
    """What the file holds; whatever torch raises where that takes code.

    Trainers write their options beside the tensors, as objects of classes that are not here: such
    a class is read as `Inert`. None of the standard library is, but for a few that hold values.
    """
    named = torch.serialization.get_unsafe_globals_in_checkpoint(path) if zipped else []
    foreign = [
        name
        for name in named
        if name in HOLDERS or name.partition(".")[0] not in sys.stdlib_module_names
    ]
    try:
        return _read_as(Inert, foreign, path, zipped)
    except Exception:  # torch's unpickler has no exception of its own
        if not foreign:
            raise
        return _read_as(InertMapping, foreign, path, zipped)


def _read_as(kind: type[Inert], foreign: list[str], path: Path, zipped: bool) -> object:
    inert: list[Any] = [
        (type("Inert", (Inert if name.startswith("numpy") else kind,), {}), name)
        for name in foreign
    ]
    with torch.serialization.safe_globals(inert):
        return torch.load(path, weights_only=True, map_location="cpu", mmap=zipped)


def state_of(content: object) -> Mapping[str, object]:
    """The state_dict in what a file holds, wherever a trainer has put it; Refused if there is none,
    or if there are several and none has a usual name.
    """
    if isinstance(content, Inert):  # a whole network, which only its own code makes
        raise Refused(UNREADABLE)
    found = dict(_states(content, (), 0))
    if not found:
        told = [_shown(key) for key in content][:6] if isinstance(content, Mapping) else []
        beside = f" ({', '.join(told)} are there)" if told else ""
        raise Refused(f"{NO_STATE}{beside}")
    if () in found:
        return found[()]
    for name in USUAL:
        for place, state in found.items():
            if place[-1] == name:
                return state
    if len(found) > 1:
        named = ", ".join(".".join(map(_shown, place)) for place in list(found)[:6])
        raise Refused(f"holds several state_dicts, {named}: save one of them alone")
    return next(iter(found.values()))


def _states(
    content: object, place: tuple[object, ...], depth: int
) -> Iterator[tuple[tuple[object, ...], Mapping[str, object]]]:
    """Every state_dict, by the keys that lead to it; nothing within one is another."""
    if not isinstance(content, Mapping) or place[-1:] in OF_TRAINING:
        return
    items = content.items()
    values = {k: v for k, v in items if isinstance(k, str) and isinstance(v, Tensor)}
    others = {k for k in content if k not in values and not str(k).endswith(EXTRA)}
    if values and not others:
        yield place, content
    elif depth < DEEPEST:
        inside = [s for k, v in items for s in _states(v, (*place, k), depth + 1)]
        if not inside and any("." in name for name in values):
            inside = [(place, values)]  # tensors beside a step or an epoch
        yield from inside


def _shown(key: object) -> str:
    return repr(str(key)[:40])


def tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, int]]:
    """The file's state_dict and the versions of its modules; Refused if there is none."""
    zipped = check_archive(path)
    try:
        content = loaded(path, zipped)
    except Exception as error:
        raise Refused(UNREADABLE) from error
    state = state_of(content)
    found = {str(name): value for name, value in state.items() if isinstance(value, Tensor)}
    values = found.values()
    if any(v.layout != torch.strided or v.is_quantized or v.is_complex() for v in values):
        raise Refused("holds sparse, quantised or complex tensors: give plain ones")
    if not {v.dtype for v in values} <= READ:
        raise Refused("holds tensors of a type that no network here has: give float32 ones")
    # A view may repeat one value a billion times.
    if sum(v.numel() * v.element_size() for v in values) > 2 * path.stat().st_size:
        raise Refused("holds views of more bytes than it has: save copies of the tensors")
    versions = {
        str(module): told["version"]
        for module, told in getattr(state, "_metadata", {}).items()
        if isinstance(told, Mapping) and isinstance(told.get("version"), int)
    }
    return found, versions


def main(path: str, out: str) -> None:
    sys.stderr.reconfigure(encoding="utf-8")  # type: ignore[union-attr]  # not of this machine
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
