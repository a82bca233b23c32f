"""Threads that wait inside compiled code: a loop is shared out in a microsecond or two.

To hand a Python function to a pool of threads takes 50 to 100 us, for each of them must be woken
and wait for the interpreter lock; a convolution of MobileNetV2 takes that long itself. So a kernel
may share out its loop without Python: in compiled code, `share(job, given, count, board)` calls
job(*given, index, who) for each index below `count`, by whichever thread is free, and returns when
all are done. `who` numbers the threads, from 0, the caller: for memory of their own.

The board is an array through which the threads speak to each other, without locks:

    NEXT     which work it is (upper bits), and its next index (lower bits): who exchanges that for
             the one after it, has the index
    WHAT     address of machine code that calls the job; WITH, of what it is given
    COUNT    of indices; DONE: of those that have ended
    CALLED   the work that is about to come; 0 between kernels

A helper watches NEXT for a while, then sleeps until `together` wakes it. (One that is just falling
asleep when it is called would miss a whole kernel: so it looks at CALLED once more.) Only who has
taken an index reads WHAT and WITH: until it says DONE they cannot change. Several threads of the
user's may call kernels at once; one of them has the team, and the others work alone.
"""

import atexit
import contextlib
import os
import platform
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils, event

from minitl.kernels.machine import threads
from minitl.kernels.machine.compiling import compiled, inner, part
from minitl.kernels.machine.memory import doing
from minitl.kernels.machine.simd import PLAIN, instruction

NEXT, WHAT, WITH, COUNT, DONE, CALLED = 0, 8, 9, 10, 16, 24  # 8 numbers are a line of the cache
SIZE = 32  # of a board; on a longer one the cycles that each job took are noted behind
BITS = 24  # of an index in NEXT
PATIENCE = 5e-4  # seconds that a helper watches; Python takes less from one kernel to the next
BYTES, NUMBER = ir.IntType(8).as_pointer(), ir.IntType(64)
ENTRY = ir.FunctionType(ir.VoidType(), [BYTES, NUMBER, NUMBER])
PAUSES = {"x86_64": "llvm.x86.sse2.pause", "AMD64": "llvm.x86.sse2.pause"}


# --- Instructions ---------------------------------------------------------------------------------


@instruction(lambda board, place: types.intp, lambda board, place: board[place])
def fetch(code, board, place):
    """A number of the board, as it is now."""
    return code.builder.load_atomic(code.address(board, place.value), "acquire", 8)


@instruction(lambda *kinds: types.void, np.ndarray.__setitem__)
def publish(code, board, place, number):
    """Write it after all that was written before."""
    code.builder.store_atomic(number.value, code.address(board, place.value), "release", 8)


@instruction(lambda *kinds: types.void, lambda board, place: None)
def increase(code, board, place):
    """Add 1, whoever else does so too."""
    code.builder.atomic_rmw("add", code.address(board, place.value), NUMBER(1), "acq_rel")


@instruction(lambda *kinds: types.boolean, lambda board, place, old, new: True)
def exchange(code, board, place, old, new):
    """Write `new` if `old` is there; whether it was."""
    place, orders = code.address(board, place.value), ("acq_rel", "acquire")
    return code.builder.extract_value(code.builder.cmpxchg(place, old.value, new.value, *orders), 1)


@instruction(lambda: types.void, lambda: None)
def pause(code):
    """Tell the processor that this thread waits: another one on the same core may have more."""
    if name := PAUSES.get(platform.machine()):
        kind = ir.FunctionType(ir.VoidType(), [])
        code.builder.call(cgutils.get_or_insert_function(code.builder.module, kind, name), [])


@instruction(lambda: types.intp, time.perf_counter_ns)
def cycles(code):
    """A clock of the processor."""
    kind = ir.FunctionType(NUMBER, [])
    clock = code.builder.module.declare_intrinsic("llvm.readcyclecounter", fnty=kind)
    return code.builder.call(clock, [])


@instruction(lambda job, given: types.UniTuple(types.intp, 2), lambda job, given: (0, 0))
def addresses(code, job, given):
    """Of code that calls job(*given, index, who), and of memory where `given` is."""
    context, builder, kinds = (
        code.context,
        code.builder,
        (*given.type.types, types.intp, types.intp),
    )
    job.type.dispatcher.compile(kinds)
    made, kind = job.type.dispatcher.overloads[kinds], code.kind(given.type)
    context.add_linking_libs([made.library])
    entry = ir.Function(builder.module, ENTRY, builder.module.get_unique_name("entry"))
    entry.linkage = "internal"
    within = ir.IRBuilder(entry.append_basic_block())
    stored = within.load(within.bitcast(entry.args[0], kind.as_pointer()))
    values = [*cgutils.unpack_tuple(within, stored, len(kinds) - 2), *entry.args[1:]]
    context.call_internal_no_propagate(within, made.fndesc, made.signature, values)
    within.ret_void()
    memory = cgutils.alloca_once(builder, kind)
    builder.store(given.value, memory)
    both = [builder.ptrtoint(pointer, NUMBER) for pointer in (entry, memory)]
    return code.joined(types.UniTuple(types.intp, 2), both)


@instruction(lambda *kinds: types.void, lambda what, given, index, who: None)
def enter(code, what, given, index, who):
    """Call the code at an address."""
    entry = code.builder.inttoptr(what.value, ENTRY.as_pointer())
    memory = code.builder.inttoptr(given.value, BYTES)
    code.builder.call(entry, [memory, index.value, who.value])


# --- Working --------------------------------------------------------------------------------------


@inner
def _take_part(board, work, who):
    """Do what is left of it."""
    while True:
        place = fetch(board, NEXT)
        index = place & (2**BITS - 1)
        if place >> BITS != work or index >= board[COUNT]:
            return
        if exchange(board, NEXT, place, place + 1):
            begun = cycles() if len(board) > SIZE else 0
            enter(board[WHAT], board[WITH], index, who)
            if len(board) > SIZE:
                board[SIZE + index] = cycles() - begun
            increase(board, DONE)


# Inlined: else the job's address would be passed on, and what has addresses is not kept on disk.
@part(nogil=True, error_model="numpy", forceinline=True)
def _share(job, given, count, board):
    board[WHAT], board[WITH] = addresses(job, given)
    board[COUNT], board[DONE] = count, 0
    work = (fetch(board, NEXT) >> BITS) + 1
    publish(board, NEXT, work << BITS)
    _take_part(board, work, 0)
    while fetch(board, DONE) < count:
        pause()


def in_turn(job, given, count, board):
    for index in range(count):
        job(*given, index, 0)


share = in_turn if PLAIN else _share


@compiled
def _serve(board, work, who, patience):
    """Help with all works after that number, until none comes for so long; the last one's."""
    left = patience
    while left > 0 or fetch(board, CALLED) > work:
        new = fetch(board, NEXT) >> BITS
        if new != work:
            _take_part(board, new, who)
            work, left = new, patience
        pause()
        left -= 1
    return work


# --- Helpers --------------------------------------------------------------------------------------


class Team:
    """The caller and its helpers, threads of their own."""

    def __init__(self, size: int):
        self.size, self.ended = size, False
        self.board, self.sleeping = np.zeros(SIZE, np.int64), []  # type: ignore[var-annotated]
        _serve(np.zeros(SIZE, np.int64), 0, 0, 1)  # compiled, or loaded
        begin = time.perf_counter()
        _serve(np.zeros(SIZE, np.int64), 0, 0, 1000)
        self.patience = int(1000 * PATIENCE / (time.perf_counter() - begin))
        self.helpers = [
            threading.Thread(target=self._help, args=(who,), name=f"minitl-{who}", daemon=True)
            for who in range(1, size)
        ]
        for helper in self.helpers:
            helper.start()

    def _help(self, who: int) -> None:
        work, alarm = 0, threading.Lock()
        alarm.acquire()
        while not self.ended:
            work = _serve(self.board, work, who, self.patience)
            self.sleeping.append(alarm)
            if self.board[CALLED] > work:
                self.wake()
            alarm.acquire()

    def wake(self) -> None:
        with contextlib.suppress(IndexError):  # another one may have taken the last
            while self.sleeping:
                self.sleeping.pop().release()

    def end(self) -> None:
        self.ended = True
        for helper in self.helpers:
            while helper.is_alive():
                self.wake()
                helper.join(0.001)


_team: Team | None = None
_taken = threading.Lock()


class _Rest(event.Listener):
    """While the caller compiles what it is to call, helpers would keep a core from who helps it."""

    def on_start(self, what: event.Event) -> None:
        if _team is not None:
            _team.board[CALLED] = 0

    def on_end(self, what: event.Event) -> None:
        pass


event.register("numba:compiler_lock", _Rest())


def alone(kernel: Callable[..., Any], *arguments: Any) -> Any:
    """kernel(*arguments, board), by the caller."""
    return kernel(*arguments, np.zeros(SIZE, np.int64))


def together(kernel: Callable[..., Any], *arguments: Any) -> Any:
    """kernel(*arguments, board), with the team if it is free, else alone."""
    global _team
    if doing.routine is not None:
        doing.routine.calls.append((kernel, doing.routine.fixed(arguments)))
    size = threads.thread_count()
    if PLAIN or size == 1 or not _taken.acquire(blocking=False):
        return alone(kernel, *arguments)
    try:
        if _team is None or _team.size != size:
            _end()
            _team = Team(size)
        _team.board[CALLED] = (_team.board[NEXT] >> BITS) + 1
        _team.wake()
        return kernel(*arguments, _team.board)
    finally:
        if _team is not None:  # also after Ctrl-C: helpers would watch for ever
            _team.board[CALLED] = 0
        _taken.release()


def again(calls: list[tuple[Callable[..., Any], Any]]) -> None:
    """Call the kernels of a `Routine`, without what Python did between: a third of the time of
    MobileNetV2 for one image."""
    together(_in_order, calls)


def _in_order(calls: list[tuple[Callable[..., Any], Any]], board: Any) -> None:
    board[CALLED] = np.iinfo(np.int64).max  # nobody falls asleep before the last
    for kernel, arguments in calls:
        kernel(*arguments, board)


@atexit.register
def _end() -> None:
    """Before the machine code goes, in which helpers may be."""
    if _team is not None:
        _team.end()


def _forget() -> None:
    """A forked process has none of its parent's threads."""
    global _team, _taken
    _team, _taken = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
