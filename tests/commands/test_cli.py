"""The command line: its JSON, its files, its exit codes and its sentences."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from rsdtr.baselines import tensorized_ring
from rsdtr.compressed.saved import load
from rsdtr.errors import RsdtrError
from rsdtr.jobs import job_queue
from rsdtr.measuring.accuracy import Accuracy
from rsdtr.models.model_loading import ASSETS
from rsdtr.models.zoo import model_names, weights_sha256
from rsdtr.planning.plan import CompressionPlan
from rsdtr.recovery.checkpoint import EpochResult
from rsdtr.recovery.finetune import Step
from rsdtr.recovery.options import DistillOptions
from tests.support.checkout import ROOT
from tests.support.command_line import done, refused, run

NAME = "digits_resnet20"
ONE_LAYER = ["--layers", "layer3.2.conv2", "--eps", "0.7"]
# `rsdtr.cli` is the module and `cli.cli` the group; monkeypatch needs the former.
module: ModuleType = importlib.import_module("rsdtr.commands.cli")
training: ModuleType = importlib.import_module("rsdtr.commands.finetune")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("cli") / "ring"
    done("compress", NAME, *ONE_LAYER, "--recalibrate", "64", "--out", str(out))
    return out


def test_models_lists_the_zoo():
    found = json.loads(done("models", "--json").stdout)["models"]
    assert tuple(row["name"] for row in found) == model_names()
    digits = next(row for row in found if row["name"] == NAME)
    assert digits["input_shape"] == [1, 16, 16]
    assert digits["weights"] == "bundled"
    lines = done("models").stdout.splitlines()
    assert len(lines) == 1 + len(model_names())
    assert [NAME, "classification", "1×16×16", "10", "bundled"] in map(str.split, lines)
    lraspp = next(line for line in lines if line.startswith("lraspp"))
    assert lraspp.split()[1:] == ["segmentation", "3×520×520", "21", "download"]


def test_plan_prints_one_json_object_and_progress_elsewhere():
    result = done("plan", NAME, *ONE_LAYER, "--rule", "paper", "--objective", "storage", "--json")
    found = json.loads(result.stdout)
    assert list(found) == [
        "model", "eps", "rule", "objective", "pcr", "fcr", "params", "macs", "seconds", "layers",
        "not_counted", "target", "fcr_run", "measured_on",
    ]  # fmt: skip
    assert list(found["layers"][0]) == [
        "name", "shape", "stride", "kept_dense", "shift", "r0", "ranks", "storage", "form",
        "macs", "relative_error", "eps", "macs_run", "latency_ms", "runs_dense",
    ]  # fmt: skip
    ring = next(layer for layer in found["layers"] if layer["name"] == "layer3.2.conv2")
    r0, r1, r2, r3 = ring["ranks"]
    assert ring["storage"] == r0 * 64 * r1 + r1 * 64 * r2 + r2 * 3 * r3 + r3 * 3 * r0
    assert found["params"]["original"] - found["params"]["compressed"] == 36_864 - ring["storage"]
    assert 0 < ring["relative_error"] <= 0.7
    assert CompressionPlan.from_json(result.stdout).layers[-1].name == "layer3.2.conv2"
    assert "planning" in result.stderr


def test_plan_is_a_table_for_people():
    lines = done("plan", NAME, *ONE_LAYER).stdout.splitlines()
    assert lines[0].split()[:6] == ["layer", "kernel", "ε_p", "shift", "r0", "ranks"]
    ring = next(line for line in lines if line.startswith("layer3.2.conv2"))
    assert "64×64×3×3" in ring
    assert "36,864 → " in ring
    assert "outside the layer policy 'layer3.2.conv2'" in lines[1]
    assert lines[-1].startswith(f"{NAME} at ε_p 0.7: PCR 1.")


def test_several_globs():
    planned = done("plan", NAME, "--layers", "layer1.0.*", "--layers", "layer1.1.*", "--eps", "0.9",
                   "--weights", "none", "--json")  # fmt: skip
    layers = json.loads(planned.stdout)["layers"]
    chosen = {layer["name"] for layer in layers if layer["ranks"]}
    assert chosen == {f"layer1.{block}.conv{conv}" for block in (0, 1) for conv in (1, 2)}


def test_compress_writes_what_load_reads(folder):
    saved = load(folder)
    assert saved.plan.eps == 0.7
    assert saved.metrics == {"recalibrated": {"data": "digits", "images": 64}}


def test_compress_refits_after_recalibrating(tmp_path):
    out = tmp_path / "ring"
    result = done(
        "compress", NAME, *ONE_LAYER, "--recalibrate", "64", "--refit", "40", "--out", str(out)
    )
    assert "refitting on digits" in result.stderr
    metrics = load(out).metrics
    assert metrics["recalibrated"] == {"data": "digits", "images": 64}
    refitted = metrics["refitted"]
    assert (refitted["data"], refitted["images"]) == ("digits", 40)
    first, *_, cores, norms = refitted["steps"]
    assert first["name"] == "layer3.2.conv2"
    assert (cores["name"], norms["name"]) == ("cores", "BatchNorm")
    assert first["kept"] == (first["after"] < first["before"])


def test_compress_distils_after_refitting_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(DistillOptions, "steps_for", lambda *_: 5)
    out = tmp_path / "ring"
    asked = ("--refit", "40", "--distill-unlabelled", "40", "--out", str(out))
    result = done("compress", NAME, *ONE_LAYER, *asked)
    assert "distilling on digits, without labels" in result.stderr
    metrics = load(out).metrics
    assert metrics["refitted"]["images"] == 40
    distilled = metrics["distilled"]
    assert (distilled["data"], distilled["images"], distilled["device"]) == ("digits", 40, "cpu")
    assert distilled["options"]["precision"] in ("float32", "bfloat16")
    judged = distilled["judged"]
    assert judged["kept"] == (judged["after"] < judged["before"])
    assert f"{judged['before']:.4f} → {judged['after']:.4f}" in result.stderr


def test_evaluate_a_folder_and_a_model(folder):
    found = json.loads(done("evaluate", str(folder), "--limit", "60", "--json").stdout)
    assert list(found) == [
        "model", "data", "accuracy", "interval", "n", "params", "macs", "bytes",
    ]  # fmt: skip
    saved = load(folder)
    assert (found["model"], found["data"], found["n"]) == (NAME, "digits", 60)
    assert found["interval"][0] <= found["accuracy"] <= found["interval"][1]
    assert found["params"] == sum(p.numel() for p in saved.model.parameters())
    assert found["macs"] == saved.plan.macs.compressed
    assert found["bytes"] == (folder / "model.safetensors").stat().st_size
    text = done("evaluate", NAME, "--limit", "60").stdout
    assert "of 60 images (95 % interval" in text
    assert f"{saved.plan.params.original:,} parameters, {saved.plan.macs.original:,} MACs" in text


TUNING = ("--data", "digits", "--epochs", "1", "--lr", "0.001")


def test_finetune_trains_and_saves_elsewhere(folder, tmp_path):
    out = tmp_path / "tuned"
    result = done("finetune", str(folder), *TUNING, "--out", str(out))
    assert "epoch 1 of 1: loss " in result.stderr
    assert result.stdout.startswith(f"{out}: best validation accuracy 9")
    tuned, before = load(out), load(folder)
    assert tuned.metrics["recalibrated"] == before.metrics["recalibrated"]
    (epoch,) = tuned.metrics["finetuned"]["epochs"]
    assert epoch["validation"]["percent"] > 90
    assert tuned.metrics["finetuned"]["options"]["lr"] == 0.001
    assert weights_sha256(tuned.model) != weights_sha256(before.model)


def test_finetune_writes_back(folder, tmp_path, monkeypatch):
    own = shutil.copytree(folder, tmp_path / "own")

    def trained(model, splits, options, **_):
        with torch.no_grad():
            model.linear.bias.fill_(7)
        yield EpochResult(1, 1, 0.5, Accuracy.of(9, 10), options.lr, 0.1, best=True)

    monkeypatch.setattr(training, "finetuned", trained)
    assert done("finetune", str(own), *TUNING).stdout.startswith(f"{own}: best validation acc")
    assert load(own).model.linear.bias.tolist() == [7] * 10
    assert [path.name for path in tmp_path.iterdir()] == ["own"]


def test_a_training_that_fails_changes_nothing(folder, tmp_path, monkeypatch):
    own = shutil.copytree(folder, tmp_path / "own")

    def diverging(model, splits, options, *, on_step, **_):
        with torch.no_grad():
            model.linear.bias.fill_(torch.nan)
        on_step(Step(1, 9, 2.0, 0.001))
        raise RsdtrError("the loss became nan at step 2 of 9: give a learning rate below 0.001")
        yield

    monkeypatch.setattr(training, "finetuned", diverging)
    assert "the loss became nan" in refused("finetune", str(own), *TUNING)
    assert weights_sha256(load(own).model) == weights_sha256(load(folder).model)


def test_a_training_is_resumed_with_every_option(folder, tmp_path, monkeypatch):
    words = (
        "finetune", str(folder), "--data", "digits", "--epochs", "2", "--optimizer", "adamw",
        "--distill", "--temperature", "2", "--ema", "0.9", "--freeze-bn", "--batch-size", "256",
    )  # fmt: skip
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    done(*words, "--out", str(whole))
    original = training.finetuned

    def interrupted(*args, **named):
        yield next(original(*args, **named))
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "finetuned", interrupted)
    assert run(*words, "--out", str(parts)).exit_code == 130
    assert [path.name for path in tmp_path.glob("parts*")] == ["parts.checkpoint.safetensors"]
    monkeypatch.setattr(training, "finetuned", original)
    assert "belongs to another training" in refused(
        *words, "--seed", "1", "--out", str(parts), "--resume"
    )
    result = done(*words, "--out", str(parts), "--resume")
    assert "s in all, 0." in result.stderr
    assert weights_sha256(load(parts).model) == weights_sha256(load(whole).model)
    options = load(parts).metrics["finetuned"]["options"]
    assert (options["lr"], options["distill"], options["ema"]) == (0.002, 0.5, 0.9)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["parts", "whole"]
    assert "is not there: nothing was interrupted" in refused(
        *words, "--out", str(parts), "--resume"
    )


@pytest.mark.usefixtures("own_cache")
def test_a_training_is_queued_as_a_job(folder, monkeypatch):
    monkeypatch.setattr(job_queue, "command", lambda _: ["/no/such/program"])
    words = ("finetune", str(folder), *TUNING, "--job")
    text = done(*words).stdout
    identity, _, rest = text.partition(": ")
    assert rest == f"failed, {NAME} at ε_p 0.7, 1 epoch on digits\n"
    (found,) = json.loads(done("jobs", "list", "--json").stdout)["jobs"]
    assert (found["id"], found["message"][:26]) == (identity, "it could not be started (N")
    assert done(*words).stdout == text  # equal content: the same job, tried again
    assert "--job keeps its result and its state itself" in refused(*words, "--resume")
    assert "no job has the id 'zz'" in refused("jobs", "show", "zz")


def test_export_proves_what_it_writes(folder, tmp_path):
    out = tmp_path / "files"
    result = done("export", str(folder), "--format", "safetensors", "--out", str(out), "--json")
    found = json.loads(result.stdout)
    assert found["model"] == NAME
    artefact, python = found["artefacts"]
    assert python["path"] == str(out / "rsdtr_model.py")
    assert artefact["path"] == str(out / "model.safetensors")
    assert artefact["max_difference"] < 1e-4
    assert load(out).metrics == load(folder).metrics
    assert f"SHA-256 of the weights</td><td>{weights_sha256(load(out).model)}" in (
        (out / "report.html").read_text(encoding="utf-8")
    )
    text = done("export", str(out), "--format", "safetensors", "--out", str(out)).stdout
    assert text.splitlines()[1].startswith(str(out / "model.safetensors"))
    assert "100 % of 64" in text


def test_a_network_of_own_weights_credits_no_others(tmp_path):
    own = shutil.copy(ASSETS / f"{NAME}.safetensors", tmp_path / "mine.safetensors")
    for weights, told in (own, "given as `mine.safetensors`"), ("none", "seeded ones that nobody"):
        folder, out = tmp_path / f"ring of {told[:5]}", tmp_path / f"files of {told[:5]}"
        done("compress", NAME, *ONE_LAYER, "--weights", str(weights), "--out", str(folder))
        done("export", str(folder), "--format", "safetensors", "--out", str(out))
        text = (out / "README.md").read_text(encoding="utf-8")
        assert f"Architecture: He et al. 2016; weights: {told}" in text
        assert "train_digits" not in text


@pytest.mark.usefixtures("own_cache")
def test_compress_in_the_fastest_forms(tmp_path):
    out = tmp_path / "ring"
    result = done("compress", NAME, *ONE_LAYER, "--fast", "2", "--out", str(out))
    assert "(as it runs: " in result.stdout
    saved = load(out)
    on = saved.plan.measured_on
    assert (on.batch, on.threads, on.mode) == (2, 2, "inference")
    layer = saved.plan.layers[-1]
    assert layer.latency_ms.compressed <= layer.latency_ms.original


VARIANTS = ["dense", "paper", "pipeline", "O|IHW", "I|HWO", "IH|WO", "auto"]


@pytest.fixture
def own_cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("RSDTR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_bench_times_network_and_layers_in_every_form(folder, own_cache):
    words = ["--batch", "1,2", "--runs", "2", "--threads", "1", "--engine", "eager"]
    words += ["--scope", "all"]
    found = json.loads(done("bench", str(folder), *words, "--json").stdout)
    assert list(found) == ["machine", "threads", "rows"]
    assert found["threads"] == 1
    assert [(row["batch"], row["scope"], row["variant"]) for row in found["rows"]] == [
        (batch, scope, variant)
        for batch in (1, 2)
        for scope in ("network", "layer3.2.conv2")
        for variant in VARIANTS
    ]
    assert {row["engine"] for row in found["rows"]} == {"eager"}
    assert list(found["rows"][0]) == [
        "scope", "engine", "batch", "variant", "median_ms", "iqr_ms",
    ]  # fmt: skip
    assert all(row["median_ms"] > 0 for row in found["rows"])
    assert not (own_cache / "device").exists()  # the times of layers alone are another matter


@pytest.mark.usefixtures("own_cache")
def test_bench_of_a_model_is_a_table_for_people():
    words = ["--runs", "2", "--threads", "1", "--engine", "eager", "--seconds", "1"]
    ended = done("bench", NAME, *ONE_LAYER, "--weights", "none", *words)
    lines = ended.stdout.splitlines()
    assert f"step 1 of 2, timing forms inside {NAME} at batch 1: " in ended.stderr
    assert f"step 2 of 2, timing {NAME} at batch 1 in eager: " in ended.stderr
    assert lines[0].startswith(f"{NAME} on ")
    assert [line.split()[:4] for line in lines[2:]] == [
        ["network", "eager", "1", variant] for variant in VARIANTS
    ]
    assert lines[2].split()[-1] == "1.00"


def test_bad_requests_get_one_sentence(folder, tmp_path):
    assert "no model 'digits_resnet'" in refused("plan", "digits_resnet")
    assert "ε_p is 1.5, expected" in refused("plan", NAME, "--eps", "1.5")
    assert "'much' is not a valid float" in refused("plan", NAME, "--eps", "much")
    assert "Missing argument 'MODEL'" in refused("plan")
    assert "no layer of digits_resnet20 matches 'x*'" in refused("plan", NAME, "--layers", "x*")
    assert "'tightest' is not one of" in refused("plan", NAME, "--rule", "tightest")
    two = ("--target-pcr", "3", "--eps", "0.5")
    assert "give one of --eps, --target-pcr" in refused("plan", NAME, *two)
    assert "cannot reach PCR ≥ 900" in refused("plan", NAME, "--target-pcr", "900")
    assert "no layer 'conv9'" in refused("plan", NAME, "--keep-dense", "conv9")
    assert "give NAME=EPS" in refused("plan", NAME, "--layer-eps", "conv1")
    assert "--calibrate measures damage" in refused("plan", NAME, "--calibrate", "64")
    assert "No such command 'fold'" in refused("fold")
    assert "does not exist" in refused("plan", NAME, "--weights", str(tmp_path / "no.safetensors"))
    assert "holds no manifest.json" in refused("evaluate", str(tmp_path))
    assert "holds no manifest.json" in refused("evaluate", str(tmp_path / "nothing"))
    assert "no model 'nothing'" in refused("evaluate", "nothing")
    assert "--weights is for a model" in refused("evaluate", str(folder), "--weights", "none")
    assert (
        "--data is what --calibrate, --recalibrate, --refit and --distill-unlabelled read"
        in refused("compress", NAME, "--data", "digits", "--out", str(tmp_path / "new"))
    )
    assert "--batch is '1,x': give whole" in refused("bench", NAME, "--batch", "1,x")
    assert "--batch is '1,0': give batches" in refused("bench", NAME, "--batch", "1,0")
    assert "'tvm' is no engine: choose from eager" in refused("bench", NAME, "--engine", "tvm")
    assert "a saved folder has a plan" in refused("bench", str(folder), "--eps", "0.5")
    assert "'torchscript' is not one of" in refused(
        "export", str(folder), "--format", "torchscript", "--out", str(tmp_path / "new")
    )
    assert list(tmp_path.iterdir()) == []


def test_a_taken_place_is_refused_before_the_work(tmp_path, monkeypatch):
    (tmp_path / "thesis.txt").write_text("years of work")

    def late(*_: object) -> None:
        raise AssertionError("the place must be looked at first")

    monkeypatch.setattr(module, "plan_of", late)
    assert "holds no model" in refused("compress", NAME, "--out", str(tmp_path))


def test_without_a_command_the_help_is_shown():
    assert "Commands:" in done("--help").stdout
    result = run()
    assert result.exit_code == 2
    assert "Commands:" in result.stderr


def test_interrupted_is_quiet(monkeypatch):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "plan_of", interrupt)
    result = run("plan", NAME)
    assert result.exit_code == 130
    assert result.stdout.strip() == ""
    assert result.stderr.strip() == ""


def test_what_is_our_fault_is_one_line_unless_debugged(monkeypatch):
    def fail(*_: object) -> None:
        raise ZeroDivisionError("by us\nsecond line")

    monkeypatch.setattr(module, "plan_of", fail)
    result = run("plan", NAME)
    assert result.exit_code == 1
    assert result.stderr == (
        "internal error: ZeroDivisionError: by us (RSDTR_DEBUG=1 shows where)\n"
    )
    monkeypatch.setenv("RSDTR_DEBUG", "1")
    assert "Traceback" in run("plan", NAME).stderr


def test_app_starts_streamlit_where_the_settings_are(monkeypatch):
    started: list[tuple[list[str], Path]] = []

    def run_it(command: list[str], *, cwd: Path, check: bool) -> subprocess.CompletedProcess[str]:
        started.append((command, cwd))
        return subprocess.CompletedProcess(command, 3)

    monkeypatch.setattr(subprocess, "run", run_it)
    assert run("app").exit_code == 3
    ((command, cwd),) = started
    assert command == [sys.executable, "-m", "rsdtr.ui.server"]
    assert (cwd / "app.py").is_file()
    assert (cwd / ".streamlit" / "config.toml").is_file()


@pytest.mark.parametrize(
    ("command", "package", "extra"),
    [(["app"], "streamlit", "app"), (["ratio", NAME], "opt_einsum", "compare")],
)
def test_what_an_extra_brings_is_one_sentence_where_it_is_missing(
    command, package, extra, monkeypatch
):
    monkeypatch.setitem(sys.modules, package, None)
    tensorized_ring._contraction_macs.cache_clear()  # what another test has asked needs no package
    sentence = f"{package} is not installed: install it with pip install 'rsdtr[{extra}]'"
    assert refused(*command) == f"Error: {sentence}"


def test_as_a_program_the_json_is_alone_on_stdout():
    command = [sys.executable, "-m", "rsdtr", "plan", NAME, *ONE_LAYER, "--json"]
    result = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True,
        env=os.environ | {"PYTHONWARNINGS": "error"},
    )  # fmt: skip
    assert json.loads(result.stdout)["model"] == NAME
    assert "planning" in result.stderr
