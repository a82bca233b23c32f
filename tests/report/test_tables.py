"""What a notebook shows of a model, a history and an evaluation, and what `print` does."""

import subprocess
import sys

import numpy as np

import minitl
from minitl.judging.evaluation import evaluate_predictions
from minitl.layers import Dense, Input
from minitl.models import Model
from minitl.models.callbacks import History

EVIL = "<b onclick='x'>猫"


def history(**metrics):
    made = History()
    made.history, made.epoch = metrics, list(range(len(next(iter(metrics.values()), ()))))
    return made


def test_a_history_says_what_happened():
    assert repr(history()) == "<History: 0 epochs>"
    assert repr(history(loss=[0.51234])) == "<History: 1 epoch; loss 0.5123>"
    text = repr(history(loss=[3, 2, 1.5], val_loss=[3, 1, 2], val_accuracy=[0.1, 0.2, 0.3]))
    assert text == (
        "<History: 3 epochs; loss 1.5, val_loss 2 (best 1, epoch 2), "
        "val_accuracy 0.3 (best 0.3, epoch 3)>"
    )
    nan = float("nan")
    assert "val_loss nan" in repr(history(val_loss=[nan, nan]))


def test_a_history_in_a_notebook():
    html = history(loss=[3, 2], val_loss=[3, float("nan")], **{EVIL: [1, 2]})._repr_html_()
    assert html.count("<svg") == 2 and "<b onclick" not in html and "&lt;b onclick" in html
    assert "best: 3, epoch 1" in html and "<details>" in html
    assert history()._repr_html_() == "<p>&lt;History: 0 epochs&gt;</p>"
    assert "<svg" not in history(loss=[float("nan")] * 2)._repr_html_()


def test_a_model_in_a_notebook():
    inputs = Input((4,))
    model = Model(inputs, Dense(2, name=EVIL)(inputs), name=EVIL)
    model.metadata = {"class_names": [EVIL]}
    html = model._repr_html_()
    assert "<b onclick" not in html and "Total params: 10 (40.00 B)" in html
    assert "metadata" in html
    assert "sequential" in minitl.Sequential([Dense(2)])._repr_html_()  # not built yet


def test_an_evaluation_in_a_notebook():
    found = evaluate_predictions([0, 1, 1], [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], [EVIL, "b"])
    html = found._repr_html_()
    assert "<b onclick" not in html and "1 · &lt;b onclick" in html and ">0.6667<" in html
    many = evaluate_predictions(np.arange(50), np.eye(50))
    assert "confusion" not in many._repr_html_()


def test_the_names_are_there_after_import():
    code = (
        "import sys, minitl\n"
        "h = {'loss': [2, 1]}\n"
        "from matplotlib.figure import Figure\n"
        "assert isinstance(minitl.report.learning_curves(h), Figure)\n"
        "assert minitl.plots.learning_curves and minitl.evaluation.evaluate_predictions\n"
        "assert minitl.report.Report('x')\n"
        "assert 'jinja2' not in sys.modules and 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_jinja_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    import pytest

    with pytest.raises(ImportError, match=r"pip install 'minitl\[report\]'"):
        minitl.report.Report("x").html()
