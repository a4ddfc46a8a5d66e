"""What the Learn page is about: the step, the layer and ε_p, all of them in the address."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlencode

import streamlit as st

from rsdtr.errors import PlanError
from rsdtr.learn.glossary import meaning
from rsdtr.learn.numbers import Turn, turns
from rsdtr.learn.text import STEPS, StepText
from rsdtr.planning.layer_profile import LayerProfile
from rsdtr.ring.tensor_ring import TensorRing
from rsdtr.search.candidate import COARSE, Candidate
from rsdtr.search.paper_rule import smallest
from rsdtr.search.ring_svd import ring_svd
from rsdtr.ui.learn import play
from rsdtr.ui.plan import networks
from rsdtr.ui.plan.chosen_plan import choose_network
from rsdtr.ui.plan.layer_overrides import ring_layers
from rsdtr.ui.plan.networks import Network
from rsdtr.ui.plan.plan_inputs import choose_eps, eps_of_all
from rsdtr.ui.shared import address, session
from rsdtr.ui.shared.cache import Memo
from rsdtr.ui.shared.markdown import plain
from rsdtr.ui.shared.widgets import choose_name

LAYER_STEP, EPS_STEPS = 1, (2, 7)  # whose own control the layer, and ε_p, is
NETWORK_STEP = 7  # about no single layer
NUMBERS = tuple(str(number) for number in range(1, len(STEPS) + 1))

_rings: Memo[TensorRing] = Memo(32)


@dataclass(frozen=True, eq=False)
class Lesson:
    """What a step is about: a layer that can be a ring, and ε_p."""

    network: Network
    layer: LayerProfile
    eps: float

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The rings of the published rule, by shift."""
        with st.spinner("Computing every ring of this layer …"):
            return turns(networks.candidates(self.network, self.layer.name, self.eps))

    @property
    def winner(self) -> Candidate:
        """The ring that stores least of all shifts and divisors."""
        return smallest([turn.best for turn in self.turns])

    def ring(self, of: Candidate) -> TensorRing:
        """The cores of a candidate."""
        key = (self.network.profile.weights_sha256, self.layer.name, of)
        return _rings.of(key, lambda: ring_svd(self.layer.kernel, of.shift, of.ranks))


def choose_step() -> tuple[int, bool]:
    """The number of the step, and whether it was opened alone; both are in the address."""
    locked = st.query_params.get(session.LOCK) == "1"
    session.enter_part(session.LOCK, str(locked))
    number = address.read(session.LESSON, address.one_of(NUMBERS), NUMBERS[0])
    session.enter_part(session.LESSON, number)
    if not locked:
        st.pills(
            "Step",
            NUMBERS,
            required=True,
            format_func=lambda number: f"{number}. {STEPS[int(number) - 1].title}",
            key=session.LESSON,
            label_visibility="collapsed",
        )
    address.say(session.LESSON, NUMBERS[0])
    address.tell()
    return int(st.session_state[session.LESSON]), locked


def choose(number: int, locked: bool) -> Lesson:
    """The layer and ε_p of a step; what is not its own control is hidden when it is locked."""
    network = choose_network(drawn=not locked)
    layers = map(network.profile.layer, ring_layers(network.profile))
    shapes = {layer.name: layer.shape for layer in layers if layer.kind == "conv"}
    if not shapes:
        raise PlanError(
            f"no convolution of {network.spec.name} can be a ring: choose another model or weights"
        )
    own = {LAYER_STEP: session.LAYER, **dict.fromkeys(EPS_STEPS, session.EPS)}.get(number)
    if own is not None:
        play.advance(own, tuple(shapes) if number == LAYER_STEP else COARSE)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        asks = number == LAYER_STEP or not (locked or number == NETWORK_STEP)
        name = choose_name(shapes, inputs=asks)
        if number in EPS_STEPS or (not locked and number != LAYER_STEP):
            choose_eps()
        if own is not None:
            play.offer(own)
    return Lesson(network, network.profile.layer(name), eps_of_all())


def words(step: StepText) -> str:
    """The glossary's sentences for the words of a step, as a tooltip."""
    return "\n\n".join(f"**{plain(word)}**: {plain(meaning(word))}" for word in step.words)


def offer_links(number: int) -> None:
    """The steps before and after, and a link that opens this one alone."""
    with st.container(horizontal=True, vertical_alignment="center"):
        st.button(
            "Back", icon=":material/arrow_back:", on_click=_go, args=(number - 1,),
            disabled=number == 1,
        )  # fmt: skip
        st.button(
            "Next", icon=":material/arrow_forward:", on_click=_go, args=(number + 1,),
            disabled=number == len(STEPS), type="primary",
        )  # fmt: skip
        with st.popover("Link for a class", icon=":material/link:"):
            st.markdown("Opens this step with its one control and nothing else.")
            asked = address.said(lesson=str(number), lock="1")
            st.code(f"{st.context.url or ''}?{urlencode(asked)}", language=None, wrap_lines=True)


def offer_unlock() -> None:
    """The way from a step that was opened alone to the whole lesson."""
    st.button(
        "Show the whole lesson", icon=":material/lock_open:", on_click=_unlock,
    )  # fmt: skip


def _go(number: int) -> None:
    st.session_state[session.LESSON] = str(number)


def _unlock() -> None:
    address.put(session.LOCK, None)
