"""The steps of the Learn page: for each its control and its figure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import streamlit as st
from torch import Tensor, nn

from rsdtr.charts.layer import candidates_figure, ring_figure
from rsdtr.errors import RsdtrError
from rsdtr.learn.figures import (
    cores_figure,
    cut_figure,
    damages_figure,
    forms_figure,
    maps_figure,
    picture_figure,
    rebuilt_figure,
    slices_figure,
    splits_figure,
    stage_figure,
)
from rsdtr.learn.numbers import (
    bond_name,
    cut,
    forms_macs,
    ordered_bond,
    reaches,
    rebuilt,
    stages,
)
from rsdtr.planning.choices import Choices
from rsdtr.planning.plan import Target
from rsdtr.planning.target_solver import layer_damages
from rsdtr.ring.tensor_ring import MODES
from rsdtr.search.paper_rule import divisors
from rsdtr.ui.learn import play, quiz
from rsdtr.ui.learn.inputs import Lesson
from rsdtr.ui.plan import networks
from rsdtr.ui.shared import figures, session
from rsdtr.ui.shared.cache import Memo
from rsdtr.ui.shared.figures import chart, chart_to_click
from rsdtr.ui.shared.frame import pair
from rsdtr.ui.shared.markdown import plain

SHIFT = 0  # of the steps before the ring is turned

_reached: Memo[tuple[Tensor, Tensor]] = Memo(8)
Option = TypeVar("Option", int, str)


def slices(lesson: Lesson) -> None:
    """Step 1: some slices of the kernel."""
    chart(
        slices_figure(lesson.layer.kernel),
        key="slices",
        alt=f"Slices of the kernel of {lesson.layer.name}, by output and input channel",
    )


def unfold(lesson: Lesson) -> None:
    """Step 2: singular values of the first unfolding, kept and cut away."""
    found = cut(lesson.layer.spectra, SHIFT, lesson.eps)
    chart(
        cut_figure(found),
        key="cut",
        alt=f"Singular values of the unfolding: {found.rank} are kept of {len(found.values)}",
    )


def split(lesson: Lesson) -> None:
    """Step 3: storage for every divisor of the first rank."""
    turn = lesson.turns[SHIFT]
    ways = tuple(divisors(turn.rank))
    r0 = _pick("Divisor r0 that closes the ring", session.LESSON_R0, ways, turn.best.r0)
    ring = turn.ring(r0)
    chart(
        splits_figure(turn, r0, lesson.layer.kernel.numel()),
        key="splits",
        alt=f"Storage of the ring for each way to split the first rank {turn.rank}",
    )
    st.markdown(
        f"r0 = {r0} gives the ranks R0…R3 = {', '.join(map(str, ring.ranks))} and "
        f"**{ring.storage:,} scalars**; the kernel has {lesson.layer.kernel.numel():,}. The least "
        f"that this shift stores is {turn.best.storage:,}, at r0 = {turn.best.r0}."
    )


def turn(lesson: Lesson) -> None:
    """Step 4: the rings of the four circular shifts."""
    found = lesson.turns
    shift = _pick(
        "Shift: how far the modes are turned",
        session.LESSON_SHIFT,
        tuple(turn.shift for turn in found),
        lesson.winner.shift,
    )
    chosen = found[shift]
    chart(
        candidates_figure(
            [ring for turn in found for ring in turn.rings],
            chosen.best,
            lesson.layer.kernel.numel(),
        ),
        key="turns",
        alt="Storage of every ring by shift and divisor",
    )
    order = ", ".join(MODES[(shift + k) % 4] for k in range(4))
    ways = ", ".join(map(str, divisors(chosen.rank)))
    prime = " It is prime: r0 is 1 or all of it." if chosen.is_prime else ""
    st.markdown(
        f"Turned by {shift}, the modes are {order}. The first rank is r = {chosen.rank}, with the "
        f"divisors {ways}.{prime} The best ring of this turn (★) stores "
        f"**{chosen.best.storage:,} scalars**, the best of all {lesson.winner.storage:,} (shift "
        f"{lesson.winner.shift})."
    )


def cores(lesson: Lesson) -> None:
    """Step 5: the ring, its cores, and the kernel from the first components of a bond."""
    winner = lesson.winner
    ring = lesson.ring(winner)
    bond = ordered_bond(ring)
    rank = ring.ranks[bond]
    q = _pick(
        f"Components q of the bond {bond_name(bond)}",
        session.LESSON_COMPONENTS,
        tuple(range(1, rank + 1)),
        (rank + 1) // 2,
    )
    found = rebuilt(lesson.layer.kernel, ring, bond, q)
    chart(
        rebuilt_figure(found, rank),
        key="rebuilt",
        alt=f"Filters of the kernel, rebuilt from {q} of {rank} components, and the difference",
    )
    left, right = pair("cores")
    with left:
        chart(
            ring_figure(lesson.layer.shape, winner.ranks, winner.storage),
            key="ring",
            alt="The ring's four cores and the ranks of the bonds between them",
        )
    with right:
        chart(cores_figure(ring), key="cores", alt="Heat maps of the four cores")


def layer(lesson: Lesson) -> None:
    """Step 6: what the sublayers compute on a picture, and what each form costs."""
    winner, convolution = lesson.winner, lesson.layer
    ring = lesson.ring(winner)
    try:
        pixels, seen = _picture(lesson)
    except RsdtrError as error:
        st.info(plain(f"There is no picture to step through: {error}"), icon=":material/image:")
    else:
        conv = lesson.network.model.get_submodule(convolution.name)
        assert isinstance(conv, nn.Conv2d)
        steps = stages(conv, ring, seen, "pipeline")
        names = ("picture", "input", *(f"sublayer {k}" for k in range(1, len(steps) + 1)))
        at = names.index(_pick("Stage", session.LESSON_STAGE, names, names[1]))
        if at == 0:
            figure = picture_figure(pixels)
        elif at == 1:
            figure = maps_figure(seen[0], f"What reaches {convolution.name}")
        else:
            figure = stage_figure(steps[at - 2])
        chart(figure, key="stage", alt=f"Channels of the {names[at]}")
        st.dataframe(
            {
                "stage": list(names[1:]),
                "convolution": ["", *(step.title for step in steps)],
                "output (C × H × W)": [
                    " × ".join(map(str, maps.shape)) for maps in (seen[0], *(s.maps for s in steps))
                ],
                "MACs": [0, *(step.macs for step in steps)],
            },
            hide_index=True,
            column_config={"MACs": st.column_config.NumberColumn(format="localized")},
            alt="Shapes and MACs of the four sublayers",
        )
    chart(
        forms_figure(
            forms_macs(
                convolution.shape, winner.ranks, convolution.input_size, convolution.output_size
            )
        ),
        key="forms",
        alt="MACs of the four sublayers, of the two-convolution forms and of the dense layer",
    )


def network(lesson: Lesson) -> None:
    """Step 7: damage of every layer under one ε_p, and under one for each at the same PCR."""
    uniform = Choices(eps=lesson.eps)
    if not networks.is_ready(lesson.network, uniform):
        _not_yet(lesson)
        return
    one = networks.planned(lesson.network, uniform)
    asked = Choices(target=Target(kind="pcr", value=one.pcr))
    if not networks.is_ready(lesson.network, asked):
        _not_yet(lesson)
        return
    with st.spinner("Solving for the least damage …"):
        each = networks.planned(lesson.network, asked)
    damages = (
        layer_damages(lesson.network.profile, one),
        layer_damages(lesson.network.profile, each),
    )
    selection = chart_to_click(
        damages_figure(one, each, damages),
        key="damages",
        alt="Damage of every layer with one ε_p for all and with an ε_p for each",
    )
    figures.open_clicked(selection, one, "open_damage")


def _pick(label: str, key: str, options: Sequence[Option], default: Option) -> Option:
    """One of these on a slider; where there is only one, there is nothing to pick."""
    if len(options) == 1:
        st.caption(f"{label}: {options[0]}, there is no other.")
        return options[0]
    if st.session_state.get(key) not in options:
        st.session_state[key] = default
    play.advance(key, options)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        chosen: Option = st.select_slider(label, options, key=key)
        play.offer(key)
    return chosen


def _picture(lesson: Lesson) -> tuple[Tensor, Tensor]:
    """A test picture, uint8 (C, H, W), and what of it reaches the layer, (1, I, H, W)."""
    network, name = lesson.network, lesson.layer.name

    def run() -> tuple[Tensor, Tensor]:
        pixels = networks.data_splits(network.spec.name, None).test.pixels([0])
        return pixels[0], reaches(network.model, name, network.spec.normalise(pixels))

    return _reached.of((network.profile.weights_sha256, name), run)


def _not_yet(lesson: Lesson) -> None:
    st.info(
        plain(f"The rings of {lesson.network.spec.name} are still being searched: come back soon."),
        icon=":material/hourglass_top:",
    )


DRAW: dict[int, Callable[[Lesson], None]] = dict(
    enumerate((slices, unfold, split, turn, cores, layer, network, quiz.ask), 1)
)
