"""``tlgen run`` while things break, with real processes: nothing lost, nothing twice, nothing half."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from catalogs.corpus.catalog import Catalog

PROGRAM = "import sys, tlgen.cli; sys.argv[0] = 'tlgen'; tlgen.cli.main()"
MARK = "TEST_OF_A_RUN"  # in the environment of a run's processes and of all that they start
PATIENCE = 600  # seconds; nothing here takes long on a machine that is not busy


def listen() -> None:
    """Let Ctrl-C end this process."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Run:
    """A ``tlgen run`` in a process group of its own, as a terminal would start it."""

    def __init__(self, recipe: Path, url: str, *options: str, env: dict[str, str] | None = None) -> None:
        self.mark = f"run-{time.monotonic_ns()}"
        self.output = recipe.with_name(self.mark)
        with open(self.output, "wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, "run", str(recipe), "--to", url, *options],
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=listen,  # a shell's background jobs are deaf to Ctrl-C, and hand that on
                env={**os.environ, **(env or {}), MARK: self.mark},
            )

    def said(self) -> str:
        return self.output.read_text()

    def until_it_says(self, *words: str) -> None:
        """Wait until it has said one of these."""
        for _ in range(PATIENCE * 50):
            ended = self.process.poll() is not None  # looked at first: its last words may come between
            said = self.said()
            if any(word in said for word in words):
                return
            assert not ended, said
            time.sleep(0.02)
        raise AssertionError(f"it never said any of {words}: {self.said()}")

    def interrupt(self) -> None:
        os.killpg(self.process.pid, signal.SIGINT)

    def ended(self) -> int:
        return self.process.wait(PATIENCE)

    def left_nothing(self) -> bool:
        """Look whether its processes, workers and their children have all ended, or do soon."""
        import psutil

        def is_of_it(process: psutil.Process) -> bool:
            with contextlib.suppress(psutil.Error):  # it has just ended, or is another user's
                return process.environ().get(MARK) == self.mark
            return False

        for _ in range(300):
            if not any(is_of_it(process) for process in psutil.process_iter()):
                return True
            time.sleep(0.1)
        return False

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


MakeRecipe = Callable[..., Path]


@pytest.fixture
def written(tmp_path: Path, recipe: dict[str, Any]) -> MakeRecipe:
    """Write a recipe of so many samples."""

    def write(samples: int, **more: Any) -> Path:
        recipe["samples"] = {"train": {"number": samples}}
        path = tmp_path / "balls.yaml"
        path.write_text(yaml.safe_dump({**recipe, **more}))
        return path

    return write


def is_whole(url: str, samples: int) -> None:
    """Look whether a corpus has all samples, each once, and nothing in it is damaged."""
    catalog = Catalog.open(url)
    assert sorted(r.name for r in catalog.records()) == [f"train-{k:03d}" for k in range(samples)]
    # what a killed writer left belongs to nobody; repair takes it out
    assert {problem.kind for problem in catalog.problems()} <= {"orphan"}
    catalog.repair(catalog.plan_repair(grace=-60))
    assert Catalog.open(url).verify() == []
    assert len(Catalog.open(url).records()) == samples


def equal(url: str, undisturbed: str) -> None:
    """Compare all that is in the samples of two corpora, to the bit."""
    ours, theirs = Catalog.open(url), Catalog.open(undisturbed)
    assert ours.sample_ids() == theirs.sample_ids()
    for sample_id in theirs.sample_ids():
        mine, other = ours.arrays(sample_id), theirs.arrays(sample_id)
        assert mine.keys() == other.keys()
        for name, array in other.items():
            np.testing.assert_array_equal(mine[name][...], array[...])
        assert ours.particles(sample_id).equals(theirs.particles(sample_id))
        assert ours.tilts(sample_id).load().equals(theirs.tilts(sample_id).load())


# ------------------------------------------------------------------------------------------ kill -9


class Cluster:
    """A scheduler and a worker process that restarts the two workers it started."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._log = open(folder / "dask.log", "ab")  # noqa: SIM115 - closed in stop()
        self.scheduler: subprocess.Popen[bytes] | None = None
        self.nanny: subprocess.Popen[bytes] | None = None
        self.address = ""

    def _dask(self, *words: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "dask", *words], stdout=self._log, stderr=self._log, cwd=self._folder
        )

    def start(self, *, workers: bool = True) -> None:
        """Start whatever does not run."""
        if self.scheduler is None or self.scheduler.poll() is not None:
            self._end(self.nanny)
            self.nanny = None
            file = self._folder / "scheduler.json"
            file.unlink(missing_ok=True)
            self.scheduler = self._dask(
                "scheduler",
                "--host",
                "127.0.0.1",
                "--port",
                "0",
                "--no-dashboard",
                "--scheduler-file",
                str(file),
            )
            while not self.address_in(file):
                assert self.scheduler.poll() is None
                time.sleep(0.05)
        if workers and (self.nanny is None or self.nanny.poll() is not None):
            self.nanny = self._dask(
                "worker", self.address, "--nworkers", "2", "--nthreads", "1", "--no-dashboard",
                "--memory-limit", "0", "--death-timeout", "30",
            )  # fmt: skip

    def address_in(self, file: Path) -> str:
        with contextlib.suppress(FileNotFoundError, ValueError):
            self.address = json.loads(file.read_text())["address"]
            return self.address
        return ""

    def workers(self) -> list[int]:
        """Process ids of the workers that run now."""
        import psutil

        assert self.nanny is not None
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(self.nanny.pid).children()
            return [p.pid for p in children if "spawn_main" in " ".join(p.cmdline())]
        return []

    def _end(self, process: subprocess.Popen[bytes] | None) -> None:
        if process is not None:
            for pid in self.workers() if process is self.nanny else []:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.kill()
            process.wait()

    def stop(self) -> None:
        self._end(self.nanny)
        self._end(self.scheduler)
        self._log.close()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path)
    try:
        yield cluster
    finally:
        cluster.stop()


def kill_now_and_then(
    victims: list[str], cluster: Cluster, recipe: Path, tmp_path: Path, samples: int
) -> None:
    """Kill one thing after the other at random moments; whenever a corpus is complete, compare it."""
    luck = random.Random(7)
    urls = [str(tmp_path / "undisturbed")]
    cluster.start()
    with Run(recipe, urls[0], "--cluster", cluster.address) as run:
        assert run.ended() == 0, run.said()
    is_whole(urls[0], samples)

    killed = 0
    while killed < len(victims):
        url = str(tmp_path / f"corpus-{len(urls)}")
        urls.append(url)
        while killed < len(victims):
            cluster.start()
            with Run(recipe, url, "--cluster", cluster.address) as run:
                # a client killed at its very end left nothing to do: this one says so, and names no worker
                run.until_it_says("worker", f"{samples} of them in")
                while killed < len(victims) and run.process.poll() is None:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        run.process.wait(luck.uniform(0.1, 3))
                    if run.process.poll() is not None:
                        break
                    victim = victims[killed]
                    if victim == "client":
                        run.process.kill()
                    elif victim == "scheduler":
                        assert cluster.scheduler is not None
                        cluster.scheduler.kill()
                    elif workers := cluster.workers():
                        os.kill(luck.choice(workers), signal.SIGKILL)
                    else:  # both are being started again, or one was killed as it started: then all ends
                        cluster.start()
                        continue
                    killed += 1
                    if victim == "scheduler" and run.ended() != 0:  # 0: it was just done
                        assert run.ended() == 1, run.said()
                        assert "stopped: the Dask scheduler" in run.said()
                        assert "the same command goes on" in run.said()
                        assert "unexpected" not in run.said()
                    elif victim == "client":
                        run.process.wait()
                for _ in range(PATIENCE):
                    if run.process.poll() is not None:
                        break
                    cluster.start()  # the last may have been killed as it started, and all workers with it
                    time.sleep(1)
                status = run.ended()
            if status == 0:
                break  # complete: the next goes to another corpus
            assert status in (1, -signal.SIGKILL), run.said()
    for url in urls[1:]:
        cluster.start()
        with Run(recipe, url, "--cluster", cluster.address) as run:
            assert run.ended() == 0, run.said()
        is_whole(url, samples)
        equal(url, urls[0])


@pytest.mark.slow
def test_three_kills(cluster: Cluster, written: MakeRecipe, tmp_path: Path) -> None:
    kill_now_and_then(["worker", "client", "scheduler"], cluster, written(3), tmp_path, 3)


@pytest.mark.slow
@pytest.mark.long
def test_twenty_kills(cluster: Cluster, written: MakeRecipe, tmp_path: Path) -> None:
    victims = ["worker"] * 8 + ["client"] * 6 + ["scheduler"] * 6
    random.Random(3).shuffle(victims)
    kill_now_and_then(victims, cluster, written(6), tmp_path, 6)


# ------------------------------------------------------------------------------------------ Ctrl-C


@pytest.mark.slow
def test_interrupted_once_it_finishes_what_has_begun_and_twice_it_stops(
    written: MakeRecipe, recipe: dict[str, Any], tmp_path: Path
) -> None:
    acquisition = {**recipe["acquisition"], "tilt_step": 3}  # long enough to interrupt, twice
    path, url = written(8, acquisition=acquisition), str(tmp_path / "corpus")
    with Run(path, url, "--cluster", "local:1") as run:
        run.until_it_says("train-000 ")
        run.interrupt()
        assert run.ended() == 1
        said = run.said()
    assert "samples that have begun are finished, no others begin" in said
    assert "stopped: interrupted; what is finished is kept, and the same command goes on" in said
    assert "Traceback" not in said
    done = len(Catalog.open(url).records())
    assert 1 <= done < 8
    assert {problem.kind for problem in Catalog.open(url).problems()} <= set()

    with Run(path, url, "--cluster", "local:1") as run:
        run.until_it_says(f"train-{done:03d} ")
        run.interrupt()
        run.until_it_says("interrupted: samples")
        run.interrupt()
        assert run.ended() == 130, run.said()
        assert "what was finished is kept" in run.said()
        assert "Traceback" not in run.said()
    assert done < len(Catalog.open(url).records()) < 8
    assert run.left_nothing()

    with Run(path, url, "--cluster", "local:1") as run:
        assert run.ended() == 0
    is_whole(url, 8)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_waits_for_workers_stops_at_once(
    number: int, cluster: Cluster, written: MakeRecipe, tmp_path: Path
) -> None:
    cluster.start(workers=False)
    with Run(written(1), str(tmp_path / "corpus"), "--cluster", cluster.address) as run:
        run.until_it_says("waiting for the first worker")
        run.process.send_signal(number)
        assert run.ended() == 130, run.said()
        assert "interrupted; what was finished is kept" in run.said()
        assert "Traceback" not in run.said()
        assert run.left_nothing()


# ------------------------------------------------------------------------------------------ storage


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 900 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=900k", "tmpfs", str(folder)]
    with contextlib.suppress(FileNotFoundError):
        if subprocess.run(mount, capture_output=True, check=False).returncode == 0:
            yield folder
            subprocess.run(["umount", "-l", str(folder)], check=True)
            return
    pytest.skip("needs the right to mount a tmpfs")


@pytest.mark.slow
def test_a_full_disk_stops_the_run_and_leaves_whole_samples(small_disk: Path, written: MakeRecipe) -> None:
    recipe, url = written(8), str(small_disk / "corpus")
    with Run(recipe, url, "--cluster", "local:1") as run:
        assert run.ended() == 1
        said = run.said()
    assert "stopped: OSError: [Errno 28] No space left on device" in said
    assert "the same command goes on" in said
    catalog = Catalog.open(url)
    assert 0 < len(catalog.records()) < 8
    assert {problem.kind for problem in catalog.problems()} <= {"orphan"}
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    with Run(recipe, url, "--cluster", "local:1") as run:
        assert run.ended() == 0, run.said()
    is_whole(url, 8)


@pytest.mark.slow
def test_two_runs_into_one_corpus(written: MakeRecipe, tmp_path: Path) -> None:
    recipe, url = written(6), str(tmp_path / "corpus")
    with Run(recipe, url, "--cluster", "local:1") as one, Run(recipe, url, "--cluster", "local:1") as two:
        assert (one.ended(), two.ended()) == (0, 0), one.said() + two.said()
    catalog = Catalog.open(url)
    assert sorted(r.name for r in catalog.records()) == [f"train-{k:03d}" for k in range(6)]
    assert catalog.verify() == []
    assert len(list((tmp_path / "corpus" / "samples").glob("*/*.zarr"))) == 6


CLOCK = """
import os, time
real = time.time
time.time = lambda: real() + (2 * 86400 if os.path.exists(os.environ["JUMP"]) else 0)
"""


@pytest.mark.slow
@pytest.mark.long
def test_a_clock_that_jumps_loses_nothing(written: MakeRecipe, tmp_path: Path) -> None:
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "sitecustomize.py").write_text(CLOCK)
    jump = tmp_path / "jump"
    paths = os.pathsep.join([str(tmp_path / "odd"), os.environ.get("PYTHONPATH", "")])
    recipe, url = written(6), str(tmp_path / "corpus")
    with Run(recipe, url, "--cluster", "local:1", env={"PYTHONPATH": paths, "JUMP": str(jump)}) as run:
        run.until_it_says("train-001 ")
        jump.touch()  # two days on
        run.until_it_says("train-003 ")
        jump.unlink()  # and back
        assert run.ended() == 0, run.said()
    is_whole(url, 6)


# ------------------------------------------------------------------------------------------ a bucket


@pytest.mark.slow
@pytest.mark.parametrize(
    ("trouble", "every"),
    [("503", 15), pytest.param("reset", 15, marks=pytest.mark.long), ("loses", 60)],
)
def test_a_bucket_that_fails_now_and_then(
    trouble: str, every: int, server: str, bad_storage: Any, written: MakeRecipe,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    import fsspec
    from fsspec.config import conf

    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    options = {"key": "test", "secret": "test", "endpoint_url": server}
    monkeypatch.setitem(conf, "s3", options)
    fsspec.filesystem("s3").mkdir(f"bucket-{trouble}")
    url = f"s3://bucket-{trouble}/corpus"
    bad = bad_storage(server, trouble, every)
    env = {"FSSPEC_S3": json.dumps({**options, "endpoint_url": bad.url})}
    for _ in range(4):
        with Run(written(3), url, "--cluster", "local:1", "--retries", "4", env=env) as run:
            status = run.ended()
            assert "Traceback" not in run.said()
        if status == 0:
            break
        assert status in (1, 2), run.said()  # 2: the corpus could not even be looked at
    assert status == 0, run.said()
    assert bad.counts["trouble"] > 1
    is_whole(url, 3)
