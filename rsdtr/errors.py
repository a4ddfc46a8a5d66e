"""Everything a user's request can run into, each as one sentence that says what to do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class RsdtrError(Exception):
    """A request that cannot be honoured: what came, what was expected, what to do."""


class RingError(RsdtrError, ValueError):
    """Cores, ranks, a kernel or ε_p that make no valid ring."""


class PlanError(RsdtrError, ValueError):
    """A plan that is not valid, or that does not fit the model it is given."""


class WeightsError(RsdtrError):
    """Weights that were not found, have the wrong hash, or do not fit the architecture.

    source: the file whose name the sentence begins with, if it is about one; reason: what follows.
    """

    def __init__(self, reason: str, source: Path | str | None = None) -> None:
        super().__init__(reason if source is None else f"{source} {reason}")
        self.reason, self.source = reason, source


class DataError(RsdtrError):
    """A data set that was not found or cannot be read."""


class ExportError(RsdtrError):
    """A saved model that cannot be written, read back, or proved equal."""


class UnknownName(RsdtrError, LookupError):
    """A model, data set, layer or format that does not exist."""


class JobError(RsdtrError):
    """A job that cannot be queued, resumed or recorded."""


def first_line(error: BaseException, otherwise: str | None = None) -> str:
    """The first line of what an error of other code says; otherwise: for one that says nothing, by
    default its class.
    """
    return (str(error).strip().splitlines() or [otherwise or type(error).__name__])[0]


def first_problem(error: ValidationError) -> str:
    """Where the first thing lies that is wrong with a file's content, and what it is."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])[:80] or "the whole text"
    return f"{where}: {first['msg']}"
