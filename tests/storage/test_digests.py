"""Digests: equal for what is equal, other for what is other, in every process."""

import functools
import hashlib
import subprocess
import sys
import types

import numpy as np
import pytest

import minitl
from minitl import layers as k
from minitl.applications import VGG16, ResNet50, resnet50
from minitl.applications.vgg16 import preprocess_input
from minitl.models.opened import open_up
from minitl.storage.digests import SIZE, arrays_digest, digest_of, sample_digests
from minitl.transfer.cut import architecture

X = np.random.default_rng(0).standard_normal((9, 4, 5, 3)).astype(np.float32)
SCALE = 2.0


def scaled(x):
    return x * SCALE


def helper(x):
    return x + 1


def helped(x):
    return [helper(each) for each in x]


def test_samples():
    found = sample_digests([X])
    assert found.shape == (9, SIZE)
    assert len({d.tobytes() for d in found}) == 9
    np.testing.assert_array_equal(sample_digests([X[::-1]]), found[::-1])
    np.testing.assert_array_equal(sample_digests([np.asfortranarray(X)[3:5]]), found[3:5])
    for other in (X.astype(np.float64), X.reshape(9, 5, 4, 3), X.view(np.int32)):
        assert not (sample_digests([other]) == found).all(axis=1).any()
    y = X.copy()
    y[4, 3, 4, 2] = np.nextafter(y[4, 3, 4, 2], np.float32(9))
    changed = (sample_digests([y]) != found).any(axis=1)
    assert np.flatnonzero(changed).tolist() == [4]


def test_samples_of_several_arrays_and_with_tags():
    one = sample_digests([X, X[::-1]])
    assert not (one == sample_digests([X[::-1], X]))[0].all()
    tags = [f"{i % 2}".encode() for i in range(9)]
    same = np.zeros_like(X)
    assert len({d.tobytes() for d in sample_digests([same], tags)}) == 2


def test_arrays_differ_by_shape_dtype_and_order():
    a, b = np.zeros(4), np.ones(2)
    digests = [
        arrays_digest(each)
        for each in ([a, b], [b, a], [a.reshape(2, 2), b], [a.astype(np.int64), b], [a], [])
    ]
    assert len(set(digests)) == 6
    assert arrays_digest(iter([a, b])) == digests[0]


def test_a_function_is_what_it_refers_to(monkeypatch):
    before = digest_of(scaled), digest_of(helped)
    assert (digest_of(scaled), digest_of(helped)) == before
    monkeypatch.setattr(sys.modules[__name__], "SCALE", 3.0)
    monkeypatch.setattr(sys.modules[__name__], "helper", lambda x: x + 2)
    assert digest_of(scaled) != before[0]
    assert digest_of(helped) != before[1]


def closure(number):
    def inner(x):
        return x * number

    return inner


class Preprocess:
    def __init__(self, mean):
        self.mean = mean

    def __call__(self, x):
        return x - self.mean

    def method(self, x):
        return x + self.mean


def test_closures_partials_objects_methods():
    pairs = [
        (closure(2), closure(3)),
        (functools.partial(closure, number=2), functools.partial(closure, number=3)),
        (Preprocess(1.0), Preprocess(2.0)),
        (Preprocess(np.ones(3)), Preprocess(np.zeros(3))),
        (Preprocess(1.0).method, Preprocess(2.0).method),
        (Preprocess(1.0).method, Preprocess(1.0)),
        (lambda x, k=1: x + k, lambda x, k=2: x + k),
        (lambda x: [y + 1 for y in x], lambda x: [y + 2 for y in x]),
        (np.exp, np.log),
        ({"a": 1}, {"a": 2}),
        ([1, "1"], [1, 1]),
    ]
    for one, other in pairs:
        assert digest_of(one) != digest_of(other)
    assert digest_of(closure(2)) == digest_of(closure(2))
    assert digest_of(Preprocess(np.ones(3))) == digest_of(Preprocess(np.ones(3)))


def test_a_cycle_ends():
    a = [1]
    a.append(a)
    assert digest_of(a) != digest_of([1, [1]])


def test_the_same_in_another_process():
    program = (
        "import numpy as np, functools; from tests.storage import test_digests as t; "
        "from minitl.applications.vgg16 import preprocess_input; "
        "print([t.digest_of(v) for v in (t.scaled, t.helped, t.closure(2), preprocess_input, "
        "t.Preprocess(1.0), {'a', 'b', 'c'}, functools.partial(t.scaled, 3))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    here = [scaled, helped, closure(2), preprocess_input, Preprocess(1.0), {"c", "b", "a"}]
    here.append(functools.partial(scaled, 3))
    # This file is `tests.test_digests` there and here.
    assert done.stdout.strip() == str([digest_of(v) for v in here])


# --- Digests in files that were written when classes had other places ----------------------------

PLACES = {
    "minitl.activations": "elu exponential gelu hard_sigmoid leaky_relu log_softmax relu6 silu",
    "minitl.layers.activation": "ELU Activation LeakyReLU ReLU Softmax",
    "minitl.layers.convolution": "Conv2D",
    "minitl.layers.core": "Dense InputLayer",
    "minitl.layers.merging": "Add Average Concatenate Maximum Minimum Multiply Subtract",
    "minitl.layers.normalization": "BatchNormalization LayerNormalization Rescaling "
    "UnitNormalization",
    "minitl.layers.pooling": "AveragePooling1D AveragePooling2D GlobalAveragePooling1D "
    "GlobalAveragePooling2D GlobalMaxPooling1D GlobalMaxPooling2D MaxPooling1D MaxPooling2D",
    "minitl.layers.recurrent": "GRU LSTM",
    "minitl.layers.regularization": "Dropout GaussianDropout SpatialDropout1D SpatialDropout2D",
    "minitl.layers.reshaping": "Cropping2D Flatten Identity Permute RepeatVector Reshape "
    "UpSampling2D ZeroPadding2D",
    "minitl.layers.wrappers": "Bidirectional TimeDistributed",
    "minitl.layers.augmentation": "GaussianNoise RandomBrightness RandomContrast RandomCrop "
    "RandomFlip RandomRotation RandomTranslation RandomTurn RandomZoom",
    "minitl.ops": "linear relu sigmoid softmax tanh",
}


@pytest.mark.parametrize("place", PLACES)
def test_classes_and_functions_are_known_by_the_place_where_they_once_were(place):
    for name in PLACES[place].split():
        value = getattr(k, name, None) or minitl.activations.get(name)
        assert digest_of(value) == hashlib.sha256(repr(f"{place}.{name}").encode()).hexdigest()


def test_preprocessing_is_known_by_the_place_where_it_once_was():
    expected = "b6c55990ecc9550cfef7ab215de2d496b5ecd7787611a4406957669e09ca3162"
    assert digest_of(preprocess_input) == digest_of(resnet50.preprocess_input) == expected


def head():
    base = VGG16(weights=None, include_top=False, input_shape=(32, 32, 3))
    x = k.Dense(8, activation="relu", kernel_regularizer="l2")(k.Flatten()(base.output))
    return minitl.Model(base.input, k.Dense(3, activation="softmax")(k.Dropout(0.5)(x)))


def pooled():
    return ResNet50(weights=None, include_top=False, input_shape=(32, 32, 3), pooling="avg")


def sequence():
    return minitl.Sequential(
        [
            k.Input((4, 8, 8, 1)),
            k.Rescaling(1 / 255),
            k.TimeDistributed(k.ZeroPadding2D(1)),
            k.TimeDistributed(k.Conv2D(2, 3, padding="same", activation="elu")),
            k.TimeDistributed(k.MaxPooling2D()),
            k.TimeDistributed(k.Flatten()),
            k.Bidirectional(k.LSTM(4, return_sequences=True)),
            k.LayerNormalization(),
            k.GRU(3, activation="relu"),
            k.LeakyReLU(),
            k.BatchNormalization(),
            k.Dense(2, activation="gelu"),
        ]
    )


@pytest.mark.parametrize(
    ("make", "digest"),
    [
        (head, "60be65724135b84873b9a2b4a1258a565ae9f9f82ee75411108255561fcdee1a"),
        (pooled, "8096cae539fa7b8161b79a6a920a0619175a11df9bd25fa890bd52c1e6d0f642"),
        (sequence, "9f68c4fc9d1494800cc4d01931da55b4f6321bd42dfb1e0fad015bcc4933c8b2"),
    ],
)
def test_architectures_have_the_digests_that_feature_files_hold(make, digest):
    assert architecture(open_up(make())) == digest


EDITS = {
    "constant": ("return np.clip(x, settings.LOW, 9)", "LOW = 1", "LOW = 2"),
    "getattr": ("return x + getattr(settings, 'LOW')", "LOW = 1", "LOW = 2"),
    "class attribute": ("return x + settings.C.low", "class C: low = 1", "class C: low = 2"),
    "property": (
        "return x + settings.C().low",
        "class C:\n    low = property(lambda self: 1)",
        "class C:\n    low = property(lambda self: 2)",
    ),
    "operator": (
        "return settings.C() * x",
        "class C:\n    def __mul__(self, x): return x",
        "class C:\n    def __mul__(self, x): return 2 * x",
    ),
    "dictionary": ("return x + settings.D['low']", "D = {'low': 1}", "D = {'low': 2}"),
    "key": ("return x + settings.D[min(settings.D)]", "D = {1: 1}", "D = {'1': 1}"),
    "list in place": ("return x + settings.L[0]", "L = [1]", "L = [1]\nL.append(2)\nL[0] = 2"),
    "array": ("return x + settings.A", "A = np.arange(3)", "A = np.arange(3)[::-1]"),
    "objects": ("return x + settings.A[0]", "A = np.array([None, 1])", "A = np.array([None, 2])"),
    "helper": ("return settings.f(x)", "def f(x): return x", "def f(x): return x + 1"),
    "its helper": (
        "return settings.f(x)",
        "def g(x): return x\ndef f(x): return g(x)",
        "def g(x): return -x\ndef f(x): return g(x)",
    ),
    "default": (
        "return settings.f(x)",
        "def f(x, a=1): return x * a",
        "def f(x, a=2): return x * a",
    ),
    "function attribute": (
        "return settings.f(x)",
        "def f(x): return x * f.a\nf.a = 1",
        "def f(x): return x * f.a\nf.a = 2",
    ),
    "imported by the function": (
        "import settings as s\n    return x + s.LOW",
        "LOW = 1",
        "LOW = 2",
    ),
    "slots": (
        "return x + settings.c.low",
        "class C:\n    __slots__ = ('low',)\nc = C()\nc.low = 1",
        "class C:\n    __slots__ = ('low',)\nc = C()\nc.low = 2",
    ),
    "dictionary's attribute": (
        "return x + settings.d.low",
        "class D(dict): low = 1\nd = D()\nd.low = 1",
        "class D(dict): low = 1\nd = D()\nd.low = 2",
    ),
    "generator": (
        "return x + settings.rng.random()",
        "rng = np.random.default_rng(1)",
        "rng = np.random.default_rng(2)",
    ),
    "method of an array": ("return settings.m(x)", "m = np.ones(3).dot", "m = np.zeros(3).dot"),
    "metaclass": (
        "return x + settings.C.low",
        "class M(type): low = 1\nclass C(metaclass=M): pass",
        "class M(type): low = 2\nclass C(metaclass=M): pass",
    ),
    "array of a class of its own": (
        "return x + settings.a",
        "class A(np.ndarray): pass\na = np.ones(3).view(A)",
        "class A(np.ndarray): pass\na = np.zeros(3).view(A)",
    ),
    "masked array": (
        "return x + settings.a",
        "a = np.ma.array([1.0, 2.0], mask=[0, 1])",
        "a = np.ma.array([1.0, 2.0], mask=[1, 0])",
    ),
    "number of a class of its own": (
        "return x + settings.a",
        "class A(float): __repr__ = lambda self: 'A'\na = A(1)",
        "class A(float): __repr__ = lambda self: 'A'\na = A(2)",
    ),
    "text of a class of its own": (
        "return x + settings.a.low",
        "class A(str): low = 1\na = A('a')",
        "class A(str): low = 2\na = A('a')",
    ),
    "queue": (
        "return x + settings.q[0]",
        "import collections\nq = collections.deque([np.array([1.0])])",
        "import collections\nq = collections.deque([np.array([1.0 + 1e-12])])",
    ),
    "view of a dictionary": (
        "return x + sum(settings.v)",
        "v = {1: np.array([1.0])}.values()",
        "v = {1: np.array([1.0 + 1e-12])}.values()",
    ),
    "what a dictionary makes": (
        "return x + settings.d[9]",
        "import collections\nd = collections.defaultdict(lambda: 1)",
        "import collections\nd = collections.defaultdict(lambda: 2)",
    ),
    "long pattern": (
        "return settings.r.sub('', x)",
        "import re\nr = re.compile('a' * 250 + 'b')",
        "import re\nr = re.compile('a' * 250 + 'c')",
    ),
    "object that is called": (
        "return settings.c(x)",
        "import functools\nclass C: __call__ = functools.partial(np.add, 1)\nc = C()",
        "import functools\nclass C: __call__ = functools.partial(np.add, 2)\nc = C()",
    ),
    "one slot": (
        "return x + settings.c.low",
        "class C: __slots__ = 'low'\nc = C()\nc.low = 1",
        "class C: __slots__ = 'low'\nc = C()\nc.low = 2",
    ),
    "Python's random numbers": (
        "return x + settings.r.random()",
        "import random\nr = random.Random(1)",
        "import random\nr = random.Random(2)",
    ),
    "number in C": (
        "return x + settings.c.value",
        "import ctypes\nc = ctypes.c_int(1)",
        "import ctypes\nc = ctypes.c_int(2)",
    ),
    "function of NumPy": ("return settings.f(x)", "f = np.sin", "f = np.min.__call__"),
    "the like of NumPy's": ("return settings.f(x, 1)", "f = np.fmin", "f = np.minimum"),
}


def made(code, settings, monkeypatch, tmp_path):
    """`prepare` of a module that imports `settings`, both of the user's."""
    for name, text in (("settings", settings), ("work", f"def prepare(x):\n    {code}")):
        module = types.ModuleType(name)
        module.__file__ = str(tmp_path / f"{name}.py")
        module.np = np
        monkeypatch.setitem(sys.modules, name, module)
        module.settings = sys.modules["settings"]
        exec(text, vars(module))
    return sys.modules["work"].prepare


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_in_another_module_is_seen(edit, monkeypatch, tmp_path):
    code, before, after = EDITS[edit]
    found = [digest_of(made(code, s, monkeypatch, tmp_path)) for s in (before, before, after)]
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("return x * float(np.os.environ['SCALE'])", "reads what `environ` gives"),
        ("return x * np.load('scale.npy')", "reads what `load` gives"),
        ("return x * globals()['np'].pi", "reads what `globals` gives"),
        ("return settings.lock and x", "a lock cannot be told from another"),
        ("import h5py as h\n    return x * h.File('a.h5')['x'][0]", "reads what `h5py` gives"),
        ("import subprocess\n    return x * subprocess.run('a')", "reads what `subprocess` gives"),
        ("import sys\n    return x * sys.modules['settings'].LOW", "reads what `modules` gives"),
        ("import sys\n    return x * float(sys.argv[1])", "reads what `argv` gives"),
        ("return settings.given('scale.npy')", "reads what `load` gives"),
        ("import configparser as c\n    return x * c.ConfigParser()['k']", "reads what `"),
        ("import zipfile as z\n    return x * z.ZipFile('a').read('k')[0]", "reads what `"),
        ("import linecache as c\n    return x * float(c.getline('a', 1))", "reads what `"),
        ("import os\n    return x * float(os.popen('a').read())", "reads what `popen` gives"),
        ("import runpy\n    return x * runpy.run_path('a.py')['K']", "reads what `run"),
        ("import datetime as d\n    return x * d.date.today().day", "reads what `today` gives"),
        ("from to_come import K\n    return x * K", "reads what `to_come` gives"),
        ("return x * settings.ufunc(1.0)", "a ufunc cannot be told from another"),
        ("return x * float(settings.file.read())", "an open file holds cannot be told"),
    ],
)
def test_what_cannot_be_known_is_said(code, words, monkeypatch, tmp_path):
    unknown = []
    lock = "import _thread\nfrom numpy import load as given\nlock = _thread.allocate_lock()"
    lock += "\nimport numpy\nufunc = numpy.frompyfunc(lambda v: v * 2, 1, 1)"
    lock += "\nfile = open(numpy.__file__)"
    (tmp_path / "to_come.py").write_text("K = 2")
    monkeypatch.syspath_prepend(tmp_path)
    digest_of(made(code, lock, monkeypatch, tmp_path), unknown)
    assert any(words in reason for reason in unknown)


def test_code_alone(monkeypatch, tmp_path):
    """Of a callback: its values may change between two runs, what it does may not."""
    code = "return settings.f(x, settings.LOW)"
    texts = [
        f"LOW = {low}\ndef f(x, low): return {c}" for low, c in ((1, "x"), (2, "x"), (1, "-x"))
    ]
    found = [digest_of(made(code, s, monkeypatch, tmp_path), code_only=True) for s in texts]
    assert found[0] == found[1] != found[2]


def test_a_model_in_a_function_is_known_by_its_description_and_weights():
    """Not by what it counts or keeps; a symbolic tensor is no array."""

    def made(scale):
        minitl.utils.clear_session()
        minitl.utils.set_random_seed(0)
        model = minitl.Sequential([minitl.Input((3,)), minitl.layers.Dense(2)])
        model.set_weights([w * scale for w in model.get_weights()])
        return model

    def applied(model):
        return digest_of(lambda x: model.predict(x))

    used = made(1)
    used.predict(np.zeros((1, 3)), verbose=0)
    assert applied(made(1)) == applied(used) != applied(made(2))
