"""What Keras's tests take for Keras: modules of its names in which minitl's things are found.

`keras.src.layers.core.dense.Dense` is `minitl.layers.Dense`: the first room after `keras.src`
decides. What is not there can be imported all the same, and says so when it is used. Arrays stand
for a backend's tensors; `TestCase` has the helpers that Keras's has, without those for backends.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import shutil
import sys
import tempfile
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import minitl
from benchmarks.keras_tests.sorting import in_words

ROOMS = {"saving": "saving", "random": "random", "src": ""}


class Blocked:
    """Base of a test's class whose base is not there."""

    error: BaseException = AttributeError("absent")

    def __init__(self, *_: Any, **__: Any):
        raise self.error


class Absent:
    """A name that minitl does not have: an error, minitl's own, as soon as it is used."""

    def __init__(self, name: str, error: BaseException):
        self.__dict__.update(name=name, error=error)

    def __call__(self, *_: Any, **__: Any) -> Any:
        raise self.error

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise self.error

    def __mro_entries__(self, _: Any) -> tuple[type, ...]:
        return (type(self.name, (Blocked,), {"error": self.error}),)


# --- The backend, trees ---------------------------------------------------------------------------


def leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for key in sorted(value) for leaf in leaves(value[key])]
    if isinstance(value, (list, tuple)):
        return [leaf for each in value for leaf in leaves(each)]
    return [value]


def map_structure(function: Any, *values: Any, none_is_leaf: bool = True) -> Any:
    first = values[0]
    if isinstance(first, dict):
        return {key: map_structure(function, *(v[key] for v in values)) for key in first}
    if isinstance(first, (list, tuple)):
        mapped = [map_structure(function, *each) for each in zip(*values, strict=True)]
        return mapped if isinstance(first, list) else tuple(mapped)
    return function(*values)


def is_shape(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(n, (int, type(None))) for n in value)


def map_shapes(function: Any, shape: Any, dtype: Any = None) -> Any:
    if is_shape(shape):
        return function(tuple(shape), dtype if isinstance(dtype, (str, type(None))) else dtype[0])
    if isinstance(shape, dict):
        return {k: map_shapes(function, v, dtype and dtype[k]) for k, v in shape.items()}
    dtypes = dtype if isinstance(dtype, (list, tuple)) else [dtype] * len(shape)
    made = [map_shapes(function, s, d) for s, d in zip(shape, dtypes, strict=True)]
    return tuple(made) if isinstance(shape, tuple) else made


def symbolic(shape: Any, dtype: str = "float32", sparse: bool = False, name: Any = None, **_: Any):
    dtype = "float32" if str(dtype) not in ("float32", "float64") else dtype
    return minitl.layers.Input(batch_shape=tuple(shape), dtype=dtype, name=name)


class _SymbolicType(type):
    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, minitl.layers.SymbolicTensor)

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return symbolic(*args, **kwargs)


class KerasTensor(metaclass=_SymbolicType):
    """What `KerasTensor(shape)` is here: the output of an Input."""


def dtype_name(dtype: Any) -> str:
    return "string" if dtype == "string" else np.dtype(dtype or "float32").name


def set_image_data_format(form: str) -> None:
    if form != "channels_last":
        minitl.layers.Flatten(data_format=form)  # says what minitl says


BACKEND = {
    "backend": lambda: "minitl",
    "convert_to_numpy": lambda x: map_structure(np.asarray, x),
    "is_tensor": lambda x: isinstance(x, minitl.Tensor),
    "image_data_format": lambda: "channels_last",
    "set_image_data_format": set_image_data_format,
    "standardize_data_format": lambda form: form or "channels_last",
    "standardize_dtype": dtype_name,
    "is_float_dtype": lambda dtype: "float" in dtype_name(dtype),
    "floatx": lambda: minitl.config.floatx(),
    "set_floatx": lambda dtype: minitl.config.set_floatx(dtype),
    "epsilon": lambda: 1e-7,
    "Variable": minitl.Variable,
    "KerasTensor": KerasTensor,
    "SUPPORTS_SPARSE_TENSORS": False,
    "SUPPORTS_RAGGED_TENSORS": False,
    "SUPPORTS_COMPLEX_DTYPES": False,
    "IS_THREAD_SAFE": True,
    "shape": lambda x: tuple(x.shape),
}
# Keras's inner functions behind `model.save("x.h5")`, which its tests of that format call.
LEGACY = {
    "save_model_to_hdf5": lambda model, path, overwrite=True, include_optimizer=True: model.save(
        str(path), overwrite=overwrite, include_optimizer=include_optimizer
    ),
    "load_model_from_hdf5": lambda path, custom_objects=None, compile=True: (
        minitl.models.load_model(str(path), custom_objects, compile)
    ),
}
# What `setUp` of some tests keeps, and puts back.
POLICIES = {
    "dtype_policy": types.SimpleNamespace(
        dtype_policy=lambda: minitl.config.floatx(),
        set_dtype_policy=lambda policy: minitl.config.set_floatx(str(policy)),
    )
}
TREE = {
    "flatten": leaves,
    "map_structure": map_structure,
    "is_nested": lambda x: isinstance(x, (dict, list, tuple)),
    "assert_same_structure": lambda a, b, **_: map_structure(lambda *_: None, a, b),
    "map_shape_structure": map_shapes,
}


# --- The tests' base class ------------------------------------------------------------------------


class _Raises:
    """assertRaises, which also takes another error that is in words, and remembers that."""

    def __init__(self, test: Any, expected: Any, words: Any = None):
        self.test, self.expected, self.words = test, expected, words
        self.exception: Any = None

    def __enter__(self) -> _Raises:
        return self

    def __exit__(self, kind: Any, error: Any, _: Any) -> bool:
        import re

        if error is None:
            raise AssertionError(f"{self.expected} not raised")
        self.exception, self.test.caught = error, str(error)
        if isinstance(error, self.expected):
            if self.words is None or re.search(self.words, str(error)):
                return True
            if in_words(error):
                self.test.other_words = True
                return True
            return False
        if in_words(error) and isinstance(error, Exception):
            self.test.other_words = True
            return True
        return False


def make_test_case() -> type:
    from absl.testing import parameterized

    class TestCase(parameterized.TestCase):
        maxDiff = None  # type: ignore[assignment]
        other_words = False
        caught = ""  # the words of the last error that a test expected

        def assertEqual(self, first: Any, second: Any, msg: Any = None) -> None:
            if first != second and self.caught and self.caught in (first, second):
                self.other_words = True
                return
            super().assertEqual(first, second, msg)

        def setUp(self) -> None:
            minitl.utils.clear_session()

        def assertRaisesRegex(  # type: ignore[override]
            self, expected: Any, words: Any = None, *args: Any, **kwargs: Any
        ) -> Any:
            return self._raises(_Raises(self, expected, words), *args, **kwargs)

        def assertRaises(  # type: ignore[override]
            self, expected: Any, *args: Any, **kwargs: Any
        ) -> Any:
            return self._raises(_Raises(self, expected), *args, **kwargs)

        def _raises(self, context: Any, *args: Any, **kwargs: Any) -> Any:
            kwargs.pop("msg", None)
            if not args:
                return context
            with context:
                args[0](*args[1:], **kwargs)
            return None

        def get_temp_dir(self) -> str:
            place = tempfile.mkdtemp()
            self.addCleanup(lambda: shutil.rmtree(place, ignore_errors=True))
            return place

        def convert_to_numpy(self, x: Any) -> Any:
            return np.asarray(x)

        def assertAllClose(
            self, a: Any, b: Any, atol: float = 1e-6, rtol: float = 1e-6, msg: Any = None, **_: Any
        ) -> None:
            a, b = np.asarray(a), np.asarray(b)
            np.testing.assert_allclose(a, b, atol=atol, rtol=rtol, err_msg=msg or "")

        def assertNotAllClose(self, a: Any, b: Any, msg: Any = None, **settings: Any) -> None:
            try:
                self.assertAllClose(a, b, **settings)
            except AssertionError:
                return
            raise AssertionError(msg or "the two are close")

        def assertAlmostEqual(  # type: ignore[override]
            self, a: Any, b: Any, decimal: int = 3, msg: Any = None, **_: Any
        ) -> None:
            a, b = np.asarray(a), np.asarray(b)
            np.testing.assert_almost_equal(a, b, decimal=decimal, err_msg=msg or "")

        def assertAllEqual(self, a: Any, b: Any, msg: Any = None) -> None:
            np.testing.assert_array_equal(np.asarray(a), np.asarray(b), err_msg=msg or "")

        def assertLen(self, container: Any, expected_len: int, msg: Any = None) -> None:
            self.assertEqual(len(container), expected_len, msg=msg)

        def assertFileExists(self, path: Any) -> None:
            self.assertTrue(Path(path).is_file())

        def assertDType(self, x: Any, dtype: Any, msg: Any = None) -> None:
            found = x.dtype if hasattr(x, "dtype") else type(x)
            self.assertEqual(dtype_name(found), dtype_name(dtype), msg=msg)

        run_class_serialization_test = _serialization
        run_layer_test = _layer_test

    return TestCase


def _as_json(config: Any) -> str:
    return json.dumps(config, sort_keys=True, default=str)


def _serialization(self: Any, instance: Any, custom_objects: Any = None) -> Any:
    """The configuration makes an object with the same configuration."""
    config = instance.get_config()
    with minitl.utils.custom_object_scope(custom_objects or {}) if custom_objects else _nothing():
        revived = type(instance).from_config(config)
    self.assertEqual(_as_json(config), _as_json(revived.get_config()))
    return revived


_nothing = contextlib.nullcontext


def _layer_test(
    self: Any,
    layer_cls: Any,
    init_kwargs: Any,
    input_shape: Any = None,
    input_dtype: Any = None,
    input_data: Any = None,
    call_kwargs: Any = None,
    custom_objects: Any = None,
    run_training_check: bool = True,
    **expected: Any,
) -> None:
    """Configuration, build, a symbolic call, a call on arrays, a step of training."""
    init_kwargs, call_kwargs = init_kwargs or {}, call_kwargs or {}
    self.run_class_serialization_test(layer_cls(**init_kwargs), custom_objects)
    if expected.get("supports_masking") is not None:
        self.assertEqual(layer_cls(**init_kwargs).supports_masking, expected["supports_masking"])
    if input_data is None and input_shape is None:
        return
    if input_data is None:
        rng = np.random.default_rng(0)
        input_data = map_shapes(
            lambda shape, dtype: np.asarray(rng.random(shape) * 3, dtype or "float32"),
            input_shape,
            input_dtype,
        )
    shapes = input_shape or map_structure(lambda x: tuple(np.shape(x)), input_data)

    def called(layer: Any, data: Any) -> Any:
        if isinstance(data, dict):
            return layer(**data, **call_kwargs)
        return layer(data, **call_kwargs)

    layer = layer_cls(**init_kwargs)
    layer.build(**shapes) if isinstance(shapes, dict) else layer.build(shapes)
    _check_weights(self, layer, expected)
    layer = layer_cls(**init_kwargs)
    outputs = called(
        layer,
        map_structure(lambda x: symbolic(np.shape(x), getattr(x, "dtype", "float32")), input_data),
    )
    _check_weights(self, layer, expected)
    _check_shapes(self, outputs, expected.get("expected_output_shape"))
    layer = layer_cls(**init_kwargs)
    outputs = called(layer, input_data)
    _check_shapes(self, outputs, expected.get("expected_output_shape"))
    if expected.get("expected_output") is not None:
        for a, b in zip(leaves(expected["expected_output"]), leaves(outputs), strict=True):
            self.assertAllClose(a, b, msg="Unexpected output value")
    if expected.get("expected_num_losses") is not None:
        self.assertLen(layer.losses, expected["expected_num_losses"])
    if run_training_check:
        _train(layer, input_data, outputs)


def _check_weights(self: Any, layer: Any, expected: Any) -> None:
    self.assertTrue(layer.built)
    for what in ("trainable_weights", "non_trainable_weights"):
        if (count := expected.get(f"expected_num_{what}")) is not None:
            self.assertLen(getattr(layer, what), count, msg=f"Unexpected number of {what}")


def _check_shapes(self: Any, outputs: Any, shapes: Any) -> None:
    if shapes is None:
        return
    wanted = (
        [shapes]
        if is_shape(shapes)
        else [tuple(s) for s in (shapes.values() if isinstance(shapes, dict) else shapes)]
    )
    for out, shape in zip(leaves(outputs), wanted, strict=True):
        fits = len(out.shape) == len(shape) and all(
            b is None or a == b for a, b in zip(out.shape, shape, strict=True)
        )
        self.assertTrue(fits, msg=f"Expected output shapes {shapes}, received {out.shape}")


def _train(layer: Any, data: Any, outputs: Any) -> None:
    """One step: the gradient of the outputs' sum goes through the layer."""
    trainable = layer.trainable_weights
    data = data if not isinstance(data, dict) else None
    if not trainable or data is None:
        return
    y = layer(data, training=True)
    total: Any = None
    for out in leaves(y):
        part = minitl.ops.sum(out)
        total = part if total is None else total + part
    if total.requires_grad:
        minitl.backward(total, trainable)


# --- Modules --------------------------------------------------------------------------------------


class StandIn(types.ModuleType):
    """A module of Keras's name, in which minitl's things are found."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        full = f"{self.__name__}.{name}"
        found = look_for(self.__name__, name)
        if isinstance(found, Absent) and is_place(full):
            found = importlib.import_module(full)
        setattr(self, name, found)
        return found


CHECKOUT = Path()


def is_place(module: str) -> bool:
    path = CHECKOUT / module.replace(".", "/")
    return path.is_dir() or path.with_suffix(".py").exists()


def look_for(module: str, name: str) -> Any:
    parts = [p for p in module.split(".")[1:] if p not in ("src", "api", "_tf_keras")]
    own: dict[str, dict[str, Any]] = {"backend": BACKEND, "tree": TREE, "testing": TESTING}
    if name in LEGACY:
        return LEGACY[name]
    if parts[:1] == ["dtype_policies"] and name in POLICIES:
        return POLICIES[name]
    if parts and parts[0] in own:
        if name in own[parts[0]] and name != "backend":
            return own[parts[0]][name]
        if parts[0] == "backend" and name == "backend":
            return BACKEND["backend"]
        if parts[0] == "backend" and name in ("config", "common"):
            return importlib.import_module(f"{module}.{name}")
        if parts[0] != "backend":
            return Absent(name, AttributeError(f"{module}.{name}"))
        places: list[Any] = [minitl.ops]
    else:
        places = []
        if not parts and name in own:
            return importlib.import_module(f"{module}.{name}")
        if name in BACKEND and not parts:
            return BACKEND[name]
        if name == "Functional":
            return minitl.Model
        if parts[:1] == ["saving"]:  # two places here
            places += [minitl.models, minitl.utils]
        elif parts:
            with contextlib.suppress(AttributeError, NotImplementedError):
                place: Any = getattr(minitl, parts[0])
                for part in parts[1:]:
                    place = getattr(place, part, place)
                places.append(place)
                if place is not getattr(minitl, parts[0]):
                    places.append(getattr(minitl, parts[0]))
        if not parts or not is_place(f"{module}.{name}"):  # `minitl.relu` is no module of layers
            places += [minitl, minitl.utils]
    first: BaseException | None = None
    refusal: BaseException | None = None
    for place in places:
        try:
            return getattr(place, name)
        except AttributeError as error:
            first = first or error
        except Exception as error:  # a refusal
            refusal = refusal or error
    if refusal is not None:
        return Absent(name, refusal)
    return Absent(name, first or AttributeError(f"{module}.{name}"))


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds `keras` and all below it here, but test files in the checkout."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name.split(".")[0] not in ("keras", "jax", "grain"):  # the others are not asked
            return None
        if name.endswith(("_test", ".test_utils")):  # which need nothing of Keras, or only this
            file = CHECKOUT / (name.replace(".", "/") + ".py")
            return importlib.util.spec_from_file_location(name, file)
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: Any) -> Any:
        module = StandIn(spec.name)
        module.__path__ = []
        return module

    def exec_module(self, module: Any) -> None:
        pass


TESTING: dict[str, Any] = {}


def install(checkout: Path) -> None:
    """From now on `keras` is minitl in this process."""
    global CHECKOUT
    CHECKOUT = checkout
    test_case = make_test_case()
    TESTING.update(TestCase=test_case)
    for name in ("jax_uses_gpu", "uses_gpu", "tensorflow_uses_gpu", "torch_uses_gpu"):
        TESTING[name] = lambda: False
    for name in ("uses_tpu", "jax_uses_tpu", "tensorflow_uses_tpu"):
        TESTING[name] = lambda: False
    TESTING["test_case"] = types.SimpleNamespace(**TESTING)
    sys.meta_path.insert(0, Finder())
    TESTING["test_utils"] = importlib.import_module("keras.src.testing.test_utils")
    conftest = types.ModuleType("conftest")
    import pytest

    conftest.skip_if_backend = lambda given, why: pytest.mark.skipif(  # type: ignore[attr-defined]
        given == "minitl", reason=why
    )
    sys.modules["conftest"] = conftest


def walk(suite: Any) -> Iterator[Any]:
    for each in suite:
        if hasattr(each, "__iter__"):
            yield from walk(each)
        else:
            yield each
