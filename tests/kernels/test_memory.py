"""Memory of kernels: aligned, used again, and nobody's but the holder's."""

import gc
import os
import threading

import numpy as np
import pytest

from minitl.kernels.machine import memory

FLOAT = np.dtype(np.float32)
LARGE = (1024, 1024)  # 4 MB


@pytest.fixture(autouse=True)
def fresh():
    memory.release()
    yield
    memory.release()


@pytest.mark.parametrize("shape", [3, (5, 7), (100, 99), LARGE])
def test_arrays_but_small_ones_begin_at_a_cache_line_and_may_be_written(shape):
    a = memory.empty(shape, FLOAT)
    assert a.shape == (shape if isinstance(shape, tuple) else (shape,)) and a.dtype == FLOAT
    assert type(a) is np.ndarray and a.flags.c_contiguous and a.flags.writeable
    assert a.nbytes < memory.SMALL or a.ctypes.data % memory.ALIGNMENT == 0
    a[...] = 1


def test_memory_is_used_again_once_no_view_is_left():
    a = memory.empty(LARGE, FLOAT)
    where, view = a.ctypes.data, a[10:].reshape(-1)[::2]
    del a
    gc.collect()
    other = memory.empty(LARGE, FLOAT)
    assert other.ctypes.data != where and not np.shares_memory(other, view)
    del view
    assert memory.empty(LARGE, FLOAT).ctypes.data == where


def test_a_much_larger_block_is_not_spent_on_a_small_array():
    where = memory.empty(LARGE, FLOAT).ctypes.data
    small = memory.empty((512, 256), FLOAT)
    assert small.ctypes.data != where


def test_what_lasts_takes_no_more_than_it_needs():
    where = memory.empty(LARGE, FLOAT).ctypes.data
    fewer = (1000, 1024)
    assert memory.empty(fewer, FLOAT, lasting=True).ctypes.data != where
    assert memory.empty(fewer, FLOAT).ctypes.data != where  # what that one left fits better
    assert memory.empty(LARGE, FLOAT, lasting=True).ctypes.data == where


def test_what_waits_is_bounded_and_released(monkeypatch):
    monkeypatch.setattr(memory._Block, "kept", 10 * 2**20)
    arrays = [memory.empty(LARGE, FLOAT) for _ in range(5)]
    del arrays
    assert sum(map(len, memory._Block.waiting)) <= 10 * 2**20
    memory.release()
    assert not memory._Block.waiting


def test_threads_never_get_the_same_memory():
    held, wrong = {}, []

    def work(me):
        for i in range(200):
            a = memory.empty((300 + me, 300), FLOAT)
            a[...] = me
            held[me] = a
            if not (a == me).all():
                wrong.append((me, i))

    threads = [threading.Thread(target=work, args=(me,)) for me in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("shape", [(5, 7), LARGE])
def test_zeros_and_copies(shape):
    used = memory.empty(shape, FLOAT)
    used[...] = 3
    copied = memory.copy(used[:, ::-1])
    assert copied.flags.c_contiguous and (copied == 3).all() and not np.shares_memory(copied, used)
    del used, copied
    zeros = memory.zeros_like(np.ones(shape, FLOAT))
    assert zeros.shape == shape and zeros.dtype == FLOAT and not zeros.any()
    zeros[...] = 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_process_writes_into_memory_of_its_own():
    a = memory.empty(LARGE, FLOAT)
    a[...] = 1
    child = os.fork()
    if child == 0:
        a[...] = 2
        os._exit(0)
    os.waitpid(child, 0)
    assert (a == 1).all()
