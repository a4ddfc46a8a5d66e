"""Refitting a compressed ONNX network: its rings by least squares against the original graph.

Layer by layer in graph order, on what the compressed graph itself gives each layer; a layer learns
the original's value after BatchNorm and the addition of a shortcut, where those follow. Both graphs
are run piece by piece in ONNX Runtime, so that all layers together cost about one pass of each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rsdtr.errors import RsdtrError
from rsdtr.onnx_files.answers import Answers
from rsdtr.onnx_files.compress_onnx import CompressedOnnx, LayerRing, rebuilt
from rsdtr.onnx_files.graph_layers import GraphLayer
from rsdtr.onnx_files.graph_walk import GraphWalk
from rsdtr.onnx_files.network_inputs import NetworkInputs
from rsdtr.onnx_files.refit_site import RefitSite, refit_site, window_of
from rsdtr.recovery.least_squares import fitted
from rsdtr.recovery.options import SWEEP, RefitOptions
from rsdtr.recovery.refit import Step
from rsdtr.recovery.second_moments import Inputs, Moments, Patches, Targets
from rsdtr.ring.tensor_ring import TensorRing

USUAL = RefitOptions(pixels=128)


@dataclass(frozen=True, eq=False)
class RefittedOnnx:
    """A network with refitted rings, and every step on the way; held_out: what only judged."""

    compressed: CompressedOnnx
    steps: tuple[Step, ...]
    held_out: NetworkInputs


@torch.no_grad()
def refit_onnx(
    compressed: CompressedOnnx,
    inputs: NetworkInputs,
    *,
    options: RefitOptions = USUAL,
    progress: Callable[[int, int], None] | None = None,
) -> RefittedOnnx:
    """The network whose rings do on these inputs what the original layers do; no labels.

    A convolution without a bias gets one. A layer's step is kept only if it helps on the inputs
    held out, and all of them together only if the graph's own answers come closer there. Forms,
    ranks and storage stay. DataError for fewer than 2 inputs; RsdtrError for a network without
    rings, or values that are not finite.
    """
    network = compressed.network
    if not compressed.rings:
        raise RsdtrError(f"{network.name} has no ring to refit: compress it first")
    learnt, judged = inputs.split(options.held_out, options.seed)
    judging, learning = list(judged.batches()), list(learnt.batches())
    batches = judging + learning
    ours = GraphWalk(network, batches, options.budget / 2)
    theirs = GraphWalk(network, batches, options.budget / 2)
    layers = [layer for layer in network.layers if layer.name in compressed.rings]
    places = {layer.place for layer in layers}
    for layer in layers:
        ours.put(layer, compressed.rings[layer.name])
    rings, steps = dict(compressed.rings), []
    for done, layer in enumerate(layers):
        if progress:
            progress(done, len(layers))
        fit = _LayerFit(layer, refit_site(layer, ours, places), ours, theirs, options, len(judging))
        rings[layer.name], made = fit.run(rings[layer.name])
        ours.put(layer, rings[layer.name])
        steps += made
    expected = Answers.of(network.model, judged)
    measure, before = Answers.of(compressed.rebuilt(), judged).divergence_from(expected)
    _, after = Answers.of(rebuilt(network, rings), judged).divergence_from(expected)
    last = Step("cores", measure, before, after)
    if progress:
        progress(len(layers), len(layers))
    result = replace(compressed, rings=rings) if last.kept else compressed
    return RefittedOnnx(result, (*steps, last), judged)


class _LayerFit:
    """One layer's least squares, from both walks; the first `judging` batches only judge."""

    def __init__(
        self, layer: GraphLayer, site: RefitSite, ours: GraphWalk, theirs: GraphWalk,
        asked: RefitOptions, judging: int,
    ) -> None:  # fmt: skip
        self.layer, self.site, self.asked, self.judging = layer, site, asked, judging
        self.ours, self.theirs = ours, theirs

    def run(self, one: LayerRing) -> tuple[LayerRing, list[Step]]:
        """The layer's ring and bias, as far as the inputs held out agree, and what was tried."""
        name, site = self.layer.name, self.site
        if reason := self._obstacle():
            return one, [Step(name, "relative error", 0.0, 0.0, skipped=reason)]
        assert site.bias is not None
        scale = site.scale * site.gain
        ring = _scaled(one.ring, scale)
        trained = scale[:, None, None, None] * self.layer.kernel.double()
        bias = site.scale * site.bias
        has_bias = self.layer.operation != "MatMul"
        steps: list[Step] = []
        inputs: list[Inputs] | None = None
        for turn in range(self.asked.rounds if site.relu else 1):
            kernel = ring.to_tensor()
            judge, learnt = self._moments((kernel, bias) if turn else None, inputs)
            inputs = [judge.inputs, learnt.inputs]
            if not (judge.finite and learnt.finite):
                raise RsdtrError(
                    f"what goes in or out of layer {name} is not finite on these inputs: compress "
                    "the network less, or give other inputs"
                )
            prior = learnt.centred() if has_bias else learnt
            prior = prior.with_prior(trained, self.asked.ridge)
            trial = fitted(ring, prior, SWEEP[self.asked.cores], self.asked.sweeps)
            new = trial.to_tensor()
            trial_bias = learnt.best_bias(new) if has_bias else bias
            power = max(judge.targets.power, 1e-300)
            step = Step(
                name,
                "rectified error" if turn else "relative error",
                judge.error(kernel, bias) / power,
                judge.error(new, trial_bias) / power,
            )
            steps.append(step)
            if not step.kept:
                break
            ring, bias = trial, trial_bias
        if not steps[0].kept:
            return one, steps
        found = bias / site.scale if has_bias else None
        return LayerRing(_scaled(ring, 1 / scale), found), steps

    def _obstacle(self) -> str | None:
        columns = self.layer.kernel[0].numel()
        if 3 * 8 * columns**2 > self.asked.budget:
            return f"the second moments of its {columns:,} inputs take more memory than may be used"
        if self.site.bias is None:
            return "what is added to its output is no constant for each channel"
        if not bool(self.site.scale.any()):
            return "what follows multiplies its output by 0"
        return None

    def _moments(
        self, found: tuple[Tensor, Tensor] | None, known: list[Inputs] | None
    ) -> tuple[Moments, Moments]:
        """The moments of the batches that judge, and of those to learn from; see `refit`."""
        sums: list[tuple[Inputs | None, Targets] | None] = [None, None]
        generator = torch.Generator().manual_seed(self.asked.seed)
        for batch in range(len(self.ours)):
            part = int(batch >= self.judging)
            columns, target, rest = self._seen(batch, generator)
            if found is not None:
                kernel, bias = (value.to(target.dtype) for value in found)
                now = columns @ kernel.flatten(1).T + bias
                target = torch.where((target < -rest) & (now < -rest), now, target)
            inputs = None if known else Inputs.of(columns)
            targets, before = Targets.of(columns, target), sums[part]
            if before is not None:
                targets = before[1] + targets
                if inputs is not None and before[0] is not None:
                    inputs = before[0] + inputs
            sums[part] = (inputs, targets)
        moments = []
        for part, total in enumerate(sums):
            assert total is not None  # each part has at least one input
            inputs = known[part] if known else total[0]
            assert inputs is not None
            moments.append(Moments(inputs, total[1]))
        return moments[0], moments[1]

    def _seen(self, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """What the kernel meets (N, D), what should come of it, and what is added to it (N, O)."""
        site, place = self.site, self.layer.place
        mine, other = self.ours.to(batch, place), self.theirs.to(batch, place)
        x = _tensor(mine[site.taken])
        y = _tensor(self.theirs.values(other, place, [site.value])[site.value])
        added = None
        if site.addend is not None:
            added = _tensor(self.ours.values(mine, place, [site.addend])[site.addend])
            added = added.expand_as(y)
        if self.layer.is_matrix:
            most = self.asked.pixels * len(x)
            x, y = x.flatten(0, -2), y.flatten(0, -2)
            rows = torch.randperm(len(x), generator=generator)[:most]
            columns, target = x[rows], y[rows]
            rest = site.offset.to(y.dtype).expand_as(target)
            if added is not None:
                rest = rest + added.flatten(0, -2)[rows]
        else:
            window = window_of(self.layer, (x.shape[2], x.shape[3]))
            patches = Patches.of(window, x, self.asked.pixels, generator)
            columns, target = patches.columns, patches.at(y)
            rest = site.offset.to(y.dtype).expand_as(target)
            if added is not None:
                rest = rest + patches.at(added)
        return columns, target - rest, rest


def _tensor(array: NDArray[np.generic]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


def _scaled(ring: TensorRing, scale: Tensor) -> TensorRing:
    """The ring with every output channel times its scale (O,), in float64."""
    c0, c1, c2, c3 = (core.double() for core in ring.cores)
    return TensorRing((c0 * scale[:, None], c1, c2, c3), ring.shift)
