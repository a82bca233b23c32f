"""Cutting work into parts, running them, and keeping BLAS to one thread meanwhile."""

import os
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitl.kernels.machine import threads
from minitl.kernels.machine.memory import scratch
from minitl.kernels.machine.threads import cut, cut_product, cut_rows, set_thread_count, share_out


@pytest.fixture(autouse=True, params=[1, 2, 3])
def count(request):
    before = threads.thread_count()
    set_thread_count(request.param)
    yield request.param
    set_thread_count(before)


@given(size=st.integers(0, 500), least=st.integers(1, 60))
def test_falling_ranges_cover_everything_once(size, least):
    ranges = threads.cut_falling(size, least)
    assert [i for first, last in ranges for i in range(first, last)] == list(range(size))
    sizes = [last - first for first, last in ranges]
    assert sizes == sorted(sizes, reverse=True) and all(n >= least for n in sizes[:-1])
    assert not sizes or sizes[0] <= max(least, -(-size // (2 * threads.thread_count())))


@given(size=st.integers(0, 50), parts=st.integers(1, 60))
def test_cut_covers_everything_once_and_evenly(size, parts):
    ranges = cut(size, parts)
    assert [i for first, last in ranges for i in range(first, last)] == list(range(size))
    lengths = [last - first for first, last in ranges]
    assert len(ranges) == min(size, parts)
    assert not lengths or max(lengths) - min(lengths) <= 1


@given(
    lines=st.integers(0, 300),
    line=st.integers(1, 300),
    depth=st.integers(1, 5000),
    width=st.integers(1, 600),
    longest=st.integers(1, 400),
)
def test_cut_product_covers_every_place_once(lines, line, depth, width, longest):
    seen = np.zeros((lines, width), int)
    for first, last, left, right in cut_product(lines, line, depth, width, longest):
        seen[first:last, left:right] += 1
        assert last - first <= longest
    assert (seen == 1).all()


def test_small_work_is_not_cut_and_large_work_is():
    assert cut_rows(100, 10) == [(0, 100)]
    assert cut_product(8, 8, 27, 64, 8) == [(0, 8, 0, 64)]
    assert len(cut_rows(10**6, 10)) == threads.PARTS
    assert len(cut_product(1, 1, 25088, 4096, 1)) == threads.PARTS  # one row: cut the width
    assert len(cut_product(4096, 1, 512, 10, 4096)) == threads.PARTS  # ten columns: cut the rows


def test_the_longer_side_of_a_product_is_cut():
    parts = range(threads.PARTS)
    assert cut_product(32, 1, 25088, 4096, 32) == [(0, 32, 512 * i, 512 * i + 512) for i in parts]
    assert cut_product(8, 512, 576, 512, 8) == [(i, i + 1, 0, 512) for i in parts]


def test_many_blocks_are_a_multiple_of_the_parts():
    """Nine blocks on two threads would take as long as ten."""
    assert len(cut_product(90, 224, 576, 64, 10)) == 2 * threads.PARTS


@pytest.mark.parametrize("parts", [0, 1, 2, 17])
def test_share_out_does_every_part_once(parts):
    done = []
    share_out(done.append, parts)
    assert sorted(done) == list(range(parts))


def test_parts_run_side_by_side(count):
    """As many threads as parts must be inside at once to get through the barrier."""
    barrier = threading.Barrier(count)
    share_out(lambda index: barrier.wait(timeout=20), count)


def test_an_error_in_a_part_is_raised_and_the_threads_live_on():
    def part(index):
        if index == 5:
            raise ZeroDivisionError("part 5")

    for _ in range(3):
        with pytest.raises(ZeroDivisionError, match="part 5"):
            share_out(part, 8, multiplies=True)
    test_share_out_does_every_part_once(17)


def blas_threads():
    return [get() for get, _ in threads._blas_switches()]


@pytest.mark.skipif(not threads._blas_switches(), reason="NumPy's BLAS is not OpenBLAS")
def test_blas_has_one_thread_inside_and_its_own_number_outside():
    for _, set_to in threads._blas_switches():
        set_to(2)
    inside = []
    share_out(lambda index: inside.append(blas_threads()), 4, multiplies=True)
    assert all(set(numbers) == {1} for numbers in inside)
    assert set(blas_threads()) == {2}
    with pytest.raises(ValueError):
        share_out(lambda index: int("no number"), 4, multiplies=True)
    assert set(blas_threads()) == {2}

    with threads.OneBlasThread():  # another kernel at work in another thread
        share_out(lambda index: None, 4, multiplies=True)
        assert set(blas_threads()) == {1}
    assert set(blas_threads()) == {2}


def test_an_unknown_blas_keeps_its_threads_and_runs_part_by_part(monkeypatch):
    monkeypatch.setattr(threads, "_blas_switches", lambda: [])
    ran = []
    share_out(lambda i: ran.append((i, threading.get_ident())), 4, multiplies=True)
    assert ran == [(i, threading.get_ident()) for i in range(4)]


def test_scratch_is_kept_and_grows_and_belongs_to_its_thread():
    first = scratch(10, np.dtype(np.float32))
    assert first.shape == (10,) and first.dtype == np.float32
    assert np.shares_memory(first, scratch(5, np.dtype(np.float64)))
    assert scratch(10**6, np.dtype(np.float64)).shape == (10**6,)
    mine, others = scratch(4, np.dtype(np.float32)), []
    thread = threading.Thread(target=lambda: others.append(scratch(4, np.dtype(np.float32))))
    thread.start()
    thread.join()
    assert not np.shares_memory(mine, others[0])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_starts_threads_of_its_own():
    share_out(lambda index: None, 4)
    child = os.fork()
    if child == 0:
        done = []
        share_out(done.append, 4)
        os._exit(0 if sorted(done) == [0, 1, 2, 3] else 1)
    # A hanging child must not hang the tests.
    timer = threading.Timer(20, os.kill, (child, 9))
    timer.start()
    _, status = os.waitpid(child, 0)
    timer.cancel()
    assert os.waitstatus_to_exitcode(status) == 0


def test_thread_count_must_be_positive():
    with pytest.raises(ValueError, match="the kernels need at least one thread, got 0"):
        set_thread_count(0)
