"""python -m rsdtr jobs: see what runs and waits, stop it, go on with it."""

from __future__ import annotations

import time
from datetime import datetime

import click

from rsdtr.commands import options
from rsdtr.commands.console import emit, table
from rsdtr.jobs import job_queue as table_of_jobs
from rsdtr.jobs.job import Job
from rsdtr.jobs.turns import slots

POLL_SECONDS = 0.2


@click.group("jobs")
def jobs() -> None:
    """Long work in the background: list it, show it, cancel it, resume it, read its log."""


@jobs.command("list")
@options.json
def list_(as_json: bool) -> None:
    """Every job, in the order in which they were queued."""
    found = table_of_jobs.listed()
    if as_json:
        emit({"slots": slots(), "jobs": [row(job) for job in found]})
        return
    lines = [(job.id, job.kind, job.state, describe(job), job.title) for job in found]
    click.echo(table(("id", "kind", "state", "progress", "what"), lines))


@jobs.command()
@click.argument("id", metavar="ID")
@options.json
def show(id: str, as_json: bool) -> None:
    """One job; ID may be the beginning of its id."""
    job = table_of_jobs.find(id)
    if as_json:
        emit(row(job))
        return
    queued = datetime.fromtimestamp(job.created).astimezone()
    lines = [job.title, f"{job.state}: {describe(job)}", f"queued {queued:%Y-%m-%d %H:%M}"]
    lines += [job.message] if job.message else []
    lines += [f"result: {job.result}"] if _has_result(job) else []
    click.echo("\n".join(lines))


@jobs.command()
@click.argument("id", metavar="ID")
def cancel(id: str) -> None:
    """End a job; what it has reached is kept. By force if it does not answer."""
    job = table_of_jobs.cancel(id)
    while not job.ended:
        time.sleep(POLL_SECONDS)
        job = table_of_jobs.find(job.id)
    click.echo(f"{job.id}: {job.state}" + (f", {job.message}" if job.message else ""))


@jobs.command()
@click.argument("id", metavar="ID")
def resume(id: str) -> None:
    """Go on with a job that failed or was cancelled, from its last checkpoint."""
    job = table_of_jobs.resume(id)
    click.echo(f"{job.id}: {job.state}")


@jobs.command()
@click.argument("id", metavar="ID")
def logs(id: str) -> None:
    """What a job has written to its log."""
    path = table_of_jobs.find(id).log
    click.echo(
        path.read_text(encoding="utf-8", errors="replace") if path.exists() else "", nl=False
    )


def describe(job: Job) -> str:
    """How far it is, in a few words."""
    if job.state == "queued":
        return f"{table_of_jobs.ahead(job)} before it"
    if job.state != "running":
        return job.message
    left = "" if job.seconds_left is None else f", {job.seconds_left:.0f} s left"
    silent = f", silent for {job.silent_seconds:.0f} s" if job.silent_seconds else ""
    steps = f" {job.done:,} of {job.total:,}" if job.total else ""
    return f"{job.doing or 'starting'}{steps}{left}{silent}"


def row(job: Job) -> dict[str, object]:
    """A job as JSON: a contract, as that of every command."""
    return {
        "id": job.id,
        "kind": job.kind,
        "title": job.title,
        "state": job.state,
        "ahead": table_of_jobs.ahead(job),
        "doing": job.doing,
        "done": job.done,
        "total": job.total,
        "seconds_left": job.seconds_left,
        "message": job.message,
        "pid": None if job.worker is None else job.worker.pid,
        "folder": str(job.folder),
        "result": str(job.result) if _has_result(job) else None,
        "exclusive": job.exclusive,
        "nice": job.nice,
    }


def _has_result(job: Job) -> bool:
    """Of a search ahead, or of times, the result lies elsewhere."""
    return job.state == "done" and job.result.is_dir()
