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
}


def missing_extra(error: ModuleNotFoundError) -> RsdtrError | None:
    """What to do about a package that an extra brings; None if the module is none of them."""
    package = (error.name or "").partition(".")[0]
    if package not in EXTRA_OF:
        return None
    return RsdtrError(
        f"{package} is not installed: install it with pip install 'rsdtr[{EXTRA_OF[package]}]'"
    )
