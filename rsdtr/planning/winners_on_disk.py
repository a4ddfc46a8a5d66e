"""The winners of a model on disk: a second start of the same model has nothing to search.

One safetensors file per model in the cache folder's profiles/, named by the SHA-256 of the weights
and the search's version. It holds, by rule and objective, the shift, the ranks and the error of
every layer at every ε_p of the grid, and a shift of -1 where no winner is known yet; what else a
candidate says follows from the layer's shape. A file that is damaged, or that belongs to something
else, counts as none at all and is written anew. Nothing here ever stops a plan: a disk that is
full or read-only is a warning in the log.

Those of the bundled network come with the program (scripts/search_bundled.py): the first page that
anybody opens has nothing to search either.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Collection, Generator
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from rsdtr.planning.grid_search import GridProgress, profile_grid
from rsdtr.planning.layer_profile import LayerProfile
from rsdtr.planning.model_profile import ModelProfile
from rsdtr.ring.cost import pipeline_macs_per_pixel
from rsdtr.ring.tensor_ring import ring_storage
from rsdtr.search.candidate import GRID, OBJECTIVES, RULES, Candidate, Question
from rsdtr.search.paper_rule import SEARCH_VERSION
from rsdtr.system.atomic_files import locked, replace_file
from rsdtr.system.cache_folder import cache_folder, private_folder

FORMAT_VERSION = 2  # 2: linear layers have rows as well
KEPT_BYTES = 64 << 20  # of all models together: a whole ResNet-50 takes half a million
ABANDONED_SECONDS = 3600.0  # temporary files this old belong to a writer that was killed
SAVE_SECONDS = 1.0  # between two writings of the store while the grid grows
SUFFIX = ".safetensors"
BUNDLED = Path(__file__).parents[1] / "assets" / "profiles"
UNKNOWN = -1

Kind = type[np.int32] | type[np.float64]
Arrays = dict[str, NDArray[Any]]
_log = logging.getLogger("rsdtr.planning.winners_on_disk")
_column = {eps: place for place, eps in enumerate(GRID)}


def store_folder() -> Path:
    """Where the winners of all models are kept."""
    return cache_folder() / "profiles"


def store_path(profile: ModelProfile) -> Path:
    """The file that holds this model's winners, whether it is there or not."""
    return store_folder() / file_name(profile)


def file_name(profile: ModelProfile) -> str:
    """What the file of this model's winners is called."""
    return f"{profile.weights_sha256}-v{SEARCH_VERSION}.{FORMAT_VERSION}{SUFFIX}"


def load_winners(profile: ModelProfile) -> int:
    """Add what is stored to `profile.winners`; how many winners on the grid are stored."""
    path = store_path(profile)
    arrays = _stored(profile)
    if arrays is None:
        return 0
    try:
        os.utime(path)  # used now: the least recently used go first
    except FileNotFoundError:  # they came with the program
        pass
    except OSError as error:
        _log.debug("%s could not be touched: %s", path, error)
    return sum(
        _fill(profile, layer, row, rule, objective, arrays)
        for rule in RULES
        for objective in OBJECTIVES
        for row, layer in enumerate(profile.layers)
    )


def save_winners(profile: ModelProfile) -> bool:
    """Write the known winners on the grid, beside what others have written; whether it worked."""
    path = store_path(profile)
    identity = _identity(profile)
    try:
        make_folder()
        with locked():
            arrays = _stored(profile)
            before = 0 if arrays is None else _count(arrays)
            arrays = _with_winners(profile, arrays or _blank(profile))
            if _count(arrays) > before:
                replace_file(path, _as_bytes(arrays, identity))
                _forget_least_recent(path)
    except OSError as error:
        _warn_once(f"{path.parent} cannot be written ({error.strerror or error}): winners are "
                   "kept in memory only")  # fmt: skip
        return False
    return True


def fill_store(
    profile: ModelProfile,
    should_stop: Callable[[], bool] = lambda: False,
    *,
    processes: int | None = None,
    layers: Collection[str] | None = None,
) -> Generator[GridProgress, None, None]:
    """`profile_grid` that begins with what is stored, and stores what it finds as it goes on.

    However it ends, what was found is in the store; a store that cannot be written is a warning in
    the log, and the work goes on.
    """
    load_winners(profile)
    saved = time.monotonic()
    grid = profile_grid(profile, should_stop, processes=processes, layers=layers)
    try:
        for at in grid:
            if time.monotonic() - saved > SAVE_SECONDS:
                save_winners(profile)
                saved = time.monotonic()
            yield at
    finally:
        grid.close()
        save_winners(profile)


def make_folder() -> None:
    """Create the store's folder, readable by its owner only; OSError if that is not possible."""
    private_folder(store_folder())


def _identity(profile: ModelProfile) -> str:
    """All that the stored winners depend on, but for the code itself, as one line of JSON."""
    layers = [
        (la.name, la.shape, la.input_size, la.output_size, *(la.groups,) * (la.groups > 1))
        if la.runs == 1
        else (la.name, la.shape, [astuple(size) for size in la.sizes], la.groups)
        for la in profile.layers
    ]
    content = {
        "format": FORMAT_VERSION,
        "search": SEARCH_VERSION,
        "weights_sha256": profile.weights_sha256,
        "grid": GRID,
        "layers": layers,
    }
    return json.dumps(content, separators=(",", ":"))


def _kinds(layers: int) -> dict[str, tuple[Kind, tuple[int, ...]]]:
    """Name, type and shape of every array in the file of a model with so many layers."""
    shape = (layers, len(GRID))
    kinds: dict[str, tuple[Kind, tuple[int, ...]]] = {
        "shift": (np.int32, shape),
        "ranks": (np.int32, (*shape, 4)),
        "error": (np.float64, shape),
    }
    return {
        f"{rule}.{objective}.{name}": kind
        for rule in RULES
        for objective in OBJECTIVES
        for name, kind in kinds.items()
    }


def _blank(profile: ModelProfile) -> Arrays:
    kinds = _kinds(len(profile.layers)).items()
    return {name: np.full(shape, UNKNOWN, dtype) for name, (dtype, shape) in kinds}


def _count(arrays: Arrays) -> int:
    return sum(
        int(np.count_nonzero(array != UNKNOWN))
        for name, array in arrays.items()
        if name.endswith(".shift")
    )


def _with_winners(profile: ModelProfile, arrays: Arrays) -> Arrays:
    """The arrays with all that is known in memory put in its place."""
    rows = {layer.name: row for row, layer in enumerate(profile.layers)}
    for name, question, winner in profile.winners:
        at = rows[name], _column.get(question.eps, UNKNOWN)
        if at[1] == UNKNOWN:
            continue
        prefix = f"{question.rule}.{question.objective}"
        arrays[f"{prefix}.shift"][at] = winner.shift
        arrays[f"{prefix}.ranks"][at] = winner.ranks
        arrays[f"{prefix}.error"][at] = winner.relative_error
    return arrays


def _fill(
    profile: ModelProfile, layer: LayerProfile, row: int, rule: str, objective: str, arrays: Arrays
) -> int:
    shift = arrays[f"{rule}.{objective}.shift"][row]
    known = np.flatnonzero(shift != UNKNOWN)
    ranks = arrays[f"{rule}.{objective}.ranks"][row, known].astype(np.int64)
    storage = ring_storage(layer.shape, ranks.T)
    macs = pipeline_macs_per_pixel(layer.shape, ranks.T)
    columns = (known, shift[known], ranks, np.asarray(storage), np.asarray(macs))
    errors = arrays[f"{rule}.{objective}.error"][row, known].tolist()
    questions = _questions(rule, objective)
    for place, turn, chosen, stores, costs, error in zip(
        *(column.tolist() for column in columns), errors, strict=True
    ):
        winner = Candidate(turn, chosen[turn], tuple(chosen), stores, costs, error)
        profile.winners.put(layer.name, questions[place], winner)
    return len(known)


@functools.cache
def _questions(rule: str, objective: str) -> tuple[Question, ...]:
    return tuple(Question(rule, objective, eps) for eps in GRID)  # type: ignore[arg-type]  # of RULES and OBJECTIVES


def _as_bytes(arrays: Arrays, identity: str) -> bytes:
    metadata = {"identity": identity, "sha256": _digest(arrays)}
    return safetensors.numpy.save(arrays, metadata)


def _digest(arrays: Arrays) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()


def _stored(profile: ModelProfile) -> Arrays | None:
    """What is stored of a model, or else what came with the program."""
    identity = _identity(profile)
    arrays = _read(store_path(profile), identity)
    return _read(BUNDLED / file_name(profile), identity) if arrays is None else arrays


def _read(path: Path, identity: str) -> Arrays | None:
    """The arrays of a file, or None if there is none that is whole and belongs to this model."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        return None
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        _log.warning("%s is damaged (%s): it is ignored and written anew", path, error)
        return None
    kinds = _kinds(len(json.loads(identity)["layers"]))
    found = {name: (array.dtype.type, array.shape) for name, array in arrays.items()}
    fits = metadata.get("identity") == identity and found == kinds
    if not fits or metadata.get("sha256") != _digest(arrays) or not _sound(arrays):
        _log.warning("%s is damaged or of another model: it is ignored and written anew", path)
        return None
    return arrays


def _sound(arrays: Arrays) -> bool:
    """Whether every known winner has a shift from 0 to 3, ranks of at least 1 and an error."""
    return all(
        bool(
            np.isin(shift, (UNKNOWN, 0, 1, 2, 3)).all()
            and (arrays[name.replace("shift", "ranks")][shift != UNKNOWN] >= 1).all()
            and (arrays[name.replace("shift", "error")][shift != UNKNOWN] >= 0).all()
        )
        for name, shift in arrays.items()
        if name.endswith(".shift")
    )


def _forget_least_recent(just_written: Path) -> None:
    """Keep the store within its bound, and clear what writers that were killed left behind."""
    now = time.time()
    for left in store_folder().glob(".writing-*"):
        if now - left.stat().st_mtime > ABANDONED_SECONDS:
            left.unlink(missing_ok=True)
    sizes = {path: path.stat() for path in store_folder().glob(f"*{SUFFIX}")}
    total = sum(stat.st_size for stat in sizes.values())
    for path in sorted(sizes, key=lambda path: sizes[path].st_mtime):
        if total <= KEPT_BYTES:
            return
        if path != just_written:
            total -= sizes[path].st_size
            for belonging in store_folder().glob(f"{path.stem}.*"):
                belonging.unlink(missing_ok=True)


@functools.cache
def _warn_once(text: str) -> None:
    _log.warning("%s", text)
