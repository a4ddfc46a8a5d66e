"""Names, specs, and the ways weights are found, downloaded, checked, read and refused."""

import copy
import dataclasses
import functools
import hashlib
import http.server
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from rsdtr.errors import RsdtrError, UnknownName, WeightsError
from rsdtr.models import model_loading, zoo
from rsdtr.models.model_loading import load_model
from rsdtr.models.zoo import (
    class_names,
    decaying_spectrum_,
    model_names,
    model_spec,
    weights_sha256,
)
from rsdtr.system import cache_folder

DIGITS = "digits_resnet20"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, and no folder of own weights."""
    monkeypatch.delenv("RSDTR_WEIGHTS", raising=False)
    monkeypatch.setenv("RSDTR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "weights"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the address under which a local server offers it."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def _publish(monkeypatch: pytest.MonkeyPatch, url: str, sha256: str) -> None:
    """Makes cifar10_resnet20 a model whose weights are at `url`."""
    spec = zoo._PUBLISHED["cifar10_resnet20"]
    file = url.rsplit("/", 1)[-1]
    changed = dataclasses.replace(spec, weights_file=file, weights_url=url, sha256=sha256)
    monkeypatch.setitem(zoo._PUBLISHED, "cifar10_resnet20", changed)


def _write_published(path: Path, prefix: str = "module.") -> nn.Module:
    """Weights as akamaster published them: DataParallel names under "state_dict"."""
    model = model_spec("cifar10_resnet20").build()
    state = OrderedDict((prefix + n, v) for n, v in model.state_dict().items())
    torch.save({"state_dict": state, "best_prec1": 91.73}, path)
    return model


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# --- names and specs ---


def test_names_begin_with_the_offline_default_and_hold_no_transformers() -> None:
    names = model_names()
    assert names[0] == DIGITS
    assert {
        "cifar10_resnet110",
        "cifar10_vgg19_bn",
        "resnet18",
        "vgg16_bn",
        "convnext_tiny",
    } <= set(names)
    assert len(names) == len(set(names))
    assert not [n for n in names if n.startswith(("vit", "swin", "maxvit"))]
    assert not [n for n in names if "quant" in n or "maskrcnn" in n or "r3d" in n]


def test_every_spec_says_where_its_weights_come_from() -> None:
    for name in model_names():
        spec = model_spec(name)
        assert spec.name == name
        assert len(spec.mean) == len(spec.std) == spec.input_shape[0]
        assert len(class_names(spec)) == spec.classes
        if name.startswith("cifar10_vgg"):
            assert spec.weights_file is None
        elif not spec.bundled:
            assert spec.sha256 is not None
            assert len(spec.sha256) >= 8
            assert spec.weights_url is not None
            assert spec.weights_file is not None
            assert spec.weights_url.endswith(spec.weights_file)
            assert spec.sha256[:8] in spec.weights_file


def test_a_torchvision_spec_is_what_its_published_weights_were_evaluated_with() -> None:
    spec = model_spec("resnet50")
    assert (spec.family, spec.input_shape, spec.resize, spec.classes) == (
        "imagenet",
        (3, 224, 224),
        232,
        1000,
    )
    assert spec.weights_file == "resnet50-11ad3fa6.pth"
    assert model_spec("efficientnet_b0").interpolation == "bicubic"


def test_an_unknown_name_is_answered_with_close_ones() -> None:
    with pytest.raises(UnknownName, match=r"no model 'cifar10_resnet21': did you mean .*resnet2"):
        model_spec("cifar10_resnet21")
    with pytest.raises(UnknownName, match="rsdtr models` lists them"):
        load_model("??")


def test_the_zoo_does_not_import_torchvision_before_it_is_asked() -> None:
    program = (
        "import sys; from rsdtr.models.zoo import model_spec; model_spec('digits_resnet20');"
        "assert 'torchvision' not in sys.modules; model_spec('resnet18');"
        "assert 'torchvision' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_normalise_is_zero_at_the_mean_and_one_a_deviation_above() -> None:
    spec = dataclasses.replace(model_spec("cifar10_resnet20"), mean=(0, 0.2, 1), std=(1, 0.4, 2))
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8).expand(3, 3).T.reshape(3, 3, 1, 1)
    expected = torch.tensor([[0, -0.5, -0.5], [0.2, 0, -0.4], [1, 2, 0]])  # (pixel, channel)
    torch.testing.assert_close(spec.normalise(pixels).flatten(1), expected)


# --- the bundled model, real published weights ---


def test_the_bundled_file_is_the_one_that_was_trained() -> None:
    spec = model_spec(DIGITS)
    assert spec.weights_file is not None
    assert _sha256(model_loading.ASSETS / spec.weights_file) == spec.sha256


def test_load_model_gives_eval_mode_and_the_same_weights_each_time() -> None:
    first, second = load_model(DIGITS), load_model(DIGITS)
    assert not any(module.training for module in first.modules())
    assert weights_sha256(first) == weights_sha256(second)


@pytest.mark.parametrize("name", ["cifar10_resnet20", "cifar10_resnet32", "cifar10_resnet56"])
def test_published_weights_are_found_in_the_folder_of_own_weights(offline: Path, name: str) -> None:
    model = load_model(name)
    file = offline / "data" / "weights" / str(model_spec(name).weights_file)
    published = torch.load(file, weights_only=True, map_location="cpu")["state_dict"]
    assert torch.equal(model.state_dict()["conv1.weight"], published["module.conv1.weight"])


# --- search order and download ---


def test_a_download_is_checked_kept_and_not_repeated(
    served: tuple[Path, str], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = served
    model = _write_published(folder / "resnet20.th")
    _publish(monkeypatch, f"{address}/resnet20.th", _sha256(folder / "resnet20.th")[:8])
    seen: list[tuple[int, int]] = []
    loaded = load_model("cifar10_resnet20", progress=lambda *done: seen.append(done))
    assert weights_sha256(loaded) == weights_sha256(model)
    size = (folder / "resnet20.th").stat().st_size
    assert seen[-1] == (size, size)
    assert [path.name for path in cache.iterdir()] == ["resnet20.th"]
    (folder / "resnet20.th").unlink()
    assert weights_sha256(load_model("cifar10_resnet20")) == weights_sha256(model)


def test_own_weights_come_before_the_cache(
    served: tuple[Path, str], cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    cache.mkdir(parents=True)
    model = _write_published(own / "resnet20.th")
    (cache / "resnet20.th").write_bytes(b"another file")
    _publish(monkeypatch, f"{served[1]}/resnet20.th", _sha256(own / "resnet20.th"))
    monkeypatch.setenv("RSDTR_WEIGHTS", str(own))
    assert weights_sha256(load_model("cifar10_resnet20")) == weights_sha256(model)


def test_a_wrong_hash_is_refused_wherever_the_file_comes_from(
    served: tuple[Path, str], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = served
    _write_published(folder / "resnet20.th")
    _publish(monkeypatch, f"{address}/resnet20.th", "0" * 64)
    message = r"gave a file with SHA-256 .*expected 00000000….*put it into .*cache.weights"
    with pytest.raises(WeightsError, match=message):
        load_model("cifar10_resnet20")
    assert list(cache.iterdir()) == []
    (folder / "resnet20.th").rename(cache / "resnet20.th")
    with pytest.raises(WeightsError, match=r"resnet20\.th has SHA-256 .*replace it by .*http"):
        load_model("cifar10_resnet20")


def test_no_answer_is_one_sentence_with_the_file_and_the_folder(
    served: tuple[Path, str], cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _publish(monkeypatch, f"{served[1]}/resnet20.th", "0" * 8)
    with pytest.raises(
        WeightsError, match=r"resnet20\.th could not be downloaded \(File not found"
    ):
        load_model("cifar10_resnet20")
    monkeypatch.setenv("RSDTR_WEIGHTS", str(tmp_path / "mine"))
    _publish(monkeypatch, "http://127.0.0.1:9/resnet20.th", "0" * 8)
    with pytest.raises(WeightsError, match=r"refused.*get http.*and put it into .*mine$") as caught:
        load_model("cifar10_resnet20")
    assert "\n" not in str(caught.value)
    assert list(cache.iterdir()) == []


def test_the_cache_folder_is_the_platforms_unless_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RSDTR_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert cache_folder.cache_folder() == Path("/caches/rsdtr")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder.cache_folder() == Path.home() / ".cache" / "rsdtr"
    monkeypatch.setenv("RSDTR_CACHE", "/mine")
    assert cache_folder.cache_folder() == Path("/mine")


def test_a_model_without_published_weights_says_how_to_get_some() -> None:
    with pytest.raises(WeightsError, match=r"no published weights: give your own file.*finetune"):
        load_model("cifar10_vgg16_bn")


# --- own files ---


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".th", ".pt"])
def test_own_weights_are_read_from_every_kind_of_file(tmp_path: Path, suffix: str) -> None:
    model = model_spec(DIGITS).build()
    path = tmp_path / f"own{suffix}"
    if suffix == ".safetensors":
        safetensors.torch.save_file(model.state_dict(), path)
    else:
        torch.save(model.state_dict(), path)
    loaded = load_model(DIGITS, path)
    assert weights_sha256(loaded) == weights_sha256(model)
    assert weights_sha256(load_model(DIGITS, str(path))) == weights_sha256(model)


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"does not exist: give the path of a weights file"):
        load_model(DIGITS, tmp_path / "no.pth")
    with pytest.raises(WeightsError, match=r"not a weights file: give one of \.safetensors"):
        load_model(DIGITS, tmp_path / "no.zip")
    for name in ("bad.pth", "bad.safetensors"):
        (tmp_path / name).write_bytes(b"nothing of the kind")
        with pytest.raises(WeightsError, match=r"cannot be read: give a \.safetensors"):
            load_model(DIGITS, tmp_path / name)
    torch.save(model_spec(DIGITS).build(), tmp_path / "whole.pth")  # needs code to unpickle
    with pytest.raises(WeightsError, match="cannot be read: give"):
        load_model(DIGITS, tmp_path / "whole.pth")
    for number, content in enumerate([[1, 2], {}, {"epoch": 3}]):
        torch.save(content, tmp_path / f"{number}.pth")
        with pytest.raises(WeightsError, match="holds no state_dict: save one with"):
            load_model(DIGITS, tmp_path / f"{number}.pth")


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    state = model_spec(DIGITS).build().state_dict()
    del state["bn1.weight"]
    state["linear.bias"] = torch.zeros(7)
    for number in range(5):
        state[f"extra{number}"] = torch.zeros(1)
    safetensors.torch.save_file(state, tmp_path / "own.safetensors")
    expected = (
        r"own\.safetensors does not fit the model: missing bn1\.weight \(1\); "
        r"unexpected extra0, extra1, extra2, … \(5\); "
        r"mis-shaped linear\.bias \(7,\) for \(10,\) \(1\); "
        r"give weights of this architecture, or name the model that they are of$"
    )
    with pytest.raises(WeightsError, match=expected):
        load_model(DIGITS, tmp_path / "own.safetensors")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
def test_weights_that_are_not_numbers_are_named(tmp_path: Path, value: float) -> None:
    state = model_spec(DIGITS).build().state_dict()
    wide = state["layer1.0.conv1.weight"].double()  # which holds 1e300; the model does not
    wide[0, 0, 0, 0] = value
    state["layer1.0.conv1.weight"] = wide
    torch.save(state, tmp_path / "own.pth")
    message = r"NaN or infinite values in layer1\.0\.conv1\.weight \(1\): give weights"
    with pytest.raises(WeightsError, match=message):
        load_model(DIGITS, tmp_path / "own.pth")


def test_old_files_without_batchnorm_counters_are_read(tmp_path: Path) -> None:
    model = model_spec(DIGITS).build()
    state = {n: v for n, v in model.state_dict().items() if not n.endswith("batches_tracked")}
    torch.save(state, tmp_path / "old.pth")
    assert weights_sha256(load_model(DIGITS, tmp_path / "old.pth")) == weights_sha256(model)


# --- torchvision's peculiar families ---


def test_densenets_old_names_are_translated(tmp_path: Path) -> None:
    model = model_spec("densenet121").build()
    old = OrderedDict()
    for name, value in model.state_dict().items():
        for part in ("norm", "conv"):
            for number in "12":
                if "denselayer" in name:
                    name = name.replace(f".{part}{number}.", f".{part}.{number}.")
        old[name] = value
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, tmp_path / "densenet.pth")
    loaded = load_model("densenet121", tmp_path / "densenet.pth")
    assert weights_sha256(loaded) == weights_sha256(model)


def test_googlenet_does_without_the_published_auxiliary_classifiers(tmp_path: Path) -> None:
    state = model_spec("googlenet").build().state_dict()
    state["aux1.conv.conv.weight"] = torch.zeros(128, 512, 1, 1)
    torch.save(state, tmp_path / "googlenet.pth")
    model = load_model("googlenet", tmp_path / "googlenet.pth")
    assert model.train()(torch.randn(2, 3, 64, 64)).shape == (2, 1000)


def test_mnasnet_is_read_from_safetensors_which_keep_no_version(tmp_path: Path) -> None:
    model = model_spec("mnasnet0_5").build()
    safetensors.torch.save_file(model.state_dict(), tmp_path / "m.safetensors")
    loaded = load_model("mnasnet0_5", tmp_path / "m.safetensors")
    assert weights_sha256(loaded) == weights_sha256(model)


# --- beyond classification, and networks of one's own ---


@pytest.fixture
def no_own_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test makes known is forgotten after it."""
    monkeypatch.setattr(zoo, "_OWN", dict(zoo._OWN))


@pytest.mark.parametrize(
    ("name", "task", "side", "classes", "hash"),
    [
        ("deeplabv3_resnet50", "segmentation", 520, 21, "cd0a2569"),
        ("lraspp_mobilenet_v3_large", "segmentation", 520, 21, "d234d4ea"),
        ("fasterrcnn_resnet50_fpn", "detection", 800, 91, "258fb6c6"),
        ("ssd300_vgg16", "detection", 300, 91, "b556d3b4"),
        ("resnet18", "classification", 224, 1000, "f37072fd"),
    ],
)
def test_the_specs_of_networks_that_answer_masks_or_boxes(
    name: str, task: str, side: int, classes: int, hash: str
) -> None:
    spec = model_spec(name)
    assert (spec.task, spec.input_shape, spec.classes) == (task, (3, side, side), classes)
    assert spec.sha256 == hash
    assert spec.data == (None if task == "classification" else "photos")
    assert len(class_names(spec)) == classes
    if task == "detection":  # it normalises what it is given by itself
        assert (spec.mean, spec.std) == ((0, 0, 0), (1, 1, 1))


@pytest.mark.usefixtures("no_own_models")
def test_a_network_of_ones_own_is_a_model_with_its_weights() -> None:
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    spec = zoo.own_model("mine", lambda: copy.deepcopy(network), (2, 8, 9), 3, std=(0.5, 2))
    assert model_spec("mine") is spec
    assert model_names()[len(zoo._PUBLISHED)] == "mine"
    assert (spec.task, spec.mean, spec.std) == ("classification", (0, 0), (0.5, 2))
    assert class_names(spec) == ("0", "1", "2")
    assert weights_sha256(load_model("mine")) == weights_sha256(network)
    again = zoo.own_model("mine", lambda: network, (2, 8, 9), 3, task="segmentation")
    assert again.task == model_spec("mine").task == "segmentation"
    assert again.data == "photos"


@pytest.mark.usefixtures("no_own_models")
def test_a_network_of_ones_own_that_cannot_be_one_is_refused() -> None:
    def build() -> nn.Module:
        return nn.Conv2d(3, 3, 3)

    for taken in (DIGITS, "resnet18", "ssd300_vgg16"):
        with pytest.raises(RsdtrError, match=f"{taken} is a model of this program: give your"):
            zoo.own_model(taken, build, (3, 8, 8), 3)
    with pytest.raises(RsdtrError, match=r"input \(3, 8, 8\), 3 classes, 1 means and 3 deviations"):
        zoo.own_model("mine", build, (3, 8, 8), 3, mean=(0.5,))
    with pytest.raises(RsdtrError, match=r"0 classes.*at least one class"):
        zoo.own_model("mine", build, (3, 8, 8), 0)
    with pytest.raises(UnknownName, match="no model 'mine'"):
        model_spec("mine")


# --- weights for timing, hashes ---


def test_weights_none_have_a_decaying_spectrum_and_leave_the_random_state_alone() -> None:
    before = torch.get_rng_state()
    first, second = load_model(DIGITS, "none"), load_model(DIGITS, "none")
    assert torch.equal(before, torch.get_rng_state())
    assert weights_sha256(first) == weights_sha256(second)
    kernel = first.get_parameter("layer3.0.conv2.weight")  # (64, 64, 3, 3)
    spectrum = torch.linalg.svdvals(kernel.detach().flatten(1).double())
    expected = torch.exp(-6 * torch.arange(64) / 63).double()
    torch.testing.assert_close(spectrum / spectrum[0], expected, atol=1e-5, rtol=1e-3)


def test_a_decaying_spectrum_keeps_the_norm_of_every_kernel() -> None:
    model = nn.Sequential(nn.Conv2d(4, 6, (3, 1)), nn.Conv2d(6, 6, 3, groups=6))
    norms = [layer.get_parameter("weight").norm().item() for layer in model]
    assert decaying_spectrum_(model) is model
    after = [layer.get_parameter("weight").norm().item() for layer in model]
    assert after == pytest.approx(norms, rel=1e-5)


def test_the_hash_sees_names_types_shapes_and_bytes() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    same = nn.Sequential(nn.Linear(2, 2))
    same.load_state_dict(model.state_dict())
    assert weights_sha256(same) == weights_sha256(model)
    renamed = nn.Sequential(OrderedDict(other=model[0]))
    reshaped = nn.Sequential(nn.Linear(1, 4))
    hashes = {weights_sha256(m) for m in (model, renamed, reshaped)}
    with torch.no_grad():
        same[0].get_parameter("bias")[1] += 1e-6
    hashes |= {weights_sha256(same), weights_sha256(model.double())}
    assert len(hashes) == 5
