"""Networks that tell no classes apart: what a refit, fidelity and quality say of their answers."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from rsdtr.compressed.compress import compress
from rsdtr.data.image_sets import LabelledImages
from rsdtr.data.image_sources import ArrayPictures
from rsdtr.errors import DataError, RsdtrError
from rsdtr.measuring.fidelity import AnswerError, Divergence, distance_from, fidelity
from rsdtr.measuring.picture_quality import picture_quality, psnr, ssim, targets_spec
from rsdtr.models import zoo
from rsdtr.models.zoo import ModelSpec
from rsdtr.planning.model_profile import profile
from rsdtr.planning.plan import plan
from rsdtr.recovery.refit import Refitted, refit
from scripts.train_denoiser import denoiser, noisy_photos


class Upscaling(nn.Module):
    """Super-resolution by two."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 12, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pixel_shuffle(self.body(x), 2)


class Height(nn.Module):
    """Regression: one number for a picture."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()
        )
        self.head = nn.Linear(16, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean((2, 3)))


class Two(nn.Module):
    """Answers a dict of a map and a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Conv2d(3, 16, 3, padding=1)
        self.map = nn.Conv2d(16, 8, 3, padding=1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.trunk(x).relu()
        return {"map": self.map(x), "mean": x.mean((2, 3))}


def made(kind: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    network = kind().eval()
    with torch.no_grad():  # spectra that decay, so that rings pay
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                u, s, vt = torch.linalg.svd(module.weight.flatten(1), full_matrices=False)
                s = s * torch.exp(-0.3 * torch.arange(len(s)))
                module.weight.copy_((u * s @ vt).reshape(module.weight.shape))
    return network


@pytest.fixture(autouse=True)
def no_own_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "_OWN", dict(zoo._OWN))


def own(network: nn.Module, classes: int = 3, task: zoo.Task = "other") -> ModelSpec:
    return zoo.own_model("mine", lambda: copy.deepcopy(network), (3, 32, 32), classes, task=task)


def pictures(spec: ModelSpec, pixels: Tensor) -> LabelledImages:
    return LabelledImages(
        "photographs", (), torch.full((len(pixels),), -1), ArrayPictures(pixels), spec
    )


def noisy(spec: ModelSpec, n: int, held_out: bool) -> LabelledImages:
    return pictures(spec, noisy_photos(held_out, n, side=32)[0])


def refitted(
    network: nn.Module, eps: float, task: zoo.Task = "other"
) -> tuple[nn.Module, Refitted, LabelledImages]:
    spec = own(network, classes=1, task=task)
    rings = compress(network, plan(profile(network, spec), eps, layers="all"))
    found = refit(rings, network, noisy(spec, 40, held_out=False), 40)
    return rings, found, noisy(spec, 8, held_out=True)


@pytest.mark.parametrize("kind", [Upscaling, Height, Two])
def test_a_refit_is_judged_by_the_answers(kind: type[nn.Module]) -> None:
    network = made(kind)
    rings, found, held_out = refitted(network, 0.6)
    cores = next(step for step in found.steps if step.name == "cores")
    assert cores.measure == "answer error"
    assert cores.kept
    before, after = (fidelity(x, network, held_out).relative_error for x in (rings, found.model))
    assert after < 0.6 * before


def test_a_classifier_of_one_logit_is_judged_by_it_too() -> None:
    network = made(Height)
    _, found, _ = refitted(network, 0.6, task="classification")
    assert next(step for step in found.steps if step.name == "cores").measure == "answer error"


def test_what_tells_classes_apart_is_judged_by_them() -> None:
    means = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())  # (B, 3, H, W) to (B, 3)
    spec = own(means, classes=3, task="classification")
    assert isinstance(distance_from(means, noisy(spec, 2, True)), Divergence)
    spec = own(nn.Identity(), classes=3)
    assert isinstance(distance_from(nn.Identity(), noisy(spec, 2, True)), AnswerError)


# --- a network that answers pictures ---


def test_a_compressed_denoiser_says_what_it_lost_and_a_refit_wins_it_back() -> None:
    dense = denoiser()
    spec = own(dense)
    rings = compress(dense, plan(profile(dense, spec), 0.6))
    given, clean = (pictures(spec, x) for x in noisy_photos(held_out=True, n=8, side=32))
    lost = fidelity(rings, dense, given)
    assert lost.relative_error < 0.4  # as if little had happened
    assert lost.residual_error is not None
    assert lost.residual_error > 0.7
    assert lost.warning is not None
    assert "what the network does to a picture is lost" in lost.warning
    assert lost.agreement is None
    assert lost.counted is None  # its channels are no classes
    found = refit(rings, dense, noisy(spec, 40, held_out=False), 40).model
    again = fidelity(found, dense, given)
    assert again.residual_error is not None
    assert again.residual_error < 0.3
    assert again.warning is None
    assert lost.psnr is not None
    assert again.psnr is not None
    assert again.psnr > lost.psnr + 6  # at most half of the error is left
    input_, before, after, best = (
        picture_quality(network, given, clean) for network in (nn.Identity(), rings, found, dense)
    )
    assert before.psnr < input_.psnr + 3
    assert after.psnr > best.psnr - 2.5
    assert best.ssim > after.ssim > before.ssim


def test_the_residual_error_is_that_of_the_change() -> None:
    class Moved(nn.Module):
        def __init__(self, by: float) -> None:
            super().__init__()
            self.by = by

        def forward(self, x: Tensor) -> Tensor:
            return x + self.by

    x = torch.rand(3, 3, 8, 8)
    # The dense network adds 0.4, the other one 0.1: three quarters of the change are missing.
    found = fidelity(Moved(0.1), Moved(0.4), x)
    assert found.residual_error == pytest.approx(0.75)
    assert "75 %" in str(found.warning)
    assert "of what they change 0.750" in str(found)
    assert fidelity(Moved(0.3), Moved(0.4), x).warning is None
    nothing = fidelity(Moved(0.0), Moved(0.0), x)
    assert nothing.residual_error == 0
    assert math.isfinite(fidelity(Moved(float("nan")), Moved(0.4), x).residual_error or 0)


def test_answers_that_are_pictures_have_a_psnr() -> None:
    class Scaled(nn.Module):
        def __init__(self, by: float, channels: int = 3) -> None:
            super().__init__()
            self.by, self.channels = by, channels

        def forward(self, x: Tensor) -> Tensor:
            return x[:, : self.channels] + self.by

    spec = replace(own(nn.Identity()), mean=(0.5,) * 3, std=(0.25,) * 3)
    grey = pictures(spec, torch.full((2, 3, 32, 32), 100, dtype=torch.uint8))
    # 0.4 of a standard deviation of 0.25 is 0.1 of the range 0..1: 20 dB.
    found = fidelity(Scaled(0.4), Scaled(0.0), grey)
    assert found.psnr == pytest.approx(20, abs=1e-4)
    assert "PSNR to the dense network's 20.00 dB" in str(found)
    assert fidelity(Scaled(0.0), Scaled(0.0), grey).psnr == 100
    # One map of its own, which nothing says to be normalised.
    edges = fidelity(Scaled(0.5, 1), Scaled(0.6, 1), grey)
    assert (edges.psnr, edges.residual_error) == (pytest.approx(20, abs=1e-4), None)
    assert fidelity(Scaled(0.4), Scaled(0.0), torch.rand(2, 3, 8, 8)).psnr is None
    masks = replace(spec, family="own segmentation")
    assert fidelity(Scaled(0.4), Scaled(0.0), pictures(masks, grey.pixels(range(2)))).psnr is None


def test_answers_of_another_shape_have_no_residual() -> None:
    network = made(Upscaling)
    found = fidelity(network, network, torch.rand(2, 3, 8, 8))
    assert found.residual_error is None
    assert found.counted is None
    spec = zoo.own_model("parts", lambda: nn.Identity(), (3, 32, 32), 3, task="segmentation")
    masks = fidelity(nn.Identity(), nn.Identity(), noisy(spec, 2, True))
    assert (masks.counted, masks.residual_error) == ("pixels", None)


# --- quality against targets ---


def test_psnr_by_hand() -> None:
    wanted = torch.zeros(2, 3, 4, 4)
    found = torch.stack([torch.full((3, 4, 4), 0.1), torch.zeros(3, 4, 4)])
    # A mean squared error of 0.01 is 20 dB; none at all is told as 100.
    assert psnr(found, wanted).tolist() == pytest.approx([20, 100])


def test_ssim_by_a_slow_oracle() -> None:
    torch.manual_seed(0)
    x, y = torch.rand(1, 2, 13, 12, dtype=torch.float64), torch.rand(1, 2, 13, 12).double()
    offsets = torch.arange(11, dtype=torch.float64) - 5
    line = torch.exp(-(offsets**2) / (2 * 1.5**2))
    window = torch.outer(line, line) / line.sum() ** 2
    values = []
    for channel in range(2):
        for top in range(3):
            for left in range(2):
                a, b = (v[0, channel, top : top + 11, left : left + 11] for v in (x, y))
                ma, mb = (window * a).sum(), (window * b).sum()
                va, vb = (window * (a - ma) ** 2).sum(), (window * (b - mb) ** 2).sum()
                ab = (window * (a - ma) * (b - mb)).sum()
                c1, c2 = 0.0001, 0.0009
                values.append(
                    (2 * ma * mb + c1) * (2 * ab + c2)
                    / ((ma**2 + mb**2 + c1) * (va + vb + c2))
                )  # fmt: skip
    assert ssim(x, y).item() == pytest.approx(float(sum(values) / len(values)), abs=1e-9)
    assert ssim(x, x).item() == pytest.approx(1)
    assert ssim(x[..., :7, :5], x[..., :7, :5]).item() == pytest.approx(1)


def test_targets_have_the_shape_of_the_answers_and_the_normalisation_is_undone() -> None:
    network = made(Upscaling)
    spec = own(network)
    wanted = targets_spec(network, spec)
    assert wanted.input_shape == (3, 64, 64)
    spec = zoo.own_model("same", nn.Identity, (3, 32, 32), 3, task="other", mean=(0.5,) * 3)
    clean = noisy_photos(True, 4, side=32)[1]
    reached = picture_quality(nn.Identity(), pictures(spec, clean), pictures(spec, clean))
    assert (reached.psnr, reached.ssim, reached.n) == (100, pytest.approx(1), 4)


def test_what_has_no_quality_is_refused() -> None:
    spec = own(made(Height))
    four, three = noisy(spec, 4, True), noisy(spec, 3, True)
    with pytest.raises(DataError, match="has 4 pictures and photographs 3 targets"):
        picture_quality(nn.Identity(), four, three)
    with pytest.raises(RsdtrError, match=r"answers \(4, 1\) where pictures"):
        picture_quality(made(Height), four, four)
    with pytest.raises(RsdtrError, match="answers dict where pictures"):
        targets_spec(made(Two), spec)
    with pytest.raises(RsdtrError, match="give targets of the answers' shape"):
        picture_quality(made(Upscaling), four, four)
