"""What the words mean, in one place: the app shows these sentences wherever a word appears."""

from __future__ import annotations

from rsdtr.errors import UnknownName

GLOSSARY = {
    "kernel": "The weight 𝓦 of a convolution: a 4-way tensor O × I × KH × KW (output channels, "
    "input channels, rows, columns).",
    "mode": "One of the four axes of a kernel: O, I, KH or KW.",
    "unfolding": "The kernel written as a matrix: one mode down, the other three across.",
    "singular values": "How strong each component of a matrix is, σ₁ ≥ σ₂ ≥ …; leaving out the "
    "last ones costs the root of the sum of their squares.",
    "εₚ": "Prescribed relative error of each kernel: ‖𝓦 − 𝓦̂‖ ≤ εₚ ‖𝓦‖ (Frobenius norm). Larger: "
    "smaller network, less accuracy.",
    "ring": "Four 3-way cores, one per mode, each bonded to the next and the last to the first.",
    "core": "Core k has the shape R_k × n_k × R_(k+1), where n_k is the size of mode k.",
    "ranks": "Left rank of each core in the mode order O, I, KH, KW, whatever the shift: R0, R1, "
    "R2, R3.",
    "r0": "The divisor that closes the ring: the first rank r is split into r = r0 · r1.",
    "shift": "Circular permutation: how far the modes are turned before the ring is computed.",
    "storage": "Scalars in the four cores. A ring that stores no less than its kernel is not used.",
    "relative error": "‖𝓦 − 𝓦̂‖ / ‖𝓦‖ of the ring that was found, at most εₚ.",
    "PCR": "Parameter compression ratio of the whole network, original / compressed.",
    "FCR": "FLOP compression ratio of the whole network for one input, original / compressed, "
    "with every ring computed as the paper's four sublayers. 1 MAC = 2 FLOPs.",
    "MACs": "Multiply-accumulates for one input; 1 MAC = 2 FLOPs.",
    "form": "How a ring layer is computed: the paper's four sublayers (pipeline), or two ordinary "
    "convolutions (O|IHW, I|HWO, IH|WO), or one (dense).",
    "target": "What the whole network should reach. Each layer then gets the εₚ that does the "
    "least damage.",
    "damage": "How far the network's output moves when one layer becomes a ring: measured, or "
    "guessed from the kernel as e² · √entries for a relative error e.",
}  # fmt: skip


def meaning(word: str) -> str:
    """The sentence for a word; UnknownName if the glossary has no such word."""
    if word not in GLOSSARY:
        raise UnknownName(f"the glossary has no word {word!r}: it has {', '.join(GLOSSARY)}")
    return GLOSSARY[word]
