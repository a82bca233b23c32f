"""The house's rules: a room imports only rooms below it, nothing heavy comes with the package,
and files stay small enough to read."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import minitl

ROOT = Path(minitl.__file__).parent

# From the ground up. A room may import those on lines above its own, and what stands on its line
# only where it is a part of the same folder.
ROOMS = """
kernels
config storage.atomic storage.hdf5_reader
naming storage.state
autograd
judging.gradients
ops
initializers regularizers
activations
storage.digests
layers
models.graph
transfer.cut
losses
metrics
optimizers
callbacks
models.batches
transfer.feature_file
transfer.feature_cache
models.progress models.prediction
models.training
models.model models
models.summary storage.weight_matching
storage.keras_files applications.onnx
applications.downloads
applications.weights
storage.keras_models
transfer.features
transfer.stages
transfer.optimum
judging.rate_range
data
datasets
judging.grad_cam
judging.evaluation
applications
utils
sklearn
judging.plots
judging storage transfer
cli.warmup
cli.demo
cli.commands
cli
"""
LEVEL = {room: i for i, line in enumerate(ROOMS.split("\n")) for room in line.split()}
# Imports inside functions that go up on purpose: a method that stands for a room above it.
ERRANDS = {
    ("models.model", "storage.keras_models"),
    ("models.model", "models.summary"),
    ("models.model", "transfer.stages"),
    ("layers", "storage.keras_models"),
}

FILES = sorted(ROOT.rglob("*.py"))


def name_of(path):
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def room_of(module):
    """'minitl.layers.base' -> 'layers'; the package itself and __main__ stand above all rooms."""
    parts = module.split(".")
    files = ".".join(parts[1:3])
    return files if files in LEVEL else parts[1] if len(parts) > 1 else ""


def is_module(name):
    place = ROOT.parent.joinpath(*name.split("."))
    return place.with_suffix(".py").exists() or (place / "__init__.py").exists()


def imports(path):
    """(module of minitl that is imported, whether at import time) for each import of a file."""
    tree = ast.parse(path.read_text())
    late = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        or (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        found = []
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.append(whole if is_module(whole) else node.module)
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func).endswith("import_module")
            and isinstance(node.args[0], (ast.Constant, ast.JoinedStr))
        ):
            text = node.args[0]
            first = text.value if isinstance(text, ast.Constant) else text.values[0].value
            found = [first.removesuffix(".")]
        for module in found:
            yield module, node not in late


def test_every_room_has_a_level():
    rooms = {room_of(name_of(path)) for path in FILES} - {"", "__main__"}
    assert rooms == set(LEVEL)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_room_imports_only_those_below(path):
    room = room_of(name_of(path))
    if room in ("", "__main__"):
        return
    for module, at_once in imports(path):
        if not module.startswith("minitl"):
            continue
        other = room_of(module)
        if other == room or (not at_once and (room, other) in ERRANDS):
            continue
        assert other, f"{path.name} imports the whole package"
        assert LEVEL[other] < LEVEL[room], f"{room} imports {other}, which is not below it"


def test_errands_are_needed():
    run = {
        (room_of(name_of(path)), room_of(module))
        for path in FILES
        for module, at_once in imports(path)
        if module.startswith("minitl") and not at_once
    }
    assert run >= ERRANDS


def test_the_engine_knows_nothing_of_layers_or_kernels():
    assert not [m for m, _ in imports(ROOT / "autograd.py") if m.startswith("minitl")]


def test_kernels_know_nothing_of_tensors():
    for path in (ROOT / "kernels").glob("*.py"):
        rooms = {room_of(m) for m, _ in imports(path) if m.startswith("minitl")}
        assert rooms <= {"kernels"}, path


HEAVY = ("numba", "scipy", "h5py", "PIL", "tqdm", "matplotlib", "sklearn", "keras", "tensorflow")


def test_importing_the_package_brings_nothing_heavy():
    program = f"import sys, minitl; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]"


def test_only_numpy_and_the_core_dependencies_are_imported():
    # llvmlite is the part of Numba that writes machine code.
    allowed = {"numpy", "numba", "llvmlite", "scipy", "h5py", "PIL", "tqdm", "minitl"}
    optional = {"matplotlib", "elpv_dataset"}  # the extras 'plot' and 'demo'
    for path in FILES:
        for module, at_once in imports(path):
            top = module.split(".")[0]
            if top in sys.stdlib_module_names or top in allowed:
                continue
            if (path.name, top) == ("sklearn.py", "sklearn"):
                continue  # estimators are classes of scikit-learn's; nothing imports this file
            assert top in optional and not at_once, f"{path.name} imports {top}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_are_short_enough_to_read(path):
    assert len(path.read_text().splitlines()) <= 700


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_module_says_what_it_is(path):
    assert ast.get_docstring(ast.parse(path.read_text())), f"{path.name} has no docstring"
