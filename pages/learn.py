"""Learn: tensor rings in eight short steps, on a real kernel of the chosen network."""

import streamlit as st

from rsdtr.lessons.glossary import GLOSSARY
from rsdtr.lessons.text import STEPS
from rsdtr.ui import learning, lessons
from rsdtr.ui.page import lead, plain

lead(
    "Tensor rings step by step, on a real kernel: each step has one figure, and one control that "
    "moves it."
)
number, locked = lessons.choose_step()
step = STEPS[number - 1]
st.header(f"{number}. {step.title}")
st.markdown(step.text, help=lessons.words(step))
lesson = lessons.choose(number, locked)

learning.DRAW[number](lesson)
st.latex(step.formula)
st.caption(
    f"By hand, and then with this library: **{plain(step.notebook)}**, section *{step.section}*."
)

if locked:
    lessons.offer_unlock()
else:
    lessons.offer_links(number)
    with st.expander("All words", icon=":material/menu_book:"):
        for word, sentence in GLOSSARY.items():
            st.markdown(f"**{plain(word)}** – {plain(sentence)}")
