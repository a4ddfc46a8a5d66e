"""Networks train in forms that shapes choose, and come back as they were."""

import pytest
import torch
from torch import Tensor, nn

from rsdtr.compressed.compress import compress
from rsdtr.compressed.tr_conv2d import TRConv2d
from rsdtr.planning.model_profile import profile
from rsdtr.planning.plan import plan
from rsdtr.recovery.training_forms import laid_out_for_training, training_form
from tests.support.networks import varied, varied_spec


# Of a 3×3 kernel of 64 × 64 channels, with P channels between the two convolutions, a pixel costs
# O|IHW 9·64·P + 64·P (P = R0·R1), I|HWO as much (P = R1·R2), IH|WO 2·3·64·P (P = R3·R1), each and
# 64·P for what is kept: 704·P, 704·P and 448·P; dense 36,864.
@pytest.mark.parametrize(
    ("ranks", "form"),
    [
        ((2, 3, 10, 8), "O|IHW"),  # 4,224, 21,120 and 10,752
        ((40, 1, 5, 8), "I|HWO"),  # 28,160, 3,520 and 3,584
        ((40, 1, 5, 7), "IH|WO"),  # 28,160, 3,520 and 3,136
        ((9, 9, 9, 9), "IH|WO"),  # 57,024, 57,024 and 36,288
        ((9, 10, 9, 9), "dense"),  # 63,360, 63,360 and 40,320
    ],
)
def test_the_form_of_the_fewest_macs_and_kept_elements(ranks, form):
    assert training_form(TRConv2d(64, 64, 3, ranks, padding=1)) == form


def test_a_stride_leaves_fewer_pixels_for_the_second_convolution():
    # For an output pixel I|HWO has four pixels between its convolutions: 4·128·P + 576·P = 5,440 of
    # P = 5; IH|WO has two: 2·(192 + 64)·P + 192·P = 4,928 of P = 7.
    assert training_form(TRConv2d(64, 64, 3, (40, 1, 5, 7), stride=2)) == "IH|WO"
    assert training_form(TRConv2d(64, 64, 3, (40, 1, 5, 8), stride=2)) == "I|HWO"


@pytest.fixture
def ring() -> nn.Module:
    dense = varied()
    return compress(dense, plan(profile(dense, varied_spec()), 0.4))


def test_inside_of_the_block_only(ring):
    images = torch.randn(2, 3, 14, 10)
    before, seen = ring(images), []
    ring.train()

    def fails():
        with laid_out_for_training(ring, images):
            seen.append((ring.body.form, ring.stem.weight.is_contiguous(), ring.training))
            torch.testing.assert_close(ring.eval()(images), before, rtol=0, atol=1e-5)
            ring.train()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fails()
    assert seen == [(training_form(ring.body), False, True)]
    assert ring.body.form == "pipeline"
    assert ring.stem.weight.is_contiguous()
    assert torch.equal(ring.eval()(images), before)


class Viewing(nn.Module):
    """A network whose activations have to lie in the order of their modes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4 * 6 * 6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).view(len(x), -1))


def test_a_network_that_views_its_activations_keeps_its_layout():
    model, images = Viewing(), torch.randn(2, 3, 8, 8)
    with laid_out_for_training(model, images):
        assert model.conv.weight.is_contiguous()
        model(images)
