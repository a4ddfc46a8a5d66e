"""The autopilot as a job: the search, and files of what it found, proved and waiting.

Its trials are kept by the search itself, so that a job that was cancelled or killed goes on from
there. Told to finish, it takes the best network so far on to the files.
"""

from __future__ import annotations

import time

from pydantic import TypeAdapter, ValidationError

from rsdtr.autopilot.budget import Budget
from rsdtr.autopilot.files import card_of, formats_for, write_files
from rsdtr.autopilot.search import Trial, smallest_within
from rsdtr.data.datasets import data_identity, load_data
from rsdtr.errors import JobError, RsdtrError
from rsdtr.exports.export import Artefact
from rsdtr.jobs import job_queue
from rsdtr.jobs.job import Job
from rsdtr.jobs.kinds.network_job import check_buildable, content_of, original, same_data
from rsdtr.jobs.running import Running
from rsdtr.models.weights_source import WeightsField, WeightsSource
from rsdtr.models.zoo import model_spec
from rsdtr.planning.model_profile import profile
from rsdtr.planning.plan import CompressionPlan
from rsdtr.planning.winners_on_disk import load_winners
from rsdtr.recovery.curves_on_disk import known_smallest
from rsdtr.system.atomic_files import replace_file
from rsdtr.typing import Frozen

KIND = "autopilot"
TRIALS = "trials.json"
FOUND = "found.json"
_ADJECTIVE = {"size": "smallest", "speed": "fastest"}
FINISH = "finish"  # a file that tells the search to end with the best so far


class TriedNetwork(Frozen):
    """A network that was tried, as a page shows it; points: lost, on the images that choose."""

    pcr: float
    fcr: float
    stage: str
    points: float
    held: bool

    @classmethod
    def of(cls, trial: Trial) -> TriedNetwork:
        """What is told of a trial."""
        plan = trial.plan
        return cls(
            pcr=plan.pcr, fcr=plan.fcr, stage=trial.stage, points=trial.drop.points,
            held=trial.held,
        )  # fmt: skip


class FoundFiles(Frozen):
    """What the job has made: its plan, what was found in one sentence, whether that is within the
    budget on the images that report, and the files.
    """

    plan: CompressionPlan
    sentence: str
    within: bool
    artefacts: tuple[Artefact, ...]


class _Content(Frozen):
    model: str
    weights: WeightsField
    data: str | None
    data_identity: str
    budget: Budget
    formats: tuple[str, ...]


_tried = TypeAdapter(tuple[TriedNetwork, ...])


def queue_autopilot(
    model: str, weights: WeightsSource, data: str | None, budget: Budget, subject: str = ""
) -> Job:
    """Queue a search within a budget, or take the job there is.

    weights, data: what the model and the images are loaded with; subject: as in `jobs.submit`.
    JobError for a network that another process cannot build.
    """
    check_buildable(model)
    content = _Content(
        model=model, weights=weights.same_everywhere(), data=same_data(data),
        data_identity=data_identity(data, model_spec(model)), budget=budget,
        formats=formats_for(budget.int8),
    )  # fmt: skip
    title = f"{model}, the {_ADJECTIVE[budget.purpose]} within {budget.max_drop:g} points"
    return job_queue.submit(
        KIND, title, content.model_dump(mode="json"), subject=subject,
        exclusive=budget.purpose == "speed",
    )  # fmt: skip


def run(running: Running) -> bool:
    """Search, and write the files, until the end or until the job is to stop; whether it ended."""
    content = content_of(running, _Content)
    running.progress("reading the model and the data", 0, 0)
    spec = model_spec(content.model)
    dense = original(content.model, content.weights)
    if data_identity(content.data, spec) != content.data_identity:
        raise JobError("the images have changed since it was queued: queue it anew")
    costs = profile(dense, spec)
    load_winners(costs)
    splits = load_data(content.data, spec)
    (running.folder / FINISH).unlink(missing_ok=True)
    watching = _Watching(running)
    try:
        found = smallest_within(
            dense, costs, splits, content.budget,
            guess=known_smallest(
                costs, content.data_identity, content.budget.max_drop, content.budget.layers
            ),
            should_stop=watching.should_stop, on_trial=watching.note, doing=watching.doing,
        )  # fmt: skip
    except RsdtrError:
        if running.should_stop():  # before any network held
            return False
        raise
    if running.should_stop():
        return False
    card = card_of(found, costs, content.model, content.weights, content.budget.layers)
    artefacts = write_files(
        found, splits, content.formats, running.job.result, card=card,
        progress=lambda done, total: running.progress("writing and proving, steps", done, total),
    )  # fmt: skip
    told = FoundFiles(
        plan=found.plan, sentence=str(found), within=found.drop.points <= found.max_drop,
        artefacts=tuple(artefacts),
    )  # fmt: skip
    replace_file(running.folder / FOUND, told.model_dump_json().encode())
    return True


class _Watching:
    """What a search tells, as a job shows it."""

    def __init__(self, running: Running) -> None:
        self._running, self._began = running, time.monotonic()
        self._tried: list[TriedNetwork] = []
        self._sizes = ""

    def should_stop(self) -> bool:
        """Whether the job is to stop, or to go on to the files."""
        return self._running.should_stop() or (self._running.folder / FINISH).exists()

    def note(self, trial: Trial, decided: int, about: int) -> None:
        """A network that was tried."""
        self._tried.append(TriedNetwork.of(trial))
        replace_file(self._running.folder / TRIALS, _tried.dump_json(tuple(self._tried)))
        self._sizes = f"size {min(decided + 1, about)} of about {about}, "
        left = (time.monotonic() - self._began) / decided * (about - decided)
        self._running.progress(f"{self._sizes}planning", 0, 0, left)

    def doing(self, what: str, done: int, total: int) -> None:
        """Within a trial."""
        self._running.progress(f"{self._sizes}{what}", done, total, self._running.job.seconds_left)


def finish(job: Job) -> None:
    """Let a search that runs end with the best network so far, and write its files."""
    (job.folder / FINISH).touch()


def tried(job: Job) -> tuple[TriedNetwork, ...]:
    """The networks that a job has tried so far."""
    try:
        return _tried.validate_json((job.folder / TRIALS).read_bytes())
    except (OSError, ValidationError):
        return ()


def found_files(job: Job) -> FoundFiles | None:
    """What a job has made; None unless it is done and its files are there."""
    if job.state != "done" or not job.result.is_dir():
        return None
    try:
        return FoundFiles.model_validate_json((job.folder / FOUND).read_bytes())
    except (OSError, ValidationError):
        return None
