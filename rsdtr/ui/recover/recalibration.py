"""Recalibration on a page, while it waits."""

from __future__ import annotations

from torch import nn

from rsdtr.models.zoo import weights_sha256
from rsdtr.planning.plan import CompressionPlan
from rsdtr.recovery.recalibrate import recalibrate
from rsdtr.ui.plan import networks
from rsdtr.ui.plan.accuracy import splits
from rsdtr.ui.plan.networks import Network
from rsdtr.ui.shared import session
from rsdtr.ui.shared.frame import progress
from rsdtr.ui.shared.session import Recovery, TestSet

RECALIBRATED = "recalibrated"


def current(network: Network, at: CompressionPlan) -> nn.Module:
    """The model that the next recovery starts from: the recovered one, else the compressed."""
    before = session.recoveries().get(network.configuration(at))
    return before.model if before else networks.compressed(network, at)


def run_recalibration(network: Network, at: CompressionPlan, test_set: TestSet, n: int) -> None:
    """Recalibrate the current model of this configuration on n images, and keep it."""
    store, configuration = session.recoveries(), network.configuration(at)
    images = splits(network, test_set).train
    before = store.get(configuration)
    with progress("Recalibrating, training images") as show:
        model = recalibrate(current(network, at), images, n, reference=network.model, progress=show)
    label = before.label if before else RECALIBRATED
    label = label if label.endswith(RECALIBRATED) else f"{label}, {RECALIBRATED}"
    session.keep(store, configuration, Recovery(model, weights_sha256(model), label))
