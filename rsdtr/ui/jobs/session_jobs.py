"""What is recovered on the page: at once by recalibration, and by the jobs of a configuration.

A session finds the jobs that it has started, by the network and the rings that they are about. The
address says which one is shown: whoever has it, as a page that was reloaded, another tab or another
person, sees that job and may cancel it. Nobody else can, because nobody can guess its id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import streamlit as st

from rsdtr.jobs import job_queue
from rsdtr.jobs.job import Job
from rsdtr.planning.plan import CompressionPlan
from rsdtr.ui.plan.networks import Network
from rsdtr.ui.shared import address, session


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
    return f"{about}.{session.visitor()}"


def jobs_about(about: str) -> list[Job]:
    """The jobs on something that this session has started or was given the link of."""
    own, linked = filed(about), session.linked_jobs()
    asked = st.query_params.get(session.JOB)
    found = []
    for job in job_queue.listed():
        if job.subject.partition(".")[0] != about:
            continue
        if job.id == asked and job.subject != own:
            linked.add(job.id)  # it stays when another of its jobs is shown
        if job.subject == own or job.id in linked:
            found.append(job)
    return found


def shown(found: Sequence[Job]) -> Job | None:
    """Of these jobs the address's, else the newest."""
    asked = st.query_params.get(session.JOB)
    return next((job for job in found if job.id == asked), found[-1] if found else None)


def attached(network: Network, at: CompressionPlan) -> Job | None:
    """The job that the page shows: the address's, else the newest that is not put aside."""
    job = shown([job for job in own_jobs(network, at) if job.id not in session.dismissed_jobs()])
    address.put(session.JOB, None if job is None else job.id)
    return job


def attach(identity: str) -> None:
    """Show this job from now on, and take over what it reaches."""
    session.dismissed_jobs().discard(identity)
    session.taken_jobs().discard(identity)
    address.put(session.JOB, identity)


def put_aside(network: Network, at: CompressionPlan) -> None:
    """Forget the recovery of this configuration; its jobs stay in the list of runs."""
    session.recoveries().pop(network.configuration(at), None)
    session.dismissed_jobs().update(job.id for job in own_jobs(network, at) if job.ended)
    address.put(session.JOB, None)
