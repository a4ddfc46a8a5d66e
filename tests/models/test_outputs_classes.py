"""Logits out of whatever a classifier answers, and what is done with a single one."""

import dataclasses
from collections import namedtuple
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rsdtr.data.image_sets import DataSplits
from rsdtr.data.tensor_images import images_of
from rsdtr.errors import RsdtrError
from rsdtr.exports.proof_process import compared
from rsdtr.measuring.accuracy import accuracy
from rsdtr.measuring.fidelity import Divergence
from rsdtr.models import model_spec
from rsdtr.models.outputs import class_logits
from rsdtr.recovery.finetune import finetune
from rsdtr.recovery.options import FinetuneOptions

Both = namedtuple("Both", "logits aux_logits")


@dataclasses.dataclass
class Output:
    logits: Tensor
    hidden: Tensor


Z = torch.tensor([[1.0, 2.0, 3.0], [3.0, 1.0, 2.0]])
HIDDEN = torch.ones(2, 7)
MAPS = torch.ones(2, 3, 4, 4)


@pytest.mark.parametrize(
    "answer",
    [
        Z, (Z,), [Z, HIDDEN], {"logits": Z}, {"logits": Z, "aux": Z + 1}, {"out": Z, "maps": MAPS},
        Output(Z, HIDDEN), Both(Z, Z + 1), (MAPS, {"a": (Z,)}), Z[:, :, None, None],
        {"loss": torch.tensor(1.0), "logits": Z}, (Z, torch.tensor([1, 2])),
    ],
)  # fmt: skip
def test_the_one_tensor_of_logits(answer: object) -> None:
    assert torch.equal(class_logits(answer, 2, 3), Z)


@pytest.mark.parametrize("answer", [Z[:, :1], Z[:, 0], (Z[:, 0], HIDDEN), {"logits": Z[:, :1]}])
@pytest.mark.parametrize("classes", [1, 2])
def test_one_logit_has_the_probabilities_of_two(answer: object, classes: int) -> None:
    found = class_logits(answer, 2, classes)
    assert torch.allclose(found.softmax(1)[:, 1], torch.sigmoid(Z[:, 0]))


@pytest.mark.parametrize(
    ("answer", "classes"),
    [((Z, Z + 1), 3), (MAPS, 3), ({}, 3), ("text", 3), (Z[:, :1], 3), (Z[:, 0], 10), (Z[:1], 3),
     ((HIDDEN, MAPS), 3), (torch.tensor([1, 2]), 3)],
)  # fmt: skip
def test_anything_else_is_told(answer: object, classes: int) -> None:
    expected = rf"the network answers 2 images with .* where one tensor of logits \(2, {classes}\)"
    with pytest.raises(RsdtrError, match=expected):
        class_logits(answer, 2, classes)


class Says(nn.Module):
    """Answers the mean of an image in a form of its own."""

    def __init__(self, form: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.form = form
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> object:
        return self.form(x.mean((1, 2, 3)) * self.scale)


SIGNS = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, 1.0])
IMAGES = SIGNS.view(-1, 1, 1, 1).expand(-1, 1, 4, 4).clone()
LABELS = torch.tensor([1, 0, 1, 0, 1, 0])  # the last one is not what its sign says
FORMS = {
    "(B,)": lambda z: z,
    "(B, 1)": lambda z: z[:, None],
    "dict": lambda z: {"logits": torch.stack([-z, z], 1)},
    "tuple": lambda z: (torch.stack([-z, z], 1),),
    "dataclass": lambda z: Output(torch.stack([-z, z], 1), z[:, None]),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_accuracy_divergence_and_training_read_every_form(form) -> None:
    images = images_of((IMAGES, LABELS))
    model = Says(form)
    assert accuracy(model, images).percent == pytest.approx(100 * 5 / 6)
    assert Divergence(model, images)(model) == pytest.approx(0, abs=1e-9)
    splits = DataSplits(images, images, images)
    options = FinetuneOptions(epochs=1, batch_size=6, lr=0.1, momentum=0, augment="none")
    (epoch,) = finetune(Says(form), splits, options)
    raw = form(SIGNS)
    z = SIGNS if isinstance(raw, Tensor) else 2 * SIGNS  # of two logits, their difference
    expected = F.binary_cross_entropy_with_logits(z, LABELS.float())
    assert epoch.train_loss == pytest.approx(float(expected), rel=1e-5)


def test_probabilities_are_no_logits() -> None:
    images = images_of((IMAGES, LABELS))
    with pytest.raises(RsdtrError, match="one number from 0 to 1 for every image, as after a sig"):
        accuracy(Says(torch.sigmoid), images)


def test_one_logit_in_many_classes_is_told() -> None:
    spec = dataclasses.replace(model_spec("digits_resnet20"), input_shape=(1, 4, 4))
    with pytest.raises(RsdtrError, match=r"logits \(6, 10\) was expected"):
        accuracy(Says(lambda z: z[:, None]), images_of((IMAGES, LABELS), spec))


def test_a_proof_compares_single_numbers_by_their_sign() -> None:
    cases = {"inputs": IMAGES, "logits": SIGNS}
    same = compared(lambda x: x.mean((1, 2, 3)), cases)
    assert (same["argmax_agreement"], same["n"]) == (1.0, 6)
    turned = compared(lambda x: -x.mean((1, 2, 3)), cases)
    assert turned["argmax_agreement"] == 0
    wide = {"inputs": IMAGES, "logits": SIGNS[:, None]}
    assert compared(lambda x: -x.mean((1, 2, 3))[:, None], wide)["argmax_agreement"] == 0
