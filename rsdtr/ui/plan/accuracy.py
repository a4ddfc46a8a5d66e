"""Accuracy on request: each model is measured once per test set, with a progress bar."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import streamlit as st
from pydantic import JsonValue
from torch import nn

from rsdtr.charts.accuracy import Stage
from rsdtr.compressed.saved import weights_told
from rsdtr.data.datasets import DataSplits
from rsdtr.errors import RsdtrError
from rsdtr.measuring.accuracy import Accuracy, accuracy
from rsdtr.planning.plan import CompressionPlan
from rsdtr.recovery.recalibrate import nothing_to_recalibrate, recalibrate
from rsdtr.recovery.recover import CALIBRATION_IMAGES
from rsdtr.ui.plan import networks
from rsdtr.ui.plan.chosen_plan import Chosen
from rsdtr.ui.plan.networks import Network
from rsdtr.ui.shared.cache import Memo
from rsdtr.ui.shared.frame import progress
from rsdtr.ui.shared.markdown import plain, sentence
from rsdtr.ui.shared.session import Recovery, TestSet

DAMAGE_IMAGES = 512

# Keyed by what identifies the weights exactly, and by the images.
_accuracies: Memo[Accuracy] = Memo(512)


def splits(network: Network, test_set: TestSet) -> DataSplits:
    """The images behind a choice; DataError if they are not to be had."""
    return networks.data_splits(network.spec.name, test_set.data)


def known_stages(network: Network, at: CompressionPlan, test_set: TestSet) -> list[Stage]:
    """Dense, compressed, recalibrated if all have been measured, else an empty list.

    The last one only where there is BatchNorm to recalibrate.
    """
    configuration = network.configuration(at)
    identities: list[Hashable] = [network.profile.weights_sha256, configuration]
    if nothing_to_recalibrate(network.model) is None:
        identities.append((configuration, "recalibrated"))
    if not all((identity, test_set) in _accuracies for identity in identities):
        return []
    return measured_stages(network, at, test_set)


def asked_stages(network: Network, at: CompressionPlan, test_set: TestSet) -> list[Stage]:
    """The same, measured now; an empty list and a sentence if there are no such images."""
    try:
        return measured_stages(network, at, test_set)
    except RsdtrError as error:
        st.error(plain(sentence(error)), icon=":material/info:")
        return []


def measured_stages(network: Network, at: CompressionPlan, test_set: TestSet) -> list[Stage]:
    """Dense, compressed, and compressed and recalibrated where that is another network; measured
    now where not yet known.
    """

    def recalibrated() -> nn.Module:
        images = splits(network, test_set).train
        with progress("Recalibrating, training images") as show:
            model = networks.compressed(network, at)
            return recalibrate(
                model, images, CALIBRATION_IMAGES, reference=network.model, progress=show
            )

    first = _first_stages(network, at, test_set)
    if nothing_to_recalibrate(network.model) is not None:
        return first
    identity = (network.configuration(at), "recalibrated")
    return [*first, _stage("recalibrated", identity, recalibrated, network, test_set)]


def recovered_stages(
    network: Network, at: CompressionPlan, test_set: TestSet, recovery: Recovery
) -> list[Stage]:
    """Dense, compressed, and the recovered model; measured now where not yet known."""
    identity = recovery.weights_sha256
    return [
        *_first_stages(network, at, test_set),
        _stage(recovery.label, identity, lambda: recovery.model, network, test_set),
    ]


def known_metrics(
    network: Network, at: CompressionPlan, test_set: TestSet, recovery: Recovery | None
) -> dict[str, JsonValue]:
    """What is known of the model to be exported: whose its weights were, if its reader's, and its
    accuracy in the words of `evaluate --json`, if measured.
    """
    identity = recovery.weights_sha256 if recovery else network.configuration(at)
    found = _accuracies.known((identity, test_set))
    told = weights_told(network.weights)
    if found is None:
        return told
    return told | {"data": test_set.data or network.spec.data} | found.told


def tell_assumed(stages: Sequence[Stage]) -> None:
    """What the labels take for granted, beside the accuracies that they give."""
    for assumed in dict.fromkeys(stage.accuracy.assumed for stage in stages):
        if assumed is not None:
            st.warning(plain(assumed), icon=":material/label:")


def known_chain(
    network: Network, at: CompressionPlan, test_set: TestSet, recovery: Recovery | None
) -> list[Stage]:
    """Dense, compressed and recovered: those of them that have been measured."""
    chain: list[tuple[str, Hashable]] = [
        ("dense", network.profile.weights_sha256),
        ("compressed", network.configuration(at)),
    ]
    if recovery is not None:
        chain.append((recovery.label, recovery.weights_sha256))
    found = ((label, _accuracies.known((identity, test_set))) for label, identity in chain)
    return [Stage(label, accuracy) for label, accuracy in found if accuracy is not None]


def measure_damage(chosen: Chosen, test_set: TestSet) -> None:
    """What a target weighs the layers by, and a button that measures it."""
    network, asked = chosen.network, chosen.asked
    if network.synthetic or asked.target is None:
        return
    known = networks.known_damage(network, asked)
    if known is None and st.button(
        "Measure damage",
        key="damage",
        icon=":material/monitor_heart:",
        help=f"How far the output moves when one layer becomes a ring, on {DAMAGE_IMAGES} "
        "training images, for each layer at seven εₚ. Targets are then solved with it.",
    ):
        with progress("Measuring damage, runs of the network") as show:
            networks.measure(network, asked, test_set.data, DAMAGE_IMAGES, show)
        st.rerun()
    st.caption(
        f"The target is solved with damage measured on {known.images:,} images of "
        f"{plain(known.data)}."
        if known
        else "The target is solved with a guess of each layer's damage, e²·√entries of its kernel."
    )


def _first_stages(network: Network, at: CompressionPlan, test_set: TestSet) -> list[Stage]:
    return [
        _stage("dense", network.profile.weights_sha256, lambda: network.model, network, test_set),
        _stage(
            "compressed",
            network.configuration(at),
            lambda: networks.compressed(network, at),
            network,
            test_set,
        ),
    ]


def _stage(
    label: str,
    identity: Hashable,
    model: Callable[[], nn.Module],
    network: Network,
    test_set: TestSet,
) -> Stage:
    def measure() -> Accuracy:
        images = splits(network, test_set).test.subset(test_set.images)
        ready = model()
        with progress(f"Measuring the {label} model, test images") as show:
            return accuracy(ready, images, progress=show)

    return Stage(label, _accuracies.of((identity, test_set), measure))
