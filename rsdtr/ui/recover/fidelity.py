"""What is recovered of a network without classes: its answers beside the dense network's."""

from __future__ import annotations

from collections.abc import Hashable

import pandas as pd
import streamlit as st
from torch import nn

from rsdtr.measuring.fidelity import Fidelity, fidelity
from rsdtr.planning.plan import CompressionPlan
from rsdtr.ui.plan import networks
from rsdtr.ui.plan.accuracy import splits
from rsdtr.ui.plan.networks import Network
from rsdtr.ui.shared.cache import Memo
from rsdtr.ui.shared.frame import progress
from rsdtr.ui.shared.markdown import plain
from rsdtr.ui.shared.session import Recovery, TestSet

_fidelities: Memo[Fidelity] = Memo(128)


def show(network: Network, at: CompressionPlan, test_set: TestSet, recovery: Recovery) -> None:
    """The compressed network's and the recovered one's, and whether what it does is lost."""
    compressed = networks.compressed(network, at)
    found = {
        "compressed": _of(network.configuration(at), compressed, network, test_set),
        recovery.label: _of(recovery.weights_sha256, recovery.model, network, test_set),
    }
    table = pd.DataFrame(
        [
            {
                "network": label,
                "relative error of the answers": alike.relative_error,
                "error of what they change": alike.residual_error,
                "PSNR to the dense network (dB)": alike.psnr,
                "agree (%)": alike.agreement,
            }
            for label, alike in found.items()
        ]
    ).dropna(axis="columns", how="all")
    st.dataframe(table, hide_index=True, key="fidelities", alt="Fidelity before and after recovery")
    last = found[recovery.label]
    if last.warning is not None:
        text = f"{last.warning[0].upper()}{last.warning[1:]}."
        st.warning(plain(text), icon=":material/warning:")
    st.caption(
        f"Beside the dense network on {last.n:,} pictures, without labels. A relative error is "
        "‖z − ẑ‖/‖z‖ of the numbers z that an image is answered with."
    )


def _of(identity: Hashable, model: nn.Module, network: Network, test_set: TestSet) -> Fidelity:
    def measure() -> Fidelity:
        images = splits(network, test_set).test.subset(test_set.images)
        with progress("Measuring fidelity, pictures") as told:
            return fidelity(model, network.model, images, progress=told)

    return _fidelities.of((identity, test_set), measure)
