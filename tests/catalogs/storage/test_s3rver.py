"""A second server of the S3 protocol beside moto: s3rver, which cannot create an object only if it is absent.

It is a program of Node.js: ``npm install --prefix .tools s3rver`` brings it.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from urllib.error import HTTPError
from urllib.request import urlopen

import numpy as np
import pandas as pd
import pytest

from catalogs.corpus.catalog import Catalog, Sample
from catalogs.errors import InputError
from catalogs.schema import ClassInfo
from catalogs.storage.store import can_create_if_absent, open_store

pytestmark = pytest.mark.slow
pytest.importorskip("s3fs", reason="the extra s3 is not installed")

KEY = "S3RVER"  # the one that it knows, and its secret


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    beside = Path(__file__).parents[3] / ".tools/node_modules/.bin/s3rver"
    program = str(beside) if beside.is_file() else shutil.which("s3rver")
    if program is None or shutil.which("node") is None:
        pytest.skip("needs s3rver: npm install --prefix .tools s3rver")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        [program, "-a", "127.0.0.1", "-p", str(port), "-d", str(tmp_path), "--no-vhost-buckets"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                urlopen(place, timeout=5).close()
                break
            except HTTPError:
                break
            except OSError:
                time.sleep(0.2)
        import fsspec
        from fsspec.config import conf

        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)  # for TensorStore
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEY)
        monkeypatch.setitem(conf, "s3", {"endpoint_url": place})
        fsspec.filesystem("s3").mkdir("lab")
        yield "s3://lab"
    finally:
        server.kill()
        server.wait()


def test_a_store(bucket: str) -> None:
    store = open_store(f"{bucket}/root")
    assert not can_create_if_absent(store)
    assert store.entries("") == {}
    odd = "c/a b+c=d~.json"
    store.write({"a/b": b"1", "a/c": b"22", "x/y": b"3" * 100_000, odd: b"odd"})
    assert store.read("a/c") == b"22"
    assert store.read(odd) == b"odd"
    assert {key: entry.size for key, entry in store.entries("").items()} == {
        "a/b": 1, "a/c": 2, "x/y": 100_000, odd: 3,
    }  # fmt: skip
    assert store.folders("") == ["a", "c", "x"]
    store.remove_objects(["a/b", "nothing"])
    store.remove("x")
    assert set(store.entries("")) == {"a/c", odd}
    with pytest.raises(FileNotFoundError):
        store.read("a/b")


def test_a_corpus(
    bucket: str, tmp_path: Path, classes: list[ClassInfo], make_sample: Callable[..., Sample]
) -> None:
    """Written, listed, written again, indexed, verified, copied and read.

    Not read in parts: asked for the last bytes of an object, this server sends the first ones.
    """
    corpus = Catalog.create(f"{bucket}/new/corpus", classes=classes, recipe={}, name="demo")
    assert corpus.info["storage"] == {"create_if_absent": False}
    samples = [make_sample(k) for k in range(3)]
    records = [corpus.write(sample) for sample in samples]
    corpus = Catalog.open(corpus.url)
    assert {record.sample_id for record in corpus.records()} == {record.sample_id for record in records}
    assert corpus.write(samples[0]) == records[0]  # which is there
    assert corpus.compact() == 3
    assert corpus.verify() == []
    done = Catalog.open(corpus.url).copy_to(tmp_path / "copy")
    assert (len(done.copied), done.failed) == (3, {})
    copy = Catalog.open(tmp_path / "copy")
    assert copy.verify() == []
    for record, sample in zip(records, samples, strict=True):
        np.testing.assert_array_equal(copy.arrays(record.sample_id)["instances"][...], sample.instances)
        pd.testing.assert_frame_equal(corpus.particles(record.sample_id), sample.particles)


def test_two_writers_of_one_sample(
    bucket: str, classes: list[ClassInfo], make_sample: Callable[..., Sample]
) -> None:
    """The last one wins, and the sample is whole and there once."""
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
    (record,) = Catalog.open(corpus.url).records()
    assert record.path in paths
    fresh = Catalog.open(corpus.url)
    assert {problem.kind for problem in fresh.problems()} <= {"orphan"}
    fresh.repair(fresh.plan_repair(grace=-60))
    assert Catalog.open(corpus.url).verify() == []
    assert len(Catalog.open(corpus.url).records()) == 1


def test_wrong_credentials(bucket: str, classes: list[ClassInfo], monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.config import conf

    corpus = Catalog.create(f"{bucket}/c", classes=classes, recipe={}, name="demo")
    monkeypatch.setitem(conf, "s3", {**conf["s3"], "key": "nobody", "secret": "nothing"})
    with pytest.raises(InputError, match=r"s3://lab/c cannot be read .*Access Key"):
        Catalog.open(corpus.url)
    with pytest.raises(InputError, match=r"no corpus can be written at s3://lab/d .*(Access Key|Forbidden)"):
        Catalog.create(f"{bucket}/d", classes=classes, recipe={}, name="demo")
