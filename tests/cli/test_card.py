"""`minitl info MODEL --card`: all that the file knows, and nothing in it that acts."""

import pytest

from minitl import Input, Model
from minitl.cli import main
from minitl.data.pictures import READING
from minitl.layers import Dense, GlobalAveragePooling2D

HOSTILE = "a|b <script>alert(1)</script> `x` [y](javascript:z)"


@pytest.fixture
def saved(tmp_path):
    inputs = Input((8, 8, 3))
    model = Model(inputs, Dense(2, "softmax")(GlobalAveragePooling2D()(inputs)))
    model.metadata = {
        "class_names": ["cat", HOSTILE], "size": [8, 8], "preprocessing": "caffe", **READING,
        "provenance": {
            "base": "vgg16, weights imagenet", "seed": 3, "augmentation": [],
            "images": {"training": 41, "validation": 10},
            "validation": {"accuracy": 0.87654, "folds": {"log loss": 0.25}},
        },
    }  # fmt: skip
    model.save(tmp_path / "pets.h5")
    return tmp_path / "pets.h5"


def test_the_card_tells_what_the_file_knows(saved, capsys):
    assert main(["info", str(saved), "--card"]) == 0
    card = capsys.readouterr().out
    assert card.startswith("# pets\n")
    for line in (
        "- 8 parameters; the file is `pets.h5`.",
        "- seed: 3",
        "- augmentation: none",
        "- training: 41",
        "| validation | accuracy | 0.8765 |",
        "| validation folds | log loss | 0.25 |",
        "minitl predict pets.h5 IMAGE ...",
    ):
        assert f"\n{line}\n" in card
    assert "CC BY 4.0" in card


def test_nothing_in_it_acts(saved, capsys):
    assert main(["info", str(saved), "--card"]) == 0
    card = capsys.readouterr().out
    assert r"a\|b &lt;script>alert(1)&lt;/script> \`x\` \[y\](javascript:z)" in card
    assert "<script" not in card


def test_what_is_no_trained_model_has_no_card(tmp_path, capsys):
    inputs = Input((2,))
    Model(inputs, Dense(1)(inputs)).save(tmp_path / "m.h5")
    assert main(["info", str(tmp_path / "m.h5"), "--card"]) == 1
    assert "does not say its class_names" in capsys.readouterr().err
