"""Every session key of the app, and what is remembered under it."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any, Final

import streamlit as st
from torch import nn

from rsdtr.charts.latency import LatencyPoint
from rsdtr.exports.browser_runtime import WebProof
from rsdtr.ring.forms import Form

# Names of parameters in the address, and of their widgets.
MODEL: Final = "model"
WEIGHTS: Final = "weights"
ASK: Final = "ask"
EPS: Final = "eps"
KIND: Final = "kind"  # of a target; its value is kept by kind
PCR: Final = "pcr"
FCR: Final = "fcr"
MB: Final = "mb"
RULE: Final = "rule"
OBJECTIVE: Final = "objective"
LATENCY_BATCH: Final = "latency_batch"
POLICY: Final = "layers"
OWN: Final = "own"  # layers with an ε_p of their own, as text
LAYER: Final = "layer"
LESSON: Final = "lesson"  # the step of the Learn page
LOCK: Final = "lock"  # "1": the step alone, as a class sees it
JOB: Final = "job"  # that the Recover page, or the Compare page, shows

# Other widgets.
OWN_EPS: Final = "own_eps"
OWN_DENSE: Final = "own_dense"
EVERY_CANDIDATE: Final = "every_candidate"
DAMAGE_IMAGES: Final = "damage_images"
DATA: Final = "data"
TEST_IMAGES: Final = "test_images"
CALIBRATION_IMAGES: Final = "calibration_images"
REFIT_IMAGES: Final = "refit_images"
DISTILL_IMAGES: Final = "distill_images"
EPOCHS: Final = "epochs"
LEARNING_RATE: Final = "learning_rate"
BATCH_SIZE: Final = "batch_size"
SEED: Final = "seed"
OPTIMIZER: Final = "optimizer"
DISTILL: Final = "distill"
TEMPERATURE: Final = "temperature"
EMA: Final = "ema"
SMOOTHING: Final = "label_smoothing"
FREEZE_BN: Final = "freeze_bn"
FREEZE_DENSE: Final = "freeze_dense"
MIXED: Final = "mixed_precision"
PATIENCE: Final = "patience"
COMPARED_METHODS: Final = "compared_methods"
COMPARED_PCRS: Final = "compared_pcrs"
COMPARED_IMAGES: Final = "compared_images"
COMPARED_A: Final = "compared_a"  # the two that stand side by side
COMPARED_B: Final = "compared_b"
FORMATS: Final = "formats"
UPLOAD: Final = "upload"  # the reader's weights file, with the model's name behind it
ONNX_FILES: Final = "onnx_files"
ONNX_PLACE: Final = "onnx_place"  # where the graph that was given lies
ONNX_HEIGHT: Final = "onnx_height"
ONNX_WIDTH: Final = "onnx_width"
ONNX_LAYERS: Final = "onnx_layers"
ONNX_INPUTS: Final = "onnx_inputs"
ONNX_MOST: Final = "onnx_most"
ONNX_REFIT: Final = "onnx_refit"
ONNX_MEAN: Final = "onnx_mean"
ONNX_STD: Final = "onnx_std"
ONNX_BGR: Final = "onnx_bgr"
LESSON_R0: Final = "lesson_r0"
LESSON_SHIFT: Final = "lesson_shift"
LESSON_COMPONENTS: Final = "lesson_components"
LESSON_STAGE: Final = "lesson_stage"
PLAYED: Final = "played"  # the key of the control of Learn that moves by itself, and how far it is
PLAY_DRAWN: Final = "play_drawn"
PARTS: Final = "parts"  # whether the network before and after is open
PARTS_COLOUR: Final = "parts_colour"
SMALLER_RECOVERY: Final = "smaller_recovery"
BUDGET_POINTS: Final = "budget_points"
BUDGET_PURPOSE: Final = "budget_purpose"
BUDGET_EPOCHS: Final = "budget_epochs"
BUDGET_INT8: Final = "budget_int8"
CURVE_AXIS: Final = "curve_axis"
LATENCY_CURVE: Final = "latency_curve"
LATENCY_FAILURE: Final = "latency_failure"  # why measuring did not start, for one run
FASTEST_FAILURE: Final = "fastest_failure"  # likewise, of the fastest rings

EDITS: Final = "layer_edits"  # how often the layer table was edited: each edit draws a new one

ADDRESS: Final = "address"  # what the browser's says, and what it should

# Which page is drawn, and whether the run before this one drew another.
_PAGE: Final = "page"
_NEW_PAGE: Final = "new_page"
UNFOLDED: Final = "unfolded"  # whether a first screen of this session has been drawn

# Results of this session.
PIN: Final = "pinned"  # the model card of configuration A
WEB_TASK: Final = "web_task"  # what the browser is running
_WEB_RUNS: Final = "web_runs"
_RECOVERIES: Final = "recoveries"
_TAKEN: Final = "taken_jobs"
_DISMISSED: Final = "dismissed_jobs"
_VISITOR: Final = "visitor"
_UPLOADS: Final = "uploads"
_LINKED: Final = "linked_jobs"
_KEPT: Final = 4  # recovered models held per session: each is a whole network


Ring = tuple[float | None, int | None, tuple[int, int, int, int] | None, Form]


@dataclass(frozen=True)
class Configuration:
    """What a result belongs to: a model with exactly these weights, and its plan's rings.

    rings: for every convolution its ε_p, shift and ranks, all None where it stays dense, and form.
    """

    model: str
    weights_sha256: str
    rings: tuple[Ring, ...]


@dataclass(frozen=True)
class TestSet:
    """The images that an accuracy was measured on: data set (None = the model's own) and limit."""

    data: str | None
    images: int


@dataclass(frozen=True, eq=False)
class Recovery:
    """A recovered model: weights_sha256 is its own, label says what was done last."""

    model: nn.Module
    weights_sha256: str
    label: str


def enter(page: str) -> None:
    """To be told at the beginning of every run, for `is_new_page`."""
    st.session_state[_NEW_PAGE] = st.session_state.get(_PAGE) != page
    st.session_state[_PAGE] = page


def enter_part(name: str, part: str) -> None:
    """The same within a page that draws other widgets in each of its parts."""
    key = f"{_PAGE}_{name}"
    st.session_state[_NEW_PAGE] = is_new_page() or st.session_state.get(key) != part
    st.session_state[key] = part


def break_off() -> None:
    """To be told where a page ends before all of its widgets: the next run draws them anew."""
    st.session_state.pop(_PAGE, None)


def is_new_page() -> bool:
    """Whether this run is the first one on its page, or part, since the reader was on another."""
    return bool(st.session_state.get(_NEW_PAGE))


# The stores are plain dicts that callers may hold on to: a run that Streamlit interrupts can
# still put away what it has finished without touching the session, which would interrupt it again.


def recoveries() -> dict[Configuration, Recovery]:
    """Recovered models by configuration; see `keep` for how many."""
    return _store(_RECOVERIES)


def web_runs() -> dict[Configuration, WebRun]:
    """What this session's browser found, by configuration."""
    return _store(_WEB_RUNS)


def visitor() -> str:
    """What the jobs of this session are told from those of others by; nobody else learns it."""
    name: str = st.session_state.setdefault(_VISITOR, secrets.token_hex(16))
    return name


def uploads() -> dict[str, str]:
    """The paths of the weights that the reader gave, by model."""
    files: dict[str, str] = st.session_state.setdefault(_UPLOADS, {})
    return files


def linked_jobs() -> set[str]:
    """Jobs that another session started and whose link this one was opened with."""
    linked: set[str] = st.session_state.setdefault(_LINKED, set())
    return linked


def taken_jobs() -> set[str]:
    """Jobs whose result is a recovery of this session, or was before it was changed further."""
    taken: set[str] = st.session_state.setdefault(_TAKEN, set())
    return taken


def dismissed_jobs() -> set[str]:
    """Jobs that this session has put aside: they show in the list of runs, and nowhere else."""
    dismissed: set[str] = st.session_state.setdefault(_DISMISSED, set())
    return dismissed


def keep(
    store: dict[Configuration, Any], configuration: Configuration, value: object, most: int = _KEPT
) -> None:
    """Put a result away as the newest; the oldest beyond the limit are dropped."""
    store.pop(configuration, None)
    store[configuration] = value
    while len(store) > most:
        del store[next(iter(store))]


def _store(key: str) -> dict[Any, Any]:
    store: dict[Any, Any] = st.session_state.setdefault(key, {})
    return store


@dataclass(frozen=True)
class WebRun:
    """What this browser found of a plan, and its place in the trade-off."""

    weights_sha256: str | None
    found: WebProof
    point: LatencyPoint
