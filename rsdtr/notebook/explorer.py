"""A network, the question that is asked of it, and its answer: as a value, and to be moved."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from typing import Any, Protocol

import plotly.graph_objects as go
from torch import nn

from rsdtr.charts.layer import candidates_figure, ring_figure
from rsdtr.charts.plan import layers_figure
from rsdtr.charts.tradeoff_curve import Place, tradeoff_figure
from rsdtr.compressed.compress import compress
from rsdtr.compressed.saved import carry
from rsdtr.data.image_sets import DataSplits
from rsdtr.errors import DataError, RsdtrError
from rsdtr.measuring.accuracy import Accuracy
from rsdtr.models.zoo import ModelSpec
from rsdtr.planning.choices import Choices
from rsdtr.planning.model_profile import ModelProfile
from rsdtr.planning.plan import CompressionPlan, planned_bytes
from rsdtr.recovery.curves_on_disk import load_curve, save_curve
from rsdtr.recovery.tradeoff_curve import (
    TEST_IMAGES,
    CurveKey,
    CurvePoint,
    TradeoffCurve,
    dense_curve,
    measure_curve,
)
from rsdtr.search.candidate import GRID, RULES, Question, Rule, SearchResult
from rsdtr.system.extras import missing_extra
from rsdtr.system.safetensors_format import safetensors_bytes

WIDGETS = ("ipywidgets", "anywidget")
GIVEN = "given in this process"  # data that nobody else can know again
_FIGURE = "application/vnd.plotly.v1+json"


class Shown(Protocol):
    """What shows an explorer as widgets."""

    def follow(self) -> None:
        """Show what the explorer says now."""

    def bundle(self) -> dict[str, Any]:
        """What a notebook displays, by MIME type."""


class Explorer:
    """A dense network and the plan that answers `eps` and `rule`; both may be set, and so may
    `layer`, the convolution that is looked at. In a notebook it is a slider and its figures.

    network: is never changed; spec, profile: what is known of it; data: labelled images that
    accuracy is measured on, or None.
    """

    def __init__(
        self,
        network: nn.Module,
        spec: ModelSpec,
        costs: ModelProfile,
        choices: Choices,
        data: DataSplits | None = None,
        identity: str = GIVEN,
        *,
        draw: Callable[[Explorer], Shown],
    ) -> None:
        """identity: of the data, see `data_identity`; curves of data that has one are on disk.
        draw: makes the widgets, when they are first shown.
        """
        self.network, self.spec, self.profile, self.data = network, spec, costs, data
        self._choices, self._identity = choices, identity
        self._layer: str | None = None
        self._curves: dict[CurveKey, TradeoffCurve] = {}
        self._searched: tuple[str, Question, SearchResult] | None = None
        self._draw = draw
        self._shown: Shown | None = None
        self.plan: CompressionPlan = choices.decide(costs)

    @property
    def choices(self) -> Choices:
        """The question that the plan answers."""
        return self._choices

    @property
    def eps(self) -> float:
        """ε_p of all layers, in hundredths."""
        return self._choices.eps

    @eps.setter
    def eps(self, eps: float) -> None:
        self._ask(replace(self._choices, eps=on_the_slider(eps)))

    @property
    def rule(self) -> Rule:
        """How ε_p is spent: `paper` or `tight`."""
        return self._choices.rule

    @rule.setter
    def rule(self, rule: Rule) -> None:
        self._ask(replace(self._choices, rule=known_rule(rule)))

    @property
    def layer(self) -> str | None:
        """The convolution whose candidate rings are shown."""
        return self._layer

    @layer.setter
    def layer(self, name: str | None) -> None:
        if name is not None:
            self.profile.layer(name)  # UnknownName says which there are
        self._layer = name
        self._follow()

    @property
    def layers(self) -> tuple[str, ...]:
        """The convolutions that can be a ring, by name."""
        return tuple(
            each.name
            for each in self.profile.layers
            if each.obstacle is None and each.kind == "conv"
        )

    @property
    def bytes(self) -> tuple[int, int]:
        """Of the network's safetensors file, dense and as planned."""
        return safetensors_bytes(self.profile.entries), planned_bytes(self.profile, self.plan)

    @property
    def curve(self) -> TradeoffCurve | None:
        """What is measured of accuracy by now; None where nothing is, or nothing can be."""
        if self.data is None:
            return None
        key = self._key
        if key not in self._curves and self._identity != GIVEN and (found := load_curve(key)):
            self._curves[key] = found
        return self._curves.get(key)

    @property
    def measured(self) -> CurvePoint | None:
        """The plan's accuracies, where they were measured."""
        return None if self.curve is None else self.curve.at(self._choices)

    def measure(self) -> CurvePoint:
        """Measure the plan's accuracy, compressed and recalibrated; DataError without labels."""
        if self.data is None:
            raise DataError(f"accuracy of {self.spec.name} is unknown: {self.why_no_accuracy}")
        curve = self.curve or dense_curve(self.network, self.profile, self.data, self._key)
        new = measure_curve(
            self.network, self.profile, self.data, curve, [self._choices], "recalibrate"
        )
        for curve in new:
            self._curves[self._key] = curve
            if self._identity != GIVEN:
                save_curve(curve)
        self._follow()
        point = curve.at(self._choices)
        assert point is not None  # an ε_p has a plan
        return point

    @property
    def why_no_accuracy(self) -> str | None:
        """What is missing for an accuracy, in words; None where it can be measured."""
        if self.data is not None:
            return None
        if self.spec.task != "classification":
            return f"a network for {self.spec.task} has none"
        return "give explore data=, a folder of class folders or DataSplits with labels"

    def compressed(self) -> nn.Module:
        """A new network that obeys the plan, with `.plan` and `.spec`; `network` is untouched."""
        small = compress(self.network, self.plan)
        carry(small, self.plan, self.spec)
        return small

    def layers_figure(self) -> go.Figure:
        """Parameters of every convolution before and after."""
        return layers_figure(self.plan, 400)

    def tradeoff_figure(self) -> go.Figure | None:
        """Accuracy over PCR, the plan as a star; None where no accuracy was measured."""
        if self.curve is None:
            return None
        point = self.measured
        reached = None if point is None else _without_refit(point)
        star = Place("now", self.plan.pcr, reached)
        return tradeoff_figure(self.curve, "pcr", [star], height=400)

    def candidates_figure(self) -> go.Figure | None:
        """Every ring that the search of `layer` tried; None without a layer that can be one."""
        found = self._search()
        if found is None or self._layer is None:
            return None
        scalars = self.profile.layer(self._layer).kernel.numel()
        return candidates_figure(found.computed, found.winner, scalars, found.pruned)

    def ring_figure(self) -> go.Figure | None:
        """The ring of `layer` that won; None as above."""
        found = self._search()
        if found is None or self._layer is None:
            return None
        shape, ring = self.profile.layer(self._layer).shape, found.winner
        return ring_figure(shape, ring.ranks, ring.storage)

    def picture(self, sentence: str) -> go.Figure:
        """What is on the screen where nothing can be moved, with a sentence under its title."""
        figure = self.tradeoff_figure() or self.layers_figure()
        figure.update_layout(title={"subtitle": {"text": sentence}}, margin={"t": 100})
        return figure

    def __str__(self) -> str:
        point = self.measured
        if point is None:
            return str(self.plan)
        reached = _without_refit(point)
        return f"{self.plan}; {reached.percent:.1f} % of {reached.n:,} images are right"

    def __repr__(self) -> str:
        return f"<Explorer of {self}>"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        """A panel that can be moved; beside it a picture, for readers that have no widgets."""
        if absent := self._absent():
            picture = self.picture(f"It stands still: {absent}")
            return {"text/plain": f"{self}\n{absent}"} | picture._repr_mimebundle_()
        if self._shown is None:
            self._shown = self._draw(self)
        picture = self.picture("A picture: run the cell in a notebook with widgets to move it.")
        return self._shown.bundle() | {
            "text/plain": str(self),
            _FIGURE: json.loads(picture.to_json()),
        }

    @staticmethod
    def _absent() -> RsdtrError | None:
        """What has to be installed before anything can be moved."""
        name = next((name for name in WIDGETS if find_spec(name) is None), None)
        return None if name is None else missing_extra(ModuleNotFoundError(name=name))

    @property
    def _key(self) -> CurveKey:
        return CurveKey.of(self.profile, self._choices, self._identity, TEST_IMAGES)

    def _ask(self, choices: Choices) -> None:
        if choices != self._choices:
            self.plan = choices.decide(self.profile)
            self._choices = choices
        self._follow()

    def _follow(self) -> None:
        if self._shown is not None:
            self._shown.follow()

    def _search(self) -> SearchResult | None:
        if self._layer is None or self.profile.layer(self._layer).obstacle is not None:
            return None
        question = Question(self.rule, self._choices.solved_objective, self.eps)
        if self._searched is None or self._searched[:2] != (self._layer, question):
            found = self.profile.layer(self._layer).search(question)
            self._searched = self._layer, question, found
        return self._searched[2]


def on_the_slider(eps: float) -> float:
    """ε_p in hundredths; RsdtrError for one that the slider cannot be moved to."""
    if not GRID[0] <= eps <= GRID[-1]:
        raise RsdtrError(f"ε_p is {eps} here: give one from {GRID[0]} to {GRID[-1]}, such as 0.6")
    return round(float(eps), 2)


def known_rule(rule: Rule) -> Rule:
    """The rule; RsdtrError if there is none of that name."""
    if rule not in RULES:
        raise RsdtrError(f"there is no rule {rule!r}: give one of {', '.join(RULES)}")
    return rule


def _without_refit(point: CurvePoint) -> Accuracy:
    """Where a plan stands beside all others: few of them are refit."""
    return point.accuracy.recalibrated or point.accuracy.compressed
