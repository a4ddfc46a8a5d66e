"""The inputs and figures of an explorer as widgets, which follow it and which it follows."""

from __future__ import annotations

from html import escape
from typing import Any

import ipywidgets

from rsdtr.errors import RsdtrError
from rsdtr.notebook.explorer import Explorer
from rsdtr.notebook.live_figure import LiveFigure
from rsdtr.recovery.tradeoff_curve import CurvePoint
from rsdtr.search.candidate import GRID

AT_ONCE = 0.3  # seconds that a plan may take to be made while the slider is still moving
RULES = {"Paper": "paper", "Tight": "tight"}
NO_LAYER = "choose one to see its rings"
WIDE = {"width": "100%"}
WIDTH = 500  # pixels of a figure: two stand side by side in most notebooks


class Panel:
    """Slider, rule, layer and button; the numbers; the figures, in `figures` by their names."""

    def __init__(self, of: Explorer) -> None:
        self._of = of
        style = {"description_width": "initial"}
        self.eps = ipywidgets.FloatSlider(
            of.eps, min=GRID[0], max=GRID[-1], step=0.01, description="Prescribed error εₚ",
            continuous_update=of.plan.seconds < AT_ONCE, style=style,
            layout={"width": "auto", "flex": "1 1 320px"},
        )  # fmt: skip
        self.rule = ipywidgets.ToggleButtons(
            options=RULES, value=of.rule, description="Rule",
            style={"button_width": "64px"} | style,
            tooltips=("three equal truncations, as published", "the whole of εₚ is spent"),
            layout={"width": "auto", "flex": "0 0 auto"},
        )  # fmt: skip
        self.layer = ipywidgets.Dropdown(
            options=[(NO_LAYER, ""), *((name, name) for name in of.layers)], value=of.layer or "",
            description="Layer", style=style,
        )  # fmt: skip
        why = of.why_no_accuracy
        self.measure = ipywidgets.Button(
            description="Measure accuracy", disabled=why is not None,
            tooltip=why or "compressed, and with recalibrated BatchNorm statistics",
        )  # fmt: skip
        self.numbers = ipywidgets.HTML()
        self.message = ipywidgets.HTML()
        self.figures: dict[str, LiveFigure] = {}
        flow = {"display": "flex", "flex_flow": "row wrap", "align_items": "center"} | WIDE
        self._pictures = ipywidgets.Box(layout=flow)
        self.box = ipywidgets.VBox(
            [
                ipywidgets.Box([self.eps, self.rule], layout=flow),
                ipywidgets.Box([self.layer, self.measure], layout=flow),
                self.numbers,
                self.message,
                self._pictures,
            ],
            layout=WIDE,
        )
        self.follow()
        for name in ("eps", "rule", "layer"):
            getattr(self, name).observe(self._moved, "value")
        self.measure.on_click(self._measured)

    def bundle(self) -> dict[str, Any]:
        """What a notebook shows it by, with every figure as it is now."""
        for figure in self.figures.values():
            figure._repr_mimebundle_()  # or it would be drawn as it was when it was made
        view: dict[str, Any] = self.box._repr_mimebundle_()
        return view

    def follow(self) -> None:
        """Show what the explorer says now."""
        of = self._of
        self.eps.value, self.rule.value, self.layer.value = of.eps, of.rule, of.layer or ""
        self.numbers.value = numbers(of)
        drawn = {
            "curve": of.tradeoff_figure(),
            "layers": of.layers_figure(),
            "candidates": of.candidates_figure(),
            "ring": of.ring_figure(),
        }
        for name, figure in drawn.items():
            if figure is None:
                self.figures.pop(name, None)
                continue
            figure.update_layout(width=WIDTH)
            if name in self.figures:
                self.figures[name].become(figure)
            else:
                self.figures[name] = LiveFigure(figure)
        children = tuple(self.figures[name] for name in drawn if name in self.figures)
        if children != self._pictures.children:
            self._pictures.children = children

    def _moved(self, change: dict[str, Any]) -> None:
        name = next(n for n in ("eps", "rule", "layer") if getattr(self, n) is change["owner"])
        self._try(lambda: setattr(self._of, name, change["new"] or None))

    def _measured(self, button: ipywidgets.Button) -> None:
        button.disabled = True
        self.message.value = "Measuring …"
        try:
            self._try(self._of.measure)
        finally:
            button.disabled = False

    def _try(self, step: Any) -> None:
        """What cannot be done is said where one looks: a widget's own errors go to a log."""
        try:
            step()
        except RsdtrError as error:
            self.message.value = escape(str(error))
        else:
            self.message.value = ""


def numbers(of: Explorer) -> str:
    """PCR, FCR, bytes and accuracy, as HTML."""
    dense, small = of.bytes
    rings = sum(layer.ranks is not None for layer in of.plan.layers)
    said = (
        f"<b>PCR {of.plan.pcr:.2f}</b>, FCR {of.plan.fcr:.2f}, {dense:,} → <b>{small:,} bytes</b>; "
        f"{rings} of {len(of.plan.layers)} convolutions are rings<br>{_accuracy(of, of.measured)}"
    )
    return f'<span style="font-size: larger">{said}</span>'


def _accuracy(of: Explorer, point: CurvePoint | None) -> str:
    if of.why_no_accuracy is not None:
        return f"No accuracy: {escape(of.why_no_accuracy)}"
    if point is None or of.curve is None:
        return "Accuracy not measured here yet"
    stages = [("dense", of.curve.dense), *point.accuracy.stages]
    parts = [f"{name} <b>{reached.percent:.1f} %</b>" for name, reached in stages]
    low, high = stages[-1][1].interval
    images = f"{of.curve.dense.n:,} images of {escape(of.curve.data)}"
    return f"Accuracy: {', '.join(parts)} ({low:.1f} to {high:.1f}; {images})"
