"""The lesson's numbers: by hand on tiny kernels, and against the layers and the search."""

import json
import math

import pytest
import torch
from torch import nn

from rsdtr.compressed.tr_conv2d import TRConv2d
from rsdtr.errors import RingError, UnknownName
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
)
from rsdtr.learn.glossary import GLOSSARY, meaning
from rsdtr.learn.numbers import (
    Turn,
    bond_name,
    cut,
    forms_macs,
    ordered_bond,
    reaches,
    rebuilt,
    stages,
    turns,
)
from rsdtr.learn.quiz import quiz
from rsdtr.learn.text import STEPS
from rsdtr.planning.model_profile import profile
from rsdtr.planning.plan import plan
from rsdtr.planning.target_solver import layer_damages, total_damage
from rsdtr.ring.tensor_ring import TensorRing
from rsdtr.search.candidate import Candidate
from rsdtr.search.paper_rule import KernelSpectra, candidates, smallest
from rsdtr.search.ring_svd import ring_svd
from tests.support.checkout import ROOT
from tests.support.networks import varied, varied_spec
from tests.support.oracles import ring_by_einsum

# Singular values 4, 2, 1 in the unfoldings by O and by I; energy 21.
DIAGONAL = torch.diag(torch.tensor([4.0, 2.0, 1.0]))[:, :, None, None]


@pytest.fixture(scope="module")
def kernel():
    generator = torch.Generator().manual_seed(3)
    return torch.randn(8, 6, 3, 3, generator=generator, dtype=torch.float64)


@pytest.fixture(scope="module")
def small():
    return profile(varied(), varied_spec())


def test_a_cut_by_hand():
    found = cut(KernelSpectra(DIAGONAL), 0, 0.6)
    # Rank 1 leaves out √(5/21) = 0.488, rank 2 √(1/21) = 0.218; allowed are 0.6/√3 = 0.346.
    assert found.values == pytest.approx((4, 2, 1))
    assert found.rank == 2
    assert found.error == pytest.approx(math.sqrt(1 / 21))
    assert found.bound == pytest.approx(0.34641, abs=1e-5)
    assert cut(KernelSpectra(DIAGONAL), 0, 0.9).rank == 1


def test_turns_are_the_candidates_by_shift(kernel):
    found = candidates(kernel, 0.5)
    by_shift = turns(found)
    assert [turn.shift for turn in by_shift] == [0, 1, 2, 3]
    assert [ring for turn in by_shift for ring in turn.rings] == found
    spectra = KernelSpectra(kernel)
    assert [turn.rank for turn in by_shift] == [cut(spectra, k, 0.5).rank for k in range(4)]
    assert min(turn.best.storage for turn in by_shift) == smallest(found).storage


def test_a_prime_rank_has_two_splits_and_no_other():
    def ring(r0: int, r1: int) -> Candidate:
        return Candidate(1, r0, (2, r0, r1, 3), 10 * r0, 1, 0.1)

    prime = Turn(1, (ring(1, 5), ring(5, 1)))
    assert (prime.rank, prime.is_prime, prime.best.r0) == (5, True, 1)
    assert prime.ring(5).ranks == (2, 5, 1, 3)
    with pytest.raises(RingError, match=r"r0 is 2, which does not divide the first rank 5"):
        prime.ring(2)
    assert not Turn(1, (ring(1, 4), ring(2, 2), ring(4, 1))).is_prime


def test_the_first_components_are_the_sum_over_them():
    ring = TensorRing.random((4, 3, 2, 5), (2, 3, 4, 2))
    whole = ring_by_einsum(ring.cores)
    assert rebuilt(whole, ring, 2, 4).error == pytest.approx(0, abs=1e-12)
    c0, c1, c2, c3 = ring.cores
    part = torch.einsum("aob,bic,chd,dwa->oihw", c0, c1[:, :, :3], c2[:3], c3)
    found = rebuilt(whole, ring, 2, 3)
    assert torch.allclose(found.rebuilt, part)
    assert found.error == pytest.approx(float((whole - part).norm() / whole.norm()))
    closing = torch.einsum("aob,bic,chd,dwa->oihw", c0[:1], c1, c2, c3[:, :, :1])
    assert torch.allclose(rebuilt(whole, ring, 0, 1).rebuilt, closing)


@pytest.mark.parametrize(("bond", "q"), [(4, 1), (2, 0), (2, 5), (-1, 1)])
def test_components_that_are_not_there(bond, q):
    ring = TensorRing.random((4, 3, 2, 5), (2, 3, 4, 2))
    with pytest.raises(RingError, match="components of bond"):
        rebuilt(ring.to_tensor(), ring, bond, q)


@pytest.mark.parametrize("shift", [0, 1, 2, 3])
def test_every_further_component_of_the_ordered_bond_helps(kernel, shift):
    best = turns(candidates(kernel, 0.3))[shift].best
    ring = ring_svd(kernel, best.shift, best.ranks)
    bond = ordered_bond(ring)
    assert bond in ((shift + 2) % 4, (shift + 3) % 4)
    errors = [rebuilt(kernel, ring, bond, q).error for q in range(1, ring.ranks[bond] + 1)]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > errors[-1] == pytest.approx(best.relative_error, abs=1e-9)
    assert bond_name(2) == "R2, I – KH"


def test_macs_of_each_sublayer_by_hand():
    found = forms_macs((4, 3, 3, 3), (2, 1, 2, 3), (5, 5), (5, 5))
    assert found["pipeline"] == (3 * 2 * 25, 2 * 3 * 3 * 25, 3 * 3 * 2 * 25, 2 * 4 * 25)
    assert found["O|IHW"] == (3 * 9 * 2 * 25, 2 * 4 * 25)
    assert found["I|HWO"] == (3 * 2 * 25, 2 * 9 * 4 * 25)
    assert found["IH|WO"] == (3 * 3 * 3 * 25, 3 * 3 * 4 * 25)
    assert found["dense"] == (4 * 3 * 9 * 25,)


@pytest.mark.parametrize("form", ["pipeline", "O|IHW", "I|HWO", "IH|WO", "dense"])
def test_the_last_stage_is_what_the_layer_computes(form):
    conv = nn.Conv2d(3, 4, (3, 5), stride=(2, 1), padding=(1, 2))
    ring = TensorRing.random(conv.weight.shape, (2, 3, 2, 3))
    x = torch.randn(1, 3, 8, 7)
    found = stages(conv, ring, x, form)
    with torch.no_grad():
        expected = TRConv2d.from_conv(conv, ring, form=form)(x)
    assert torch.allclose(found[-1].maps, expected[0], atol=1e-3)
    assert (
        tuple(stage.macs for stage in found)
        == forms_macs(conv.weight.shape, ring.ranks, (8, 7), (4, 7))[form]
    )
    if form == "pipeline":
        assert [tuple(stage.maps.shape) for stage in found] == [
            (3 * 2, 8, 7), (3 * 3, 4, 7), (3 * 2, 4, 7), (4, 4, 7),
        ]  # fmt: skip
        assert found[1].title == "3 × 1, 2 → 3 channels in 3 groups"


def test_what_reaches_a_layer_leaves_the_model_alone():
    model, picture = varied(), torch.randn(1, 3, 14, 10)
    assert torch.equal(reaches(model, "stem", picture), picture)
    expected = model.norm(model.stem(picture)).relu()
    assert torch.allclose(reaches(model, "body", picture), expected, atol=1e-6)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_the_quiz_by_hand():
    first = Turn(0, (Candidate(0, 1, (1, 6, 2, 2), 99, 1, 0.1),))
    winner = Candidate(0, 2, (2, 3, 2, 2), 2 * 8 * 3 + 3 * 4 * 2 + 2 * 3 * 2 + 2 * 3 * 2, 1, 0.5)
    asked = quiz((8, 4, 3, 3), first, winner, 0.6, (5, 7))
    answers = [question.options[question.right] for question in asked]
    # 96 = 48 + 24 + 12 + 12; 288/96; 1×1 from 4 to 3·2 channels at 35 pixels
    assert answers == ["0.346", "4", "3 × 4 × 2", "96", "3.00", "840"]
    for question in asked:
        assert len(set(question.options)) == len(question.options) >= 3
        assert question.grade(question.options[question.right])
        assert not question.grade(None)
        assert not question.grade(question.options[question.right - 1])
    assert "48 + 24 + 12 + 12 = 96" in asked[3].reason


def test_damages_of_layers_add_up(small):
    decided = plan(small, 0.4)
    found = layer_damages(small, decided)
    assert set(found) == {layer.name for layer in decided.layers if layer.ranks}
    wide = next(layer for layer in decided.layers if layer.name == "wide")
    assert found["wide"] == pytest.approx(wide.relative_error**2 * math.sqrt(20 * 16 * 15))
    assert total_damage(small, decided) == pytest.approx(sum(found.values()))


def test_figures_draw_what_they_are_given(kernel, small):
    found = cut(KernelSpectra(kernel), 0, 0.6)
    drawn = cut_figure(found)
    kept, rest = drawn.data
    assert (len(kept.x), len(rest.x)) == (found.rank, 8 - found.rank)
    assert f"r = {found.rank} of 8: error {found.error:.3f}" in drawn.layout.title.text
    assert "O × I·KH·KW" in drawn.layout.xaxis.title.text
    turn = turns(candidates(kernel, 0.5))[0]
    figure = splits_figure(turn, turn.best.r0, kernel.numel())
    assert list(figure.data[0].y) == [ring.storage for ring in turn.rings]
    assert "432" in figure.layout.annotations[0].text
    ring = TensorRing.random(kernel.shape, (2, 3, 4, 2))
    assert [trace.z.shape for trace in cores_figure(ring).data] == [
        (8, 6), (6, 12), (3, 8), (3, 4),
    ]  # fmt: skip
    panels = rebuilt_figure(rebuilt(kernel, ring, 2, 1), 4).data
    assert panels[0].z[0][0] - panels[1].z[0][0] == pytest.approx(panels[2].z[0][0])
    assert slices_figure(kernel).data[0].z.shape == (8 * 4 - 1, 6 * 4 - 1)
    forms = forms_figure(forms_macs((4, 3, 3, 3), (2, 1, 2, 3), (5, 5), (5, 5)))
    assert (forms.layout.legend.traceorder, forms.layout.legend.orientation) == ("normal", "h")
    bars = forms.data
    assert dict(zip(bars[1].y, bars[1].x, strict=True))["O|IHW"] == 200
    assert len(bars) == 4
    maps = maps_figure(torch.zeros(20, 4, 6), "Maps")
    assert "16 of 20" in maps.layout.title.text
    assert maps.data[0].z.shape == (4 * 5 - 1, 4 * 7 - 1)
    assert picture_figure(torch.zeros(1, 9, 7, dtype=torch.uint8)).data[0].z.shape == (9, 7, 3)
    one, other = plan(small, 0.4), plan(small, 0.5)
    damages = layer_damages(small, one), layer_damages(small, other)
    left, right = damages_figure(one, other, damages).data
    assert list(left.y) == list(damages[0].values())
    assert list(right.y) == list(damages[1].values())


def test_every_word_of_the_lesson_has_its_meaning():
    for step in STEPS:
        assert all(meaning(word) for word in step.words)
        assert step.text.count(". ") + step.text.count("? ") == 1  # two sentences
    assert all(sentence.endswith(".") for sentence in GLOSSARY.values())
    with pytest.raises(UnknownName, match="no word 'rang'"):
        meaning("rang")


def test_every_step_names_a_section_of_a_notebook():
    for step in STEPS:
        notebook = json.loads((ROOT / step.notebook).read_text(encoding="utf-8"))
        texts = ["".join(cell["source"]) for cell in notebook["cells"]]
        assert any(text.startswith(f"## {step.section}\n") for text in texts), step.section
