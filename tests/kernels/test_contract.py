"""What holds for every kernel, whichever way it is computed: who owns the arrays, which bits do not
depend on the threads, the derivatives of what is not linear, and how a kernel is chosen."""

import copy
import inspect
import subprocess
import sys
import threading
from importlib import import_module

import numpy as np
import pytest

from minitl import config, kernels
from minitl.autograd import Tensor, backward
from minitl.kernels import current_kernels, use_kernels
from minitl.kernels.fast import im2col
from minitl.kernels.geometry import sliding
from minitl.kernels.machine import threads
from minitl.ops.recurrence import LSTMWalk
from tests.kernels.cases import BESIDE, normal, reference
from tests.layers.test_gradients import CASES as LAYERS
from tests.layers.test_gradients import arrays, run
from tests.tolerances import FINITE_DIFFERENCE, FINITE_DIFFERENCE_STEP

GEOMETRY = sliding((7, 6), (3, 3), (2, 1), "same")
ONE = sliding((7, 6), (1, 1), (1, 1), "same")
rng = np.random.default_rng(0)
X, Y = normal(rng, (2, 7, 6, 4)), normal(rng, (2, 4, 6, 5))
KERNEL, BIAS = normal(rng, (3, 3, 4, 5)), normal(rng, 5)
POOLED, WINNERS = reference.max_pool2d_with_winners(X, GEOMETRY)
F, W, G = normal(rng, (6, 8)), normal(rng, (8, 5)), normal(rng, (6, 5))
MAPS, NO_FILL = normal(rng, (2, 2, 3)), np.zeros(4)
TONES = abs(normal(rng, 2)), normal(rng, (2, 4)), np.full(4, -1.0), np.full(4, 1.0)
SEEDS = np.array([3, 4], np.uint64)
P, CHANNELS = reference.softmax(G), abs(normal(rng, (3, 4))) + 1

CALLS = {
    "conv2d": (X, KERNEL, BIAS, GEOMETRY, "relu"),
    "conv2d_onto": (Y**2, X, KERNEL, BIAS, GEOMETRY, "relu"),
    "conv2d_input_gradient": (Y, KERNEL, GEOMETRY),
    "conv2d_kernel_gradient": (X, Y, GEOMETRY),
    "conv2d_max_pool2d": (X, KERNEL, BIAS, sliding((7, 6), (3, 3), (1, 1), "same"), "relu"),
    "max_pool2d": (X, GEOMETRY),
    "max_pool2d_with_winners": (X, GEOMETRY),
    "max_pool2d_gradient": (POOLED, WINNERS, GEOMETRY),
    "average_pool2d": (X, GEOMETRY),
    "average_pool2d_gradient": (POOLED, GEOMETRY),
    "dense": (F, W, BIAS),
    "dense_input_gradient": (G, W),
    "dense_kernel_gradient": (F, G),
    "bias_gradient": (Y,),
    "relu6": (8 * X,),
    "relu6_gradient": (X, abs(8 * X)),
    "silu": (X,),
    "silu_gradient": (X[::-1].copy(), X),
    "relu": (X,),
    "relu_gradient": (X, abs(X)),
    "bias_relu_gradient": (X, X[::-1].copy()),
    "softmax": (F,),
    "softmax_gradient": (G, P),
    "softmax_cross_entropy": (G, P),
    "batch_norm_statistics": (X,),
    "scale_shift": (X, *CHANNELS[:2]),
    "batch_norm_gradient": (X**2, X, *CHANNELS),
    "affine_transform": (X, MAPS, (5, 8), "bilinear", "reflect", NO_FILL),
    "affine_transform_gradient": (Y, MAPS, (7, 6), "bilinear", "wrap"),
    "adjust_tone": (X, *TONES),
    "adjust_tone_gradient": (X**2, X, *TONES),
    "gaussian_noise": (X, 0.5, SEEDS),
}
CONSTANT = (KERNEL, BIAS, W, NO_FILL, *TONES[2:])  # arrays without a batch axis
SUMS = {  # over the batch, and which output that is
    "conv2d_kernel_gradient": 0,
    "dense_kernel_gradient": 0,
    "bias_gradient": 0,
    "bias_relu_gradient": 1,
}
NO_ARRAY = {"sgd_update", "adam_update", "all_finite", "walk_forward", "walk_backward"}  # comes out
WHERE_ARRAYS_COME_FROM = {"empty", "copy", "zeros_like"}  # see test_memory.py
FORMULAS_ONLY = {  # which are fast enough, or seldom asked for
    "softmax_gradient",
    "affine_transform_gradient",
    "adjust_tone_gradient",
}
EXPORTED = {name for name, value in vars(kernels).items() if hasattr(value, "formula")}
KNOWN = set(CALLS) | NO_ARRAY | WHERE_ARRAYS_COME_FROM


def calls_of_layers(names):
    """What the cases of the layers call these kernels with, in float64."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            kernel = getattr(kernels, name)

            def noted(*arguments, name=name, kernel=kernel):
                found.setdefault(name, tuple(map(copy.copy, arguments)))
                return kernel(*arguments)

            patch.setattr(kernels, name, noted)
        config.set_floatx("float64")
        for make, shape in (case for cases in LAYERS.values() for case in cases) if names else ():
            tensors = [Tensor(a, requires_grad=True) for a in arrays(shape)]
            y = run(make(), tensors if isinstance(shape, list) else tensors[0])
            backward(y, tensors, normal(np.random.default_rng(0), y.shape))
        config.set_floatx("float32")
    return found


# A kernel that a layer's case runs through needs no entry above; those there have more tests.
IN_LAYERS = calls_of_layers((EXPORTED | set(BESIDE)) - KNOWN)
EVERY = CALLS | IN_LAYERS


@pytest.fixture(autouse=True, params=["reference", "fast"])
def which(request):
    with use_kernels(request.param):
        yield request.param


def outputs(result):
    return result if isinstance(result, tuple) else (result,)


def test_every_kernel_is_called_here():
    assert EXPORTED | set(BESIDE) | FORMULAS_ONLY == KNOWN | set(IN_LAYERS)
    assert all(getattr(kernels, name) is kernel for name, kernel in BESIDE.items())
    for name in FORMULAS_ONLY:
        kernel = getattr(kernels, name)
        assert getattr(kernel, "formula", kernel) is getattr(reference, name)
        assert name not in kernels.TWINS


@pytest.mark.parametrize("name", sorted(EVERY.keys() - FORMULAS_ONLY))
def test_the_twin_computes_what_the_formula_says(name):
    found = outputs(getattr(kernels, name)(*EVERY[name]))
    expected = outputs(getattr(kernels, name).formula(*EVERY[name]))
    for y, exact in zip(found, expected, strict=True):
        assert y.dtype == exact.dtype
        np.testing.assert_allclose(y, exact, rtol=1e-9, atol=1e-12 * abs(exact).max())


@pytest.mark.parametrize("name", EVERY)
def test_inputs_stay_as_they_are_and_outputs_are_new(name):
    arguments = EVERY[name]
    arrays = [a for a in arguments if isinstance(a, np.ndarray)]
    before = [a.copy() for a in arrays]
    getattr(kernels, name)(*arguments)  # whatever is kept from call to call is there after this
    result = outputs(getattr(kernels, name)(*arguments))
    for a, b in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(a, b)
    for out in result:
        assert not any(np.shares_memory(out, a) for a in arrays)
        assert out.flags.writeable and out.flags.c_contiguous
        assert not any(np.shares_memory(out, other) for other in result if other is not out)
    again = outputs(getattr(kernels, name)(*arguments))
    for out, second in zip(result, again, strict=True):
        assert not np.shares_memory(out, second), "two calls share a buffer"
        np.testing.assert_array_equal(out, second)


def test_read_only_inputs_are_welcome():
    x = X.copy()
    x.flags.writeable = False
    np.testing.assert_array_equal(
        kernels.conv2d(x, KERNEL, BIAS, GEOMETRY), kernels.conv2d(X, KERNEL, BIAS, GEOMETRY)
    )


def test_a_1x1_convolution_returns_no_view():
    eye = np.eye(4).reshape(1, 1, 4, 4)
    y = kernels.conv2d(X, eye, None, ONE)
    np.testing.assert_array_equal(y, X)
    assert not np.shares_memory(y, X)
    assert not np.shares_memory(kernels.max_pool2d(X, ONE), X)


@pytest.mark.parametrize("name", CALLS)
def test_an_empty_batch_goes_through(name):
    if name in ("batch_norm_statistics", "batch_norm_gradient"):
        pytest.skip("there is no mean of nothing")
    arguments = [
        a[:0] if isinstance(a, np.ndarray) and not any(a is b for b in CONSTANT) else a
        for a in CALLS[name]
    ]
    if name == "scale_shift":
        arguments[1:] = CHANNELS[:2]
    results = (outputs(getattr(kernels, name)(*a)) for a in (arguments, CALLS[name]))
    for i, (out, full) in enumerate(zip(*results, strict=True)):
        if i == SUMS.get(name):
            np.testing.assert_array_equal(out, np.zeros_like(full))
        else:
            assert out.shape == (0, *full.shape[1:])


# --- Derivatives ---------------------------------------------------------------------------------


def assert_derivative(f, gradient, x, seed=1):
    """<g, (f(x + h d) - f(x - h d)) / 2h> = <gradient(g), d> for random g and d."""
    random = np.random.default_rng(seed)
    d, h = random.standard_normal(x.shape), FINITE_DIFFERENCE_STEP
    g = random.standard_normal(f(x).shape)
    left = np.vdot(g, (f(x + h * d) - f(x - h * d)) / (2 * h))
    right = np.vdot(gradient(g), d)
    scale = np.linalg.norm(g) * np.linalg.norm(d)
    assert abs(left - right) <= FINITE_DIFFERENCE * scale


def test_derivatives_of_activations_and_losses():
    assert_derivative(kernels.relu, lambda g: kernels.relu_gradient(g, kernels.relu(X)), X)
    assert_derivative(kernels.softmax, lambda g: kernels.softmax_gradient(g, kernels.softmax(F)), F)
    _, p = kernels.softmax_cross_entropy(G, P)

    def losses(logits):
        return kernels.softmax_cross_entropy(logits, P)[0]

    assert_derivative(losses, lambda g: g[:, None] * (p - P), G)


def test_derivative_of_max_pool():
    assert_derivative(
        lambda x: kernels.max_pool2d(x, GEOMETRY),
        lambda g: kernels.max_pool2d_gradient(
            g, kernels.max_pool2d_with_winners(X, GEOMETRY)[1], GEOMETRY
        ),
        X,
    )


def test_derivatives_of_batch_normalization():
    gamma, beta, epsilon = CHANNELS[0], CHANNELS[1], 1e-3

    def normalize(x, gamma, beta):
        mean, variance = kernels.batch_norm_statistics(x)
        scale = gamma / np.sqrt(variance + epsilon)
        return kernels.scale_shift(x, scale, beta - mean * scale)

    def gradients(g):
        mean, variance = kernels.batch_norm_statistics(X)
        return kernels.batch_norm_gradient(g, X, mean, 1 / np.sqrt(variance + epsilon), gamma)

    assert_derivative(lambda x: normalize(x, gamma, beta), lambda g: gradients(g)[0], X)
    assert_derivative(lambda c: normalize(X, c, beta), lambda g: gradients(g)[1], gamma)
    assert_derivative(lambda c: normalize(X, gamma, c), lambda g: gradients(g)[2], beta)


# --- Threads -------------------------------------------------------------------------------------


@pytest.fixture
def thread_count_restored():
    before = threads.thread_count()
    yield
    threads.set_thread_count(before)


def test_bits_do_not_depend_on_the_threads(which, thread_count_restored, monkeypatch):
    if which == "reference":
        pytest.skip("the formulas leave the threads to NumPy")
    monkeypatch.setattr(im2col, "BLOCK_BYTES", 2**16)
    monkeypatch.setattr(threads, "FEWEST_NUMBERS", 2**10)
    random = np.random.default_rng(0)
    geometry = sliding((33, 31), (3, 3), (1, 1), "same")
    x, k = normal(random, (3, 33, 31, 24), "f"), normal(random, (3, 3, 24, 37), "f")
    y = normal(random, (3, 33, 31, 37), "f")
    wide = normal(random, (1, 1, 24, 96), "f")
    colours = x[..., :3].copy()
    features, weights = normal(random, (70, 3000), "f"), normal(random, (3000, 70), "f")

    def results():
        mean, variance = kernels.batch_norm_statistics(x)
        return [
            kernels.conv2d(x, k, None, geometry),
            kernels.conv2d_onto(
                y, x, k[:1, :1].copy(), None, sliding((33, 31), (1, 1), (1, 1), "valid")
            ),
            kernels.conv2d(
                x[:1, :5, :5].copy(), wide, None, sliding((5, 5), (1, 1), (2, 2), "valid")
            ),
            kernels.conv2d_input_gradient(y, k, geometry),
            kernels.conv2d_kernel_gradient(x, y, geometry),
            kernels.conv2d_kernel_gradient(colours, y, geometry),
            kernels.dense(features, weights, None),
            kernels.dense_input_gradient(features[:, :70].copy(), weights),
            kernels.dense_kernel_gradient(features, features),
            kernels.bias_gradient(y),
            *kernels.bias_relu_gradient(y, y[::-1].copy()),
            mean,
            variance,
            *kernels.batch_norm_gradient(x, x, mean, variance, variance),
        ]

    threads.set_thread_count(1)
    expected = results()
    for count in (2, 3, 8):
        threads.set_thread_count(count)
        for actual, alone in zip(results(), expected, strict=True):
            np.testing.assert_array_equal(actual, alone)


# --- Choosing ------------------------------------------------------------------------------------


def test_use_kernels_as_a_call_and_as_a_context(which):
    assert current_kernels() == which
    with use_kernels("fast"):
        assert current_kernels() == "fast"
        with use_kernels("reference"):
            assert current_kernels() == "reference"
            use_kernels("fast")
            assert current_kernels() == "fast"
        assert current_kernels() == "fast"
    assert current_kernels() == which
    with pytest.raises(KeyError), use_kernels("reference"):
        raise KeyError
    assert current_kernels() == which
    known = "kernels are 'reference', 'fast', 'direct', 'precise'"
    with pytest.raises(ValueError, match=f"{known}, got 'slow'"):
        use_kernels("slow")
    assert current_kernels() == which


def test_each_thread_chooses_for_itself():
    met, found = threading.Barrier(2, timeout=20), {}

    def work(which):
        for _ in range(50):
            with use_kernels(which):
                met.wait()  # both are inside now
                found.setdefault(which, set()).add(current_kernels())
            met.wait()

    with use_kernels("direct"):
        workers = [threading.Thread(target=work, args=(w,)) for w in ("reference", "precise")]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert current_kernels() == "direct"
    assert found == {"reference": {"reference"}, "precise": {"precise"}}


@pytest.mark.parametrize("name", sorted((set(EVERY) | NO_ARRAY) - FORMULAS_ONLY))
def test_the_choice_reaches_every_kernel(name, which, monkeypatch):
    """Each exported name calls the twin of that name if that is switched on, and shows the
    signature and the text of the formula."""
    exported = getattr(kernels, name)
    formula = exported.formula
    assert inspect.signature(exported) == inspect.signature(formula)
    assert exported.__doc__ == formula.__doc__

    import_module("minitl.kernels.fast")
    assert parameters(kernels.TWINS[name]) == parameters(formula)
    assert kernels.TWINS[name].__module__ != formula.__module__
    called = []
    monkeypatch.setitem(kernels.TWINS, name, lambda *a: called.append("fast"))
    exported(*(EVERY[name] if name in EVERY else no_array(name)))
    assert called == (["fast"] if which == "fast" else [])


def parameters(function):
    """Names, order and defaults; the types stand with the formula."""
    found = inspect.signature(function).parameters.values()
    return [(p.name, p.kind, p.default) for p in found]


def no_array(name):
    w = np.ones(3)
    if name == "all_finite":
        return (w,)
    if name.startswith("walk"):
        walk = LSTMWalk(rng.standard_normal((2, 3, 16)), rng.standard_normal((4, 16)), None)
        walk.forward()
        return (walk, np.ones((3, 3, 4)))[: 1 + name.endswith("backward")]
    return (w, w, None, 0.1) if name == "sgd_update" else (w, w, w, w, 0.1, 0.9, 0.9, 1.0)


def test_import_is_light():
    """Numba arrives with the first fast kernel, not with the package, nor with weights."""
    script = (
        "import sys, numpy as np, minitl.kernels as k\n"
        "assert 'numba' not in sys.modules and 'scipy' not in sys.modules\n"
        "k.use_kernels('reference'); k.relu(np.ones(3))\n"
        "assert 'numba' not in sys.modules\n"
        "k.use_kernels('fast'); k.zeros_like(k.copy(k.empty(2**20, 'f4')))\n"
        "import minitl as m; m.Sequential([m.Input((8,)), m.layers.Dense(3)])\n"
        "assert 'minitl.kernels.machine.memory' in sys.modules and 'numba' not in sys.modules\n"
        "k.relu(np.ones(3))\n"
        "assert 'numba' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
