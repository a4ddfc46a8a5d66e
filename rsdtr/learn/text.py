"""What the lesson says: for each step two sentences, its formula and the notebook's section."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StepText:
    """One step: formula in LaTeX and in the paper's notation (arXiv 2405.10802); words: of the
    glossary; notebook, section: where the same figure is made by hand.
    """

    title: str
    text: str
    formula: str
    words: tuple[str, ...]
    notebook: str
    section: str


ONE, TWO = "notebooks/01_one_kernel.ipynb", "notebooks/02_one_model.ipynb"
STEPS = (
    StepText(
        "A 4-way tensor",
        "A convolution holds one small slice of weights for every pair of an output and an input "
        "channel. Pick a layer and look at its slices: many resemble each other, and that is what "
        "compression lives on.",
        r"\mathcal{W} \in \mathbb{R}^{O \times I \times K_H \times K_W}",
        ("kernel", "mode"),
        ONE,
        "A kernel is a 4-way tensor",
    ),
    StepText(
        "Unfold it",
        "Written as a matrix with one mode down and the others across, a kernel has singular "
        "values, and the small ones can go. Drag εₚ: each of three such truncations may lose "
        "εₚ/√3 of the matrix that it cuts.",
        r"\mathbf{W}_{(1)} = \mathbf{U}\,\mathbf{\Sigma}\,\mathbf{V}^{T}, \qquad"
        r"\sqrt{\textstyle\sum_{i>r}\sigma_i^2} \;<\; \tfrac{\epsilon_p}{\sqrt{3}}"
        r"\,\|\mathbf{W}_{(1)}\|_F",
        ("unfolding", "singular values", "εₚ"),
        ONE,
        "Unfold it",
    ),
    StepText(
        "Close the ring",
        "The first rank r is split into r0 · r1: r1 leads to the next core, r0 closes the ring "
        "behind the last one. Try every divisor and see what the four cores store.",
        r"r = r_0 \cdot r_1, \qquad \text{storage} = R_0 O R_1 + R_1 I R_2 + R_2 K_H R_3 + R_3 "
        r"K_W R_0",
        ("r0", "storage"),
        ONE,
        "Close the ring",
    ),
    StepText(
        "Turn the ring",
        "Any of the four modes may come first: a circular permutation turns the kernel before the "
        "ring is computed, and each turn has ranks of its own. A prime first rank hurts, because "
        "it splits only into 1 and itself.",
        r"(O, I, K_H, K_W) \to (I, K_H, K_W, O) \to (K_H, K_W, O, I) \to (K_W, O, I, K_H)",
        ("shift", "r0"),
        ONE,
        "Turn the ring",
    ),
    StepText(
        "The cores",
        "Four small cores stand for the whole kernel, and a bond is as wide as its rank. Rebuild "
        "the kernel from the first q components of one bond, and watch the filters come back.",
        r"\mathcal{W}[o,i,h,w] = \mathrm{tr}\left(\mathbf{G}_0[o]\,\mathbf{G}_1[i]\,"
        r"\mathbf{G}_2[h]\,\mathbf{G}_3[w]\right)",
        ("core", "ranks", "relative error"),
        ONE,
        "The cores",
    ),
    StepText(
        "From ring to layer",
        "The layer never rebuilds its kernel: four small convolutions, one per core, do the same, "
        "and so do two ordinary ones. Step through a picture and see what each sublayer makes of "
        "it.",
        r"1 \times 1 \;(I \to R_1 R_2) \;\to\; K_H \times 1 \;(R_2 \to R_3) \;\to\; 1 \times K_W "
        r"\;(R_3 \to R_0) \;\to\; 1 \times 1 \;(R_1 R_0 \to O)",
        ("form", "MACs"),
        ONE,
        "From ring to layer",
    ),
    StepText(
        "The network",
        "One εₚ for all layers is not one damage: of two layers that lose the same part of their "
        "kernels, the larger is taken to move the output more. A target gives each layer an εₚ of "
        "its own, at the least damage for the same size.",
        r"\min_{\epsilon_1, \dots, \epsilon_L} \sum_l e_l^2 \sqrt{n_l} \quad \text{subject to} "
        r"\quad \mathrm{PCR} \ge p",
        ("target", "damage", "PCR"),
        TWO,
        "Targets",
    ),
    StepText(
        "Check yourself",
        "Six questions about this very layer, with the ring that stores least drawn beside them. "
        "Answer, and read why.",
        r"\text{core } k:\; R_k \times n_k \times R_{k+1}, \qquad R_4 = R_0",
        ("ranks", "storage"),
        ONE,
        "The search",
    ),
)  # fmt: skip
