"""A stranger's model or backup on every command: nothing is obeyed, nothing ends in a traceback."""

import json

import numpy as np
import pytest
from PIL import Image

import minitl
from minitl.callbacks import BackupAndRestore
from minitl.cli import main
from minitl.layers import Conv2D, Dense, Flatten, GlobalAveragePooling2D, Input
from minitl.models import Sequential
from minitl.storage.state import read_state, write_state

GOOD = {"class_names": ["a", "b", "c"], "size": [8, 8], "preprocessing": "none"}
ESCAPES = "\x1b]0;owned\x07\x1b[2Jx\x9b5n"


@pytest.fixture
def picture(tmp_path):
    (tmp_path / "p" / "a").mkdir(parents=True)
    Image.fromarray(np.full((8, 8, 3), 90, np.uint8)).save(tmp_path / "p" / "a" / "1.png")
    return tmp_path / "p"


def model(name="m", layer="d", units=3):
    layers = [Input((8, 8, 3)), Flatten(), Dense(units, activation="softmax", name=layer)]
    return Sequential(layers, name=name)


@pytest.fixture
def told(capsys):
    """What a command prints, and its exit code."""

    def run(*arguments):
        code = main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        assert not any(
            (ord(c) < 32 and c not in "\n\r\t") or 127 <= ord(c) < 160 for c in out + err
        )
        return code, out, err

    return run


@pytest.mark.parametrize("ending", ["h5", "keras"])
@pytest.mark.parametrize(
    "more, what",
    [
        ({"class_names": [ESCAPES, "b", "c"]}, "with control characters"),
        ({"class_names": ["a\n/etc/x  good  1.0", "b", "c"]}, "with control characters"),
        ({"class_names": ["a"]}, r"it names 1 classes, and has outputs of shape (None, 3)"),
        ({"class_names": None}, "expected a list of names"),
        ({"class_names": {"a": 1, "b": 2, "c": 3}}, "expected a list of names"),
        ({"class_names": [1, 2, 3]}, "expected a list of names"),
        ({"class_names": ["a", "b", "a"]}, "two of its classes have the same name"),
        ({"size": None}, "its size is None, expected pixels"),
        ({"size": [8.5, 8]}, "its size is [8.5, 8]"),
        ({"size": [10**9, 10**9]}, "its size is"),
        ({"size": True}, "its size is True"),
        ({"size": [16, 8]}, "images of its size are (None, 16, 8, 3)"),
        ({"preprocessing": ["none"]}, "unknown preprocessing ['none']"),
        ({"resizing": "zzz"}, "unknown resizing 'zzz', expected one of"),
        ({"interpolation": {}}, "unknown interpolation {}"),
        ({"provenance": 7}, "its provenance is '7', no dictionary"),
        ({"figures": [ESCAPES]}, "no dictionary"),
        ({"novelty": "x"}, "its novelty is 'x', no dictionary"),
    ],
    ids=str,
)
def test_metadata_that_do_not_fit_are_refused(tmp_path, picture, told, more, what, ending):
    made, path = model(), tmp_path / f"m.{ending}"
    made.metadata = GOOD | more
    made.save(path)
    for arguments in (
        ("predict", path, picture / "a" / "1.png"),
        ("predict", "--csv", path, picture),
        ("evaluate", path, picture),
    ):
        code, out, err = told(*arguments)
        assert (code, out) == (1, "") and err.startswith("minitl: ") and what in err
    code, out, _ = told("info", path)
    assert code == 0 and "\n/etc/x" not in out and "class_names" in out


def test_one_image_may_not_take_gigabytes(tmp_path, picture, told):
    big = Sequential([Input((512, 512, 3)), Conv2D(800, 1), GlobalAveragePooling2D(), Dense(3)])
    big.metadata = GOOD | {"size": 512}
    big.save(tmp_path / "m.h5")
    code, _, err = told("predict", tmp_path / "m.h5", picture)
    assert code == 1 and "gives 839 MB for one image, more than 256 MB" in err


def test_names_are_shown_harmless(tmp_path, told):
    made = model(name=ESCAPES, layer="d\nTotal params: 7")
    made.metadata = {ESCAPES: ESCAPES, "a\nweights": "\nb", "n": [ESCAPES]}
    for name in ("m.h5", "m.keras", "w.weights.h5"):
        made.save_weights(tmp_path / name) if name[0] == "w" else made.save(tmp_path / name)
        code, out, err = told("info", tmp_path / name)
        assert code == 0 and not err and "\nTotal" not in out and "\nweights" not in out
        assert "\\nTotal params: 7" in out and (name[0] == "w" or "\\x1b]0;owned\\x07" in out)


def test_a_prediction_of_what_is_fine(tmp_path, picture, told):
    made = model()
    made.metadata = GOOD
    made.save(tmp_path / "m.h5")
    code, out, _ = told("predict", "--json", tmp_path / "m.h5", picture)
    assert code == 0 and set(json.loads(out)[0]["probabilities"]) == {"a", "b", "c"}


@pytest.fixture
def backup(tmp_path):
    """Train, with a backup that stays; the same again, unless it is refused."""
    x, y = np.zeros((4, 8, 8, 3), "f4"), np.eye(3, dtype="f4")[[0, 1, 2, 0]]

    def train(epochs=1):
        minitl.utils.set_random_seed(0)
        made = model()
        made.compile("adam", "categorical_crossentropy")
        kept = BackupAndRestore(tmp_path / "b", delete_checkpoint=False)
        made.fit(x, y, epochs=epochs, verbose=0, callbacks=[kept])
        return made

    train()
    return tmp_path / "b" / "latest.backup", train


@pytest.mark.parametrize(
    "key, value",
    [
        ("place", None),
        ("place", {"epoch": "1\n2"}),
        ("identity", [1]),
        ("weights", {0: np.zeros(3, "f4")}),
        ("weights", {9: np.zeros(3, "f4")}),
        ("trainable", [True]),
        ("optimizer", {"learning_rate": "x" + ESCAPES}),
        ("optimizer state", {0: {"m": np.zeros(2)}}),
        ("layers", []),
        ("layers", [1, 2, 3]),
        ("callbacks", 7),
        ("random", "x"),
    ],
    ids=str,
)
def test_a_backup_that_is_not_as_it_was_written(backup, told, key, value):
    path, train = backup
    write_state(path, read_state(path) | {key: value})
    code, _, err = told("info", path)
    assert code == 0 or err.startswith(f"minitl: {path} is no backup of a training")
    try:
        train(2)
    except ValueError as error:
        assert "backup" in str(error) or "optimizer" in str(error)


def test_what_a_backup_says_is_shown_harmless(backup, told):
    path, _ = backup
    write_state(path, read_state(path) | {"identity": {"a\nweights: 9": ESCAPES, "b": [ESCAPES]}})
    code, out, _ = told("info", path)
    assert code == 0 and "a\\nweights: 9: \\x1b]0;owned\\x07" in out
