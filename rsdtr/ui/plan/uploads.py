"""Weights that a reader brings: kept under their own name, where jobs find them again."""

from __future__ import annotations

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import streamlit as st

from rsdtr.errors import WeightsError
from rsdtr.models.weights import SUFFIXES
from rsdtr.planning.plan import CompressionPlan
from rsdtr.system.atomic_files import replace_file
from rsdtr.system.cache_folder import cache_folder, private_folder
from rsdtr.ui.shared import session
from rsdtr.ui.shared.markdown import plain

MOST_BYTES = 4 << 30  # that stay, of all readers; what was used least recently goes first
_MOST_NAME_BYTES = 200


def choose(model: str, inputs: bool = True) -> str | None:
    """The path of the file that the reader gave for this model; without one the page asks for it.

    inputs: whether another one can be given. WeightsError if the file cannot be kept.
    """
    files = session.uploads()
    if model in files and not os.path.isfile(files[model]):
        del files[model]
    if inputs or model not in files:
        given = st.file_uploader(
            f"Weights file for {model}",  # a browser reads it out, and would read backslashes
            SUFFIXES,
            key=f"{session.UPLOAD}_{model}",
            on_change=_forget,
            args=(model,),
            help="A state_dict as safetensors, or of torch.save; the latter is read by a process "
            "of its own that runs no code of it. It stays on the machine that runs this app.",
        )
        if given is not None and model not in files:
            (files[model],) = kept([(given.name, given.getbuffer())])
    if model not in files:
        st.info(
            plain(
                f"Give a file with weights of {model}, and the page is drawn for them. Links do "
                "not carry the file: whoever opens one gives their own."
            ),
            icon=":material/upload_file:",
        )
        return None
    with suppress(OSError):  # another session has just made room: reading it will say so
        os.utime(files[model])
    return files[model]


def refused(error: WeightsError, model: str) -> WeightsError:
    """What is wrong with the reader's file for this model, of the name that it was given by; it is
    forgotten. Of other weights, the error itself.
    """
    path = session.uploads().pop(model, None)
    if path is None or error.source is None or Path(error.source) != Path(path):
        return error
    return WeightsError(error.reason, Path(path).name)


def tell(file: str, plan: CompressionPlan) -> None:
    """What of the reader's network becomes rings, and why the rest does not."""
    dense: defaultdict[str, list[str]] = defaultdict(list)
    for layer in plan.layers:
        if layer.kept_dense is not None:
            dense[layer.kept_dense].append(layer.name)
    lines = [f"Of **{plain(file)}**, {plan.counted} become rings."]
    lines += [
        f"- {len(names)} stay{'s' * (len(names) == 1)} dense ({plain(reason)}): "
        f"{plain(', '.join(names[:3]))}{', …' * (len(names) > 3)}"
        for reason, names in dense.items()
    ]
    st.markdown("\n".join(lines))


def _forget(model: str) -> None:
    session.uploads().pop(model, None)


def kept(files: Sequence[tuple[str, memoryview]]) -> list[str]:
    """Where files given together lie, in one folder and under their names; written if need be.

    WeightsError where they cannot be kept.
    """
    digests = [hashlib.sha256(content).hexdigest() for _, content in files]
    names = [_file_name(name) for name, _ in files]
    together = "\n".join(f"{digest} {name}" for digest, name in zip(digests, names, strict=True))
    folder = cache_folder() / "uploads"
    place = digests[0] if len(files) == 1 else hashlib.sha256(together.encode()).hexdigest()
    paths = [folder / place / name for name in names]
    for path, (name, content) in zip(paths, files, strict=True):
        try:
            if not path.is_file():
                private_folder(path.parent)
                replace_file(path, content)
        except OSError as error:
            raise WeightsError(
                f"{name} could not be kept ({error.strerror or error}): make room in the cache "
                "folder, or name another one in RSDTR_CACHE"
            ) from error
    _make_room(folder, set(paths))
    return [str(path) for path in paths]


def _file_name(name: str) -> str:
    """The name as far as every file system takes it, and no command line for an option."""
    last = name.replace("\\", "/").rpartition("/")[2].lstrip(" -")
    cleaned = re.sub(r'[\x00-\x1f\x7f\ud800-\udfff:*?"<>|]', "_", last.lstrip(". -"))
    stem, dot, suffix = cleaned.rpartition(".")
    if not dot:  # an ending alone, or a name without one
        stem, dot, suffix = ("", ".", cleaned) if last.startswith(".") else (cleaned, "", "")
    short = stem.encode()[:_MOST_NAME_BYTES].decode(errors="ignore")
    return f"{short or 'weights'}{dot}{suffix}"


def _make_room(folder: Path, newest: set[Path]) -> None:
    """Remove what was used least recently, until the rest fits; never the newest."""
    total = 0
    with suppress(OSError):  # another session makes room as well
        # No name given by a reader begins with a dot: what does is being written by `replace_file`.
        files = [file for file in folder.glob("*/*") if not file.name.startswith(".")]
        files.sort(key=lambda file: file.stat().st_mtime, reverse=True)
        for file in files:
            total += file.stat().st_size
            if file not in newest and total > MOST_BYTES:
                file.unlink()
