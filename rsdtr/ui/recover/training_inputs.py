"""The controls of a fine-tuning."""

from __future__ import annotations

from typing import Any

import streamlit as st

from rsdtr.models.zoo import ModelSpec
from rsdtr.recovery.options import OPTIMIZERS, USUAL_LR, FinetuneOptions
from rsdtr.ui.shared import session
from rsdtr.ui.shared.widgets import whole, within

OPTIMIZER_NAMES = {"sgd": "SGD", "adamw": "AdamW"}


def choose_training(spec: ModelSpec) -> FinetuneOptions:
    """How to fine-tune. Digits are shifted only, photos mirrored too."""
    usual = FinetuneOptions()
    first, second, third, fourth = st.columns(4, vertical_alignment="bottom")
    epochs = first.number_input(
        "Epochs", 1, 200, usual.epochs, 1, key=session.EPOCHS, persist_state="session"
    )
    rate = second.number_input(
        "Peak learning rate",
        1e-5,
        1.0,
        usual.lr,
        0.01,
        format="%.4f",
        key=session.LEARNING_RATE,
        persist_state="session",
    )
    batch = third.number_input(
        "Batch size", 8, 1024, usual.batch_size, 8, key=session.BATCH_SIZE, persist_state="session"
    )
    seed = fourth.number_input(
        "Seed", 0, 2**31 - 1, usual.seed, 1, key=session.SEED, persist_state="session"
    )
    with st.expander("Optimiser, distillation, what stays as it is"):
        more = _more(usual)
    return FinetuneOptions(
        epochs=whole(epochs, 1, 200, usual.epochs),
        lr=within(rate, 1e-5, 1.0, usual.lr),
        batch_size=whole(batch, 8, 1024, usual.batch_size),
        seed=whole(seed, 0, 2**31 - 1, usual.seed),
        augment="crop" if spec.family == "digits" else "crop+flip",
        **more,
    )


def _more(usual: FinetuneOptions) -> dict[str, Any]:
    first, second, third = st.columns(3)
    optimizer = first.selectbox(
        "Optimiser",
        OPTIMIZERS,
        format_func=OPTIMIZER_NAMES.__getitem__,
        key=session.OPTIMIZER,
        persist_state="session",
        help=f"AdamW wants a lower learning rate, about {USUAL_LR['adamw']}.",
    )
    distill = second.slider(
        "Distillation weight",
        0.0,
        1.0,
        usual.distill,
        0.05,
        key=session.DISTILL,
        persist_state="session",
        help="How much the original network's answers count beside the labels. 0: not at all.",
    )
    temperature = third.number_input(
        "Temperature",
        0.5,
        20.0,
        usual.temperature,
        0.5,
        key=session.TEMPERATURE,
        persist_state="session",
        disabled=not distill,
        help="Of the original network's answers: higher tells more about the other classes.",
    )
    first, second, third = st.columns(3)
    ema = first.number_input(
        "Weight averaging",
        0.0,
        0.9999,
        usual.ema,
        0.01,
        format="%.4f",
        key=session.EMA,
        persist_state="session",
        help="Decay per step of averaged weights, which are then measured and kept. 0: none.",
    )
    smoothing = second.number_input(
        "Label smoothing",
        0.0,
        0.5,
        usual.label_smoothing,
        0.05,
        key=session.SMOOTHING,
        persist_state="session",
    )
    patience = third.number_input(
        "Patience",
        0,
        200,
        usual.patience,
        1,
        key=session.PATIENCE,
        persist_state="session",
        help="Stop after so many epochs in a row without a higher validation accuracy. 0: never.",
    )
    freeze_bn = st.toggle(
        "Keep BatchNorm statistics", key=session.FREEZE_BN, persist_state="session"
    )
    freeze_dense = st.toggle(
        "Train rings and BatchNorm only", key=session.FREEZE_DENSE, persist_state="session"
    )
    mixed = st.toggle(
        "Mixed precision",
        key=session.MIXED,
        persist_state="session",
        help="Computes in bfloat16 what bears it, and keeps weights, statistics and loss in "
        "float32: faster where the processor has it.",
    )
    return {
        "optimizer": optimizer if optimizer in OPTIMIZERS else usual.optimizer,
        "distill": within(distill, 0.0, 1.0, usual.distill),
        "temperature": within(temperature, 0.5, 20.0, usual.temperature),
        "ema": within(ema, 0.0, 0.9999, usual.ema),
        "label_smoothing": within(smoothing, 0.0, 0.5, usual.label_smoothing),
        "patience": whole(patience, 0, 200, usual.patience),
        "freeze_bn": bool(freeze_bn),
        "freeze_dense": bool(freeze_dense),
        "precision": "bfloat16" if mixed else "float32",
    }
