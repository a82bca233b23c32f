"""Diagrams: what is frozen is not on the tape, and a call says whether gradients come to it."""

import numpy as np

from minitl.judging.diagrams import call_diagram, tape_diagram
from minitl.layers import Add, Dense, Flatten, Input
from minitl.models import Model, Sequential


def chain(*trainable):
    inputs = x = Input((4,))
    for i, flag in enumerate(trainable):
        x = Dense(3, name=f"d{i}", trainable=flag)(x)
    return Model(inputs, Flatten(name="flat")(x))


def test_a_frozen_weight_is_not_on_the_tape():
    model = chain(False, True)
    diagram = tape_diagram(model(np.ones((2, 4), np.float32)).sum())
    assert diagram.labels == [
        "kernel (3, 3)",
        "bias (3,)",
        "dense (2, 3)",
        "reshape (2, 3)",
        "sum ()",
    ]
    assert diagram.kinds == ["learns", "learns", "passes", "passes", "passes"]
    assert diagram.arrows == [(0, 2), (1, 2), (2, 3), (3, 4)]


def test_calls_below_the_first_layer_that_learns_get_no_gradient():
    found = call_diagram(chain(False, True, False))
    kinds = dict(zip([label.split("\n")[0] for label in found.labels], found.kinds, strict=True))
    assert kinds.pop(found.labels[0].split("\n")[0]) == "frozen"  # the input
    assert kinds == {"d0": "frozen", "d1": "learns", "d2": "passes", "flat": "passes"}


def test_models_inside_are_opened_and_branches_stand_side_by_side(tmp_path):
    inputs = Input((4,))
    inner = Sequential([Input((4,)), Dense(4, name="inside")], name="inner")
    diagram = call_diagram(Model(inputs, Add(name="sum")([inner(inputs), inputs])))
    labels = [label.split("\n")[0] for label in diagram.labels]
    assert "inside" in labels and "inner" not in labels
    end = labels.index("sum")
    assert sum(b == end for _, b in diagram.arrows) == 2
    diagram.draw(tmp_path / "graph.svg", "a title")
    text = (tmp_path / "graph.svg").read_text()
    assert text.count("<!-- inside") == 1 and "a title" in text


def test_mermaid_says_each_box_on_one_line():
    lines = call_diagram(chain(True)).mermaid().splitlines()
    assert lines[0] == "flowchart TD"
    assert '    n1["d0<br>(3,)"]:::learns' in lines
    assert "    n0 --> n1" in lines
