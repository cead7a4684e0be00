"""A corpus in a bucket, by the S3 protocol, against a server on the loopback interface."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Thread
from typing import Any
from uuid import uuid4

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from catalogs.corpus.catalog import Catalog, Sample, read_particles_of, sample_record_of
from catalogs.errors import InputError
from catalogs.schema import ClassInfo
from catalogs.storage.store import can_create_if_absent, open_store
from catalogs.volumes import open_volume

fsspec = pytest.importorskip("fsspec")
pytest.importorskip("s3fs", reason="the extra s3 is not installed")
pytest.importorskip("moto.server", reason="moto is not installed")

MakeSample = Callable[..., Sample]
OPTIONS = {"key": "test", "secret": "test"}


@pytest.fixture
def corpus(bucket: str, classes: list[ClassInfo]) -> Catalog:
    return Catalog.create(f"{bucket}/lab/corpus", classes=classes, recipe={}, name="demo")


def test_round_trip(corpus: Catalog, make_sample: MakeSample) -> None:
    assert corpus.info["storage"] == {"create_if_absent": True}
    sample = make_sample(0)
    record = corpus.write(sample)
    corpus = Catalog.open(corpus.url + "/")
    assert corpus.records() == [record]
    np.testing.assert_array_equal(corpus.arrays(record.sample_id)["instances"][...], sample.instances)
    pd.testing.assert_frame_equal(corpus.particles(record.sample_id), sample.particles)
    np.testing.assert_array_equal(corpus.open_sample(record.sample_id)["classes"].values, sample.classes)
    path = corpus.sample_url(record.sample_id)
    assert path.startswith("s3://")
    assert open_volume(path).read((slice(0, 1),) * 3)[0, 0, 0] == pytest.approx(
        sample.tomogram[0, 0, 0], rel=1e-3
    )
    assert sample_record_of(path) == record
    assert len(read_particles_of(path)) == 3
    np.testing.assert_allclose(xr.open_zarr(path)["0"].values, sample.tomogram, rtol=2**-11)
    assert corpus.query("dose == 100").index.tolist() == [record.sample_id]
    assert corpus.verify() == []
    corpus.put_molecule("ab", {"x": np.arange(3)})
    assert corpus.get_molecule("ab")["x"].tolist() == [0, 1, 2]


def test_damage_is_found(corpus: Catalog, make_sample: MakeSample) -> None:
    record = corpus.write(make_sample(0))
    store = open_store(corpus.url)
    shard = f"{record.path}/0/c/0/0/0"
    data = bytearray(store.read(shard))
    data[-100] ^= 1
    store.write({shard: bytes(data), "samples/ab/orphan.zarr/zarr.json": b"{}"})
    problems = corpus.verify()
    assert problems[0] == f"{corpus.url}/{shard} has changed since it was written"
    assert "orphan.zarr has no readable record" in problems[1]
    assert len(problems) == 2


def test_of_many_creators_one_wins(bucket: str) -> None:
    store = open_store(f"{bucket}/c")
    barrier = Barrier(16)

    def create(k: int) -> bool:
        barrier.wait(timeout=60)
        return store.create("commits/aa/x.json", b"writer %d" % k)

    with ThreadPoolExecutor(16) as threads:
        won = list(threads.map(create, range(16)))
    assert sum(won) == 1
    assert store.read("commits/aa/x.json") == b"writer %d" % won.index(True)


def test_two_writers_of_one_sample(corpus: Catalog, make_sample: MakeSample) -> None:
    barrier = Barrier(2)

    def write(_: int) -> str:
        catalog = Catalog.open(corpus.url)
        look = catalog._standing

        def look_together(sample_id: str) -> object:
            found = look(sample_id)
            barrier.wait(timeout=60)
            return found

        catalog._standing = look_together  # type: ignore[method-assign,assignment]
        return catalog.write(make_sample(0)).path

    with ThreadPoolExecutor(2) as threads:
        paths = set(threads.map(write, range(2)))
    assert len(paths) == 1
    assert {record.path for record in corpus.records()} == paths
    assert corpus.verify() == []


def test_index_repair_and_copy(corpus: Catalog, bucket: str, make_sample: MakeSample) -> None:
    records = [corpus.write(make_sample(k, shape=(9, 14, 11))) for k in range(3)]
    assert corpus.compact() == 3
    assert corpus.compact() == 3  # nothing new
    store = open_store(corpus.url)
    assert list(store.sizes("index")) == ["index/index-00000001.parquet"]
    assert store.sizes("recent") == {}
    assert Catalog.open(corpus.url).records() == records
    store.remove_objects([f"{records[0].path}/0/c/0/0/0"])
    store.write({"samples/ab/abcdef0123456789-123456.zarr/zarr.json": b"{}"})
    fresh = Catalog.open(corpus.url)
    todo = fresh.plan_repair(grace=-60)
    assert list(todo.remake) == [records[0].sample_id]
    assert todo.groups == ("samples/ab/abcdef0123456789-123456.zarr",)
    assert fresh.plan_repair().groups == ()  # it is young
    fresh.repair(todo)
    assert Catalog.open(corpus.url).records() == records[1:]
    assert fresh.verify() == []
    done = fresh.copy_to(f"{bucket}/copy")
    assert (len(done.copied), done.failed) == (2, {})
    assert Catalog.open(f"{bucket}/copy").records() == records[1:]
    assert Catalog.open(f"{bucket}/copy").verify() == []


PROCESS = """
import pickle, sys
from pathlib import Path
from fsspec.config import conf
conf["s3"] = {"key": "test", "secret": "test", "endpoint_url": sys.argv[1]}
from catalogs.corpus.catalog import Catalog
sample = pickle.loads(Path(sys.argv[3]).read_bytes())
catalog = Catalog.open(sys.argv[2])
standing = catalog._standing
def wait(sample_id):
    found = standing(sample_id)  # none: the other has not written it either
    print("ready", flush=True)
    sys.stdin.readline()
    return found
catalog._standing = wait
print(catalog.write(sample).path, flush=True)
"""


def race(server: str, url: str, sample: Sample, folder: Path) -> set[str]:
    """Write one sample from two processes, both of which have found that it is not there."""
    (folder / "sample.pickle").write_bytes(pickle.dumps(sample))
    command = [sys.executable, "-c", PROCESS, server, url, str(folder / "sample.pickle")]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    writers = [subprocess.Popen(command, env=os.environ, **pipes) for _ in range(2)]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    return {writer.communicate(timeout=120)[0].strip() for writer in writers}


@pytest.mark.slow  # processes that import all this take their time
def test_processes_write_one_sample(
    server: str, corpus: Catalog, make_sample: MakeSample, tmp_path: Path
) -> None:
    paths = race(server, corpus.url, make_sample(0, shape=(9, 14, 11)), tmp_path)
    assert len(paths) == 1
    assert {record.path for record in corpus.records()} == paths
    assert corpus.verify() == []  # the losers have removed what they wrote


class Odd:
    """Moto's S3 with a fault: it takes no conditions, or it loses what it is told to."""

    def __init__(self) -> None:
        from moto.server import DomainDispatcherApplication, create_backend_app

        self._app = DomainDispatcherApplication(create_backend_app)
        self.lose: Callable[[str], bool] = lambda path: False

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        environ.pop("HTTP_IF_NONE_MATCH", None)
        if environ["REQUEST_METHOD"] == "PUT" and self.lose(environ["PATH_INFO"]):
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start("200 OK", [("ETag", '"0"'), ("Content-Length", "0")])
            return [b""]
        answer: Iterable[bytes] = self._app(environ, start)
        return answer


@pytest.fixture
def odd(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Odd, str, str]]:
    from fsspec.config import conf
    from werkzeug.serving import make_server

    app = Odd()
    serving = make_server("127.0.0.1", 0, app, threaded=True)
    thread = Thread(target=serving.serve_forever)
    thread.start()
    endpoint = f"http://127.0.0.1:{serving.server_port}"
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setitem(conf, "s3", {**OPTIONS, "endpoint_url": endpoint})
    name = f"odd-{uuid4().hex[:8]}"
    fsspec.filesystem("s3").mkdir(name)
    yield app, endpoint, f"s3://{name}/c"
    serving.shutdown()
    thread.join()
    serving.server_close()


@pytest.mark.slow
def test_a_store_without_conditions(
    odd: tuple[Odd, str, str], classes: list[ClassInfo], make_sample: MakeSample, tmp_path: Path
) -> None:
    _, endpoint, url = odd
    assert not can_create_if_absent(open_store(url))
    corpus = Catalog.create(url, classes=classes, recipe={}, name="demo")
    assert corpus.info["storage"] == {"create_if_absent": False}
    race(endpoint, url, make_sample(0, shape=(9, 14, 11)), tmp_path)
    written = [corpus.write(make_sample(k, shape=(9, 14, 11))) for k in (1, 2)]
    assert len(corpus.records()) == 3  # whole, whoever was last
    np.testing.assert_array_equal(
        corpus.arrays(f"{0:016x}")["classes"][...], make_sample(0, shape=(9, 14, 11)).classes
    )
    assert {problem.kind for problem in corpus.problems()} <= {"orphan"}
    assert corpus.compact() == 3
    assert len(open_store(url).sizes("recent")) >= 3  # nobody can be sure whose index stands
    assert Catalog.open(url).records()[1:] == written


@pytest.mark.parametrize("lost", ["/0/c/0/0/0", "/zarr.json", "/commits/"])
def test_a_store_that_loses_what_it_has_accepted(
    odd: tuple[Odd, str, str], classes: list[ClassInfo], make_sample: MakeSample, lost: str
) -> None:
    app, _, url = odd
    corpus = Catalog.create(url, classes=classes, recipe={}, name="demo")
    app.lose = lambda path: lost in path
    with pytest.raises((InputError, OSError), match=r"is damaged|the storage loses data"):
        corpus.write(make_sample(0, shape=(9, 14, 11)))
    app.lose = lambda path: False
    assert corpus.records() == []
    record = corpus.write(make_sample(0, shape=(9, 14, 11)))
    assert corpus.records() == [record]


@pytest.mark.slow
def test_a_copy_that_is_killed_goes_on(
    server: str, corpus: Catalog, bucket: str, make_sample: MakeSample
) -> None:
    for k in range(3):
        corpus.write(make_sample(k, shape=(9, 14, 11)))
    code = f"""
import os, signal
from fsspec.config import conf
conf["s3"] = {{"key": "test", "secret": "test", "endpoint_url": {server!r}}}
from catalogs.corpus.catalog import Catalog
Catalog.open({corpus.url!r}).copy_to(
    "{bucket}/copy", on_progress=lambda n, total, _: os.kill(os.getpid(), signal.SIGKILL)
)
"""
    killed = subprocess.run([sys.executable, "-c", code], env=os.environ, timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL
    done = corpus.copy_to(f"{bucket}/copy")
    assert len(done.present) >= 1
    assert len(done.present) + len(done.copied) == 3
    assert Catalog.open(f"{bucket}/copy").verify() == []


def test_no_bucket(bucket: str, classes: list[ClassInfo], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no corpus at s3://no-such-bucket/c"):
        Catalog.open("s3://no-such-bucket/c")
    with pytest.raises(InputError, match="no corpus can be written at s3://no-such-bucket/c"):
        Catalog.create("s3://no-such-bucket/c", classes=classes, recipe={}, name="demo")
