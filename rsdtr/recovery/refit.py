"""Refitting a compressed network: its cores by least squares, without labels or gradients.

Layer by layer in network order, on the inputs that the compressed network itself gives the layer:
what earlier layers get wrong, later ones make good as far as they can. A layer learns the dense
network's value after BatchNorm and after the addition of a shortcut, where those follow, because
that is what the rest of the network sees; before a ReLU, only its positive part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from math import prod
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rsdtr.compressed.ring_layer import RingLayer
from rsdtr.data.image_sets import fitting_batch
from rsdtr.data.tensor_images import ImageSource, images_of
from rsdtr.errors import DataError, RsdtrError
from rsdtr.measuring.fidelity import distance_from
from rsdtr.models.run import fresh_input
from rsdtr.models.surgery import copied
from rsdtr.recovery.graph_walk import Site, Walk, sites
from rsdtr.recovery.least_squares import fitted
from rsdtr.recovery.options import SWEEP, RefitOptions
from rsdtr.recovery.recalibrate import norms_of, recalibrate
from rsdtr.recovery.second_moments import Inputs, Moments, Patches, Targets
from rsdtr.ring.tensor_ring import TensorRing

Measure = Literal["relative error", "rectified error", "divergence", "answer error"]
Sums = TypeVar("Sums", Inputs, Targets)
SWITCHED_OFF = "every γ of the BatchNorm behind it is 0: nothing of its output is seen"
GROUPED = "each group of a grouped convolution meets inputs of its own"
MOST_INPUTS = 8192  # entries of a kernel per output; their second moments take 512 MB
TOO_WIDE = f"the second moments of more than {MOST_INPUTS:,} inputs would not fit in memory"
FAINT = 1e-3  # channels that BatchNorm makes fainter than this part of the loudest count as that


@dataclass(frozen=True)
class Step:
    """One thing that was tried, judged on images that it was not fitted to.

    name: a layer, "cores" (all layers together) or "BatchNorm"; measure: `relative error`, of the
    layer's value, squared; `rectified error`, the same where a ReLU lets it through; `divergence`,
    the mean KL divergence (nats) of the network's class probabilities from the dense network's;
    `answer error`, of a network without classes, the relative error of its answers. before, after:
    by that measure; kept: it got smaller; skipped: why it was not tried, in words, and both numbers
    are 0 then.
    """

    name: str
    measure: Measure
    before: float
    after: float
    skipped: str | None = None

    @property
    def kept(self) -> bool:
        return self.after < self.before

    @property
    def gained(self) -> float:
        """By how many percent it made what it is judged by smaller; negative: larger."""
        return 100 * (1 - self.after / self.before) if self.before else 0.0


@dataclass(frozen=True, eq=False)
class Begun:
    """How far a refit is: its first `layers` ring layers are done, by these steps.

    state: the state dict that they have led to. A refit goes on from it, to the bit as if it had
    never been interrupted.
    """

    layers: int
    steps: tuple[Step, ...]
    state: dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Refitted:
    """A network with refitted cores, and every step on the way there."""

    model: nn.Module
    steps: tuple[Step, ...]


def refit_record(data: str, images: int, steps: Sequence[Step]) -> dict[str, object]:
    """What a saved model tells about its refit, JSON-able."""
    told = [asdict(step) | {"kept": step.kept} for step in steps]
    return {"data": data, "images": images, "steps": told}


@torch.no_grad()
def refit(
    model: nn.Module,
    reference: nn.Module,
    images: ImageSource,
    n: int = 1000,
    *,
    options: RefitOptions | None = None,
    progress: Callable[[int, int], None] | None = None,
    begun: Begun | None = None,
    on_layer: Callable[[Begun], None] | None = None,
) -> Refitted:
    """A copy of the model whose ring layers do on n unlabelled images what the reference does.

    reference: the dense network that `model` was compressed from. Every form keeps working; ranks
    and storage stay. A step is kept only if it helps on the images held out: each layer by its own
    output, then, by the network's, all layers together and BatchNorm statistics relative to the
    reference's. A layer whose BatchNorm lets nothing through is skipped. Activations are streamed:
    what a layer needs is its second moments, and of the values before it as much is kept as the
    budget allows. batch_size is of images up to 224×224, fewer of larger ones. `progress` gets
    (layers done, all). `on_layer` gets how far it is after every layer, and an earlier such state,
    of the same model, reference, images and options, may be given as `begun`. What a callback
    raises ends the refit.
    DataError for fewer than 2 images; RsdtrError for a model without ring layers, one that torch.fx
    cannot trace or whose values are not finite, or a reference of another structure.
    """
    asked = options or RefitOptions()
    images = images_of(images)
    if n < 2 or len(images) < 2:
        raise DataError(f"a refit was asked for with {min(n, len(images))} images: give at least 2")
    chosen = images.subset(n, asked.seed)
    order = torch.randperm(len(chosen), generator=torch.Generator().manual_seed(asked.seed))
    held = min(len(chosen) - 1, max(1, round(asked.held_out * len(chosen))))
    learnt, judged = chosen.select(order[held:]), chosen.select(order[:held])
    new = copied(model).eval()
    for module in new.modules():
        if isinstance(module, RingLayer):
            module.form = "dense"  # computes the same, and faster where nobody measured
    size = fitting_batch(images.spec, asked.batch_size)
    # The part that judges comes first; every batch is of one part.
    judging, learning = (
        [fresh_input(new, pixels) for pixels, _ in part.batches(size)] for part in (judged, learnt)
    )
    batches = judging + learning
    ours = Walk(new, batches, asked.budget / 2)
    dense = Walk(copied(reference).eval(), batches, asked.budget / 2)
    places = sites(ours)
    if not places:
        raise RsdtrError("the model has no ring layer to refit: compress it first")
    if [(x.op, str(x.target)) for x in ours.nodes] != [(x.op, str(x.target)) for x in dense.nodes]:
        raise RsdtrError(
            "refit was given a reference of another structure than the model: give the dense "
            "network that the model was compressed from"
        )
    run = _Refit(ours, dense, len(judging), asked)
    first = begun.layers if begun else 0
    steps: list[Step] = list(begun.steps) if begun else []
    if begun:
        new.load_state_dict(begun.state)
    for done, site in enumerate(places[first:], first):
        if progress:
            progress(done, len(places))
        steps += run.layer(site)
        if on_layer:
            on_layer(Begun(done + 1, tuple(steps), new.state_dict()))
    distance = distance_from(reference, judged, size)
    best, reached = copied(model), distance(model)
    trial = copied(model)  # not `new`, which has other forms and works in place nowhere
    trial.load_state_dict(new.state_dict())
    for name in ("cores", "BatchNorm"):
        if name == "BatchNorm":
            if not norms_of(best) or len(learnt) < 2:
                break
            trial = recalibrate(best, learnt, len(learnt), reference=reference, seed=asked.seed)
        step = Step(name, distance.measure, reached, distance(trial))
        steps.append(step)
        if step.kept:
            best, reached = trial, step.after
    if progress:
        progress(len(places), len(places))
    return Refitted(best, tuple(steps))


@dataclass(frozen=True, eq=False)
class _Outlet:
    """What follows a layer: value = scale·output + offset + addend, scale and offset (O,)."""

    scale: Tensor
    offset: Tensor

    @classmethod
    def of(cls, layer: RingLayer, norm: _BatchNorm | None) -> _Outlet:
        like = layer.cores[0]
        if norm is None or norm.running_mean is None or norm.running_var is None:
            return cls(like.new_ones(layer.kernel_shape[0]), like.new_zeros(layer.kernel_shape[0]))
        scale = (norm.running_var + norm.eps).rsqrt()
        scale = scale if norm.weight is None else scale * norm.weight
        offset = -norm.running_mean * scale
        offset = offset if norm.bias is None else offset + norm.bias
        # No core can be solved for a channel that is switched off.
        faint = scale.abs() < FAINT * scale.abs().max()
        return cls(torch.where(faint, FAINT * scale.abs().max(), scale), offset)


class _Refit:
    """Both networks on their way through the layers; the first `judging` batches only judge."""

    def __init__(self, ours: Walk, dense: Walk, judging: int, asked: RefitOptions) -> None:
        self.ours, self.dense, self.judging, self.asked = ours, dense, judging, asked

    def layer(self, site: Site) -> list[Step]:
        """Refit one layer in place, as far as the images held out agree."""
        layer = self.ours.modules[site.layer]
        norm = self.ours.modules[site.norm] if site.norm is not None else None
        original = self.dense.modules[site.layer]
        assert isinstance(layer, RingLayer)
        trained = original.kernel() if isinstance(original, RingLayer) else original.weight
        assert norm is None or isinstance(norm, _BatchNorm)
        assert isinstance(trained, Tensor)
        trained = trained.reshape(layer.kernel_shape)
        if told := _obstacle(site, layer, norm):
            return [Step(site.layer, "relative error", 0.0, 0.0, skipped=told)]
        outlet = _Outlet.of(layer, norm)
        scale = outlet.scale.double()
        ring = _scaled(layer.ring, scale)
        bias = scale * (0.0 if layer.bias is None else layer.bias.double())
        has_bias = layer.bias is not None or norm is not None
        steps: list[Step] = []
        inputs: list[Inputs] | None = None
        for turn in range(self.asked.rounds if site.relu else 1):
            kernel = ring.to_tensor()
            found = (kernel, bias) if turn else ()
            judge, learnt = self._moments(site, layer, outlet, found, inputs)
            inputs = [judge.inputs, learnt.inputs]
            if not (judge.finite and learnt.finite):
                raise RsdtrError(
                    f"what goes in or out of layer {site.layer} is not finite on these images: "
                    f"{self._what_to_do()}"
                )
            prior = (learnt.centred() if has_bias else learnt).with_prior(
                scale[:, None, None, None] * trained, self.asked.ridge
            )
            trial = fitted(ring, prior, SWEEP[self.asked.cores], self.asked.sweeps)
            new = trial.to_tensor()
            trial_bias = learnt.best_bias(new) if has_bias else bias
            power = max(judge.targets.power, 1e-300)
            step = Step(
                site.layer,
                "rectified error" if turn else "relative error",
                judge.error(kernel, bias) / power,
                judge.error(new, trial_bias) / power,
            )
            steps.append(step)
            if not step.kept:
                break
            ring, bias = trial, trial_bias
        if steps[0].kept:
            _write(layer, norm, _scaled(ring, 1 / scale), bias / scale)
        return steps

    def _what_to_do(self) -> str:
        """About values that are not finite."""
        for name, module in self.dense.modules.items():
            for key, value in (*module._parameters.items(), *module._buffers.items()):
                if value is not None and not value.isfinite().all():
                    return f"the dense network's own {name}.{key} holds NaN or Inf"
        return "compress the network less"

    def _moments(
        self,
        site: Site,
        layer: RingLayer,
        outlet: _Outlet,
        found: tuple[Tensor, ...],
        inputs: list[Inputs] | None,
    ) -> list[Moments]:
        """The moments of the batches that judge, and of those to learn from.

        found: nothing, or the kernel and bias of an earlier turn. Where both networks are negative
        with them, the target is what was found: behind the ReLU it is right already. inputs: those
        of an earlier turn, which serve again.
        """
        place = self.ours.position[site.call]
        generator = torch.Generator().manual_seed(self.asked.seed)
        seen: list[list[Inputs]] = [[], []]
        sought: list[list[Targets]] = [[], []]
        for batch in range(len(self.ours)):
            part = int(batch >= self.judging)
            mine, theirs = self.ours.to(batch, place), self.dense.to(batch, place)
            for run in (site, *site.again):
                wanted = self.dense.nodes[self.ours.position[run.value]]
                (x,) = run.call.all_input_nodes
                patches = Patches.of(layer, self.ours.value(mine, x), self.asked.pixels, generator)
                rest = outlet.offset
                if run.addend is not None:
                    rest = rest + patches.at(self.ours.value(mine, run.addend))
                target = patches.at(self.dense.value(theirs, wanted)) - rest  # (B·P, O)
                if found:
                    kernel, bias = (value.to(target.dtype) for value in found)
                    now = patches.columns @ kernel.flatten(1).T + bias
                    target = torch.where((target < -rest) & (now < -rest), now, target)
                _gather(sought[part], Targets.of(patches.columns, target))
                if inputs is None:
                    _gather(seen[part], Inputs.of(patches.columns))
        known = inputs or [sums for (sums,) in seen]
        return [Moments(known[part], sums) for part, (sums,) in enumerate(sought)]


def _obstacle(site: Site, layer: RingLayer, norm: _BatchNorm | None) -> str | None:
    """Why a layer is skipped, in words."""
    if layer.groups > 1:
        return GROUPED
    if prod(layer.kernel_shape[1:]) > MOST_INPUTS:
        return TOO_WIDE
    if norm is not None and norm.weight is not None and not norm.weight.any():
        return SWITCHED_OFF
    return site.obstacle


def _gather(total: list[Sums], more: Sums) -> None:
    """Add to the one sum that the list holds, if any."""
    total[:] = [total[0] + more] if total else [more]


def _scaled(ring: TensorRing, scale: Tensor) -> TensorRing:
    """The ring with every output channel times its scale (O,), in float64."""
    c0, c1, c2, c3 = (core.double() for core in ring.cores)
    return TensorRing((c0 * scale[:, None], c1, c2, c3), ring.shift)


def _write(layer: RingLayer, norm: _BatchNorm | None, ring: TensorRing, bias: Tensor) -> None:
    """Give the layer these cores and its bias; without one, the norm's mean takes it."""
    for parameter, core in zip(layer.cores, ring.cores, strict=True):
        parameter.copy_(core)
    if layer.bias is not None:
        layer.bias.copy_(bias)
    elif norm is not None and norm.running_mean is not None:
        norm.running_mean -= bias.to(norm.running_mean.dtype)
