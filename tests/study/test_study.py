"""`minitl study` on the command line: files, checks in a process of their own, hints, solutions."""

import hashlib
import re
import shutil
import time

import numpy as np
import pytest

from minitl.cli import main
from minitl.kernels import reference
from minitl.kernels.geometry import sliding
from minitl.study import all_texts, network, process, texts
from tests.study.test_checks import PARTS, SOLUTIONS


def study(*words):
    return main(["study", *map(str, words)])


def test_a_file_is_written_once_and_lists_tell_what_is_done(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert study("start", 7) == 0
    path = tmp_path / "study" / "07_kernel_gradient.py"
    text = path.read_text("utf-8")
    assert "def conv2d_kernel_gradient(x, g, geometry):" in text and "dkernel[kh, kw, c, f]" in text
    assert study("start", 7) == 1  # never over what somebody wrote
    assert "07_kernel_gradient.py" in capsys.readouterr().err
    assert study() == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 23 and lines[6].endswith("begun") and not lines[5].endswith("begun")


@pytest.mark.parametrize("number", PARTS)
def test_what_a_learner_starts_from_is_python_without_a_solution(number):
    names: dict = {}
    exec(compile(all_texts()[number].file(), "start.py", "exec"), names)
    for part in PARTS[number]:
        assert callable(names[part.name])
        assert "raise NotImplementedError" in all_texts()[number].code
        path, line, name = process.place_of(part)
        assert f"{name.split('.')[-1]}" in "".join(
            path.read_text("utf-8").splitlines()[line - 1 : line + 2]
        )


@pytest.mark.weights
@pytest.mark.parametrize("number", [5, *range(16, 24)])
def test_the_real_network_runs_with_a_right_function(number, tmp_path, capfd):
    """The judges: a convolution's, and each that has a small program of its own."""
    for path in SOLUTIONS.values():
        shutil.copy(path, tmp_path / path.name.removeprefix("s"))
    if number == 23:
        with pytest.raises(SystemExit):
            study("check", number, "--dir", tmp_path)
        assert "check stages 1 to 22 first" in capfd.readouterr().out
        for done in (4, 9, 14):
            study("check", done, "--dir", tmp_path, "--no-network")
    assert study("check", number, "--dir", tmp_path) == 0
    assert f"stage {number} is done" in capfd.readouterr().out


def test_a_check_says_what_is_wrong_and_keeps_what_is_right(tmp_path, capfd):
    study("start", 4, "--dir", tmp_path)
    with pytest.raises(SystemExit):
        study("check", 4, "--dir", tmp_path, "--no-network")
    assert "dense is not written yet" in capfd.readouterr().out
    path = tmp_path / "04_dense.py"
    path.write_text(SOLUTIONS[4].read_text().replace("x.T @ g", "x.T @ g / len(x)"))
    with pytest.raises(SystemExit):
        study("check", 4, "--dir", tmp_path, "--no-network")
    out = capfd.readouterr().out
    assert "dense_kernel_gradient: WRONG" in out and "dkernel is a mean over the rows" in out
    shutil.copy(SOLUTIONS[4], path)
    assert study("check", 4, "--dir", tmp_path, "--no-network") == 0
    assert process.done(tmp_path) == {4: True}
    (tmp_path / "done.json").write_text("")  # whatever became of it
    assert study("--dir", tmp_path, "check", 4, "--no-network", "--language", "zh") == 0
    assert "第 4 关完成" in capfd.readouterr().out  # the folder holds before the action, too
    assert process.done(tmp_path) == {4: True}
    path.write_text(path.read_text() + "\n# changed\n")
    assert process.done(tmp_path) == {4: False}


def test_an_error_and_an_endless_loop_are_told_by_the_learners_own_line(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(process, "FOR_CHECKS", 1)
    path = tmp_path / "03_softmax.py"
    path.write_text("def softmax_cross_entropy(logits, targets):\n    while True:\n        pass\n")
    assert process.inside(3, tmp_path) == 1
    out = capsys.readouterr().out
    assert "line" in out and "did not end within 1 s" in out
    path.write_text("def softmax_cross_entropy(logits, targets):\n    return logits[7, 7], 1\n")
    assert process.inside(3, tmp_path) == 1
    assert "line 2, `return logits[7, 7], 1`: IndexError" in capsys.readouterr().out


def test_hints_come_one_after_the_other(tmp_path, capsys):
    for _ in range(2):
        study("hint", 5, "--dir", tmp_path)
    assert [line[0] for line in capsys.readouterr().out.splitlines()] == ["1", "2"]
    for _ in range(3):
        study("hint", 5, "--dir", tmp_path)
    assert [line[0] for line in capsys.readouterr().out.splitlines()] == ["3", "4", "1"]


def test_slow_loops_are_bounded_and_the_rest_is_the_formulas():
    """A function of which a filter takes long computes some, and the result is still whole."""
    rng = np.random.default_rng(0)
    given = rng.normal(size=(1, 6, 6, 2)), rng.normal(size=(3, 3, 2, 8)), None
    geometry, counts = sliding((6, 6), (3, 3), (1, 1), "same"), []

    def slow(x, kernel, bias, geometry):
        end = time.process_time() + 0.02 * kernel.shape[3]
        while time.process_time() < end:
            pass
        counts.append(kernel.shape[3])
        return reference.conv2d(x, kernel, bias, geometry)

    calls = network.Calls("conv2d", slow, 0.09)
    np.testing.assert_allclose(calls(*given, geometry), reference.conv2d(*given, geometry))
    assert counts[0] == 1 and 1 < counts[1] < 8 and f"{counts[1]} of 8" in calls.rows[0]


STAGES = [p for p in sorted(texts.FOLDER.glob("??-*.md")) if ".zh" not in p.name]


@pytest.mark.parametrize("english", STAGES, ids=lambda path: path.stem)
def test_a_chinese_text_is_as_new_as_the_english_one(english):
    """Its first line has the digest of the English file that it was made of."""
    path = english.with_name(english.name.replace(".md", ".zh.md"))
    digest = hashlib.sha256(english.read_bytes()).hexdigest()[:12]
    assert path.read_text("utf-8").startswith(f"<!-- of {english.name} {digest} -->\n"), (
        f"{english.name} has changed: bring {path.name} up to date, then its first line: {digest}"
    )


@pytest.mark.parametrize("number", all_texts())
def test_a_stage_can_be_had_in_chinese(number, tmp_path, capsys):
    """Nothing of the code is another, and no number or name of the task and hints is missing."""
    study("start", number, "--dir", tmp_path, "--language", "zh")
    english, chinese = (all_texts(language)[number] for language in ("en", "zh"))
    file = process.file_of(tmp_path, english).read_text("utf-8")
    compile(file, "start.py", "exec")
    assert chinese.title in file and file.endswith(english.code)
    for _ in english.hints:
        study("hint", number, "--dir", tmp_path, "--language", "zh")
    given = capsys.readouterr().out.splitlines()[1:]
    assert given == [f"{i} of {len(english.hints)}: {h}" for i, h in enumerate(chinese.hints, 1)]
    for text, told in ((english.sections["Task"], file), (" ".join(english.hints), "".join(given))):
        exact = set(re.findall(r"`[^`]+`|\d+(?:\.\d+)?", text.replace("\n", " ")))
        assert [each for each in exact if each not in told] == []
    assert re.search("[\u4e00-\u9fff]{4}", chinese.sections["Task"])
