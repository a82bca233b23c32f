"""Keras on TensorFlow, where it is installed.

On a developer's machine without Keras these tests are skipped. In CI (environment variable
CI=true) a missing Keras is a failure: otherwise the comparison could vanish unseen.
"""

import importlib
import os

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")  # one operation at a time, on all cores
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")


def pytest_collection_modifyitems(items):
    for item in items:
        if "keras_live" in item.nodeid:
            item.add_marker(pytest.mark.keras)


@pytest.fixture(scope="package")
def keras():
    try:
        tf = importlib.import_module("tensorflow")
        module = importlib.import_module("keras")
    except ImportError as error:
        if os.environ.get("CI", "").lower() in ("true", "1"):
            pytest.fail(f"CI must compare with Keras, but it is not installed: {error}")
        pytest.skip(f"Keras is not installed: {error}")
    # To compile a small model's training step takes seconds, to run it as it stands milliseconds.
    # The mission's script is compared with Keras's compiled training (`compiled` below).
    tf.config.run_functions_eagerly(True)
    yield module
    tf.config.run_functions_eagerly(False)


@pytest.fixture
def compiled(keras):
    """Keras trains with compiled functions, as users run it."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(False)
    yield
    tf.config.run_functions_eagerly(True)


@pytest.fixture(autouse=True)
def fresh_names(keras):
    """Automatic layer names start at the same number in both."""
    import minitl

    keras.utils.clear_session(free_memory=False)  # a garbage collection takes a second
    minitl.utils.clear_session()
    keras.utils.set_random_seed(0)
    minitl.utils.set_random_seed(0)
