"""Networks of one's own: jobs, other processes, eight bits, and what the dense one takes."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import Tensor, nn

from rsdtr.commands.cli import cli
from rsdtr.compressed.compress import compress
from rsdtr.compressed.manifest import Proof
from rsdtr.compressed.saved import load, save
from rsdtr.data.image_sets import DataSplits, LabelledImages
from rsdtr.data.image_sources import ArrayPictures
from rsdtr.errors import ExportError, JobError, RsdtrError, UnknownName
from rsdtr.exports import proof as proofs
from rsdtr.exports.export import Artefact, export
from rsdtr.exports.proof_process import compared
from rsdtr.exports.verify import verify
from rsdtr.jobs import job_queue
from rsdtr.jobs.kinds.export import queue_export
from rsdtr.jobs.kinds.fastest_rings import queue_fastest
from rsdtr.jobs.kinds.finetune import queue_finetuning
from rsdtr.jobs.kinds.refit import queue_refit
from rsdtr.jobs.kinds.study import queue_study
from rsdtr.models import model_loading, zoo
from rsdtr.models.factories import imported_factory
from rsdtr.models.zoo import ModelSpec
from rsdtr.planning.model_profile import profile
from rsdtr.planning.plan import CompressionPlan, plan
from rsdtr.recovery.options import FinetuneOptions
from scripts.train_denoiser import denoiser, noisy_photos
from tests.support.checkout import ROOT

FACTORY = "scripts.train_denoiser:denoiser"


@pytest.fixture(autouse=True)
def no_own_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "_OWN", dict(zoo._OWN))


def own() -> ModelSpec:
    return zoo.own_model("mine", denoiser, (3, 32, 32), 3, task="other")


def pictures(spec: ModelSpec, pixels: Tensor) -> LabelledImages:
    nothing = torch.full((len(pixels),), -1)
    return LabelledImages("photos", (), nothing, ArrayPictures(pixels), spec)


def compressed(spec: ModelSpec) -> tuple[nn.Module, CompressionPlan]:
    decided = plan(profile(denoiser(), spec), 0.3)
    return compress(denoiser(), decided), decided


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export of one's own denoiser, which no other process knows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zoo, "_OWN", dict(zoo._OWN))
        spec = own()
        network, decided = compressed(spec)
        out = tmp_path_factory.mktemp("own") / "export"
        images = pictures(spec, noisy_photos(True, 5, side=32)[0])
        export(network, decided, images, ["safetensors", "onnx"], out)
    return out


def elsewhere(*words: str) -> subprocess.CompletedProcess[str]:
    """The command line in a process that knows no network of one's own."""
    return subprocess.run(
        [sys.executable, "-m", "rsdtr", *words],
        capture_output=True, text=True, check=False, cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip


# --- another process ---


def test_verify_in_another_process_by_what_builds_it(exported: Path) -> None:
    done = elsewhere("verify", str(exported), "--factory", FACTORY, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["proofs"]
    assert found.keys() == {"safetensors", "python", "onnx"}
    assert all(one["max_difference"] < 1e-4 for one in found.values())
    assert all(one["argmax_agreement"] is None for one in found.values())


def test_verify_and_evaluate_by_the_program_beside_the_cores(
    exported: Path, tmp_path: Path
) -> None:
    found = verify(exported, trust_program=True)
    assert found.keys() == {"safetensors", "python", "onnx"}
    given, clean = noisy_photos(True, 30, side=32)
    for name, pixels in (("noisy", given), ("clean", clean)):
        (tmp_path / name).mkdir()
        for k, picture in enumerate(pixels):
            path = tmp_path / name / f"{k:02}.png"
            Image.fromarray(picture.permute(1, 2, 0).numpy()).save(path)
    words = ["evaluate", str(exported), "--data", str(tmp_path / "noisy")]
    words += ["--targets", str(tmp_path / "clean"), "--json"]
    done = CliRunner().invoke(cli, [*words, "--trust-program"])
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["quality"]["psnr"] > 20
    assert 0 < told["quality"]["ssim"] < 1
    assert told["bytes"] == (exported / "model.safetensors").stat().st_size
    assert "fidelity" not in told  # there is no dense network to compare with
    done = CliRunner().invoke(cli, [*words, "--factory", FACTORY])
    assert done.exit_code == 0, done.stderr
    again = json.loads(done.stdout)
    assert again["quality"]["psnr"] == pytest.approx(told["quality"]["psnr"], abs=0.01)
    assert again["fidelity"]["residual_error"] > 0
    (tmp_path / "clean" / "00.png").rename(tmp_path / "clean" / "zz.png")
    done = CliRunner().invoke(cli, [*words, "--factory", FACTORY])
    assert done.exit_code == 2
    assert "give each target the name of its picture" in done.stderr


def test_what_is_lost_is_said_by_evaluate(tmp_path: Path) -> None:
    spec = own()
    decided = plan(profile(denoiser(), spec), 0.7)
    folder = save(compress(denoiser(), decided), decided, tmp_path / "ring")
    done = CliRunner().invoke(cli, ["evaluate", str(folder), "--data", "photos"])
    assert done.exit_code == 0, done.stderr
    assert "what the network does to a picture is lost" in done.stderr


def test_without_either_a_sentence_says_what_to_give(exported: Path) -> None:
    for words in (("verify", str(exported)), ("evaluate", str(exported))):
        done = CliRunner().invoke(cli, list(words))
        assert done.exit_code == 2
        said = done.stderr.splitlines()[-1]
        assert "holds mine, a network of one's own" in said
        assert "--factory package.module:function" in said
        assert "did you mean" not in said
    with pytest.raises(UnknownName, match=r"rsdtr\.models\.own_model"):
        load(exported)


def test_a_program_that_was_changed_is_not_run(exported: Path, tmp_path: Path) -> None:
    copied = tmp_path / "changed"
    shutil.copytree(exported, copied)
    with (copied / "rsdtr_model.py").open("a", encoding="utf-8") as file:
        file.write("\nraise SystemExit\n")
    with pytest.raises(ExportError, match=r"rsdtr_model\.py was changed"):
        verify(copied, trust_program=True)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nothing", "names no factory: give package.module:function"),
        ("no.such:thing", "cannot be imported"),
        ("math:no_such", "cannot be imported"),
        ("math:pi", "is float: name a function"),
    ],
)
def test_a_factory_that_is_none_is_refused(name: str, said: str) -> None:
    before = list(sys.path)
    with pytest.raises(RsdtrError, match=said):
        imported_factory(name)
    assert sys.path == before


def test_a_model_of_this_program_needs_no_factory(tmp_path: Path) -> None:
    spec = zoo.model_spec("digits_resnet20")
    dense = model_loading.load_model(spec.name)
    decided = plan(profile(dense, spec), 0.6, layers="layer3.2.conv2")
    folder = save(compress(dense, decided), decided, tmp_path / "digits")
    done = CliRunner().invoke(cli, ["evaluate", str(folder), "--factory", FACTORY])
    assert done.exit_code == 2
    assert "is a model of this program" in done.stderr


# --- jobs ---


def test_every_job_is_refused_when_it_is_queued() -> None:
    spec = own()
    network, decided = compressed(spec)
    images = pictures(spec, noisy_photos(True, 8, side=32)[0])
    splits, dense = DataSplits(images, images, images), denoiser()
    options = FinetuneOptions(epochs=1)
    before = len(job_queue.listed())
    for queue in (
        lambda: queue_refit(network, decided, splits, 8, data=None, dense=dense),
        lambda: queue_finetuning(network, decided, splits, options, data=None, dense=dense),
        lambda: queue_export(network, decided, splits, ["onnx"], data=None),
        lambda: queue_study(dense, decided, splits, options, 1, data=None),
        lambda: queue_fastest(decided, None, 1),
    ):
        with pytest.raises(JobError, match="mine is a network of one's own, which the process"):
            queue()
    assert len(job_queue.listed()) == before


# --- proofs without classes ---


def cases(answers: Tensor, classes: bool) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {
        "inputs": torch.rand(answers.shape if answers.ndim == 4 else (len(answers), 3, 4, 4)),
        "logits": answers,
        "classes": torch.tensor(classes),
    }


@pytest.mark.parametrize("shape", [(5, 1, 4, 4), (5, 1), (5,), (5, 3, 4, 4)])
def test_answers_without_classes_are_told_by_their_error(shape: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    answers = torch.rand(shape) + 0.5
    given = cases(answers, classes=False)
    order = {tuple(x.flatten().tolist()): y for x, y in zip(given["inputs"], answers, strict=True)}

    def run(images: Tensor) -> Tensor:
        return torch.stack([order[tuple(x.flatten().tolist())] for x in images]) * 1.2

    found = Proof.model_validate(compared(run, given))
    assert found.argmax_agreement is None
    assert found.relative_error == pytest.approx(0.2, abs=1e-4)
    assert (found.residual_error is not None) == (given["inputs"].shape == answers.shape)
    assert "no classes; answers off by 20 %" in found.told


def test_a_single_logit_is_a_class_by_its_sign() -> None:
    answers = torch.tensor([[1.0], [-1.0], [2.0], [-2.0]])
    found = compared(lambda images: torch.ones(len(images), 1), cases(answers, classes=True))
    assert found["argmax_agreement"] == 0.5


@pytest.mark.parametrize(
    ("agreement", "error", "change", "said"),
    [
        (None, 0.3, None, "the answers are off by 30 %, more than 10 %"),
        (None, 0.05, 0.6, "changes in a picture is off by 60 %, more than 30 %"),
        (0.5, 0.01, None, "50 % of the classes stay"),
        (None, 0.05, 0.2, None),
        (None, 0.05, None, None),
        (0.95, 0.4, None, None),
    ],
)
def test_eight_bits_are_held_to_what_there_is(
    agreement: float | None, error: float, change: float | None, said: str | None
) -> None:
    answer = Proof(
        max_difference=1.0, mean_difference=0.1, argmax_agreement=agreement, n=5,
        relative_error=error, residual_error=change,
    )  # fmt: skip
    if said is None:
        proofs._check_int8(answer)
        return
    with pytest.raises(ExportError, match=said):
        proofs._check_int8(answer)


def test_eight_bits_of_a_denoiser_are_bounded_by_what_they_change(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spec = own()
    network, decided = compressed(spec)
    given = noisy_photos(True, 16, side=32)[0]
    images = pictures(spec, given)
    (found,) = export(network, decided, images, ["int8"], tmp_path / "int8")
    assert found.argmax_agreement is None
    assert found.relative_error is not None
    assert found.residual_error is not None
    assert 0 < found.relative_error < found.residual_error < 0.3
    assert "no classes" in (tmp_path / "int8" / "README.md").read_text(encoding="utf-8")
    monkeypatch.setattr(proofs, "INT8_RESIDUAL", found.residual_error / 2)
    with pytest.raises(ExportError, match="nothing was kept: export it as onnx"):
        export(network, decided, images, ["int8"], tmp_path / "refused")
    assert not (tmp_path / "refused").exists()


# --- what the dense network takes ---


def test_dense_bytes_are_those_of_the_network_the_name_stands_for_now(tmp_path: Path) -> None:
    sizes = []
    for width in (8, 32):
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)
        ).eval()
        spec = zoo.own_model(
            "again", lambda network=network: copy.deepcopy(network), (3, 16, 16), 3, task="other"
        )
        decided = plan(profile(network, spec), 0.7, layers="all")
        images = pictures(spec, noisy_photos(True, 5, side=16)[0])
        made: list[Artefact] = export(
            compress(network, decided), decided, images, ["safetensors", "onnx"],
            tmp_path / str(width),
        )  # fmt: skip
        sizes.append({item.format: item.dense_bytes for item in made})
    for form in ("safetensors", "onnx"):
        first, second = sizes[0][form], sizes[1][form]
        assert first is not None
        assert second is not None
        # 3·O·9 + O + O·O·9 + O scalars of four bytes: 3,232 against 40,704 bytes, and a frame.
        assert second > 4 * (3 * 32 * 9 + 32 + 32 * 32 * 9 + 32)
        assert first < 4 * (3 * 8 * 9 + 8 + 8 * 8 * 9 + 8) + 4000
