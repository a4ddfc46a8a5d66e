"""An ONNX file made smaller as a job: its rings, refit, timed, compared and proved."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ConfigDict, Field, ValidationError

from rsdtr.errors import JobError
from rsdtr.jobs import job_queue
from rsdtr.jobs.job import Job
from rsdtr.jobs.kinds.network_job import content_of, same_plan
from rsdtr.jobs.running import Running
from rsdtr.measuring.fidelity import Fidelity
from rsdtr.onnx_files.graph_times import GraphTime
from rsdtr.onnx_files.network_inputs import network_inputs
from rsdtr.onnx_files.onnx_network import OnnxNetwork, read_onnx
from rsdtr.onnx_files.smaller_onnx import SmallerOnnx, smaller_onnx
from rsdtr.onnx_files.verify_onnx import OnnxProof
from rsdtr.planning.plan import CompressionPlan
from rsdtr.recovery.refit import Step
from rsdtr.ring.cost import Size
from rsdtr.system.atomic_files import replace_file
from rsdtr.typing import Frozen, Progress

KIND, REPORT = "onnx", "report.json"
_log = logging.getLogger("rsdtr.jobs.kinds.onnx_file")


class GivenInputs(Frozen):
    """What a graph is refit and judged with: at most n inputs, as `network_inputs` has them.

    data: None for random numbers; refit: whether anything is learnt from them.
    """

    data: str | None = None
    n: int = Field(ge=2)
    refit: bool = True
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    bgr: bool = False


class _Content(Frozen):
    file: str
    sha256: str
    size: Size | None
    plan: CompressionPlan
    inputs: GivenInputs


class OnnxReport(Frozen):
    """What a smaller file is worth: as `SmallerOnnx`, with bytes before and after."""

    # A step that was not kept may be infinitely bad.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    file: str
    plan: CompressionPlan
    original_bytes: int
    bytes: int
    judged: int
    data: str
    fidelity: Fidelity
    before: Fidelity | None
    latency: tuple[GraphTime, ...]
    proof: OnnxProof
    steps: tuple[Step, ...]
    warnings: tuple[str, ...]


class _Stopped(Exception):
    """The job was cancelled between two steps."""


def queue_onnx(
    path: Path, network: OnnxNetwork, size: Size | None, plan: CompressionPlan,
    inputs: GivenInputs, subject: str = "",
) -> Job:  # fmt: skip
    """Queue what makes the ONNX file at `path` smaller by a plan; the job there is, if it was
    queued before. network, size: as it was read; subject: as in `jobs.submit`. JobError.
    """
    content = _Content(
        file=str(path.resolve()), sha256=network.sha256, size=size, plan=same_plan(plan),
        inputs=inputs,
    )  # fmt: skip
    title = f"{network.name} at {plan.label}"
    return job_queue.submit(KIND, title, content.model_dump(mode="json"), subject=subject)


def run(running: Running) -> bool:
    """Make the file smaller, or until the job is to stop; whether it came to the end."""
    content = content_of(running, _Content)
    path, given = Path(content.file), content.inputs

    def look(doing: str, done: int = 0, total: int = 0) -> None:
        if running.should_stop():
            raise _Stopped
        running.progress(doing, done, total)

    @contextmanager
    def stage(doing: str, unit: str) -> Iterator[Progress]:
        look(doing)
        yield lambda done, total: look(f"{doing}, {unit}", done, total)

    try:
        look("reading the network")
        if not path.is_file():
            raise JobError(f"{path.name} is there no longer: give it again, and queue it anew")
        network = read_onnx(path, content.size)
        if network.sha256 != content.sha256:
            raise JobError(f"{path.name} has changed since it was queued: queue it anew")
        look("reading the inputs")
        inputs = network_inputs(
            network, given.data, given.n, mean=given.mean, std=given.std, bgr=given.bgr
        )
        small = smaller_onnx(network, content.plan, inputs, stage, refit=given.refit)
        look("writing")
    except _Stopped:
        return False
    _keep(small, running.job.result)
    return True


def report(job: Job) -> OnnxReport | None:
    """What a job that is done has found; None if it is not, or another version ran it."""
    try:
        return OnnxReport.model_validate_json((job.result / REPORT).read_bytes())
    except (OSError, ValidationError):
        return None


def _keep(small: SmallerOnnx, result: Path) -> None:
    """The file and its report, in one folder that is whole or not there."""
    network = small.compressed.network
    name = f"{Path(network.name).stem}-small.onnx"
    folder = result.with_name("writing")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    size = small.save(folder / name)
    told = OnnxReport(
        file=name, plan=small.compressed.plan, original_bytes=network.bytes, bytes=size,
        judged=len(small.judged), data=small.judged.source, fidelity=small.fidelity,
        before=small.before, latency=small.latency, proof=small.proof, steps=small.steps,
        warnings=small.warnings,
    )  # fmt: skip
    replace_file(folder / REPORT, told.model_dump_json().encode())
    shutil.rmtree(result, ignore_errors=True)
    folder.rename(result)
    _log.info("%s: %d bytes of %d", name, size, network.bytes)
