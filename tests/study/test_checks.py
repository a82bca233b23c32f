"""Right solutions pass, wrong ones do not, and most of those are told what they are.

The solutions in `solutions/` are written as a learner would. `mutants.py` makes wrong ones of them.
"""

import linecache
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from minitl.kernels.geometry import sliding
from minitl.study import all_texts, arithmetic, training
from minitl.study.checks import check
from minitl.study.results import Run, copied, same
from minitl.study.symptoms import versions
from minitl.study.texts import said
from tests.study.mutants import mutants

SOLUTIONS = {int(p.name[1:3]): p for p in sorted(Path(__file__).parent.glob("solutions/s*.py"))}
PARTS = arithmetic.PARTS | training.PARTS
WRONG = 20  # per stage
ONLY_LEAVES = """    kept = {id(tensor) for tensor in inputs if tensor.node is None}
    gradients = {key: g for key, g in gradients.items() if key in kept}
    found = []"""


class Endless(BaseException):
    pass


@contextmanager
def within(seconds: int) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise Endless

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def names_of(source: str, path: str) -> dict:
    """What a learner's file defines. Numba does not compile it: that takes seconds per mutant."""
    source = source.replace("@numba.njit", "@compiled")
    linecache.cache[path] = len(source), None, source.splitlines(True), path

    def compiled(function):
        function.py_func = function
        return function

    names: dict = {"compiled": compiled}
    exec(compile(source, path, "exec"), names)
    return names


def found_in(number: int, source: str, seed: int = 0, parts=None, seconds: int = 12) -> list:
    text = all_texts()[number]
    try:
        with within(seconds), np.errstate(all="ignore"):
            names = names_of(source, f"solution_{number}.py")
            return [
                finding
                for part in parts or PARTS[number]
                for finding in check(part, names, text.examples(part.name), text.symptoms, seed)
            ]
    except Endless:
        return ["it does not end"]
    except Exception as error:  # the file itself cannot be read
        return [repr(error)]


def wide(rng):
    """Windows of all kinds, other ones than those of the checks."""
    for _ in range(60):
        size, window = rng.integers(3, 10, 2), rng.integers(1, 4, 2)
        geometry = sliding(
            tuple(map(int, size)),
            tuple(map(int, window)),
            tuple(map(int, rng.integers(1, 4, 2))),
            str(rng.choice(["same", "valid"])),
        )
        yield geometry, *map(int, rng.integers(1, 4, 3))


def wider(part):
    """The part with `wide` cases, if it is one of windows."""
    names = next(iter(part.cases(np.random.default_rng(0))))[1]

    def cases(rng):
        for geometry, n, c, f in wide(rng):
            shapes = {
                "x": (n, *geometry.size, c),
                "kernel": (*geometry.window, c, f),
                "bias": (f,),
                "g": (n, *geometry.out_size, c if "winners" in names else f),
            }
            drawn = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
            drawn["geometry"] = geometry
            if "winners" in names:
                x = drawn["x"]
                drawn["winners"] = arithmetic.reference.max_pool2d_with_winners(x, geometry)[1]
            yield "", {name: drawn[name] for name in names}

    return replace(part, cases=cases) if "geometry" in names else part


@pytest.mark.parametrize("number", SOLUTIONS)
def test_a_right_solution_passes(number):
    # minitl's own kernels may have to be compiled for it first
    assert found_in(number, SOLUTIONS[number].read_text(), seconds=120) == []


@pytest.mark.parametrize("number", SOLUTIONS)
def test_no_wrong_solution_passes_and_most_are_told_what_they_are(number):
    wrong, named, passed = 0, 0, []
    for source in mutants(SOLUTIONS[number].read_text()):
        found = found_in(number, source)
        if not found:
            parts = tuple(map(wider, PARTS[number]))
            if any(found_in(number, source, seed, parts) for seed in (1, 2)):
                passed.append(source)
            continue  # else it is right as well
        wrong += 1
        named += any(getattr(finding, "symptom", True) for finding in found)
        if wrong == WRONG:
            break
    assert passed == []
    assert named >= 0.75 * wrong


@pytest.mark.parametrize("number", PARTS)
def test_listed_symptoms_are_wrong_versions(number):
    """Each can be computed, and differs from what is right."""
    for result, version, told in all_texts()[number].symptoms:
        parts = [part for part in PARTS[number] if result in part.outputs]
        assert parts, result
        found = []
        for part in parts:
            runs = []
            for label, given in part.cases(np.random.default_rng(0)):
                of_their_own = {name: copied(value) for name, value in given.items()}
                run = Run(label, given, part.results(part.right, of_their_own), {})
                runs.append(run)
            values = versions(part, version, runs)
            found.append(
                values is not None
                and not all(
                    same(v, run.right[result], 1e-6) for v, run in zip(values, runs, strict=True)
                )
            )
        assert any(found), (version, told)


@pytest.mark.parametrize(
    "number, right, wrong, told",
    [
        (1, ".sum(", ".mean(", "da is a mean over the places"),
        (1, "return y, gradient", "return gradient", "expected y and a function `gradient`"),
        (2, "    found = []", ONLY_LEAVES, "'a is no leaf, but a result itself'"),
        (2, "    return found", "    y.node = None\n    return found", "do not change tensors"),
        (3, ".max(axis=1, keepdims=True)", ".max()", "it must be each row's own"),
        (4, "y = x @ kernel", "y = x.astype(np.float64) @ kernel", "y has dtype float64, expected"),
        (4, "g @ kernel.T", "g @ kernel.reshape(kernel.shape[::-1])", "reshape is not kernel.T"),
        (5, "    return y", "    return np.maximum(y, 0)", "numbers below zero have become 0"),
        (5, "(top, bottom), (left, right)", "(0, top + bottom), (0, left + right)", "on each side"),
        (5, "+= bias", "+= 2 * bias", "the bias is added twice"),
        (
            5,
            "return y",
            "return y + (0 if bias is None else y**2)",
            "all 3 cases where bias is None",
        ),
    ],
)
def test_mistakes_of_students_are_told_what_they_are(number, right, wrong, told):
    source = SOLUTIONS[number].read_text()
    assert right in source
    found = found_in(number, "import numpy as np\n" + source.replace(right, wrong))
    assert any(told in finding for finding in found), found


def test_what_is_told_is_true_of_all_cases():
    """No argument is said to be idle where the numbers are not finite, or only some cases wrong."""
    shift = " - logits.max(axis=1, keepdims=True)"
    found = found_in(3, SOLUTIONS[3].read_text().replace(shift, ""))
    assert any("is not finite" in finding for finding in found)
    assert not any("depend" in finding or "added" in finding for finding in found), found


def test_an_example_shows_the_number_that_is_most_wrong():
    changed = "    y[0, 0, 0, 0] += 1e-3\n    y[-1, -1, -1, -1] += 9\n    return y"
    found = found_in(5, SOLUTIONS[5].read_text().replace("    return y", changed))
    told = next(finding for finding in found if "random cases" in finding)
    right, wrong = map(float, re.findall(r"be (\S+) and is (\S+), for", told)[0])
    assert abs(wrong - right) > 8


def test_all_that_is_told_can_be_had_in_chinese():
    for text in all_texts().values():
        for _, _, told in text.symptoms:
            assert said(told, "zh") != told
    for number, right, wrong in (
        (4, "x.T @ g", "x @ g"),
        (5, "+= bias", "-= bias"),
        (3, "-(", "("),
    ):
        for finding in found_in(number, SOLUTIONS[number].read_text().replace(right, wrong)):
            assert re.search("[\u4e00-\u9fff]", said(finding, "zh")), finding


UNUSUAL = {
    "a list for several results": (
        1,
        "def multiply(a, b):\n"
        "    def fit(g, like):\n"
        "        g = g.sum(axis=tuple(range(g.ndim - like.ndim)))\n"
        "        ones = tuple(i for i, n in enumerate(like.shape) if n == 1)\n"
        "        return g.sum(axis=ones, keepdims=True)\n"
        "    return [a * b, lambda g: [fit(g * b, a), fit(g * a, b)]]\n",
    ),
    "a list of numbers": (
        20,
        "import numpy as np\n"
        "def accuracy(labels, p):\n    return float((p.argmax(1) == labels).mean())\n"
        "def f1(labels, p):\n"
        "    q, ks = p.argmax(1), range(p.shape[1])\n"
        "    both = [sum((q == k) & (labels == k)) for k in ks]\n"
        "    return [2 * b / max(sum(q == k) + sum(labels == k), 1) for b, k in zip(both, ks)]\n",
    ),
    "the base's five blocks by their numbers": (
        21,
        "from minitl.layers import BatchNormalization\n"
        "def unfreeze(layers, start, decay):\n"
        "    for layer in layers:\n"
        "        if layer.name.startswith('block'):\n"
        "            number = int(layer.name[5])\n"
        "            norm = isinstance(layer, BatchNormalization)\n"
        "            layer.trainable = number >= int(start[5]) and not norm\n"
        "            layer.rate_multiplier = decay ** (6 - number) if layer.trainable else 1.0\n",
    ),
}


@pytest.mark.parametrize("how", UNUSUAL)
def test_a_right_solution_passes_whatever_its_form(how):
    number, source = UNUSUAL[how]
    assert found_in(number, source) == []


@pytest.mark.parametrize(
    "number, after, told",
    [
        # Each is right in its numbers, when it is called once.
        (5, "KEPT = {}\ndef again(*a):\n    k = str([getattr(v, 'shape', v) for v in a])\n"
            "    return KEPT.setdefault(k, first(*a))", "wrong when called again"),
        (7, "KEPT = {}\ndef again(*a):\n    y = first(*a)\n"
            "    kept = KEPT.setdefault(y.shape, y)\n    kept[...] = y\n    return kept",
            "an array that its next call writes into"),
        (14, "def again(w, g, *a):\n    first(w, g, *a)\n    g *= 2", "changed its argument g"),
        (11, "def again(d, g):\n    y = first(d, g)\n    d[0] = d[0] - d[2]\n    return y",
            "changed its argument d or g"),
        (18, "def again(layers):\n    n = first(layers)\n    layers.pop()\n    return n",
            "changed its argument layers"),
        (8, "def again(x, geometry):\n    y = first(x, geometry)\n    oh = geometry.out_size[0]\n"
            "    y[oh * oh * geometry.out_size[1]:] = 0\n    return y", "wrong in 1 of 12"),
        (16, "def again(path):\n    with h5py.File(path) as file:\n"
            "        read = file.attrs['layer_names']\n"
            "        return [(n, w) for n, (_, w) in zip(read, first(path))]", "are bytes"),
        (6, "def again(*a):\n    return first(*a).astype(np.float32).astype(a[0].dtype)",
            "is something in it float32?"),
        (4, "def again(*a):\n    return np.roll(first(*a), 1, 1)", "moved by one place along"),
        (13, "def again(*a):\n    return abs(first(*a))", "smallest"),
        (17, "MADE = {}\ndef again(shape):\n    return MADE.setdefault(shape, first(shape))",
            "layers of an earlier call"),
        (17, "def again(shape):\n    model = first(shape)\n"
            "    model.get_layer('block2_pool').pool_size = (1, 1)\n    return model",
            "windows[5] should be (2, 2, 2, 2) and is (1, 1, 2, 2)"),
        (17, "def again(shape):\n    from minitl.layers import ReLU\n    model = first(shape)\n"
            "    return Model(model.input, ReLU(name='more')(model.output))",
            "names has length 19, expected 18"),
    ],
)  # fmt: skip
def test_wrong_calls_are_told(number, after, told):
    """What a solution does beside its numbers; images that get lost; results that are lists."""
    name = PARTS[number][0].name
    source = "import numpy as np\n" + SOLUTIONS[number].read_text()
    found = found_in(number, f"{source}\nfirst = {name}\n{after}\n{name} = again\n")
    assert any(told in finding for finding in found), found


def test_where_a_number_has_a_meaning_known_mistakes_are_told_as_well():
    source = SOLUTIONS[21].read_text()
    found = found_in(21, re.sub(r"and not isinstance\(.*?\)", "", source))
    assert any("BatchNormalization learns" in finding for finding in found), found


def test_a_product_with_the_filter_first_is_told():
    m4 = "(d[1] - d[3]) * g[2]"
    assert m4 in SOLUTIONS[11].read_text()
    found = found_in(11, SOLUTIONS[11].read_text().replace(m4, "g[2] * (d[1] - d[3])"))
    assert any("g's side * d's side" in finding for finding in found), found


def test_where_the_cause_is_told_no_chance_is_told_beside_it():
    """Cases of large logits happen to have an even number of classes."""
    naive = (
        "import numpy as np\n"
        "def softmax_cross_entropy(logits, targets):\n"
        "    e = np.exp(logits)\n"
        "    p = e / e.sum(axis=1, keepdims=True)\n"
        "    return -(targets * np.log(p)).sum(axis=1), p\n"
    )
    found = found_in(3, naive)
    assert any("is not finite for logits of 1,000" in finding for finding in found)
    assert not any("logits.shape" in finding for finding in found), found
