"""Calculations that several runs of a page share. What they return is never changed by a page."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st
from torch import nn

from rsdtr.charts import RatioPoint
from rsdtr.compress import compress, skeleton
from rsdtr.data import DataSplits, load_data
from rsdtr.evaluate import saved_bytes
from rsdtr.plan import CompressionPlan, Progress, plan
from rsdtr.profile import ModelProfile, profile
from rsdtr.search import Candidate
from rsdtr.ui.memo import Memo
from rsdtr.ui.state import Configuration
from rsdtr.zoo import ModelSpec, load_model, model_spec

CHEAP_SCALARS = 2_000_000  # in kernels: a ResNet-110 for CIFAR, seconds for the whole curve
CURVE_EPS = tuple(round(0.05 * step, 2) for step in range(1, 20))

_networks: Memo[Network] = Memo(4)
_plans: Memo[CompressionPlan] = Memo(512)
_candidates: Memo[list[Candidate]] = Memo(256)
_sizes: Memo[int] = Memo(512)
_compressed: Memo[nn.Module] = Memo(4)


@dataclass(frozen=True, eq=False)
class Network:
    """A dense model of the zoo with its profile. Shared between sessions: never change it."""

    spec: ModelSpec
    model: nn.Module
    profile: ModelProfile

    def configuration(self, eps: float) -> Configuration:
        """The key under which all results for this network at ε_p are kept."""
        return Configuration(self.spec.name, self.profile.weights_sha256, eps)


def network(name: str, progress: Progress | None = None) -> Network:
    """A model of the zoo, dense, and its profile; WeightsError if its weights are not to be had.

    progress: called with the (done, total) bytes of a download.
    """

    def load() -> Network:
        spec = model_spec(name)
        model = load_model(name, progress=progress)
        return Network(spec, model, profile(model, spec))

    return _networks.of(name, load)


@st.cache_resource(max_entries=4, show_spinner="Reading the data …")
def data_splits(model: str, data: str | None) -> DataSplits:
    """Labelled images at the model's input size; DataError if they are not to be had."""
    return load_data(data, model_spec(model))


def planned(of: Network, eps: float, progress: Progress | None = None) -> CompressionPlan:
    """The plan for a network at ε_p."""
    key = of.configuration(eps)
    return _plans.of(key, lambda: plan(of.profile, eps, progress=progress))


def candidates(of: Network, layer: str, eps: float) -> list[Candidate]:
    """All candidates of one layer at ε_p."""
    key = (of.configuration(eps), layer)
    return _candidates.of(key, lambda: of.profile.layer(layer).spectra.candidates(eps))


def compressed(of: Network, at: CompressionPlan) -> nn.Module:
    """The network as the plan says, before any recovery. Shared: copy it before training it."""
    return _compressed.of(of.configuration(at.eps), lambda: compress(of.model, at))


def dense_bytes(of: Network) -> int:
    """Bytes of the dense network's safetensors file."""
    return _sizes.of(of.profile.weights_sha256, lambda: saved_bytes(of.model))


def compressed_bytes(of: Network, at: CompressionPlan) -> int:
    """Bytes of the compressed network's safetensors file: its cores need not be known for that."""
    return _sizes.of(of.configuration(at.eps), lambda: saved_bytes(skeleton(of.model, at)))


def curve_is_cheap(of: Network) -> bool:
    """Whether the curve is known already, or the network is small enough to plan it unasked."""
    if all(of.configuration(eps) in _plans for eps in CURVE_EPS):
        return True
    return sum(layer.kernel.numel() for layer in of.profile.layers) <= CHEAP_SCALARS


def curve(of: Network, progress: Progress | None = None) -> list[RatioPoint]:
    """PCR and FCR over a coarse grid of ε_p."""
    points = []
    for done, eps in enumerate(CURVE_EPS):
        if progress:
            progress(done, len(CURVE_EPS))
        points.append(ratio_point(planned(of, eps)))
    return points


def ratio_point(at: CompressionPlan) -> RatioPoint:
    """The plan's place on the curve."""
    return RatioPoint(at.eps, at.pcr, at.fcr)
