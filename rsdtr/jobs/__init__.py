"""Long work in processes that outlive the page: table, queue, worker, one module a kind."""

from rsdtr.jobs.job import Job
from rsdtr.jobs.job_queue import cancel, find, listed, resume

__all__ = ["Job", "cancel", "find", "listed", "resume"]
