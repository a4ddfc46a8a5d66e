"""The last step of the Learn page: six questions about the layer, graded."""

from __future__ import annotations

import streamlit as st

from rsdtr.charts.layer import ring_figure
from rsdtr.learn.quiz import quiz
from rsdtr.ui.learn.inputs import Lesson
from rsdtr.ui.shared.figures import chart
from rsdtr.ui.shared.frame import pair


def ask(lesson: Lesson) -> None:
    """Step 8: six questions about the layer, graded."""
    winner = lesson.winner
    asked = quiz(lesson.layer.shape, lesson.turns[0], winner, lesson.eps, lesson.layer.input_size)
    left, right = pair("quiz", (3, 2))
    with right:
        chart(
            ring_figure(lesson.layer.shape, winner.ranks, winner.storage),
            key="ring",
            alt="The ring that the questions are about",
        )
    stem = f"quiz-{lesson.network.profile.weights_sha256}-{lesson.layer.name}-{lesson.eps}"
    with left, st.form("quiz"):
        answers = [
            st.radio(
                f"{k}. {question.text}",
                question.options,
                index=None,
                horizontal=True,
                key=f"{stem}-{k}",
            )
            for k, question in enumerate(asked, 1)
        ]
        graded = st.form_submit_button("Check my answers", type="primary")
    if not graded:
        return
    with left:
        right_ones = sum(
            question.grade(answer) for question, answer in zip(asked, answers, strict=True)
        )
        st.subheader(f"{right_ones} of {len(asked)} right")
        for k, (question, answer) in enumerate(zip(asked, answers, strict=True), 1):
            if question.grade(answer):
                st.success(f"**{k}.** Right. {question.reason}", icon=":material/check:")
            else:
                st.error(f"**{k}.** {_verdict(answer)} {question.reason}", icon=":material/close:")


def _verdict(answer: str | None) -> str:
    return "Not answered." if answer is None else f"Not {answer}."
