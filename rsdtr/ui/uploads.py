"""Weights that a reader brings: kept under their own name, where jobs find them again."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import streamlit as st

from rsdtr.errors import WeightsError
from rsdtr.plan import CompressionPlan
from rsdtr.ui import state
from rsdtr.ui.page import plain
from rsdtr.weights import SUFFIXES, cache_folder, private_folder

MOST_BYTES = 4 << 30  # that stay, of all readers; what was used least recently goes first
_LONGEST = 80  # letters of a name


def choose(model: str, inputs: bool = True) -> Path:
    """The file that the reader gave for this model; without one the page says so and stops.

    inputs: whether another one can be given. WeightsError if the file cannot be kept.
    """
    files = state.uploads()
    known = model in files and files[model].is_file()
    if not known:
        files.pop(model, None)
    if inputs or not known:
        given = st.file_uploader(
            f"Weights file for {model}",  # a browser reads it out, and would read backslashes
            SUFFIXES,
            key=f"{state.UPLOAD}_{model}",
            on_change=_forget,
            args=(model,),
            help="A state_dict as safetensors, or of torch.save; the latter is read by a process "
            "of its own that runs no code of it. It stays on the machine that runs this app.",
        )
        if given is not None and model not in files:
            files[model] = _kept(given.name, given.getbuffer())
    if model not in files:
        st.info(
            plain(
                f"Give a file with weights of {model}, and the page is drawn for them. Links do "
                "not carry the file: whoever opens one gives their own."
            ),
            icon=":material/upload_file:",
        )
        st.stop()
    with suppress(OSError):  # another session has just made room: reading it will say so
        os.utime(files[model])
    return files[model]


@contextmanager
def named(weights: str | None) -> Iterator[None]:
    """Within it, what is wrong with an upload is said of the name that its reader knows."""
    try:
        yield
    except WeightsError as error:
        if weights is None:
            raise
        raise WeightsError(str(error).replace(weights, Path(weights).name)) from None


def tell(file: str, plan: CompressionPlan) -> None:
    """What of the reader's network becomes rings, and why the rest does not."""
    dense: defaultdict[str, list[str]] = defaultdict(list)
    for layer in plan.layers:
        if layer.kept_dense is not None:
            dense[layer.kept_dense].append(layer.name)
    rings = len(plan.layers) - sum(map(len, dense.values()))
    fits = f"**{plain(file)}** fits {plain(plan.model)}"
    lines = [f"{fits}: {rings} of {len(plan.layers)} convolutions become rings."]
    lines += [
        f"- {len(names)} stay{'s' * (len(names) == 1)} dense ({plain(reason)}): "
        f"{plain(', '.join(names[:3]))}{', …' * (len(names) > 3)}"
        for reason, names in dense.items()
    ]
    st.markdown("\n".join(lines))


def _forget(model: str) -> None:
    state.uploads().pop(model, None)


def _kept(name: str, content: memoryview) -> Path:
    """Where these bytes lie under this name, written if they are not there."""
    given = Path(name)
    stem = re.sub(r"[^\w. -]", "_", given.stem).lstrip(".- ")[:_LONGEST] or "weights"
    folder = cache_folder() / "uploads"
    path = folder / hashlib.sha256(content).hexdigest() / f"{stem}{given.suffix.lower()}"
    if path.is_file():
        return path
    try:
        private_folder(path.parent)
        descriptor, temporary = tempfile.mkstemp(prefix=".writing-", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as out:
                out.write(content)
            os.replace(temporary, path)
        finally:
            Path(temporary).unlink(missing_ok=True)
    except OSError as error:
        raise WeightsError(
            f"{name} could not be kept ({error.strerror or error}): make room in the cache folder, "
            "or name another one in RSDTR_CACHE"
        ) from error
    _make_room(folder)
    return path


def _make_room(folder: Path) -> None:
    """Remove what was used least recently, until the rest fits; never the newest."""
    total = 0
    with suppress(OSError):  # another session makes room as well
        files = sorted(folder.glob("*/*"), key=lambda file: file.stat().st_mtime, reverse=True)
        for place, file in enumerate(files):
            total += file.stat().st_size
            if place and total > MOST_BYTES:
                file.unlink()
