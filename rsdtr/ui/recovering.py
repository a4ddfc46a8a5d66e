"""What is recovered on the page: at once by recalibration, and by the jobs of a configuration.

A session finds the jobs that it has started, by the network and the rings that they are about. The
address says which one is shown: whoever has it, as a page that was reloaded, another tab or another
person, sees that job and may cancel it. Nobody else can, because nobody can guess its id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import streamlit as st
from torch import nn

from rsdtr import jobs
from rsdtr.job import Job
from rsdtr.plan import CompressionPlan
from rsdtr.recover import recalibrate
from rsdtr.ui import cached, state, url
from rsdtr.ui.cached import Network
from rsdtr.ui.measuring import splits
from rsdtr.ui.page import progress
from rsdtr.ui.state import Recovery, TestSet
from rsdtr.zoo import weights_sha256

RECALIBRATED = "recalibrated"


def current(network: Network, at: CompressionPlan) -> nn.Module:
    """The model that the next recovery starts from: the recovered one, else the compressed."""
    before = state.recoveries().get(network.configuration(at))
    return before.model if before else cached.compressed(network, at)


def run_recalibration(network: Network, at: CompressionPlan, test_set: TestSet, n: int) -> None:
    """Recalibrate the current model of this configuration on n images, and keep it."""
    store, configuration = state.recoveries(), network.configuration(at)
    images = splits(network, test_set).train
    before = store.get(configuration)
    with progress("Recalibrating, training images") as show:
        model = recalibrate(current(network, at), images, n, reference=network.model, progress=show)
    label = before.label if before else RECALIBRATED
    label = label if label.endswith(RECALIBRATED) else f"{label}, {RECALIBRATED}"
    state.keep(store, configuration, Recovery(model, weights_sha256(model), label))


def subject(network: Network, at: CompressionPlan) -> str:
    """What the jobs of this session on this configuration are filed under."""
    return filed(_about(network, at))


def _about(network: Network, at: CompressionPlan) -> str:
    return hashlib.sha256(repr(network.configuration(at)).encode()).hexdigest()[:16]


def own_jobs(network: Network, at: CompressionPlan) -> list[Job]:
    """The jobs of this configuration that this session has started or was given the link of."""
    return jobs_about(_about(network, at))


def filed(about: str) -> str:
    """What the jobs of this session on something are filed under."""
    return f"{about}.{state.visitor()}"


def jobs_about(about: str) -> list[Job]:
    """The jobs on something that this session has started or was given the link of."""
    own, linked = filed(about), state.linked_jobs()
    asked = st.query_params.get(state.JOB)
    found = []
    for job in jobs.listed():
        if job.subject.partition(".")[0] != about:
            continue
        if job.id == asked and job.subject != own:
            linked.add(job.id)  # it stays when another of its jobs is shown
        if job.subject == own or job.id in linked:
            found.append(job)
    return found


def shown(found: Sequence[Job]) -> Job | None:
    """Of these jobs the address's, else the newest."""
    asked = st.query_params.get(state.JOB)
    return next((job for job in found if job.id == asked), found[-1] if found else None)


def attached(network: Network, at: CompressionPlan) -> Job | None:
    """The job that the page shows: the address's, else the newest that is not put aside."""
    job = shown([job for job in own_jobs(network, at) if job.id not in state.dismissed_jobs()])
    url.put(state.JOB, None if job is None else job.id)
    return job


def attach(identity: str) -> None:
    """Show this job from now on, and take over what it reaches."""
    state.dismissed_jobs().discard(identity)
    state.taken_jobs().discard(identity)
    url.put(state.JOB, identity)


def put_aside(network: Network, at: CompressionPlan) -> None:
    """Forget the recovery of this configuration; its jobs stay in the list of runs."""
    state.recoveries().pop(network.configuration(at), None)
    state.dismissed_jobs().update(job.id for job in own_jobs(network, at) if job.ended)
    url.put(state.JOB, None)
