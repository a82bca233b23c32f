"""What all tests share: every one starts from the same settings and leaves none behind."""

import hypothesis
import pytest

from minitl import config, kernels, naming

# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def fresh_settings():
    """The default dtype, seed, names and kernels, before and after each test."""
    naming.forget_names()
    config.set_random_seed(0)
    before = config.floatx(), kernels.current_kernels()
    yield
    config.set_floatx(before[0])
    kernels.use_kernels(before[1])


@pytest.fixture
def float64():
    """Layers made in this test compute in float64, as checks of gradients need."""
    config.set_floatx("float64")
