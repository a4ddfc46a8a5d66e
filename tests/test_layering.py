"""Who may import whom, checked from the source; and checks of these checks."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import rsdtr

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "rsdtr"
# Data flows one way: no module imports from a later group. saved, timing: where they are used.
FLOW = (
    {"errors"},
    {"lessons.glossary", "lessons.text"},
    {"forms", "measure", "process", "distributed", "header", "quarantine", "folder"},
    {"truncation", "ring", "cost", "filesize", "architectures", "weights", "spectrum", "vision"},
    {"gram", "kept"},
    {"look"},
    {"unfolding"},
    {"bounds"},
    {"search", "layers"},
    {"tight", "winners", "device", "fuse"},
    {"zoo"},
    {"pictures"},
    {"images"},
    {"profile", "data", "answers"},
    {"plan", "store"},
    {"targets", "grid"},
    {"asked"},
    {"worker", "job"},
    {"job_table"},
    {"jobs"},
    {"job_worker"},
    {"compress", "fast", "device_worker"},
    {"latency", "fastest"},
    {"evaluate"},  # left of recover: a training measures its validation accuracy
    {"exports.card", "fidelity"},
    {"damage", "recipe", "refit_options", "augment"},
    {"recover", "checkpoint", "identity", "training_forms"},
    {"lessons.lesson"},
    {"lessons.quiz"},
    {"moments", "walk", "divergence"},
    {"regression", "sites"},
    {"refit", "finetune"},
    {"estimate"},
    {"timing", "study", "manifest", "archive"},
    {"saved", "exports.readme", "exports.proving"},
    {"kinds.network", "exports.pretrained"},
    {"kinds.finetune", "kinds.refit", "kinds.fastest"},
    {"exports.graph", "exports.web"},
    {"exports.standalone"},
    {"exports.writer"},
    {"export"},
    {"verify"},
    {"methods"},  # a folder: its modules are one place
    {"compare"},
    {"kinds.compare"},
    {"bench"},
    {"charts.style", "charts.points"},
    {"parts"},
    {"exports.proof", "charts.plan", "charts.parts", "tables"},
    {"charts.layer", "charts.accuracy", "charts.latency"},
    {"charts.lesson", "report"},
    {"kinds.export"},
    {"charts.training", "charts.study", "charts.refit", "charts.compare", "charts.ratio"},
    {"commands.options", "commands.console"},
    {"commands.requested"},
    {"commands.evaluate", "commands.export"},
    {"commands.bench", "commands.finetune", "commands.jobs", "commands.profile", "commands.verify"},
    {"kinds.study"},
    {"commands.study", "commands.report", "commands.compare", "commands.ratio"},
    {"cli"},
    {"__main__"},
)
DRAWING = {
    "charts.style", "charts.points",
    "charts.plan", "charts.layer", "charts.accuracy", "charts.latency", "charts.training",
    "charts.study", "charts.refit", "charts.lesson", "report", "charts.compare", "charts.ratio",
    "charts.parts",
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


def within(name: str) -> str:
    """The name in FLOW of what is imported by a full dotted name."""
    parts = name.split(".")[1:]
    return ".".join(parts[:2]) if position(".".join(parts[:2])) is not None else parts[0]


def position(module: str) -> int | None:
    return next((place for place, group in enumerate(FLOW) if module in group), None)


def against_the_flow(module: str, source: str) -> list[str]:
    """The modules of this package that `module` may not import, but does."""
    own = position(module)
    assert own is not None, f"{module}.py has no place in the flow: give it one above"
    found = {within(name) for name in imports(source) if name.startswith("rsdtr.")}
    return sorted(
        name
        for name in found - {module}
        if name == "ui" or ((place := position(name)) is not None and place > own)
    )


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
    found = [path for path in PACKAGE.rglob("*.py") if path.parent.name != "ui"]
    found = sorted(path for path in found if path.stem != "__init__")
    assert len(found) > 15
    return found


def place_of(path: Path) -> str:
    """The module's name in FLOW; the methods have one place in it together."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return "methods" if parts[0] == "methods" else ".".join(parts)


def sources() -> list[Path]:
    folders = [PACKAGE, ROOT / "pages", ROOT / "tests", ROOT / "scripts", ROOT / "benchmarks"]
    return [ROOT / "app.py", *(path for folder in folders for path in folder.rglob("*.py"))]


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.stem)
def test_nothing_imports_to_its_right(path):
    assert against_the_flow(place_of(path), path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.stem)
def test_the_core_knows_no_screen(path):
    source = path.read_text(encoding="utf-8")
    assert forbidden(source, "streamlit") == []
    if place_of(path) not in DRAWING:
        assert forbidden(source, "plotly") == []


def test_these_checks_can_fail():
    assert against_the_flow("plan", "from rsdtr.exports.export import save") == ["export"]
    assert against_the_flow("zoo", "def f():\n    from rsdtr import recover") == ["recover"]
    assert against_the_flow("profile", "from .compress import compress") == ["compress"]
    assert against_the_flow("zoo", "import rsdtr.planning.model_profile") == ["profile"]
    assert against_the_flow("plan", "from rsdtr.charts.plan import x") == ["charts.plan"]
    assert against_the_flow("cli", "from rsdtr.ui import state") == ["ui"]
    assert against_the_flow("plan", "from rsdtr.planning.model_profile import profile") == []
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
    core = [path for path in modules() if place_of(path) not in DRAWING | {"__main__"}]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in core]
    assert loaded_by(f"import rsdtr, {', '.join(names)}") == ""


def test_that_test_can_fail():
    assert loaded_by("import rsdtr.charts.plan") == "plotly"


def test_at_most_fifteen_public_names_which_all_exist():
    assert len(rsdtr.__all__) <= 15
    assert len(set(rsdtr.__all__)) == len(rsdtr.__all__)
    assert all(hasattr(rsdtr, name) for name in rsdtr.__all__)


def test_no_file_that_is_read_can_run_code():
    found = {path.name: unsafe_loads(path.read_text(encoding="utf-8")) for path in sources()}
    assert {name: lines for name, lines in found.items() if lines} == {}
