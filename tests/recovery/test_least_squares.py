"""Cores by least squares, against torch.linalg.lstsq on the columns themselves."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from rsdtr.errors import RingError
from rsdtr.recovery import least_squares
from rsdtr.recovery.least_squares import fitted
from rsdtr.recovery.second_moments import Inputs, Moments, Targets
from rsdtr.ring.tensor_ring import TensorRing

SHAPE, RANKS = (6, 4, 3, 2), (2, 2, 3, 2)
ZERO = torch.zeros(SHAPE[0])


def noise(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def columns(shape: tuple[int, ...] = SHAPE) -> Tensor:
    """200 columns whose entries are correlated, as those of pictures are."""
    width = shape[1] * shape[2] * shape[3]
    return noise(200, width, seed=0) @ noise(width, width, seed=1)


def moments(x: Tensor, y: Tensor) -> Moments:
    return Moments(Inputs.of(x), Targets.of(x, y))


def with_core(ring: TensorRing, mode: int, core: Tensor) -> TensorRing:
    c0, c1, c2, c3 = (core if k == mode else own for k, own in enumerate(ring.cores))
    return TensorRing((c0, c1, c2, c3), ring.shift)


def best_error(ring: TensorRing, mode: int, x: Tensor, y: Tensor) -> float:
    """The least error over one core: a regression on the outputs that its unit cores make."""
    own = ring.cores[mode]
    units = torch.eye(own.numel(), dtype=torch.float64).reshape(-1, *own.shape)
    outputs = [x @ with_core(ring, mode, unit).to_tensor().flatten(1).T for unit in units]
    design = torch.stack([output.flatten() for output in outputs], 1)
    solution = torch.linalg.lstsq(design, y.flatten(), driver="gelsd").solution
    return float((y.flatten() - design @ solution).square().sum())


@pytest.mark.parametrize("direct", [0, 2500], ids=["conjugate gradients", "normal matrix"])
@pytest.mark.parametrize("shape", [SHAPE, (3, 2, 3, 3), (5, 9, 1, 1)], ids=str)
@pytest.mark.parametrize("mode", range(4))
def test_each_core_is_the_least_squares_optimum(mode, shape, direct, monkeypatch):
    monkeypatch.setattr(least_squares, "DIRECT", direct)
    monkeypatch.setattr(least_squares, "STEPS", 2000)
    ring = TensorRing.random(shape, RANKS, seed=3)
    x, y = columns(shape), 50 * noise(200, shape[0], seed=4)
    known = moments(x, y)
    new = fitted(ring, known, (mode,))
    found = known.error(new.to_tensor(), torch.zeros(shape[0]))
    assert found == pytest.approx(best_error(ring, mode, x, y), rel=1e-6)
    assert found < known.error(ring.to_tensor(), torch.zeros(shape[0]))


@pytest.mark.parametrize("seed", range(5))
def test_the_error_never_rises(seed):
    ring = TensorRing.random(SHAPE, RANKS, seed=seed)
    x = columns()
    known = moments(x, x @ noise(24, 6, seed=seed) + noise(200, 6, seed=seed))
    errors = [known.error(ring.to_tensor(), ZERO)]
    for _ in range(6):
        for mode in (1, 2, 3, 0):
            ring = fitted(ring, known, (mode,))
            errors.append(known.error(ring.to_tensor(), ZERO))
    assert all(later <= earlier * (1 + 1e-9) for earlier, later in pairwise(errors))
    assert errors[-1] < 0.9 * errors[4] < 0.9 * errors[0]


def test_a_ring_is_recovered_from_what_it_does():
    truth = TensorRing.random(SHAPE, RANKS, seed=7)
    c0, c1, c2, c3 = (core + 0.3 * noise(*core.shape, seed=8) for core in truth.cores)
    x = columns()
    known = moments(x, x @ truth.to_tensor().flatten(1).T)
    start = TensorRing((c0, c1, c2, c3))
    new = fitted(start, known, (1, 2, 3, 0), sweeps=200)
    assert known.error(start.to_tensor(), ZERO) > 1e-2 * known.targets.power
    assert known.error(new.to_tensor(), ZERO) < 1e-6 * known.targets.power
    assert [core.shape for core in new.cores] == [core.shape for core in start.cores]


def test_more_outputs_than_channels_of_the_ring_change_nothing():
    shape = (40, 3, 2, 2)  # R0·R1 = 4 outputs stand for 40
    ring, x, y = TensorRing.random(shape, RANKS, seed=1), columns(shape), noise(200, 40, seed=2)
    known = moments(x, y)
    new = fitted(ring, known, (1,))
    found = known.error(new.to_tensor(), torch.zeros(40))
    assert found == pytest.approx(best_error(ring, 1, x, y), rel=1e-6)


def test_a_core_of_zeros_stays_where_nothing_can_be_learnt():
    ring = with_core(TensorRing.random(SHAPE, RANKS), 0, torch.zeros(2, 6, 2, dtype=torch.float64))
    known = moments(columns(), noise(200, 6, seed=1))
    new = fitted(ring, known, (2,))
    torch.testing.assert_close(new.to_tensor(), torch.zeros(SHAPE, dtype=torch.float64))


def test_the_given_ring_is_not_changed():
    ring = TensorRing.random(SHAPE, RANKS, seed=3)
    before = [core.clone() for core in ring.cores]
    fitted(ring, moments(columns(), noise(200, 6, seed=1)), (1, 2, 3, 0), 2)
    assert all(torch.equal(core, old) for core, old in zip(ring.cores, before, strict=True))


def test_moments_of_another_layer_are_refused():
    ring = TensorRing.random(SHAPE, RANKS)
    with pytest.raises(RingError, match=r"the moments are of \(5, 24\) products, the ring"):
        fitted(ring, moments(columns(), noise(200, 5, seed=1)), (0,))
