"""Choosing the form of every ring layer by what was measured: a plan in, a plan out."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import nn

from rsdtr.compressed.ring_layer import RingLayer
from rsdtr.errors import PlanError
from rsdtr.measuring.layer_times import DeviceProfile, LayerCase, LayerTimes, measured_profile
from rsdtr.planning.layer_profile import LayerProfile
from rsdtr.planning.model_profile import ModelProfile
from rsdtr.planning.plan import CompressionPlan, LayerPlan, MeasuredOn, Milliseconds
from rsdtr.ring.forms import Form


def layer_cases(
    plan: CompressionPlan,
    profile: ModelProfile,
    *,
    batch: int = 1,
    threads: int = 2,
    training: bool = False,
    device: str = "cpu",
) -> dict[str, LayerCase]:
    """What has to be measured to choose the forms of the plan: a case per ring layer, by name.

    PlanError if the profile is of another model or lacks a layer.
    """
    if profile.model != plan.model:
        raise PlanError(
            f"the plan is for {plan.model} and the profile of {profile.model}: "
            "give the profile the plan was made from"
        )
    return {
        layer.name: layer_case(
            layer, profile.layer(layer.name),
            batch=batch, threads=threads, training=training, device=device,
        )
        for layer in plan.layers
        if layer.ranks is not None
    }  # fmt: skip


def layer_case(
    layer: LayerPlan,
    found: LayerProfile,
    *,
    batch: int = 1,
    threads: int = 2,
    training: bool = False,
    device: str = "cpu",
) -> LayerCase:
    """What has to be measured to choose the form of one ring layer."""
    return LayerCase.model_validate(
        {
            "shape": layer.shape,
            "ranks": layer.ranks,
            "stride": layer.stride,
            "padding": found.padding,
            "dilation": found.dilation,
            "padding_mode": found.padding_mode,
            "input_size": found.input_size,
            "batch": batch,
            "threads": threads,
            "mode": "training" if training else "inference",
            "device": device,
            "kind": found.kind,
            "groups": found.groups,
        }
    )


def with_forms(
    plan: CompressionPlan,
    profile: ModelProfile,
    measured: DeviceProfile,
    *,
    batch: int = 1,
    threads: int = 2,
    training: bool = False,
    device: str = "cpu",
) -> CompressionPlan:
    """The plan with every ring layer in the form that is fastest by `measured`.

    A layer whose ring is slower than its dense convolution runs dense, stores its ring all the
    same, and says so. Nothing is measured here: PlanError for a layer that `measured` lacks.
    """
    cases = layer_cases(
        plan, profile, batch=batch, threads=threads, training=training, device=device
    )
    layers = []
    for layer in plan.layers:
        if layer.name not in cases:
            layers.append(layer)
            continue
        times = measured.times(cases[layer.name])
        if times is None:
            raise PlanError(
                f"the device profile of {measured.machine} lacks layer {layer.name} "
                f"({_circumstances(cases[layer.name])}): measure it there with measured_forms"
            )
        layers.append(_in_form(layer, profile, times.fastest.form, times))
    return _counted(
        plan.model_copy(
            update={
                "layers": tuple(layers),
                "measured_on": MeasuredOn(
                    machine=measured.machine,
                    device=device,
                    threads=threads,
                    batch=batch,
                    mode="training" if training else "inference",
                ),
            }
        )
    )


def in_one_form(plan: CompressionPlan, profile: ModelProfile, form: Form) -> CompressionPlan:
    """The plan with every ring layer in the same form, measured or not."""
    layers = (
        layer if layer.ranks is None else _in_form(layer, profile, form, None)
        for layer in plan.layers
    )
    return _counted(plan.model_copy(update={"layers": tuple(layers), "measured_on": None}))


def measured_forms(
    plan: CompressionPlan,
    profile: ModelProfile,
    *,
    batch: int = 1,
    threads: int = 2,
    training: bool = False,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> CompressionPlan:
    """`with_forms` by this machine's own device profile, measuring first what it lacks.

    progress: called with (layers measured, layers to measure); layers alike are measured once.
    """
    cases = layer_cases(
        plan, profile, batch=batch, threads=threads, training=training, device=device
    )
    measured = measured_profile(cases.values(), progress=progress)
    return with_forms(
        plan, profile, measured, batch=batch, threads=threads, training=training, device=device
    )


def use_forms(model: nn.Module, plan: CompressionPlan) -> None:
    """Let every ring layer of `model`, in place, run in the form that the plan says.

    The network's weights are laid out channels-last as well, which makes its activations so: forms
    are measured that way, and convolutions of few channels gain most by it. A network that asks
    for `view` of such an activation would fail; set the layers' `form` by hand there.
    PlanError if a planned ring is not one in this model, which is not changed then.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    rings = [(layer, modules.get(layer.name)) for layer in plan.layers if layer.ranks is not None]
    for layer, module in rings:
        if not isinstance(module, RingLayer):
            raise PlanError(
                f"layer {layer.name} is {type(module).__name__}, expected a ring: "
                "use the model that this plan compressed"
            )
    for layer, module in rings:
        cast(RingLayer, module).form = layer.form
    model.to(memory_format=torch.channels_last)


def _in_form(
    layer: LayerPlan, profile: ModelProfile, form: Form, times: LayerTimes | None
) -> LayerPlan:
    found = profile.layer(layer.name)
    assert layer.ranks is not None  # only rings get here
    macs = found.form_macs(form, layer.ranks)
    latency, reason = None, None
    if times is not None:
        dense = times.of("dense").best_ms
        latency = Milliseconds(original=dense, compressed=times.of(form).best_ms)
        if form == "dense":
            best = times.fastest_ring
            reason = (
                f"the fastest ring form, {best.form}, takes {best.best_ms:.3g} ms, dense "
                f"{dense:.3g} ms ({_circumstances(times.case)})"
            )
    return layer.model_copy(
        update={"form": form, "macs_run": macs, "latency_ms": latency, "runs_dense": reason}
    )


def _counted(plan: CompressionPlan) -> CompressionPlan:
    saved = sum(
        layer.macs.original - layer.macs_run for layer in plan.layers if layer.macs_run is not None
    )
    return plan.model_copy(update={"fcr_run": plan.macs.original / (plan.macs.original - saved)})


def _circumstances(case: LayerCase) -> str:
    return f"batch {case.batch}, {case.threads} threads, {case.mode}"
