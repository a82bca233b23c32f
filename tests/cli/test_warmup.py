"""What `minitl warmup` promises: no kernel is left to be compiled when training begins."""

import functools
import importlib
import pkgutil

import numba
import pytest

from minitl import kernels
from minitl.cli.warmup import warm_up

COMPILED_INTO_OTHERS = {"_folded", "_index", "_inside", "_line", "_pixel", "_pixels"}
OF_IMAGES_WITH_GRADIENTS = {"_give_back", "_tone_gradient"}  # which no training asks for
JIT = not numba.config.DISABLE_JIT  # type: ignore[attr-defined]


@pytest.mark.skipif(not JIT, reason="nothing is compiled")
def test_every_compiled_kernel_is_called(monkeypatch):
    warm_up()  # with the wrappers below, nothing could be compiled
    called, there = set(), set()
    for room in pkgutil.iter_modules(kernels.__path__):
        module = importlib.import_module(f"minitl.kernels.{room.name}")
        for name, kernel in list(vars(module).items()):
            # Those that Python calls are cached; the others are compiled into them.
            if not hasattr(kernel, "py_func") or kernel.__module__ != module.__name__:
                continue
            if isinstance(kernel._cache, numba.core.caching.NullCache):
                continue
            there.add(name)

            @functools.wraps(kernel.py_func)
            def counted(*args, name=name, kernel=kernel):
                called.add(name)
                return kernel(*args)

            monkeypatch.setattr(module, name, counted)
    warm_up()
    assert len(there) > 20
    assert there - called == COMPILED_INTO_OTHERS | OF_IMAGES_WITH_GRADIENTS
