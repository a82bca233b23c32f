"""The house's rules: how long things may be, what may import what, and a spine that stands alone.

`house.py` reads the package and lists what is against a rule; `python -m tests.house` prints it.
A limit is raised in a commit that says why.
"""

import re
import subprocess
import sys

import numpy as np
import pytest

from tests import house

EXAMPLE = house.ROOT / "examples" / "spine.py"


@pytest.mark.parametrize("rule", house.RULES)
def test_nothing_is_against_the_rules(rule):
    assert house.RULES[rule]() == []


# --- How much there is ----------------------------------------------------------------------------


def test_the_spine_is_short_enough_to_read():
    assert len(set(house.spine())) == len(house.spine()) > 0
    assert sum(map(house.spine_lines, house.spine())) <= house.SPINE_LINES


def test_the_package_is_short_enough_to_keep():
    assert house.lines_of_package() <= house.LINES


def test_few_rooms_few_arrows_few_floors():
    arrows = house.arrows_between_rooms()
    assert len(house.entries()) <= house.ENTRIES
    assert house.count(arrows) <= house.ARROWS
    assert len(house.floors(arrows)) <= house.FLOORS


def test_the_map_names_every_room_from_the_ground_up():
    text = (house.ROOT / "CONTRIBUTING.md").read_text("utf-8")
    rows = [re.findall(r"`([^`]+)`", row) for row in re.findall(r"^\| (`.*?) \|", text, re.M)]
    assert sorted(name for row in rows for name in row) == house.rooms()
    below: set[str] = set()
    for row in rows:
        below.update(re.sub(r"\.py$|/$", "", name) for name in row)
        for name in row:
            room = re.sub(r"\.py$|/$", "", name)
            assert house.arrows_between_rooms(typing=False)[room] <= below, room


# --- Who may know what ----------------------------------------------------------------------------


def test_the_engine_knows_nothing_of_layers_or_kernels():
    assert [
        each for each in house.modules()["minitl.autograd"].imports if house.own(each.module)
    ] == []


def test_kernels_know_nothing_of_tensors():
    assert house.arrows_between_rooms()["kernels"] == set()


def test_nobody_imports_the_whole_package():
    outside = ("minitl", "minitl.__main__")
    for file in house.files():
        for each in file.imports:
            assert each.module not in outside or file.module in outside, each


HEAVY = ("numba", "scipy", "h5py", "PIL", "tqdm", "matplotlib", "sklearn", "keras", "tensorflow")


def test_importing_the_package_brings_nothing_heavy():
    program = f"import sys, minitl; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]"


def test_only_numpy_and_the_core_dependencies_are_imported():
    # llvmlite is the part of Numba that writes machine code.
    allowed = {"numpy", "numba", "llvmlite", "scipy", "h5py", "PIL", "tqdm"}
    optional = {  # the extras of setup.cfg
        *("matplotlib", "elpv_dataset", "sklearn", "pandas", "pillow_heif", "jinja2", "cleanlab"),
        *("dask", "distributed", "fsspec", "onnx", "onnxruntime"),
        *("starlette", "uvicorn", "python_multipart", "shtab"),
    }
    for file in house.files():
        for each in file.imports:
            top = each.module.split(".")[0]
            if not house.third_party(each.module) or top in allowed:
                continue
            if (file.module, top) == ("minitl.sklearn", "sklearn"):
                continue  # estimators are classes of scikit-learn's; nothing imports this file
            assert top in optional and each.late, each


# --- The spine alone ------------------------------------------------------------------------------

# A program's first lines: from here on only the spine's modules can be imported.
ALONE = f"""
import importlib, runpy, sys
SPINE = {[file.module for file in house.spine_files()]}
REFUSED = ("numba", "llvmlite", "scipy", "PIL", "tqdm", "matplotlib", "sklearn")

class Spine:
    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        if top in REFUSED or (top == "minitl" and name not in SPINE):
            raise ImportError(name + " is not of the spine")

sys.meta_path.insert(0, Spine())
"""


def run(program, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=house.ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_spine_can_be_imported_alone():
    run(ALONE + "for name in SPINE: importlib.import_module(name)")


@pytest.mark.weights
@pytest.mark.skipif(not EXAMPLE.exists(), reason="examples/spine.py is not written yet")
def test_the_spine_alone_gives_what_the_whole_package_gives(tmp_path):
    rng = np.random.default_rng(0)
    y = np.arange(8) % 2
    means = np.array([[200, 60, 60], [60, 200, 60]])[y]
    x = rng.normal(means[:, None, None], 60, (8, 64, 64, 3)).clip(0, 255).astype(np.uint8)
    np.savez(tmp_path / "data.npz", x=x, y=y)

    main = f"runpy.run_path({str(EXAMPLE)!r}, run_name='__main__')"
    found = {}
    for name, program in {"alone": ALONE, "again": ALONE, "full": "import runpy\n"}.items():
        out = tmp_path / f"{name}.npz"
        run(program + main, tmp_path / "data.npz", "--out", out, *["--full"] * (name == "full"))
        with np.load(out) as file:
            found[name] = dict(file)

    alone, again, full = found["alone"], found["again"], found["full"]
    assert alone.keys() == again.keys() == full.keys() >= {"F", "head_loss", "fine_tune_loss"}
    for key, value in alone.items():
        np.testing.assert_array_equal(value, again[key])
        error = 1e-5 * abs(full["F"]).max() if key == "F" else 1e-3
        np.testing.assert_allclose(value, full[key], rtol=0, atol=error, err_msg=key)
