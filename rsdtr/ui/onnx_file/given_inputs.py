"""The inputs that a graph is refit and judged with: pictures or NumPy's files of the reader's."""

from __future__ import annotations

import re
from pathlib import Path

import streamlit as st

from rsdtr.errors import DataError
from rsdtr.jobs.kinds.onnx_file import GivenInputs
from rsdtr.onnx_files.network_inputs import ENOUGH
from rsdtr.ui.plan import uploads
from rsdtr.ui.shared import session
from rsdtr.ui.shared.widgets import whole

ARRAYS = (".npz", ".npy")
RANDOM, MOST = 16, 5000
USUAL = 200


def choose_inputs() -> GivenInputs:
    """What the reader gives; random numbers, and no refit, without anything.

    DataError where pictures and arrays are mixed, or numbers cannot be read.
    """
    given = st.file_uploader(
        "Pictures, or one .npz or .npy file",
        accept_multiple_files=True,
        key=session.ONNX_INPUTS,
        help="What the network is used on, without labels. Pictures are resized and cropped to its "
        "input; an .npz file has an array for each of its inputs, as it takes them.",
    )
    if not given:
        st.caption(
            "Without any the rings are not refit, and answers are compared on random numbers: "
            f"that is for timing. A refit takes at least {ENOUGH} inputs to be worth it."
        )
        return GivenInputs(n=RANDOM, refit=False)
    names = [file.name for file in given]
    arrays = [name for name in names if name.lower().endswith(ARRAYS)]
    if arrays and len(names) > 1:
        raise DataError(
            f"{arrays[0]} was given with {len(names) - 1} other files: give it alone, or pictures "
            "alone"
        )
    columns = st.columns(4, gap="medium", vertical_alignment="bottom")
    n = columns[0].number_input(
        "Inputs at most", 2, MOST, USUAL, key=session.ONNX_MOST, persist_state="session",
        help="A fifth of them only judges.",
    )  # fmt: skip
    refit = columns[3].toggle("Refit", True, key=session.ONNX_REFIT, persist_state="session",
                              help="The cores by least squares, without labels.")  # fmt: skip
    mean = std = None
    bgr = False
    if not arrays:
        mean = _numbers(columns[1].text_input(
            "Mean", key=session.ONNX_MEAN, placeholder="0.485, 0.456, 0.406",
            persist_state="session", help="Per channel of pixels in 0 to 1; by default ImageNet's.",
        ))  # fmt: skip
        std = _numbers(columns[2].text_input(
            "Std", key=session.ONNX_STD, placeholder="0.229, 0.224, 0.225",
            persist_state="session",
        ))  # fmt: skip
        bgr = columns[3].toggle("BGR", key=session.ONNX_BGR, persist_state="session",
                                help="Blue first, as OpenCV has it.")  # fmt: skip
    paths = uploads.kept([(file.name, file.getbuffer()) for file in given])
    data = paths[0] if arrays else str(Path(paths[0]).parent)
    return GivenInputs(
        data=data, n=whole(n, 2, MOST, USUAL), refit=refit, mean=mean, std=std, bgr=bgr
    )


def _numbers(text: str | None) -> tuple[float, ...] | None:
    """The numbers of a list; None for an empty one."""
    words = re.split(r"[,;\s]+", (text or "").strip())
    try:
        return tuple(float(word) for word in words) if words != [""] else None
    except ValueError:
        raise DataError(
            f"{text!r} is no list of numbers: give one for each channel, as in 0.5, 0.5, 0.5"
        ) from None
