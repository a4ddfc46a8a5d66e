"""objective=latency: among the rings of a layer, the one that is fastest on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from rsdtr.measuring.fastest_forms import layer_case, with_forms
from rsdtr.measuring.layer_times import LayerCase, measured_profile
from rsdtr.planning.layer_profile import LayerProfile
from rsdtr.planning.model_profile import ModelProfile
from rsdtr.planning.plan import CompressionPlan, LayerPlan, ring_plan, with_layers
from rsdtr.ring.cost import pipeline_macs_per_pixel
from rsdtr.ring.forms import FORMS
from rsdtr.search.candidate import OBJECTIVES, Candidate, Question

TRIED = 4  # rings of a layer that are measured, those of fewest MACs in their best form


class Stopped(Exception):
    """It was told to stop before every ring was measured."""


def fastest_rings(
    plan: CompressionPlan,
    profile: ModelProfile,
    *,
    batch: int = 1,
    threads: int = 2,
    progress: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> CompressionPlan:
    """The plan with the fastest ring in every ring layer, each in its fastest form.

    Every layer keeps its ε_p. Looked at are the candidates of the published rule, and the winners
    of the plan's own, that store less than the kernel; measured, where this machine's device
    profile does not know them, are the TRIED ones of fewest MACs and the plan's. progress: called
    with (cases measured, cases to measure). PlanError if the profile lacks a layer; Stopped once
    should_stop says so: what was measured is kept, and another call goes on from there.
    """
    options = {}
    for layer in plan.layers:
        if should_stop():
            raise Stopped
        if layer.ranks is not None:
            options[layer.name] = _options(layer, profile.layer(layer.name), plan)

    def case(ring: LayerPlan) -> LayerCase:
        return layer_case(ring, profile.layer(ring.name), batch=batch, threads=threads)

    cases = [case(ring) for rings in options.values() for ring in rings]
    measured = measured_profile(cases, progress=progress, should_stop=should_stop)
    if measured.missing(cases):
        raise Stopped

    def milliseconds(ring: LayerPlan) -> float:
        times = measured.times(case(ring))
        assert times is not None  # none is missing
        return times.fastest_ring.best_ms

    layers = [
        min(options[layer.name], key=milliseconds) if layer.name in options else layer
        for layer in plan.layers
    ]
    chosen = with_layers(plan, profile, layers).model_copy(update={"objective": "latency"})
    return with_forms(chosen, profile, measured, batch=batch, threads=threads)


def planned_ring(layer: LayerPlan) -> Candidate | None:
    """What a plan makes of a layer, as a candidate of the search; None where it stays dense."""
    if layer.shift is None or layer.r0 is None or layer.ranks is None:
        return None
    macs = pipeline_macs_per_pixel(layer.shape, layer.ranks)
    return Candidate(layer.shift, layer.r0, layer.ranks, layer.storage, macs, layer.relative_error)


def _options(layer: LayerPlan, found: LayerProfile, plan: CompressionPlan) -> list[LayerPlan]:
    """The layer's present ring, and the most promising others at its ε_p."""
    assert layer.eps is not None  # of every ring

    def macs(ring: Candidate) -> int:
        return min(found.form_macs(form, ring.ranks) for form in FORMS[:-1])

    rings = {
        ring.ranks: ring
        for ring in _rings(found, layer.eps, plan)
        if ring.storage < found.kernel.numel() and ring.ranks != layer.ranks
    }
    promising = sorted(rings.values(), key=lambda ring: (macs(ring), ring.storage))[:TRIED]
    return [layer, *(ring_plan(found, layer.eps, ring) for ring in promising)]


def _rings(found: LayerProfile, eps: float, plan: CompressionPlan) -> Iterator[Candidate]:
    yield from found.spectra.candidates(eps)
    if plan.rule == "tight":
        for objective in OBJECTIVES:
            yield found.search(Question("tight", objective, eps)).winner
