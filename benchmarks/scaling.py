"""Where do more workers, and more cores, stop to help: a model from measured costs, and its checks?

One part of the pictures costs a worker decoding, the network and Dask's task; it costs the client
and the scheduler, of which there is one each, their share of the task, the transfer and the
writing. N pictures in P parts of s by W workers therefore take about

    T = start + max(P worker / W + weights (W + 1) / 2, P centre) + min(worker, centre)

and nothing is gained beyond W = worker / centre; nor, as the workers get their weights one after
the other, beyond the one that gets them when all is done, W = sqrt(2 P worker / weights).
The costs are measured here; the formula is checked against a simulation, part by part, against
Dask's own scheduler with tasks that sleep, and against real workers. For cores the jobs that each
of VGG16's layers is cut into are timed one by one and dealt out to p cores: what no machine can
beat. `docs/scaling.md` says what was found.

    python -m benchmarks.scaling --plot scaling.png
"""

from __future__ import annotations

import contextlib
import heapq
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numba
import numpy as np

from benchmarks.common import Claim, Options, Report, cores, main
from minitl import applications
from minitl.autograd import no_grad
from minitl.data.pictures import read_picture
from minitl.distributed import extract_features
from minitl.distributed.cluster import connected
from minitl.distributed.rows import Part, write_part
from minitl.kernels.machine import team, threads
from minitl.storage.digests import sample_digests

SIZE = 256  # pictures per part
WORKERS = (1, 2, 4, 10, 30, 100, 300, 1000)
PICTURES = (10**4, 10**5, 10**6, 10**7, 10**8, 10**9)
CORES = (2, 4, 8, 16, 32, 64)
LINK = 125e6  # bytes per second between machines: one gigabit


@dataclass
class Costs:
    """In seconds, by one core: per picture, then per part, then per worker."""

    decode: float
    network: float
    task: float  # of client and scheduler together
    transfer: float  # rows to the client
    write: float
    start: float
    weights: float  # to one worker

    @property
    def worker(self) -> float:
        return SIZE * (self.decode + self.network) + self.task

    @property
    def centre(self) -> float:
        return self.task + self.transfer + self.write

    def seconds(self, pictures: int, workers: int) -> float:
        parts = -(-pictures // SIZE)
        joined = parts * self.worker / workers + self.weights * (workers + 1) / 2
        if joined < workers * self.weights:  # all is done before the last has its weights
            joined = (2 * self.weights * self.worker * parts) ** 0.5
        rounds = -(-parts // workers) * self.worker + self.weights
        rest = min(self.worker, self.centre)
        return self.start + max(joined, rounds, parts * self.centre) + rest

    def simulated(self, pictures: int, workers: int) -> float:
        """The same, part by part: a worker computes, then waits for the centre; one at a time."""
        parts, free = -(-pictures // SIZE), 0.0
        ready = [self.start + (w + 1) * self.weights for w in range(workers)]
        heapq.heapify(ready)
        arrived: list[float] = []
        for _ in range(parts):
            end = heapq.heappop(ready) + self.worker
            heapq.heappush(ready, end)
            arrived.append(end)
        for end in sorted(arrived):
            free = max(free, end) + self.centre
        return free


def measured(options: Options, folder: Path) -> Costs:
    """Costs of VGG16's F (D = 512) of photographs of 640 x 480."""
    from PIL import Image

    few = options.pick(24, 4)
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    picture = Image.fromarray(noise).resize((640, 480), Image.Resampling.BICUBIC)
    picture.save(folder / "photo.jpg", quality=90)
    side = options.size
    decode = _each(lambda: read_picture(str(folder / "photo.jpg"), side), few)
    vgg = applications.VGG16(weights=None, include_top=False, pooling="avg")
    x = np.zeros((options.pick(32, 2), side, side, 3), np.float32)
    with on_cores(1):
        vgg.predict(x[:1], verbose=0)
        network = _each(lambda: vgg.predict(x, verbose=0), options.pick(3, 1)) / len(x)
    f = np.ones((SIZE, 512), np.float32)
    part = Part(f, sample_digests([f]), {})
    write = _each(
        lambda: write_part(folder / "part.h5", {"kind": "cost"}, part, {}), few, time.perf_counter
    )
    begun = time.perf_counter()
    with connected(1) as client:
        start = time.perf_counter() - begun
        count = options.pick(300, 20)
        begun = time.perf_counter()
        client.gather(client.map(abs, range(count), pure=False))
        task = (time.perf_counter() - begun) / count
    weights = sum(v.storage.nbytes for v in vgg.weights) / LINK
    return Costs(decode, network, task, f.nbytes / LINK, write, start, weights)


def _each(call: Any, times: int, clock: Any = time.process_time) -> float:
    """The median in seconds; of a core, if nothing else is said."""
    found = []
    for _ in range(times):
        begun = clock()
        call()
        found.append(clock() - begun)
    return float(np.median(found))


# --- Checks of the formula ----------------------------------------------------------------------


def sleeping(costs: Costs, workers: int, parts: int, faster: float) -> float:
    """Seconds, times `faster`, that Dask's scheduler takes for tasks that sleep instead."""
    import distributed

    how: dict[str, Any] = {"n_workers": workers, "threads_per_worker": 1, "processes": False}
    how |= {"dashboard_address": "127.0.0.1:0", "silence_logs": "ERROR"}
    with distributed.LocalCluster(**how) as cluster, distributed.Client(cluster) as client:
        begun = time.perf_counter()
        futures = client.map(time.sleep, [costs.worker / faster] * parts, pure=False)
        for _ in distributed.as_completed(futures):
            time.sleep((costs.transfer + costs.write) / faster)
        return (time.perf_counter() - begun) * faster


def real(workers: int, options: Options, folder: Path) -> float:
    """Seconds from the first part to the last, of a small network on arrays."""
    x = np.zeros((options.pick(512, 64), 64, 64, 3), np.uint8)
    vgg = applications.VGG16(weights=None, include_top=False, pooling="avg")
    with connected(workers) as client:
        how: dict[str, Any] = {"client": client, "part_size": 32, "verbose": 0}
        extract_features(vgg, x[: 32 * workers], out=folder / f"warm{workers}", **how)
        begun = time.perf_counter()
        extract_features(vgg, x, out=folder / f"real{workers}", **how)
        return time.perf_counter() - begun


# --- Cores --------------------------------------------------------------------------------------


@contextlib.contextmanager
def on_cores(count: int) -> Iterator[None]:
    before = threads.thread_count()
    threads.set_thread_count(count)
    try:
        yield
    finally:
        threads.set_thread_count(before)


@numba.njit
def _now():
    """The clock by which a team notes its jobs."""
    return team.cycles()


@contextlib.contextmanager
def jobs_timed(found: list[list[float]]) -> Iterator[None]:
    """Within the block the kernels' jobs run one after the other, and their seconds are noted."""
    share_out = threads.share_out

    def one_by_one(part: Any, count: int, multiplies: bool = False) -> None:
        seconds: list[float] = []

        def every(_: int) -> None:
            for i in range(count):
                begun = time.thread_time()
                part(i)
                seconds.append(time.thread_time() - begun)

        share_out(every, 1, multiplies)
        found.append(seconds)

    def alone(kernel: Any, *arguments: Any) -> Any:
        board = np.zeros(team.SIZE + 2**12, np.int64)  # on which the cycles of each job are noted
        begun = time.thread_time(), _now()
        result = kernel(*arguments, board)
        share = (time.thread_time() - begun[0]) / max(1, _now() - begun[1])
        count = board[team.COUNT]
        found.append([float(n) * share for n in board[team.SIZE : team.SIZE + count]])
        return result

    instead = {"share_out": one_by_one, "together": alone}
    modules = [m for n, m in sys.modules.items() if n.startswith("minitl.kernels.fast.") and m]
    places = [(m, n, vars(m)[n]) for m in modules for n in instead if n in vars(m)]
    for module, name, _ in places:
        setattr(module, name, instead[name])
    try:
        yield
    finally:
        for module, name, was in places:
            setattr(module, name, was)


def makespan(seconds: Sequence[float], workers: int) -> float:
    """When the last job ends, if whoever is free takes the next."""
    free = [0.0] * workers
    for each in seconds:
        heapq.heapreplace(free, free[0] + each)
    return max(free)


def best_speed_ups(options: Options, batch: int) -> dict[str, tuple[int, dict[int, float]]]:
    """For each layer of VGG16: its jobs on 64 cores, and the best speed-up on p cores."""
    model = applications.VGG16(weights=None, include_top=False)
    side = options.size
    found: dict[str, tuple[int, dict[int, float]]] = {}
    for count in CORES:
        x: Any = np.random.default_rng(0).standard_normal((batch, side, side, 3), np.float32)
        for layer in model.layers[1:]:
            with on_cores(count), no_grad():
                layer(x)  # compiled, and its memory there
                calls: list[list[float]] = []
                with jobs_timed(calls):
                    begun = time.thread_time()
                    y = layer(x)
                    whole = time.thread_time() - begun
            alone = whole - sum(map(sum, calls))
            best = whole / (alone + sum(makespan(each, count) for each in calls))
            jobs = max(map(len, calls), default=1)
            _, speed = found.get(layer.name, (0, {}))
            found[layer.name] = jobs, speed | {count: best}
            x = y
    return found


def measure(options: Options) -> Report:
    report = Report("scaling", (__doc__ or "").splitlines()[0], {"pictures per part": SIZE})
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        costs = measured(options, folder)
        for name, seconds in asdict(costs).items():
            report.add("cost", name, "s", [seconds])
        report.add("limit", "workers beyond which nothing is gained", "", [_limit(costs)])
        for pictures in PICTURES:
            for workers in WORKERS:
                report.add(
                    f"{pictures:.0e} pictures",
                    f"{workers} workers",
                    "s",
                    [costs.seconds(pictures, workers)],
                )
        for workers in options.pick((1, 10, 100, 1000), (1, 10)):
            pictures = options.pick(10**6, 10**4)
            ratio = costs.seconds(pictures, workers) / costs.simulated(pictures, workers)
            report.claims.append(Claim("formula / simulation", f"{workers} workers", ratio, 1.1))
        for workers in options.pick((4, 16, 64), (4,)):
            faster = costs.worker / 0.5
            took = sleeping(costs, workers, 8 * workers, faster)
            wanted = costs.seconds(8 * workers * SIZE, workers)
            wanted -= costs.start + costs.weights * (workers + 1) / 2
            report.claims.append(Claim("sleeping tasks / formula", f"{workers}", took / wanted))
        alone = real(1, options, folder)
        report.add("real", "1 worker", "s", [alone])
        for workers in (2, 4):
            took = real(workers, options, folder)
            report.add("real", f"{workers} workers", "s", [took])
            ideal = alone / min(workers, cores())
            report.claims.append(Claim("real / ideal", f"{workers} workers", took / ideal))
    for batch in options.pick((1, 8), (1,)):
        for layer, (jobs, speed) in best_speed_ups(options, batch).items():
            for count, best in speed.items():
                note = f"{jobs} jobs" if count == CORES[-1] else ""
                report.add(f"{layer}, batch {batch}", f"{count} cores, best", "x", [best], note)
    return report


def _limit(costs: Costs) -> float:
    return costs.worker / costs.centre


def plot(report: Report, path: Path) -> None:
    """Pictures per second by workers, one line per number of pictures."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5))
    axes = figure.subplots()
    for pictures in PICTURES:
        rows = [report.find(f"{pictures:.0e} pictures", f"{w} workers") for w in WORKERS]
        axes.loglog(
            WORKERS, [pictures / row.median for row in rows if row], label=f"{pictures:.0e}"
        )
    axes.set(xlabel="workers", ylabel="pictures per second")
    axes.legend(title="pictures")
    figure.savefig(path)


if __name__ == "__main__":
    main(measure, plot)
