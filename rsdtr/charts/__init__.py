"""Plain data to Plotly figures, tables and the HTML report; no Streamlit."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rsdtr.charts.accuracy import Stage, stages_figure
    from rsdtr.charts.html_report import report_html
    from rsdtr.charts.layer import candidates_figure, ring_figure, spectra, spectra_figure
    from rsdtr.charts.plan import (
        FrontPoint,
        RatioPoint,
        fronts_figure,
        layers_figure,
        ratios_figure,
    )
    from rsdtr.charts.tables import layers_table

__all__ = [
    "FrontPoint",
    "RatioPoint",
    "Stage",
    "candidates_figure",
    "fronts_figure",
    "layers_figure",
    "layers_table",
    "ratios_figure",
    "report_html",
    "ring_figure",
    "spectra",
    "spectra_figure",
    "stages_figure",
]

_HOME = {
    "Stage": "accuracy",
    "stages_figure": "accuracy",
    "report_html": "html_report",
    "candidates_figure": "layer",
    "ring_figure": "layer",
    "spectra": "layer",
    "spectra_figure": "layer",
    "FrontPoint": "plan",
    "RatioPoint": "plan",
    "fronts_figure": "plan",
    "layers_figure": "plan",
    "ratios_figure": "plan",
    "layers_table": "tables",
}


def __getattr__(name: str) -> Any:
    """A public name when it is asked for: commands that only want a table load no Plotly."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
