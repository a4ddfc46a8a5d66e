"""The inputs and outputs that several pages have in common."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import streamlit as st

from rsdtr.models.zoo import ModelSpec
from rsdtr.planning.plan import CompressionPlan, LayerPlan
from rsdtr.recovery.tradeoff_curve import TEST_IMAGES
from rsdtr.ui.shared import address, session
from rsdtr.ui.shared.markdown import plain
from rsdtr.ui.shared.session import TestSet

FORMAT_NAMES = {
    "safetensors": "safetensors + manifest",
    "onnx": "ONNX",
    "pt2": "torch.export (.pt2)",
    "int8": "ONNX in 8 bits",
}
TEST_LIMITS = (500, TEST_IMAGES, 10_000, 50_000)


def choose_data(spec: ModelSpec) -> TestSet:
    """Which images accuracy is measured on: data set or folder, and how many of its test split."""
    box = st.sidebar.expander("Images", icon=":material/photo_library:")
    entered = box.text_input(
        "Data set or folder",
        key=session.DATA,
        placeholder=spec.data or "a folder with one sub-folder of pictures per class",
        help="digits, cifar10, photos, or a folder on this computer with train, validation and "
        "test folders of class folders (of any pictures, for networks without classes). Empty: "
        "the model's own, which is photos, without labels, for those.",
        persist_state="session",
    )
    limit = box.selectbox(
        "Test images at most",
        TEST_LIMITS,
        index=TEST_LIMITS.index(TEST_IMAGES),
        format_func="{:,}".format,
        key=session.TEST_IMAGES,
        persist_state="session",
    )
    return TestSet(str(entered).strip() or None, int(limit or TEST_IMAGES))


def refuse_without_classes(spec: ModelSpec) -> None:
    """Stops a page that is about accuracy where the network has none."""
    if spec.task == "classification":
        return
    st.info(
        plain(
            f"{spec.name} is for {spec.task}: it has no top-1 accuracy to compare. Its rings and "
            "its fidelity are on Explore, and Recover wins its answers back."
        ),
        icon=":material/block:",
    )
    st.stop()


def choose_layer(plan: CompressionPlan) -> LayerPlan:
    """One convolution of the plan, in the URL too; at first the one with the most parameters."""
    layers = {layer.name: layer for layer in plan.layers}
    return layers[choose_name({name: layer.shape for name, layer in layers.items()})]


def choose_name(shapes: Mapping[str, Sequence[int]], inputs: bool = True) -> str:
    """The name of one convolution of these kernel shapes, in the URL too; at first the largest.

    inputs: whether the input is drawn.
    """
    largest = max(shapes, key=lambda name: math.prod(shapes[name]))
    address.read(session.LAYER, address.one_of(tuple(shapes)), largest)
    if inputs:
        st.selectbox(
            "Layer",
            tuple(shapes),
            format_func=lambda name: f"{name}   {'×'.join(map(str, shapes[name]))}",
            key=session.LAYER,
            filter_mode="contains",
            help="Convolutions in network order, with their kernel's O × I × KH × KW.",
        )
    address.say(session.LAYER, largest)
    address.tell()
    chosen = str(st.session_state[session.LAYER])
    return chosen if chosen in shapes else largest


def choose_images(key: str, usual: int, use: str = "") -> int:
    """How many training images a recovery looks at; use: a sentence on what becomes of them."""
    n = st.number_input(
        "Training images",
        min_value=50,
        max_value=50_000,
        value=usual,
        step=50,
        key=key,
        persist_state="session",
        help=f"{use} If the data set has fewer, all of them are used.".strip(),
    )
    return whole(n, 50, 50_000, usual)


def choose_formats(spec: ModelSpec) -> list[str]:
    """Which files to export: safetensors for this library, ONNX and pt2 for deployment."""
    if spec.task == "detection":
        st.info(
            "This network chooses its boxes by their values, which torch.export cannot follow: it "
            "is exported as safetensors alone, for this library to read.",
            icon=":material/block:",
        )
        return ["safetensors"]
    chosen = st.pills(
        "Formats",
        tuple(FORMAT_NAMES),
        selection_mode="multi",
        default=["safetensors", "onnx"],
        format_func=FORMAT_NAMES.__getitem__,
        key=session.FORMATS,
        persist_state="session",
        help="safetensors holds the cores: this library loads and trains them further, and "
        "rsdtr_model.py beside them needs torch alone; ONNX runs in other programs, in 8 bits with "
        "slightly other answers; .pt2 is torch.export's.",
    )
    return [name for name in FORMAT_NAMES if name in (chosen or ())]


def whole(value: float | None, lowest: int, highest: int, otherwise: int) -> int:
    """A number field as an int within its limits, which hold only in the browser."""
    return otherwise if value is None else min(max(int(value), lowest), highest)


def within(value: float | None, lowest: float, highest: float, otherwise: float) -> float:
    """A number field as a float within its limits, likewise."""
    return otherwise if value is None else min(max(float(value), lowest), highest)
