"""The table of jobs in SQLite (WAL): rows in and out, and a new one where it was damaged."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import TypeVar

from rsdtr.errors import JobError
from rsdtr.jobs.job import STATES, Job, jobs_folder, stored
from rsdtr.planning.winners_on_disk import make_folder
from rsdtr.system.atomic_files import locked
from rsdtr.system.cache_folder import private_folder
from rsdtr.system.processes import ProcessId

VERSION = 2
BUSY_SECONDS = 20.0  # others hold the table for milliseconds
_SCHEMA = f"""
CREATE TABLE jobs (
  id TEXT PRIMARY KEY, kind TEXT NOT NULL, title TEXT NOT NULL, subject TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ({", ".join(f"'{state}'" for state in STATES)})),
  created REAL NOT NULL, place INTEGER NOT NULL, pid INTEGER, born TEXT,
  doing TEXT NOT NULL, done INTEGER NOT NULL, total INTEGER NOT NULL, seconds_left REAL,
  beat REAL, cancel_asked REAL, message TEXT NOT NULL, exclusive INTEGER NOT NULL,
  nice INTEGER NOT NULL
) STRICT
"""
_COLUMNS = (
    "id", "kind", "title", "subject", "state", "created", "place", "pid", "born", "doing", "done",
    "total", "seconds_left", "beat", "cancel_asked", "message", "exclusive", "nice",
)  # fmt: skip

Result = TypeVar("Result")
_log = logging.getLogger("rsdtr.jobs.job_queue")


class Table:
    """The rows, inside one transaction that nobody else writes in."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def all(self) -> list[Job]:
        """Every job, in the order in which they were queued."""
        found = self._connection.execute(f"SELECT {', '.join(_COLUMNS)} FROM jobs ORDER BY place")
        return [_job(row) for row in found]

    def find(self, identity: str) -> Job | None:
        """The job of that id."""
        found = self._connection.execute(
            f"SELECT {', '.join(_COLUMNS)} FROM jobs WHERE id = ?", (identity,)
        ).fetchone()
        return None if found is None else _job(found)

    def put(self, job: Job) -> None:
        """Write a row, new or changed."""
        places = ", ".join("?" * len(_COLUMNS))
        self._connection.execute(f"INSERT OR REPLACE INTO jobs VALUES ({places})", _row(job))

    def remove(self, identity: str) -> None:
        """Take a row out."""
        self._connection.execute("DELETE FROM jobs WHERE id = ?", (identity,))

    def queue(self, job: Job) -> Job:
        """Put a job at the end of the queue, as if nobody had begun it."""
        last = self._connection.execute("SELECT coalesce(max(place), 0) FROM jobs").fetchone()[0]
        queued = Job(
            job.id, job.kind, job.title, job.subject, "queued", job.created, int(last) + 1,
            exclusive=job.exclusive, nice=job.nice,
        )  # fmt: skip
        self.put(queued)
        return queued


def transact(action: Callable[[Table], Result]) -> Result:
    """Do something with the table, whole or not at all; a damaged table is made anew first.

    JobError if the table cannot be read or written, as on a full disk.
    """
    try:
        try:
            return _transacted(action)
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise
            _log.warning("the job table is damaged (%s): made anew from the jobs' folders", error)
            _set_aside()
            return _transacted(action)
    except (OSError, sqlite3.Error) as error:
        raise JobError(
            f"the job table in {jobs_folder()} cannot be used ({error}): see that there is room "
            "on the disk and that the folder can be written"
        ) from error


def _transacted(action: Callable[[Table], Result]) -> Result:
    private_folder(jobs_folder())
    path = jobs_folder() / "jobs.db"
    with closing(sqlite3.connect(path, BUSY_SECONDS, isolation_level=None)) as connection:
        if connection.execute("PRAGMA user_version").fetchone()[0] != VERSION:
            connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("BEGIN IMMEDIATE")
        try:
            _complete(connection)
            result = action(Table(connection))
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
        return result


def _complete(connection: sqlite3.Connection) -> None:
    """A new table gets its schema, and every table the jobs that only their folders know."""
    if connection.execute("PRAGMA user_version").fetchone()[0] != VERSION:
        connection.execute("DROP TABLE IF EXISTS jobs")
        connection.execute(_SCHEMA)
        connection.execute(f"PRAGMA user_version = {VERSION}")
    known = {row[0] for row in connection.execute("SELECT id FROM jobs")}
    with os.scandir(jobs_folder()) as entries:
        lost = [entry.name for entry in entries if entry.name not in known and entry.is_dir()]
    table = Table(connection)
    found = [job for name in lost if (job := stored(jobs_folder() / name)) is not None]
    for job in sorted(found, key=lambda job: job.created):
        place = table.queue(job).place
        table.put(replace(job, place=place))


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    """Whether the file is at fault, and neither its disk nor another process."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_ERROR:
        return "no such" in str(error) or "malformed" in str(error)
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _set_aside() -> None:
    """Move the damaged files away, unless another process has done so: they may be of interest."""
    make_folder()
    with locked():
        try:
            _transacted(lambda table: table.all())
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise
            for name in ("jobs.db", "jobs.db-wal", "jobs.db-shm"):
                path = jobs_folder() / name
                if path.exists():
                    os.replace(path, path.with_name(f"damaged-{name}"))


def _job(row: tuple[object, ...]) -> Job:
    fields = dict(zip(_COLUMNS, row, strict=True))
    pid, born = fields.pop("pid"), fields.pop("born")
    worker = ProcessId(pid, born) if isinstance(pid, int) and isinstance(born, str) else None
    flags = {name: bool(fields.pop(name)) for name in ("exclusive", "nice")}
    return Job(**fields, **flags, worker=worker)  # type: ignore[arg-type]  # STRICT: SQLite checks the types


def _row(job: Job) -> tuple[object, ...]:
    worker = job.worker
    return (
        job.id, job.kind, job.title, job.subject, job.state, job.created, job.place,
        worker and worker.pid, worker and worker.born, job.doing, job.done, job.total,
        job.seconds_left, job.beat, job.cancel_asked, job.message, job.exclusive, job.nice,
    )  # fmt: skip
