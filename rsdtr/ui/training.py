"""Recovery inside a page's run: live charts, a cancel button, and no finished epoch lost.

Streamlit interrupts a running script when the reader clicks anything: the interruption travels as
an exception through the training generator, which then puts the best epoch back. What has been
finished by then goes into a plain dict taken from the session before training began, because
touching the session itself would interrupt the interrupted run once more.
"""

from __future__ import annotations

import copy
from collections.abc import Generator, Sequence
from time import perf_counter
from typing import cast

import streamlit as st

from rsdtr.accuracy_charts import Stage, training_figure
from rsdtr.checkpoint import EpochResult
from rsdtr.finetune import Step, finetune
from rsdtr.plan import CompressionPlan
from rsdtr.recipe import FinetuneOptions
from rsdtr.recover import recalibrate
from rsdtr.ui import cached, state
from rsdtr.ui.cached import Network
from rsdtr.ui.measuring import splits, validation_stage
from rsdtr.ui.page import progress
from rsdtr.ui.state import Recovery, TestSet
from rsdtr.ui.widgets import chart
from rsdtr.zoo import weights_sha256

REDRAW_SECONDS = 0.7


def run_recalibration(network: Network, at: CompressionPlan, test_set: TestSet, n: int) -> None:
    """Recalibrate the current model of this configuration on n images, and keep it."""
    store, configuration = state.recoveries(), network.configuration(at)
    images = splits(network, test_set).train
    before = store.get(configuration)
    with progress("Recalibrating, training images") as show:
        start = before.model if before else cached.compressed(network, at)
        model = recalibrate(start, images, n, reference=network.model, progress=show)
    label = f"{before.label}, recalibrated" if before and before.epochs else "recalibrated"
    state.keep(
        store,
        configuration,
        Recovery(
            model,
            weights_sha256(model),
            label,
            epochs=before.epochs if before else (),
            losses=before.losses if before else (),
            references=before.references if before else (),
        ),
    )


def run_finetuning(
    network: Network, at: CompressionPlan, test_set: TestSet, options: FinetuneOptions
) -> None:
    """Fine-tune the current model of this configuration, live; keep its best finished epoch."""
    store, configuration = state.recoveries(), network.configuration(at)
    before = store.get(configuration)
    st.button(
        "Cancel and keep the best finished epoch",
        key="cancel",
        icon=":material/stop_circle:",
        help="Any other click on the page stops the training as well.",
    )
    data = splits(network, test_set)
    model = copy.deepcopy(before.model if before else cached.compressed(network, at))
    references = (
        validation_stage("dense", network.model, data),
        validation_stage("start", model, data),
    )
    live = _Live(before.losses if before else (), before.epochs if before else (), references)
    # A generator by its own promise; the declared type leaves `close` out.
    run = cast(
        "Generator[EpochResult, None, None]", finetune(model, data, options, on_step=live.step)
    )
    try:
        for result in run:
            live.epoch(result)
    finally:
        # Closing puts the best epoch's weights into the model, also when a click broke the loop.
        run.close()
        if live.epochs != live.epochs_before:
            done = len(live.epochs)
            recovered = Recovery(
                model,
                weights_sha256(model),
                f"fine-tuned, {done} epoch{'s' if done > 1 else ''}",
                tuple(live.epochs),
                tuple(live.losses),
                references,
            )
            state.keep(store, configuration, recovered)


class _Live:
    """The charts of a running training, redrawn at most every REDRAW_SECONDS."""

    def __init__(
        self,
        losses: Sequence[float],
        epochs: Sequence[EpochResult],
        references: Sequence[Stage],
    ) -> None:
        self.losses = list(losses)
        self.epochs_before = list(epochs)
        self.epochs = list(epochs)
        self._references = references
        self._bar, self._chart = st.empty(), st.empty()
        self._bar.progress(0.0, text="Fine-tuning: the first step")
        self._drawn = 0.0
        self._redraws = 0

    def step(self, at: Step) -> None:
        self.losses.append(at.loss)
        if perf_counter() - self._drawn > REDRAW_SECONDS:
            text = f"Fine-tuning: step {at.number:,} of {at.total:,}, loss {at.loss:.3f}"
            self._bar.progress(min(at.number / max(at.total, 1), 1.0), text=text)
            self._draw()

    def epoch(self, result: EpochResult) -> None:
        self.epochs.append(result)
        self._draw()

    def _draw(self) -> None:
        self._drawn = perf_counter()
        self._redraws += 1
        with self._chart:
            chart(
                training_figure(self.losses, self.epochs, references=self._references),
                # A key may be used once per run.
                key=f"training-{self._redraws}",
                alt="Training loss by step and validation accuracy by epoch, so far",
            )
