"""Who may import whom, checked from the source; and checks of these checks."""

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

import rsdtr
from tests.support.checkout import ROOT

PACKAGE = ROOT / "rsdtr"
# Data flows one way: a package imports only from itself and from those before it.
PACKAGES = (
    "errors", "typing",
    "system", "ring", "search", "models", "data", "planning", "compressed", "measuring", "recovery",
    "exports", "onnx_files", "baselines", "charts", "learn", "autopilot", "jobs", "commands",
    "notebook", "ui",
)  # fmt: skip
# Within ui: what all pages share, then a folder for each page, which know nothing of each other.
ROOMS = ("shared", "plan", "jobs")
# Only these may draw; a module of charts that draws nothing is a table.
DRAWING = ("charts", "learn", "notebook", "ui")
# The public names of the packages: README, docs and notebooks import from nowhere else.
PUBLIC = {
    "ring": {"FORMS", "Form", "TensorRing", "form_macs"},
    "search": {
        "COARSE", "GRID", "Candidate", "KernelSpectra", "best_tight", "candidates", "ring_svd",
        "smallest",
    },
    "models": {
        "ModelSpec", "WeightsSource", "load_model", "model_names", "model_spec", "own_model",
        "weights_sha256",
    },
    "data": {"DataSplits", "LabelledImages", "images_of", "load_data"},
    "planning": {
        "Choices", "CompressionPlan", "ModelProfile", "Target", "layer_damages",
        "measure_damage", "plan", "profile", "solve", "total_damage", "uniform_front",
    },
    "compressed": {"RingNetwork", "TRConv2d", "TRLinear", "compress", "fuse", "load", "save"},
    "measuring": {
        "accuracy", "eager", "fastest_rings", "fidelity", "in_one_form", "measured_forms",
        "measured_profile", "network_cases", "network_latency", "timings", "use_forms",
    },
    "recovery": {
        "CurveKey", "CurvePoint", "DistillOptions", "FinetuneOptions", "RefitOptions",
        "TradeoffCurve", "dense_curve", "distill", "finetune",
        "load_curve", "measure_curve", "recalibrate", "refit",
    },
    "exports": {"export", "verify"},
    "onnx_files": {
        "CompressedOnnx", "NetworkInputs", "OnnxNetwork", "compress_onnx", "network_inputs",
        "read_onnx", "refit_onnx", "verify_onnx",
    },
    "baselines": {"METHODS", "Cell", "Comparison"},
    "autopilot": {"Budget", "Found", "Trial", "auto", "smallest_within"},
    "charts": {
        "FrontPoint", "RatioPoint", "Stage", "candidates_figure", "fronts_figure", "layers_figure",
        "layers_table", "ratios_figure", "report_html", "ring_figure", "spectra",
        "spectra_figure", "stages_figure",
    },
    "learn": {
        "cores_figure", "cut", "cut_figure", "damages_figure", "forms_figure", "forms_macs",
        "maps_figure", "ordered_bond", "reaches", "rebuilt", "rebuilt_figure", "slices_figure",
        "splits_figure", "stages", "turns",
    },
    "jobs": {"Job", "cancel", "find", "listed", "resume"},
    "jobs.kinds": {
        "distilled_model", "queue_autopilot", "queue_curve", "queue_distillation",
        "best_model", "curve", "fastest_plan", "queue_comparison", "queue_export", "queue_fastest",
        "queue_finetuning", "queue_layer_times", "queue_refit", "queue_search", "queue_study",
        "refit_model",
    },
    "notebook": {"Explorer", "explore"},
}  # fmt: skip


def imports(source: str, package: str = "rsdtr") -> Iterator[str]:
    """Full dotted names of all that the source imports, wherever in the file."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = f"{package}." * bool(node.level) + (node.module or "")
            yield base.rstrip(".")
            yield from (f"{base.rstrip('.')}.{name.name}" for name in node.names)


def room(module: str) -> tuple[str, str]:
    """The package of a module below rsdtr, and its folder there."""
    parts = [*module.split("."), "", ""]
    return parts[0], parts[1]


def may_import(module: str, other: str) -> bool:
    """Whether the order of the packages, and that of the rooms of ui, lets one import the other."""
    (here, my_room), (there, its_room) = room(module), room(other)
    assert here in PACKAGES, f"{module} has no place in the flow: give its package one above"
    if here != there:
        return there not in PACKAGES or PACKAGES.index(there) < PACKAGES.index(here)
    if here != "ui" or my_room == its_room or its_room == "":
        return True
    if my_room in ROOMS:
        return its_room in ROOMS and ROOMS.index(its_room) < ROOMS.index(my_room)
    return its_room in ROOMS


def imported_modules(module: str, source: str, every: set[str]) -> set[str]:
    """Modules below rsdtr that the source imports; every: all that there are."""
    found = {name.removeprefix("rsdtr.") for name in imports(source) if name.startswith("rsdtr.")}
    return {name for name in found if name in every} - {module}


def against_the_flow(module: str, source: str, every: set[str] | None = None) -> list[str]:
    """The modules of this package that `module` may not import, but does."""
    found = imported_modules(module, source, every or set(graph()))
    return sorted(name for name in found if not may_import(module, name))


def circles(edges: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other, however far around."""
    reached = {name: set(others) for name, others in edges.items()}
    for middle in edges:  # Warshall
        for name in edges:
            if middle in reached[name]:
                reached[name] |= reached[middle]
    rounds = {frozenset(o for o in edges if o in reached[n] and n in reached[o]) for n in edges}
    return sorted(sorted(group) for group in rounds if group)


def forbidden(source: str, *libraries: str) -> list[str]:
    return sorted(name for name in imports(source) if name.split(".")[0] in libraries)


UNPICKLERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
RUN_CODE = ("torch.jit.load", "torch.package.PackageImporter", "torch.hub.load", "jit.load")


def keywords(call: ast.Call) -> dict[str, object]:
    return {
        word.arg: word.value.value if isinstance(word.value, ast.Constant) else word.value
        for word in call.keywords
        if word.arg is not None
    }


def unsafe_loads(source: str) -> list[int]:
    """Lines that could run code from a file: an unpickler, or a torch.load that is one."""
    lines = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import) and any(n.name in UNPICKLERS for n in node.names):
            lines.add(node.lineno)
        if isinstance(node, ast.ImportFrom):
            # `from torch import load` would hide the call from this test.
            loads = any(name.name in ("load", "read_pickle") for name in node.names)
            library = str(node.module).partition(".")[0]
            if library in UNPICKLERS or (loads and library in ("torch", "numpy", "pandas")):
                lines.add(node.lineno)
        if not isinstance(node, ast.Call):
            continue
        name, said = ast.unparse(node.func), keywords(node)
        if (
            (name == "torch.load" and said.get("weights_only") is not True)
            or name in RUN_CODE
            or name.endswith("read_pickle")
            or said.get("allow_pickle", False) is not False
        ):
            lines.add(node.lineno)
    return sorted(lines)


def modules() -> list[Path]:
    found = sorted(path for path in PACKAGE.rglob("*.py") if path.stem != "__init__")
    assert len(found) > 100
    return found


def name_of(path: Path) -> str:
    """A module's name below rsdtr, with dots."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


@cache
def graph() -> Mapping[str, set[str]]:
    """Every module, and those that it imports, wherever in the file."""
    paths = {name_of(path): path for path in modules()}
    sources = {name: path.read_text(encoding="utf-8") for name, path in paths.items()}
    return {name: imported_modules(name, text, set(paths)) for name, text in sources.items()}


def sources() -> list[Path]:
    folders = [PACKAGE, ROOT / "pages", ROOT / "tests", ROOT / "scripts", ROOT / "benchmarks"]
    return [ROOT / "app.py", *(path for folder in folders for path in folder.rglob("*.py"))]


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_nothing_imports_to_its_right(path):
    module = name_of(path)
    if module != "__main__":
        assert against_the_flow(module, path.read_text(encoding="utf-8")) == []


def test_no_modules_import_each_other():
    assert circles(graph()) == []


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_the_core_knows_no_screen(path):
    source, package = path.read_text(encoding="utf-8"), room(name_of(path))[0]
    if package != "ui":
        assert forbidden(source, "streamlit") == []
    if package not in DRAWING:
        assert forbidden(source, "plotly") == []


def test_every_folder_is_a_package_in_the_flow_and_few_modules_lie_at_the_top():
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    top = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    assert folders | top == set(PACKAGES)
    assert top == {"errors", "typing"}


def test_these_checks_can_fail():
    assert against_the_flow("planning.plan", "from rsdtr.exports.export import export") == [
        "exports.export"
    ]
    assert against_the_flow(
        "models.zoo", "def f():\n    from rsdtr.recovery import recalibrate"
    ) == ["recovery.recalibrate"]
    assert against_the_flow("models.zoo", "import rsdtr.planning.plan") == ["planning.plan"]
    assert against_the_flow("commands.cli", "from rsdtr.ui.shared import session") == [
        "ui.shared.session"
    ]
    assert against_the_flow("ui.plan.latency", "from rsdtr.ui.export import browser_run") == [
        "ui.export.browser_run"
    ]
    assert against_the_flow("ui.export.files", "from rsdtr.ui.learn import quiz") == [
        "ui.learn.quiz"
    ]
    assert against_the_flow("ui.export.files", "from rsdtr.ui.shared import session") == []
    assert against_the_flow("planning.plan", "from rsdtr.models.zoo import ModelSpec") == []
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
    assert forbidden("def f():\n    import plotly.express as px", "plotly") == ["plotly.express"]
    assert unsafe_loads("torch.load(f)\ntorch.load(f, weights_only=True)") == [1]
    assert unsafe_loads("torch.load(f, weights_only=False)") == [1]
    for line in (
        "import pickle",
        "import dill as d",
        "from joblib import load",
        "from torch import load",
        "np.load(f, allow_pickle=True)",
        "np.load(f, allow_pickle=x)",
        "pd.read_pickle(f)",
        "torch.jit.load(f)",
        "torch.package.PackageImporter(f)",
    ):
        assert unsafe_loads(f"\n{line}") == [2], line
    assert unsafe_loads("np.load(f)\njson.load(f)\nsafetensors.torch.load(f)") == []


LOADED = """
import sys
{}
print(*sorted({{name.split(".")[0] for name in sys.modules}} & {{"streamlit", "plotly"}}))
"""


def loaded_by(statement: str) -> str:
    """Which of streamlit and plotly a fresh process has loaded after the statement."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED.format(statement)],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.strip()


def test_the_core_loads_neither_streamlit_nor_plotly():
    core = [path for path in modules() if room(name_of(path))[0] not in (*DRAWING, "__main__")]
    names = [f"rsdtr.{name_of(path)}" for path in core]
    assert loaded_by(f"import rsdtr, rsdtr.charts, rsdtr.charts.tables, {', '.join(names)}") == ""


def test_that_test_can_fail():
    assert loaded_by("import rsdtr.charts.plan") == "plotly"


def test_at_most_sixteen_public_names_which_all_exist():
    assert len(rsdtr.__all__) <= 16
    assert len(set(rsdtr.__all__)) == len(rsdtr.__all__)
    assert all(hasattr(rsdtr, name) for name in rsdtr.__all__)


@pytest.mark.parametrize("package", PUBLIC)
def test_the_public_names_of_a_package(package):
    module = importlib.import_module(f"rsdtr.{package}")
    assert set(module.__all__) == PUBLIC[package]
    # A function may have the name of its module, and is what the package gives by that name.
    assert not any(isinstance(getattr(module, name), ModuleType) for name in module.__all__)


def test_no_file_that_is_read_can_run_code():
    found = {path.name: unsafe_loads(path.read_text(encoding="utf-8")) for path in sources()}
    assert {name: lines for name, lines in found.items() if lines} == {}
