"""What is handed to others: the wheel, the source distribution, types, and who to cite."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import minitl

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A wheel and a source distribution, built from a copy of what git would hand over."""
    place = tmp_path_factory.mktemp("built")
    copy = place / "copy"
    leave = shutil.ignore_patterns(".git", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis")
    shutil.copytree(ROOT, copy, ignore=leave)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", place / "dist", copy]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return sorted((place / "dist").iterdir())


def test_the_index_would_take_them(built):
    command = [sys.executable, "-m", "twine", "check", "--strict", *built]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_wheel_holds_all_modules_and_data_and_nothing_else(built):
    with zipfile.ZipFile(built[0]) as wheel:
        names = {n for n in wheel.namelist() if not n.startswith("minitl-")}
        about = wheel.read(f"minitl-{minitl.__version__}.dist-info/METADATA").decode()
    package = ROOT / "minitl"
    ours = {p for p in package.rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    ours = {p for p in ours if p.suffix not in (".nbi", ".nbc")}
    assert names == {p.relative_to(ROOT).as_posix() for p in ours}
    assert "minitl/py.typed" in names
    assert "License-Expression: MIT" in about and "Typing :: Typed" in about
    core = re.findall(r"^Requires-Dist: (\w+)[^;\n]*$", about, re.M)
    assert sorted(core) == ["Pillow", "h5py", "numba", "numpy", "scipy", "tqdm"]


def test_the_source_distribution_holds_its_own_tests(built):
    with tarfile.open(built[1]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    command = ["git", "ls-files"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:  # run from a source distribution, which is no repository
        return
    missing = set(done.stdout.split("\n")) - names - {"", ".gitignore"}
    assert missing == set()


def test_types_are_seen_from_outside(tmp_path):
    """mypy, which ignores packages without py.typed, knows what minitl's functions take."""
    script = tmp_path / "user.py"
    script.write_text(
        "from minitl.transfer.features import extract_features\n"
        "from minitl.models import Model\n"
        "def f(model: Model) -> None:\n"
        "    extract_features(model, [], batch_size='many')\n"
        "    reveal_type(model.count_params())\n"
    )
    command = [sys.executable, "-m", "mypy", "--cache-dir", tmp_path / "cache", script]
    env = os.environ | {"MYPYPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert 'Argument "batch_size" to "extract_features" has incompatible type "str"' in done.stdout
    assert 'Revealed type is "int"' in done.stdout or "builtins.int" in done.stdout


def test_who_to_cite_and_which_version():
    text = (ROOT / "CITATION.cff").read_text("utf-8")
    assert f"\nversion: {minitl.__version__}\n" in text
    setup = (ROOT / "setup.cfg").read_text("utf-8")
    assert f"\nversion = {minitl.__version__}\n" in setup
