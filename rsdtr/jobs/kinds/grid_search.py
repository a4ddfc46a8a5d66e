"""Searching ahead as a job: every ring of a network, over the slider's whole grid.

Its result are the winners on disk, where every plan of the same weights finds them. It is nice, and
whatever it has found when it is stopped is kept.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch

from rsdtr.errors import JobError
from rsdtr.jobs import job_queue
from rsdtr.jobs.job import Job, content_id, jobs_folder
from rsdtr.jobs.kinds.network_job import content_of, original
from rsdtr.jobs.running import Running, running_here
from rsdtr.models.weights_source import WeightsField, WeightsSource
from rsdtr.models.zoo import model_spec
from rsdtr.planning.grid_search import GridProgress
from rsdtr.planning.model_profile import ModelProfile, profile
from rsdtr.planning.winners_on_disk import fill_store
from rsdtr.typing import Frozen

KIND = "grid_search"
_log = logging.getLogger("rsdtr.jobs")


class _Content(Frozen):
    model: str
    weights: WeightsField
    weights_sha256: str


def queue_search(of: ModelProfile, weights: WeightsSource) -> Job:
    """Queue the search of a model's rings, or take the job there is.

    weights: what the model was loaded with, as in `load_model`. It is nobody's own. JobError.
    """
    return job_queue.submit(KIND, _title(of), _content(of, weights), nice=True)


def search_job(of: ModelProfile, weights: WeightsSource) -> Job | None:
    """The job that searches a model's rings, or has; None if there is none."""
    if not jobs_folder().is_dir():
        return None
    identity = content_id(KIND, _content(of, weights), "")
    return job_queue.find(identity) if (jobs_folder() / identity).is_dir() else None


def run(running: Running) -> bool:
    """Search until the end, or until the job is to stop; whether it came to the end."""
    content = content_of(running, _Content)
    torch.set_num_threads(1)  # before anything runs: then every core can get a process by a fork
    running.progress("reading the model", 0, 0)
    found = profile(original(content.model, content.weights), model_spec(content.model))
    if found.weights_sha256 != content.weights_sha256:
        raise JobError("the weights have changed since it was queued: queue it anew")
    for at in fill_store(found, running.should_stop):
        _tell(running, at)
    return not running.should_stop()


@contextmanager
def searching_here(
    of: ModelProfile, weights: WeightsSource, stop: threading.Event
) -> Iterator[Callable[[GridProgress], None] | None]:
    """The same job, for this very process to do: it tells how far it is.

    None if another process is at work on this model. stop: is set when somebody cancels it.
    """
    with ExitStack() as stack:
        try:
            job = running_here(KIND, _title(of), _content(of, weights), stop)
            running = stack.enter_context(job)
        except (
            JobError,
            OSError,
        ) as error:  # a cache that is read-only stops nothing
            _log.warning("no job for %s (%s)", of.model, error)
            yield lambda _: None
            return
        yield None if running is None else lambda at: _tell(running, at)


def _tell(running: Running, at: GridProgress) -> None:
    running.progress("searching, rings", at.done, at.total, at.seconds_left)


def _title(of: ModelProfile) -> str:
    return f"{of.model}, rings for the whole slider"


def _content(of: ModelProfile, weights: WeightsSource) -> dict[str, object]:
    content = _Content(
        model=of.model, weights=weights.same_everywhere(), weights_sha256=of.weights_sha256
    )
    return content.model_dump(mode="json")
