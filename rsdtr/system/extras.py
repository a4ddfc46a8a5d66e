"""What only some uses need, and which extra of `pip install` brings it."""

from __future__ import annotations

from rsdtr.errors import RsdtrError

EXTRA_OF = {
    "streamlit": "app",
    "plotly": "app",
    "tensorly": "compare",
    "torch_pruning": "compare",
    "opt_einsum": "compare",
    "timm": "timm",
    "huggingface_hub": "timm",
    "ipywidgets": "notebook",
    "anywidget": "notebook",
}


def missing_extra(error: ModuleNotFoundError, extra: str | None = None) -> RsdtrError | None:
    """What to do about a package that an extra brings; None if the module is none of them.

    extra: the one to name where several bring it.
    """
    package = (error.name or "").partition(".")[0]
    if package not in EXTRA_OF:
        return None
    extra = extra or EXTRA_OF[package]
    return RsdtrError(f"{package} is not installed: install it with pip install 'rsdtr[{extra}]'")
