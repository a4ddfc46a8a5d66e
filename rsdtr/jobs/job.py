"""One job: what it is, how far it is, and the folder with all that belongs to it."""

from __future__ import annotations

import hmac
import json
import os
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args
from uuid import uuid4

from pydantic import Field, JsonValue, ValidationError

from rsdtr.system.atomic_files import replace_file
from rsdtr.system.cache_folder import cache_folder, private_folder
from rsdtr.system.processes import ProcessId
from rsdtr.typing import Frozen

State = Literal["queued", "running", "done", "failed", "cancelled"]
STATES = get_args(State)
SPEC, OUTCOME, WORKER, LOG, RESERVE = (
    "job.json", "outcome.json", "worker.json", "log.txt", "reserve",
)  # fmt: skip
RESERVE_BYTES = 256 << 10  # given back on a full disk, so that the job's end can be written down
SILENT_SECONDS = 15.0  # a worker that is alive says so every half second


class JobSpec(Frozen):
    """What a job is made of; it never changes.

    id: see `content_id`; subject: what it is about and whose it is, so that a page finds its own
    jobs of one configuration, and no others; created: seconds since 1970, for display; threads:
    torch's; environment: variables that the content depends on, None where not set; exclusive,
    nice: as in `job_queue.submit`.
    """

    id: str = Field(pattern="^[0-9a-f]{16}$")
    kind: str
    title: str
    subject: str
    created: float
    threads: int = Field(ge=1)
    environment: dict[str, str | None]
    content: dict[str, JsonValue]
    exclusive: bool = False
    nice: bool = False


class Outcome(Frozen):
    """How a job ended; message: one sentence, empty when all went well."""

    state: State
    message: str = ""


class Worker(Frozen):
    """Who works on a job, or did last."""

    pid: int = Field(ge=1)
    born: str


@dataclass(frozen=True)
class Job:
    """A row of the table.

    place: in the queue, counted over all jobs ever queued; doing: what it is at now, in words;
    done, total: of that, in steps; seconds_left, where known; beat: when its worker last said so,
    on the monotonic clock; cancel_asked: when, on that clock; message: how it ended, in words;
    exclusive, nice: as in `job_queue.submit`.
    """

    id: str
    kind: str
    title: str
    subject: str
    state: State
    created: float
    place: int
    worker: ProcessId | None = None
    doing: str = ""
    done: int = 0
    total: int = 0
    seconds_left: float | None = None
    beat: float | None = None
    cancel_asked: float | None = None
    message: str = ""
    exclusive: bool = False
    nice: bool = False

    @property
    def folder(self) -> Path:
        """All that belongs to it."""
        return jobs_folder() / self.id

    @property
    def log(self) -> Path:
        """What it had to say, a text file."""
        return self.folder / LOG

    @property
    def result(self) -> Path:
        """The folder of its result, there once it is done."""
        return self.folder / "result"

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen unless somebody resumes it."""
        return self.state in ("done", "failed", "cancelled")

    @property
    def silent_seconds(self) -> float:
        """For how long a running job's worker has said nothing, beyond what is usual; else 0."""
        if self.state != "running" or self.beat is None:
            return 0.0
        silent = time.monotonic() - self.beat
        return silent if silent > SILENT_SECONDS else 0.0


def jobs_folder() -> Path:
    """Where the table and the folders of all jobs lie."""
    return cache_folder() / "jobs"


def content_id(kind: str, content: Mapping[str, object], subject: str) -> str:
    """The name of a job: equal for equal content on one subject, and 64 bits for nobody to guess.

    Whoever has it may see and cancel the job: it is the SHA-256 keyed by a secret of this folder.
    """
    text = json.dumps({"kind": kind, "content": content, "subject": subject}, sort_keys=True)
    return hmac.new(_secret(), text.encode(), "sha256").hexdigest()[:16]


def _secret() -> bytes:
    """Random bytes that only the owner of the folder can read; the same for every process."""
    path = private_folder(jobs_folder()) / "secret"
    if not path.exists():
        fresh = path.with_name(f".secret.{uuid4().hex}")
        try:
            fresh.touch(mode=0o600)
            fresh.write_bytes(secrets.token_bytes(32))
            with suppress(FileExistsError):  # another process was quicker: its secret holds
                os.link(fresh, path)
        finally:
            fresh.unlink(missing_ok=True)
    return path.read_bytes()


def read_spec(folder: Path) -> JobSpec | None:
    """The job of this folder; None if there is none that is whole and belongs here."""
    try:
        spec = JobSpec.model_validate_json((folder / SPEC).read_bytes())
    except (OSError, ValidationError):
        return None
    return spec if spec.id == folder.name else None


def read_outcome(folder: Path) -> Outcome | None:
    """How the job of this folder ended; None if it did not."""
    try:
        return Outcome.model_validate_json((folder / OUTCOME).read_bytes())
    except (OSError, ValidationError):
        return None


def read_worker(folder: Path) -> ProcessId | None:
    """Who works on the job of this folder, or did last; None if nobody has begun."""
    try:
        found = Worker.model_validate_json((folder / WORKER).read_bytes())
    except (OSError, ValidationError):
        return None
    return ProcessId(found.pid, found.born)


def write_outcome(folder: Path, outcome: Outcome) -> None:
    """Write down how it ended; OSError if even the reserve is not room enough."""
    (folder / RESERVE).unlink(missing_ok=True)
    replace_file(folder / OUTCOME, outcome.model_dump_json().encode())


def begin(folder: Path, worker: ProcessId) -> None:
    """To be told when a worker begins: clears what a killed one left, and keeps a reserve."""
    (folder / OUTCOME).unlink(missing_ok=True)
    for left in folder.glob(".writing-*"):
        left.unlink(missing_ok=True)
    content = Worker(pid=worker.pid, born=worker.born).model_dump_json()
    replace_file(folder / WORKER, content.encode())
    (folder / RESERVE).write_bytes(bytes(RESERVE_BYTES))


def stored(folder: Path) -> Job | None:
    """The job as its folder tells it, for a table that has lost it; None if there is none."""
    spec = read_spec(folder)
    if spec is None:
        return None
    worker, outcome = read_worker(folder), read_outcome(folder)
    state: State = "queued"
    message = ""
    if outcome is not None:
        state, message = outcome.state, outcome.message
    elif worker is not None:
        state = "running"  # or it has died: `tend` will see
    return Job(
        spec.id, spec.kind, spec.title, spec.subject, state, spec.created, 0,
        worker=worker if state == "running" else None, message=message,
        exclusive=spec.exclusive, nice=spec.nice,
    )  # fmt: skip
