"""Threads that wait in compiled code: every job once, by whoever is free, whatever goes beside."""

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from minitl.kernels.machine import team, threads
from minitl.kernels.machine.compiling import compiled, inner


@inner
def _note(counts, who_did, rounds, index, who):
    counts[index] += 1
    who_did[index] = who
    value = 1.0
    for _ in range(rounds):
        value = value * 0.999 + 0.1
    counts[index] += int(value < 0)


@compiled
def _all(counts, who_did, rounds, board):
    team.share(_note, (counts, who_did, rounds), len(counts), board)


@pytest.fixture(params=[1, 2, 5])
def size(request):
    before = threads.thread_count()
    threads.set_thread_count(request.param)
    yield request.param
    threads.set_thread_count(before)


def run(jobs=50, rounds=0):
    counts, who = np.zeros(jobs, np.int64), np.full(jobs, -1)
    team.together(_all, counts, who, rounds)
    return counts, who


def test_every_job_once(size):
    for jobs in [0, 1, 3, 200] * 200:
        counts, who = run(jobs)
        assert (counts == 1).all() and ((who >= 0) & (who < size)).all()


def test_the_helpers_help_also_after_they_slept():
    before = threads.thread_count()
    threads.set_thread_count(2)
    try:
        for pause in (0, 0, 0.002, 0.05):
            time.sleep(pause)
            # One that is not there in a second is lost.
            assert any(1 in run(200, 20_000)[1] for _ in range(200)), pause
    finally:
        threads.set_thread_count(before)


def test_kernels_in_several_threads_at_once(size):
    wrong = []

    def work():
        for _ in range(300):
            counts, _ = run(20, 50)
            if (counts != 1).any():
                wrong.append(counts)

    users = [threading.Thread(target=work) for _ in range(4)]
    for user in users:
        user.start()
    for user in users:
        user.join(60)
        assert not user.is_alive()
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_has_a_team_of_its_own(size):
    run()
    child = os.fork()
    if child == 0:
        os._exit(0 if (run()[0] == 1).all() else 1)
    timer = threading.Timer(20, os.kill, (child, 9))  # a hanging child must not hang the tests
    timer.start()
    _, status = os.waitpid(child, 0)
    timer.cancel()
    assert os.waitstatus_to_exitcode(status) == 0


def test_a_process_ends_while_its_helpers_watch():
    program = """
import numpy as np
from minitl.kernels.fast import one_by_one
from minitl.kernels.geometry import sliding
from minitl.kernels.machine.threads import set_thread_count
set_thread_count(4)
x, kernel = np.ones((2, 8, 8, 16), "f4"), np.ones((1, 1, 16, 32), "f4")
y = one_by_one.conv2d(x, kernel, None, sliding((8, 8), (1, 1), (1, 1), "valid"))
assert (y == 16).all()
"""
    for _ in range(5):
        ended = subprocess.run([sys.executable, "-c", program], timeout=120, capture_output=True)
        assert ended.returncode == 0, ended.stderr


def test_a_longer_board_notes_the_cycles_of_each_job():
    board = np.zeros(team.SIZE + 10, np.int64)
    counts, who = np.zeros(4, np.int64), np.full(4, -1)
    _all(counts, who, 50_000, board)
    assert (board[team.SIZE : team.SIZE + 4] > 10_000).all() and not board[team.SIZE + 4 :].any()
