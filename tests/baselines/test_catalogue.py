"""Every method keeps its promise, refuses to grow a layer, and reaches a PCR on a real network."""

import pytest
import tensorly as tl
import torch
from tensorly.decomposition import tensor_ring

from rsdtr.baselines import ring_ablations
from rsdtr.baselines.catalogue import (
    METHODS,
    Subject,
    check_methods,
    method,
    methods_for,
)
from rsdtr.baselines.conv_chain import FactoredConv2d, composed, stage_kernels
from rsdtr.baselines.cp import CP, Canonical
from rsdtr.baselines.factorizations import FACTORIZATIONS
from rsdtr.baselines.lowrank import cheapest, chosen, fitting, storage
from rsdtr.baselines.mpo import MPO, OperatorTrain
from rsdtr.baselines.pruning import pruned
from rsdtr.baselines.reach_pcr import Kernels, NetworkDecision, network_of
from rsdtr.baselines.tensorized_ring import (
    PSTRN,
    TRN,
    TensorizedRing,
    _contraction_macs,
    factors,
    searched_ranks,
)
from rsdtr.data.datasets import load_data
from rsdtr.errors import PlanError, RingError, UnknownName
from rsdtr.models.model_loading import load_model
from rsdtr.models.zoo import model_spec
from rsdtr.planning.model_profile import profile
from rsdtr.ring.rank_selection import tail_energies
from rsdtr.search.candidate import Candidate
from rsdtr.search.ring_svd import ring_svd

DIGITS = "digits_resnet20"
LOW_RANK = {method.name: method for method in (*FACTORIZATIONS, MPO, CP, TRN)}


def decaying(*shape: int) -> torch.Tensor:
    """A seeded kernel whose unfoldings have falling singular values."""
    values = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for mode, size in enumerate(shape):
        fall = torch.logspace(0, -1.5, size, dtype=torch.float64)
        values = values * fall.reshape([-1 if k == mode else 1 for k in range(4)])
    return values


@pytest.fixture(scope="module")
def subject() -> Subject:
    spec = model_spec(DIGITS)
    return Subject(load_model(DIGITS), spec, load_data(None, spec))


@pytest.mark.parametrize("shape", [(12, 8, 3, 3), (6, 16, 5, 1)])
@pytest.mark.parametrize("name", LOW_RANK)
def test_the_error_is_within_eps(name, shape):
    kernel = decaying(*shape)
    prepared = LOW_RANK[name].prepare(kernel)
    kept = 0
    for eps in (0.1, 0.3, 0.6):
        ranks = prepared.ranks(eps)
        if ranks is None:
            continue
        kept += 1
        choice, cores = chosen(name, prepared, kernel, ranks)
        rebuilt = composed(choice.stages, stage_kernels(choice.stages, cores))
        error = float((kernel - rebuilt).norm() / kernel.norm())
        assert error == pytest.approx(choice.relative_error)
        assert error <= eps
        assert choice.storage == sum(core.numel() for core in cores)
    assert kept >= 2


@pytest.mark.parametrize("name", LOW_RANK)
def test_a_layer_never_grows(name):
    kernel = torch.randn(4, 4, 3, 3, dtype=torch.float64)  # no decay: nothing is to be gained
    prepared = LOW_RANK[name].prepare(kernel)
    ranks = prepared.ranks(0.01)
    reason = fitting(prepared, kernel, ranks)
    assert isinstance(reason, str)
    assert "no cores smaller" in reason or "the kernel 144" in reason
    assert ranks is None or storage(prepared, ranks) >= 144


@pytest.mark.parametrize("name", [method.name for method in (*FACTORIZATIONS, MPO)])
def test_a_smaller_eps_stores_no_less(name):
    prepared = LOW_RANK[name].prepare(decaying(12, 8, 3, 3))
    stored = [storage(prepared, prepared.ranks(eps)) for eps in (0.9, 0.7, 0.5, 0.3, 0.1)]
    assert stored == sorted(stored)


def test_cheapest_against_every_choice():
    tails = [tail_energies(torch.tensor([16.0, 4.0, 1.0])) for _ in range(2)]
    # Energy 21; 0.3² · 21 = 1.89 allows the tails 1 + 0, 0 + 1, not 1 + 1.
    assert cheapest(tails, 0.3, lambda r: 5 * r[0] + r[1]) == (2, 3)
    assert cheapest(tails, 0.3, lambda r: r[0] + 5 * r[1]) == (3, 2)
    assert cheapest(tails, 0.31, lambda r: 5 * r[0] + r[1]) == (2, 2)  # 2.02
    assert cheapest(tails, 0.9, lambda r: r[0] * r[1]) == (1, 1)  # 17: 5 + 5


def test_cp_finds_the_rank_that_a_kernel_has():
    generator = torch.Generator().manual_seed(0)
    vectors = [torch.randn(size, 3, generator=generator).double() for size in (8, 7, 3, 3)]
    kernel = torch.einsum("or,ir,hr,wr->oihw", *vectors)
    assert Canonical(kernel).ranks(0.01) == (3,)


def test_the_terms_of_cp_have_four_vectors_of_equal_norm():
    kernel = decaying(12, 8, 3, 3)
    cores = Canonical(kernel).cores((5,))
    norms = torch.stack([core.norm(dim=0) for core in cores])
    torch.testing.assert_close(norms, norms[:1].expand(4, 5))
    i, h, w, o = cores
    rebuilt = torch.einsum("or,ir,hr,wr->oihw", o, i, h, w)
    error = float((kernel - rebuilt).norm() / kernel.norm())
    assert error == pytest.approx(Canonical(kernel).error(5))


def test_factors():
    assert factors(16) == (4, 4)
    assert factors(32) == (4, 4, 2)
    assert factors(3) == (3,)
    assert factors(14) == (2, 7)
    assert factors(1) == (1,)


def test_contraction_macs_by_hand():
    # One mode of 3, R = 2, 5 pixels: every (3, 5) input meets a 2×2 core.
    assert _contraction_macs((3,), 2, 5, into_ring=True) == 3 * 5 * 2 * 2
    # Two modes (4, 4), R = 2, 1 pixel. Cores first: 4·4·2³ = 128, then 16·2² = 64 with the image:
    # 192. The image first: 4·4·2² = 64, and then 4·2³ = 32: 96.
    assert _contraction_macs((4, 4), 2, 1, into_ring=True) == 96
    assert _contraction_macs((4, 4), 2, 1, into_ring=False) == 96


def test_tensorized_ring_has_one_rank():
    kernel = decaying(16, 8, 3, 3)
    ring = TensorizedRing(kernel)
    assert ring.modes == (4, 4, 4, 2, 9)
    assert all(core.shape[0] == core.shape[2] == 3 for core in ring.cores((3,)))
    assert ring.shapes((3,)) == tuple(tuple(core.shape) for core in ring.cores((3,)))


def test_searched_ranks_are_those_of_each_stage():
    """Scalars R²·(sum of modes); 16, 32, 64 channels have factors of sum 8, 10, 12, pixels 9."""
    spec = model_spec("cifar10_resnet20")
    kernels = Kernels(profile(spec.build(), spec), PSTRN)
    smallest = searched_ranks(kernels, 5.0)
    assert smallest["layer1.2.conv1"] == (8,)
    assert smallest["layer2.0.conv2"] == (6,)
    assert smallest["layer2.1.conv1"] == (8,)
    assert smallest["layer3.0.conv1"] == (6,)
    assert smallest["layer3.2.conv2"] == (12,)
    first = 6 * 64 * 25
    second = 36 * (27 + 29) + 4 * 64 * 29
    third = 36 * (31 + 33) + 4 * 144 * 33
    convolutions = 6 * 2_304 + 4_608 + 5 * 9_216 + 18_432 + 5 * 36_864
    params = kernels.profile.params - convolutions + first + second + third
    assert kernels.pcr(smallest) == kernels.profile.params / params
    larger = searched_ranks(kernels, 2.0)
    assert larger["layer1.0.conv1"] == "the cores would store 5,625 scalars, the kernel 2,304"
    assert larger["layer3.1.conv1"] == (18,)
    with pytest.raises(PlanError, match=r"cifar10_resnet20 reach PCR 2\.\d+, 6\.3, not 9"):
        searched_ranks(kernels, 9.0)


def test_searched_ranks_of_another_network_are_refused(subject):
    with pytest.raises(PlanError, match="PSTRN has no ranks for digits_resnet20: it has some"):
        METHODS["trn-pstrn"].make(subject, 4.0)


def test_only_networks_with_searched_ranks_are_offered_them():
    assert methods_for("cifar10_resnet32") == tuple(METHODS)
    assert set(METHODS) - set(methods_for("resnet18")) == {"trn-pstrn"}


def test_ranks_that_were_chosen_elsewhere_are_obeyed(subject):
    kernels = Kernels(subject.profile, TRN, layers="all")
    only = "layer3.2.conv2"
    ranks = kernels.each_rank(lambda name: 3 if name == only else 10_000)
    decision, network = network_of(kernels, subject.model, ranks=ranks)
    assert [layer.name for layer in decision.layers if layer.choice] == [only]
    assert network.get_submodule(only).cores[0].shape == (3, 4, 3)


def test_an_operator_train_pairs_the_channels():
    """A kernel that is a Kronecker product over the pairs has bonds of 1."""
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(4, n, generator=generator).double() for n in (4, 2))
    pixels = torch.randn(3, 3, generator=generator).double()
    channels = torch.kron(first, second)  # (16, 8), O = O1·O2 and I = I1·I2
    train = OperatorTrain(torch.einsum("oi,hw->oihw", channels, pixels))
    assert (train.outs, train.ins) == ((4, 4), (4, 2))
    assert train.ranks(1e-3) == (1, 1)
    assert train.shapes((1, 1)) == ((9, 1), (1, 4, 4, 1), (1, 4, 2))
    mixed = torch.randn(16, 8, generator=generator).double()  # no product over the pairs
    assert OperatorTrain(torch.einsum("oi,hw->oihw", mixed, pixels)).ranks(1e-3) == (1, 8)


def test_an_operator_train_of_unlike_sides_has_factors_of_1():
    train = OperatorTrain(decaying(32, 3, 3, 3))
    assert (train.outs, train.ins) == ((4, 4, 2), (3, 1, 1))
    choice, cores = chosen("mpo", train, decaying(32, 3, 3, 3), train.ranks(0.3))
    assert choice.relative_error <= 0.3
    assert train.shapes(choice.ranks) == tuple(tuple(core.shape) for core in cores)


def test_ablations_take_parts_of_the_search():
    found = [
        Candidate(0, 1, (1, 12, 1, 1), 9, 9, 0.1),
        Candidate(0, 3, (3, 4, 1, 1), 8, 9, 0.1),
        Candidate(0, 4, (4, 3, 1, 1), 7, 9, 0.1),
        Candidate(1, 2, (1, 2, 2, 1), 5, 9, 0.1),
    ]
    assert ring_ablations.no_shift(found) == found[:3]
    assert ring_ablations.no_divisor(found) == [found[1], found[3]]
    assert ring_ablations.plain(found) == [found[1]]


def test_fixed_ranks_are_tensorlys_ring(subject):
    decided = ring_ablations.fixed_rank(subject.profile, 5)
    layer = next(layer for layer in decided.layers if layer.ranks is not None)
    kernel = subject.profile.layer(layer.name).kernel.double()
    with tl.backend_context("pytorch", local_threadsafe=True):
        theirs = tensor_ring(kernel, [*layer.ranks, layer.ranks[0]]).to_tensor()
    ours = ring_svd(kernel, 0, layer.ranks).to_tensor()
    # A split first mode depends on the signs of singular vectors, which are free.
    errors = [float((kernel - rebuilt).norm() / kernel.norm()) for rebuilt in (ours, theirs)]
    assert layer.relative_error == pytest.approx(errors[0])
    assert errors[0] == pytest.approx(errors[1], rel=0.05)
    with pytest.raises(PlanError, match="rank 1 do not reach PCR 1e"):
        ring_ablations.fixed_rank(subject.profile, 1e6)


@pytest.mark.parametrize("name", ["tt", "trn"])
def test_a_network_for_a_pcr(subject, name):
    before = {key: value.clone() for key, value in subject.model.state_dict().items()}
    kernels = Kernels(subject.profile, LOW_RANK[name])
    decision, network = network_of(kernels, subject.model, pcr=5 if name == "tt" else 12)
    again = profile(network, subject.spec)
    params = sum(parameter.numel() for parameter in network.parameters())
    assert decision.pcr == pytest.approx(subject.profile.params / params)
    low, high = (5, 5.1) if name == "tt" else (12, 20)  # whole ranks reach it coarsely
    assert low <= decision.pcr < high
    assert NetworkDecision.model_validate_json(decision.model_dump_json()) == decision
    assert decision.layers[0].kept_dense == "outside the layer policy"
    assert isinstance(network.get_submodule("layer3.2.conv2"), FactoredConv2d)
    assert all(torch.equal(before[key], value) for key, value in subject.model.state_dict().items())
    assert again.layers  # the first convolution still runs


def test_the_smallest_eps_reaches_the_pcr(subject):
    kernels = Kernels(subject.profile, LOW_RANK["tucker2"])
    decision, _ = network_of(kernels, pcr=4)
    assert decision.eps is not None
    assert kernels.pcr(kernels.ranks(decision.eps)) >= 4
    assert kernels.pcr(kernels.ranks(decision.eps - 0.001)) < 4
    with pytest.raises(PlanError, match="does not reach PCR 10000"):
        network_of(kernels, pcr=10_000)
    with pytest.raises(RingError, match="ε_p is 2"):
        network_of(kernels, eps=2.0)


@pytest.mark.parametrize("name", ["ring-no-shift", "ring-no-divisor", "ring-plain"])
def test_ablations_on_a_network(subject, name):
    decided = ring_ablations.ablated(subject.profile, name, 5)
    full = ring_ablations.by_rule(subject.profile, "paper", 5)
    assert 5 <= decided.pcr < 5.1
    assert decided.eps >= full.eps  # a smaller search never stores less at the same ε_p
    if name != "ring-no-divisor":
        assert {layer.shift for layer in decided.layers if layer.ranks} == {0}


def test_pruning_keeps_what_a_shortcut_adds(subject):
    for importance in ("l2", "taylor"):
        found = pruned(subject.model, subject.spec, importance, 3.0, subject.data.train)
        params = sum(parameter.numel() for parameter in found.model.parameters())
        assert 3.0 <= subject.profile.params / params < 3.3
        assert found.model.get_submodule("layer3.0.conv2").out_channels == 64
        assert found.model.get_submodule("layer3.0.conv1").out_channels < 64
        assert found.model(torch.zeros(2, *subject.spec.input_shape)).shape == (2, 10)
    with pytest.raises(PlanError, match="at most, not 1000"):
        pruned(subject.model, subject.spec, "l2", 1000)
    with pytest.raises(PlanError, match="needs labelled images"):
        pruned(subject.model, subject.spec, "taylor", 3.0)


def test_pruning_is_repeated_channel_by_channel(subject):
    found = pruned(subject.model, subject.spec, "l2", 3.0)
    again = found.repeated(subject.model, subject.spec)
    ours, theirs = found.model.state_dict(), again.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_names():
    assert method("tt") is METHODS["tt"]
    check_methods(("int8", "tt", "tt+int8"))
    with pytest.raises(UnknownName, match="there is no method 'svd'"):
        check_methods(("tt", "svd"))
