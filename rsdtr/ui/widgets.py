"""The inputs and outputs that several pages have in common."""

from __future__ import annotations

import math

import plotly.graph_objects as go
import streamlit as st

from rsdtr.plan import CompressionPlan, LayerPlan
from rsdtr.recover import FinetuneOptions
from rsdtr.ui import cached, state, url
from rsdtr.ui.cached import Network
from rsdtr.ui.measuring import CALIBRATION_IMAGES
from rsdtr.ui.page import progress
from rsdtr.ui.state import TestSet
from rsdtr.zoo import ModelSpec, model_names

DEFAULT_MODEL = "digits_resnet20"
MINIMUM_EPS, MAXIMUM_EPS, DEFAULT_EPS = 0.02, 0.95, 0.6
FORMAT_NAMES = {
    "safetensors": "safetensors + manifest",
    "onnx": "ONNX",
    "pt2": "torch.export (.pt2)",
}
TEST_LIMITS = (500, 2000, 10_000, 50_000)


def choose() -> tuple[Network, CompressionPlan]:
    """Model and ε_p, both in the URL, and the plan they give.

    WeightsError if the model's weights are not to be had: the two inputs are drawn all the same.
    """
    url.read(state.MODEL, _model, DEFAULT_MODEL)
    url.read(state.EPS, _eps, DEFAULT_EPS)
    left, right = st.columns([2, 3], gap="medium")
    name = left.selectbox(
        "Model",
        model_names(),
        key=state.MODEL,
        filter_mode="contains",
        help="Type to search. The digits model comes with the app; weights of the others are "
        "looked for in the folder RSDTR_WEIGHTS, then downloaded.",
    )
    eps = right.slider(
        "Prescribed relative error εₚ of each kernel",
        MINIMUM_EPS,
        MAXIMUM_EPS,
        step=0.01,
        key=state.EPS,
        help="Every kernel 𝓦 is replaced by a ring 𝓦̂ with ‖𝓦 − 𝓦̂‖ ≤ εₚ ‖𝓦‖ (Frobenius norm). "
        "Larger: smaller network, less accuracy.",
    )
    url.write(state.MODEL)
    url.write(state.EPS)
    with progress("Downloading the weights, bytes") as show:
        network = cached.network(_model(name) or DEFAULT_MODEL, show)
    with progress("Searching the best ring of each layer") as show:
        return network, cached.planned(network, _eps(eps) or DEFAULT_EPS, show)


def _model(value: object) -> str | None:
    """A name that the zoo has, or None."""
    return str(value) if value in model_names() else None


def _eps(value: object) -> float | None:
    """ε_p on the slider's grid, or None: a widget's limits hold only in the browser."""
    try:
        eps = round(float(str(value)), 2)
    except ValueError:
        return None
    return eps if MINIMUM_EPS <= eps <= MAXIMUM_EPS else None


def choose_data(spec: ModelSpec) -> TestSet:
    """Which images accuracy is measured on: data set or folder, and how many of its test split."""
    left, right = st.columns([3, 2], gap="medium", vertical_alignment="bottom")
    entered = left.text_input(
        "Data set or folder",
        key=state.DATA,
        placeholder=spec.data or "a folder with one sub-folder of pictures per class",
        help="digits, cifar10, or a folder on this computer with train, validation and test "
        "folders of class folders. Empty: the data set that the model was trained on.",
        persist_state="session",
    )
    limit = right.selectbox(
        "Test images at most",
        TEST_LIMITS,
        index=1,
        format_func="{:,}".format,
        key=state.TEST_IMAGES,
        persist_state="session",
    )
    return TestSet(str(entered).strip() or None, int(limit or TEST_LIMITS[1]))


def choose_layer(plan: CompressionPlan) -> LayerPlan:
    """One convolution of the plan, in the URL too; at first the one with the most parameters."""
    layers = {layer.name: layer for layer in plan.layers}
    largest = max(plan.layers, key=lambda layer: math.prod(layer.shape))
    url.read(state.LAYER, lambda name: str(name) if name in layers else None, largest.name)
    chosen = st.selectbox(
        "Layer",
        tuple(layers),
        format_func=lambda name: f"{name}   {' × '.join(map(str, layers[name].shape))}",
        key=state.LAYER,
        filter_mode="contains",
        help="Convolutions in network order, with their kernel's O × I × KH × KW.",
    )
    url.write(state.LAYER)
    return layers.get(str(chosen), largest)


def choose_calibration() -> int:
    """How many training images recalibration looks at."""
    n = st.number_input(
        "Training images",
        min_value=50,
        max_value=50_000,
        value=CALIBRATION_IMAGES,
        step=50,
        key=state.CALIBRATION_IMAGES,
        persist_state="session",
        help="If the data set has fewer, all of them are used.",
    )
    return _whole(n, 50, 50_000, CALIBRATION_IMAGES)


def choose_training(spec: ModelSpec) -> FinetuneOptions:
    """Epochs, learning rate, batch size and seed. Digits are shifted only, photos mirrored too."""
    usual = FinetuneOptions()
    first, second, third, fourth = st.columns(4)
    epochs = first.number_input(
        "Epochs", 1, 200, usual.epochs, 1, key=state.EPOCHS, persist_state="session"
    )
    rate = second.number_input(
        "Peak learning rate",
        1e-5,
        1.0,
        usual.lr,
        0.01,
        format="%.4f",
        key=state.LEARNING_RATE,
        persist_state="session",
    )
    batch = third.number_input(
        "Batch size", 8, 1024, usual.batch_size, 8, key=state.BATCH_SIZE, persist_state="session"
    )
    seed = fourth.number_input(
        "Seed", 0, 2**31 - 1, usual.seed, 1, key=state.SEED, persist_state="session"
    )
    return FinetuneOptions(
        epochs=_whole(epochs, 1, 200, usual.epochs),
        lr=min(max(float(rate or usual.lr), 1e-5), 1.0),
        batch_size=_whole(batch, 8, 1024, usual.batch_size),
        seed=_whole(seed, 0, 2**31 - 1, usual.seed),
        augment="crop" if spec.family == "digits" else "crop+flip",
    )


def choose_formats() -> list[str]:
    """Which files to export: safetensors for this library, ONNX and pt2 for deployment."""
    chosen = st.pills(
        "Formats",
        tuple(FORMAT_NAMES),
        selection_mode="multi",
        default=["safetensors", "onnx"],
        format_func=FORMAT_NAMES.__getitem__,
        key=state.FORMATS,
        persist_state="session",
        help="safetensors with a manifest is what this library loads and trains further; ONNX runs "
        "in other programs; .pt2 is torch.export's.",
    )
    return [name for name in FORMAT_NAMES if name in (chosen or ())]


def _whole(value: float | None, lowest: int, highest: int, otherwise: int) -> int:
    """A number field as an int within its limits, which hold only in the browser."""
    return otherwise if value is None else min(max(int(value), lowest), highest)


def chart(figure: go.Figure, key: str, alt: str) -> None:
    """A figure in the page's width with a text for those who cannot see it."""
    st.plotly_chart(figure, key=key, alt=alt, width="stretch", config={"displaylogo": False})
