"""What `minitl warmup` promises: no kernel is left to be compiled when training begins."""

import functools
import importlib
import pkgutil

import numba
import pytest

from minitl import kernels
from minitl.cli.warmup import warm_up
from minitl.kernels.fast import winograd

JIT = not numba.config.DISABLE_JIT  # type: ignore[attr-defined]


@pytest.mark.skipif(not JIT, reason="nothing is compiled")
def test_every_compiled_kernel_is_called(monkeypatch):
    warm_up()  # with the wrappers below, nothing could be compiled
    called, there = set(), set()
    for file in pkgutil.walk_packages(kernels.__path__, "minitl.kernels."):
        module = importlib.import_module(file.name)
        for name, kernel in list(vars(module).items()):
            # Those that Python calls are cached; the others are compiled into them.
            if not hasattr(kernel, "py_func") or kernel.__module__ != module.__name__:
                continue
            if isinstance(kernel._cache, numba.core.caching.NullCache):
                continue
            where = module.__name__, name
            there.add(where)

            @functools.wraps(kernel.py_func)
            def counted(*args, where=where, kernel=kernel):
                called.add(where)
                return kernel(*args)

            monkeypatch.setattr(module, name, counted)
    warm_up()
    assert len(there) > 20
    assert there == called


def test_both_sizes_of_winograds_tiles_are_compiled(monkeypatch):
    kernel, sizes = winograd._correlate_all, set()

    def noted(x, tiling, plan, u, end, *others):
        sizes.add((tiling.size, end[2:]))
        return kernel(x, tiling, plan, u, end, *others)

    monkeypatch.setattr(winograd, "_correlate_all", noted)
    warm_up()
    assert sizes == {(4, (4, None)), (6, (None, 6))}
