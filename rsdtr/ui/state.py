"""Every session key of the app, and what is remembered under it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import streamlit as st
from torch import nn

from rsdtr.charts import Stage
from rsdtr.recover import EpochResult

if TYPE_CHECKING:  # the ONNX stack is loaded where it is needed: on the Export page
    from rsdtr.export import Artefact

# Widgets; the first three are also the names of the parameters in the URL.
MODEL: Final = "model"
EPS: Final = "eps"
LAYER: Final = "layer"
DATA: Final = "data"
TEST_IMAGES: Final = "test_images"
CALIBRATION_IMAGES: Final = "calibration_images"
EPOCHS: Final = "epochs"
LEARNING_RATE: Final = "learning_rate"
BATCH_SIZE: Final = "batch_size"
SEED: Final = "seed"
FORMATS: Final = "formats"

# Results of this session.
_RECOVERIES: Final = "recoveries"
_EXPORTS: Final = "exports"
_KEPT: Final = 4  # recovered models held per session: each is a whole network


@dataclass(frozen=True)
class Configuration:
    """What a result belongs to: a model with exactly these weights, at this ε_p."""

    model: str
    weights_sha256: str
    eps: float


@dataclass(frozen=True)
class TestSet:
    """The images that an accuracy was measured on: data set (None = the model's own) and limit."""

    data: str | None
    images: int


@dataclass(frozen=True, eq=False)
class Recovery:
    """A recovered model and how it came about.

    weights_sha256: of the recovered model; label: what was done last; epochs, losses: of all
    fine-tuning so far, one loss per step; references: accuracies on the same validation images.
    """

    model: nn.Module
    weights_sha256: str
    label: str
    epochs: tuple[EpochResult, ...] = ()
    losses: tuple[float, ...] = ()
    references: tuple[Stage, ...] = ()


@dataclass(frozen=True, eq=False)
class Exported:
    """The files of one export under `folder`, and which model they hold (no hash: unrecovered)."""

    label: str
    weights_sha256: str | None
    folder: Path
    artefacts: tuple[Artefact, ...]


# The stores are plain dicts that callers may hold on to: a run that Streamlit interrupts can
# still put away what it has finished without touching the session, which would interrupt it again.


def recoveries() -> dict[Configuration, Recovery]:
    """Recovered models by configuration; see `keep` for how many."""
    return _store(_RECOVERIES)


def exports() -> dict[Configuration, Exported]:
    """Exported and proved files by configuration."""
    return _store(_EXPORTS)


def keep(store: dict[Configuration, Any], configuration: Configuration, value: object) -> None:
    """Put a result away as the newest; the oldest beyond the limit are dropped."""
    store.pop(configuration, None)
    store[configuration] = value
    while len(store) > _KEPT:
        del store[next(iter(store))]


def _store(key: str) -> dict[Any, Any]:
    store: dict[Any, Any] = st.session_state.setdefault(key, {})
    return store
