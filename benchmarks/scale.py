"""How far the engine scales: the fan-out itself against 1,000 imagined workers, and what limits it.

    python benchmarks/scale.py
    python benchmarks/scale.py --samples 1000 --workers 100

The fan-out of ``tlgen run`` is driven with an executor whose clock is simulated: workers take times that are
drawn, some calls fail, some workers die. What the driver computes in between is real and moves the clock by
the CPU time that it took; a scheduler serves one message after the other and takes, for each task, the CPU
time that a real Dask scheduler took in this same run. Memory of the scheduler is a real one's, too. Then the
catalog is given as many records as there are samples, and ten times as many. Prints tables, and as the last
line one JSON object of the figures.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from catalogs.corpus import index, snapshot
from catalogs.corpus.catalog import Catalog
from catalogs.schema import ClassInfo, SampleRecord
from catalogs.seeds import generator
from catalogs.storage.store import open_store
from tlrun.calls import Call, CallResult, Executor, Task
from tlrun.fan_out import Job, Steps, fan_out
from tlrun.on_dask import WorkerLost

#: Seconds of a call by kind, at the median, and the spread of its logarithm: 200 x 512 x 512 voxels.
TIMES = {"pack": (150.0, 0.4), "simulate_tilt": (240.0, 0.25), "finish": (120.0, 0.3)}
FAILING, DYING = 2e-3, 1e-3  # share of the calls that raise, or lose their worker
PIXELS = 512 * 512


def pack() -> None:
    """Stand for the packing of a sample: only its name counts, it is never called."""


def simulate_tilt() -> None:
    """Stand for one tilt: only its name counts, it is never called."""


def finish() -> None:
    """Stand for the last step: only its name counts, it is never called."""


def sample(number: int, tilts: int) -> Job:
    """Describe a sample as ``tlgen run`` does."""

    def steps() -> Steps:
        yield [Call(pack)]
        yield [Call(simulate_tilt) for _ in range(tilts)]
        return (yield [Call(finish)])[0]

    return Job(f"{number:016x}", steps)


class Imagined(Executor):
    """Workers that only take time, behind a scheduler that only takes time.

    Parameters
    ----------
    workers
        How many.
    message
        Seconds that the scheduler is busy for each task.
    client
        Seconds that Dask's client and what feeds it are busy in this process for each task.
    seed
        Of the times and failures.
    """

    def __init__(self, workers: int, message: float, client: float, seed: int = 0) -> None:
        self.workers, self.message, self.client = workers, message, client
        self.seconds = 0.0  # in calls
        self.driver = 0.0  # CPU seconds of the real code between the calls
        self.most_pending = self.tasks = 0
        self._rng = generator(seed, "scale")
        self._clock = self._scheduler_free = 0.0
        self._idle = workers
        self._waiting: list[tuple[int, int, Task, float]] = []  # best first
        self._events: list[tuple[float, int, str, Task, float]] = []
        self._number = 0
        self._mark = time.process_time()

    @contextmanager
    def _its_own(self) -> Iterator[None]:
        """Let time pass for what was computed outside of the simulation, and none for what it computes."""
        spent = time.process_time() - self._mark
        self.driver += spent
        self._clock += spent
        yield
        self._mark = time.process_time()

    def pools(self) -> Mapping[str, int]:
        """Return the one pool."""
        return {"rest": self.workers}

    def pool_of(self, name: str) -> str:
        """Return the one pool."""
        return "rest"

    def now(self) -> float:
        """Return the simulated time."""
        return self._clock

    def _served(self) -> float:
        """Take the scheduler for one task's messages; returns when it is done with them."""
        self._scheduler_free = max(self._scheduler_free, self._clock) + self.message
        return self._scheduler_free

    def _push(self, when: float, kind: str, task: Task, seconds: float) -> None:
        self._number += 1
        heapq.heappush(self._events, (when, self._number, kind, task, seconds))

    def submit(self, task: Task) -> None:
        """Take a task."""
        with self._its_own():
            self.tasks += 1
            self._clock += self.client
            self.driver += self.client
            self._push(self._served(), "arrives", task, 0.0)
            self.most_pending = max(self.most_pending, len(self._events) + len(self._waiting))

    def cancel(self, keys: Iterable[str]) -> None:
        """Not needed here."""
        raise NotImplementedError

    def wait(self, seconds: float) -> list[CallResult]:
        """Let time pass until something is done."""
        with self._its_own():
            found: list[CallResult] = []
            end = self._clock + seconds
            while self._events and self._events[0][0] <= (self._clock if found else end):
                when, _, kind, task, spent = heapq.heappop(self._events)
                self._clock = max(self._clock, when)
                if kind == "arrives":
                    self._number += 1
                    heapq.heappush(self._waiting, (-task.priority, self._number, task, when))
                elif kind == "ends":
                    self._idle += 1
                    self._push(self._clock, "told", task, spent)
                else:
                    found.append(self._outcome(task, spent))
                while self._idle and self._waiting:
                    task = heapq.heappop(self._waiting)[2]
                    self._idle -= 1
                    median, spread = TIMES[task.call.kind]
                    drawn = median * float(np.exp(spread * self._rng.standard_normal()))
                    self._push(self._clock + drawn, "ends", task, drawn)
            if not found:
                self._clock = end
            return found

    def _outcome(self, task: Task, seconds: float) -> CallResult:
        self.seconds += seconds
        luck = self._rng.random()
        if luck < DYING:
            return CallResult(task.key, error=WorkerLost("preempted"), lost=True, seconds=seconds)
        if luck < DYING + FAILING:
            return CallResult(task.key, error=OSError("503"), seconds=seconds)
        return CallResult(task.key, b"", seconds=seconds)


def simulated(samples: int, tilts: int, workers: int, message: float, client: float) -> dict[str, float]:
    """Run the fan-out on imagined workers."""
    executor = Imagined(workers, message, client)
    done: list[float] = []
    begun: list[int] = []
    first = 0.0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    summary = fan_out(
        (sample(k, tilts) for k in range(samples)),
        executor,
        keep_results=False,
        on_result=lambda *_: done.append(executor.now()),
        on_progress=lambda p: begun.append(p.items_begun),
    )
    first = done[0]
    span = executor.now()
    # until the last samples are begun there is always something to do
    steady = done[-3 * workers // tilts] if len(done) > 3 * workers // tilts else span
    half = int(np.searchsorted(done, steady / 2))
    return {
        "samples": samples,
        "workers": workers,
        "tasks": executor.tasks,
        "failed_samples": len(summary.failures),
        "retried": summary.progress.retried if summary.progress else 0,
        "window": executor.most_pending,
        "samples_begun_most": max(begun),
        "hours": span / 3600,
        "idle_share": 1 - executor.seconds / (workers * span),
        "first_sample_after_share": first / span,
        "done_at_half_time_share": half / max(1, int(np.searchsorted(done, steady))),
        "driver_ms_a_task": 1e3 * executor.driver / executor.tasks,
        "driver_busy_share": executor.driver / span,
        "scheduler_busy_share": message * executor.tasks / span,
        "driver_memory_mb": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3,
    }


# ---------------------------------------------------------------------------- a real scheduler


def nothing(scene: bytes) -> bytes:
    """Take what a tilt takes and return what it returns, at once."""
    return bytes(PIXELS * 4)


def nothings(number: int, scene: bytes) -> Job:
    """Describe an item of one call."""

    def steps() -> Steps:
        yield [Call(nothing, scene)]

    return Job(f"nothing-{number}", steps)


@contextmanager
def processes(workers: int) -> Iterator[tuple[str, int]]:
    """Start a scheduler and workers as processes; yields its address and process id."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "scheduler.json"
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
        dask = [sys.executable, "-m", "dask"]
        common = ["--scheduler-file", str(file)]
        begin = [*dask, "scheduler", *common, "--port", "0", "--host", "127.0.0.1", "--no-dashboard"]
        started: list[Any] = [subprocess.Popen(begin, **quiet)]  # type: ignore[call-overload]
        try:
            while not file.exists():
                time.sleep(0.1)
            each = [*dask, "worker", *common, "--nthreads", "1", "--no-dashboard", "--no-nanny"]
            started += [subprocess.Popen(each, **quiet) for _ in range(workers)]  # type: ignore[call-overload]
            yield json.loads(file.read_text())["address"], started[0].pid
        finally:
            for process in started:
                process.kill()
                process.wait()


def scheduler(tasks: int) -> dict[str, float]:
    """Measure the CPU time and the memory that a real scheduler and its client take for a task."""
    import psutil
    from distributed import Client

    from tlrun.on_dask import execute

    scene = os.urandom(40_000)  # some hundred molecules, pickled
    with processes(2) as (address, pid), Client(address, set_as_default=False) as client:
        its = psutil.Process(pid)
        client.wait_for_workers(2)
        fan_out([nothings(k, scene) for k in range(20)], client)
        start, mine = sum(its.cpu_times()[:2]), time.process_time()
        fan_out((nothings(k, scene) for k in range(tasks)), client, keep_results=False)
        cpu, mine = sum(its.cpu_times()[:2]) - start, time.process_time() - mine
        client.retire_workers(list(client.scheduler_info(n_workers=-1)["workers"]))
        time.sleep(1)
        before = its.memory_info().rss
        waiting = [client.submit(execute, scene, None, 0, key=f"waiting-{k}") for k in range(tasks)]
        time.sleep(3)
        memory = (its.memory_info().rss - before) / tasks
        del waiting
    return {
        "scheduler_ms_a_task": 1e3 * cpu / tasks,
        "driver_ms_a_task": 1e3 * mine / tasks,
        "scheduler_bytes_a_pending_task": memory,
        "scheduler_base_mb": before / 1e6,
    }


# ---------------------------------------------------------------------------- the catalog


def record(number: int) -> SampleRecord:
    """Make a record such as ``tlgen run`` leaves."""
    rng = generator("scale", number)
    sample_id = f"{int(rng.integers(2**62)):016x}"
    return SampleRecord.model_validate(
        {
            "sample_id": sample_id,
            "name": f"train-{number:06d}",
            "path": f"samples/{sample_id[:2]}/{sample_id}-000000.zarr",
            "split": "train",
            "created": "2026-01-01T00:00:00+00:00",
            "seed": 0,
            "acquisition": {"dose": round(float(rng.uniform(80, 140)), 2), "defocus": 3.0},
            "shape": [200, 512, 512],
            "n_tilts": 41,
            "n_particles": 100,
            "n_distractors": 400,
            "class_counts": {"ribosome": 100},
            "structures": {f"structure-{k}": f"{k:032x}" for k in range(100)},
            "occupancy": 0.2,
            "intensity": {"centre": 0.0, "spread": 1.0},
            "seconds": {"pack": 1.0, "simulate": 1.0, "reconstruct": 1.0, "label": 1.0},
            "software": {"template-learning": "0", "numpy": np.__version__},
            "checksums": {"zarr.json": "0" * 32},
            "n_objects": 18,
            "n_bytes": 10**8,
        }
    )


def catalog(samples: int, new: int) -> dict[str, float]:
    """Time what a run asks of a catalog that has an index of so many records and some new ones."""
    with tempfile.TemporaryDirectory() as folder:
        corpus = Catalog.create(
            folder + "/corpus",
            classes=[ClassInfo(name="ribosome", label=1, radius=108)],
            recipe={},
            name="scale",
        )
        store = open_store(corpus.url)
        made = {r.sample_id: r for r in map(record, range(samples))}
        store.create("index/index-00000001.parquet", snapshot.encode(None, (), made))
        del made
        for k in range(samples, samples + new):
            fresh = record(k)
            index.create_record(store, fresh.sample_id, "000000", fresh.model_dump_json().encode())

        def seconds(function: Any) -> float:
            start = time.process_time()
            function()
            return time.process_time() - start

        figures = {
            "list_s": seconds(lambda: Catalog.open(corpus.url).sample_ids()),
            "compact_s": seconds(Catalog.open(corpus.url).compact),
            "index_mb": (Path(corpus.url) / "index" / "index-00000002.parquet").stat().st_size / 1e6,
        }
        shutil.rmtree(folder + "/corpus")
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description="How far the engine scales.")
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--tilts", type=int, default=41)
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--tasks", type=int, default=1000, help="on the real scheduler")
    parser.add_argument("--more-workers", type=int, nargs="*", default=[4000, 16000])
    given = parser.parse_args()

    real = scheduler(given.tasks)
    print(
        f"a real Dask scheduler: {real['scheduler_ms_a_task']:.1f} CPU-ms a task, and "
        f"{real['driver_ms_a_task']:.1f} in the driver;\n"
        f"{real['scheduler_bytes_a_pending_task'] / 1e3:.0f} kB a pending task with a scene of 40 kB, "
        f"{real['scheduler_base_mb']:.0f} MB without any"
    )
    message, client = real["scheduler_ms_a_task"] / 1e3, real["driver_ms_a_task"] / 1e3
    figures: dict[str, float] = {}
    print(f"\n{given.samples} samples of {given.tilts} tilts on imagined workers, some of which fail and die")
    print("workers    hours  idle  window  begun  driver busy  scheduler busy  failed  retried")
    for workers in (given.workers, *given.more_workers):
        found = simulated(given.samples, given.tilts, workers, message, client)
        idle, driver, sched = (
            100 * found[f"{name}_share"] for name in ("idle", "driver_busy", "scheduler_busy")
        )
        print(
            f"{workers:7} {found['hours']:8.2f} {idle:4.1f}% {found['window']:7.0f}"
            f"{found['samples_begun_most']:7.0f} {driver:11.1f}%"
            f"{sched:15.1f}% {found['failed_samples']:7.0f}{found['retried']:9.0f}"
        )
        if workers == given.workers:
            figures |= found
        else:
            figures |= {f"{name}_{workers}": found[name] for name in ("idle_share", "driver_busy_share")}
    figures |= real
    calls = {"pack": 1, "simulate_tilt": given.tilts, "finish": 1}
    mean = sum(TIMES[kind][0] * n for kind, n in calls.items()) / (given.tilts + 2)
    figures["workers_at_saturation"] = mean / max(message, client)
    figures["scheduler_memory_mb"] = (
        real["scheduler_base_mb"] + figures["window"] * real["scheduler_bytes_a_pending_task"] / 1e6
    )
    figures["images_mb_a_second"] = given.workers * PIXELS * 4 / TIMES["simulate_tilt"][0] / 1e6
    print(
        f"\nat {given.workers} workers: {figures['scheduler_memory_mb']:.0f} MB in the scheduler, and "
        f"{figures['images_mb_a_second']:.1f} MB/s of images through it and the driver\n"
        f"the busier of the two is full at {figures['workers_at_saturation']:.0f} workers with calls "
        f"of {mean:.0f} s, at a tenth as many with calls a tenth as long"
    )
    print("\nrecords  list CPU-s  compact CPU-s (500 new)  index MB")
    for n in (given.samples, 10 * given.samples):
        found = catalog(n, 500)
        print(f"{n:7} {found['list_s']:11.2f} {found['compact_s']:24.2f} {found['index_mb']:9.1f}")
        figures |= {f"{name}_{n}_records": value for name, value in found.items()}
    print(json.dumps({name: round(value, 5) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
