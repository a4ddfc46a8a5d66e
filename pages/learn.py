"""Learn: tensor rings in eight short steps, on a real kernel of the chosen network."""

import streamlit as st

from rsdtr.learn.glossary import GLOSSARY
from rsdtr.learn.text import STEPS
from rsdtr.ui.learn import inputs, steps
from rsdtr.ui.shared.frame import lead
from rsdtr.ui.shared.markdown import plain

lead(
    "Tensor rings step by step, on a real kernel: each step has one figure, and one control that "
    "moves it."
)
number, locked = inputs.choose_step()
step = STEPS[number - 1]
st.header(f"{number}. {step.title}")
st.markdown(step.text, help=inputs.words(step))
lesson = inputs.choose(number, locked)

steps.DRAW[number](lesson)
st.latex(step.formula)
st.caption(
    f"By hand, and then with this library: **{plain(step.notebook)}**, section *{step.section}*."
)

if locked:
    inputs.offer_unlock()
else:
    inputs.offer_links(number)
    with st.expander("All words", icon=":material/menu_book:"):
        for word, sentence in GLOSSARY.items():
            st.markdown(f"**{plain(word)}** – {plain(sentence)}")
