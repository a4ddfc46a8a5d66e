"""Trials on disk: what one search has recovered and tested, the next one takes up.

One safetensors file per trial, the recovered network's weights with what was measured in its
header, below the cache folder's trials/ in a folder named by the SHA-256 of all that a trial
depends on but its own size and recovery. A search with another budget, or one that was stopped and
is begun again, finds them. A damaged file counts as none and is written anew; where the disk is
full or read-only, a line in the log says so. The oldest go where all take over a gigabyte.
"""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from torch import nn

from rsdtr.errors import WeightsError
from rsdtr.measuring.paired import Drop
from rsdtr.system.atomic_files import locked, replace_file
from rsdtr.system.cache_folder import cache_folder, private_folder
from rsdtr.system.state_file import restored, state_bytes
from rsdtr.typing import Frozen

VERSION = 1  # of what is recovered and measured, and how
MOST_BYTES = 1 << 30  # of all trials together
_RECORD = "trial"  # the key of the header's metadata
_log = logging.getLogger("rsdtr.autopilot.trials_on_disk")


class Record(Frozen):
    """What was measured of a trial: its drop on the images that choose, and the seconds it took."""

    drop: Drop
    seconds: float


@dataclass(frozen=True)
class KeptTrials:
    """The trials of one network on one set of images."""

    folder: Path

    @classmethod
    def of(cls, content: str) -> KeptTrials:
        """content: all that these trials depend on but their size and recovery, as text."""
        digest = hashlib.sha256(f"{VERSION} {content}".encode()).hexdigest()
        return cls(cache_folder() / "trials" / digest[:40])

    def read(self, name: str) -> tuple[Record, OrderedDict[str, Any]] | None:
        """What is known of a trial, and the state_dict of its network; None where nothing is."""
        path = self._path(name)
        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            record = Record.model_validate_json(metadata.get(_RECORD, ""))
            return record, restored(tensors, metadata)
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError, ValidationError, ValueError) as error:
            _log.warning("%s is no trial (%s): it is made anew", path, error)
            return None

    def write(self, name: str, record: Record, model: nn.Module) -> None:
        """Keep a trial, where that can be done."""
        path = self._path(name)
        try:
            content = state_bytes(model.state_dict(), {_RECORD: record.model_dump_json()})
            private_folder(path.parent)
            with locked():
                replace_file(path, content)
                _make_room(path)
        except (OSError, WeightsError) as error:
            _log.warning("%s cannot be written (%s): a search that is begun again makes it anew",
                         path, error)  # fmt: skip

    def _path(self, name: str) -> Path:
        return self.folder / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.safetensors"


def _make_room(newest: Path) -> None:
    """Take the oldest trials away, but for the newest, until the rest may stay."""
    found = [(path.stat(), path) for path in newest.parent.parent.glob("*/*.safetensors")]
    found.sort(key=lambda item: item[0].st_mtime)
    total = sum(stat.st_size for stat, _ in found)
    for stat, path in found:
        if total <= MOST_BYTES:
            return
        if path != newest:
            path.unlink(missing_ok=True)
            total -= stat.st_size
