"""The model card of what a page shows."""

from __future__ import annotations

from rsdtr.charts.accuracy import Stage
from rsdtr.exports.model_card import ModelCard, model_card
from rsdtr.measuring.latency import NetworkLatency
from rsdtr.planning.choices import Asked
from rsdtr.planning.plan import Ratio
from rsdtr.ui.plan import networks
from rsdtr.ui.plan.chosen_plan import Chosen


def card(chosen: Chosen, stages: list[Stage], times: NetworkLatency) -> ModelCard:
    """The card of what the page shows, with what was measured of it."""
    network = chosen.network
    return model_card(
        network.profile,
        chosen.plan,
        size=Ratio(
            original=network.dense_bytes,
            compressed=networks.compressed_bytes(network, chosen.plan),
        ),
        accuracies=[(stage.label, stage.accuracy) for stage in stages],
        latency=times,
        asked=asked(chosen),
    )


def asked(chosen: Chosen) -> Asked:
    """What the plan on the page answers, measured damage included."""
    network = chosen.network
    known = networks.known_damage(network, chosen.asked) if chosen.asked.target else None
    own_data = known is None or known.data == network.spec.data
    return Asked(
        network.spec.name,
        chosen.asked,
        network.weights.without_folder(),
        known.images if known else None,
        None if own_data or known is None else known.data,
    )
