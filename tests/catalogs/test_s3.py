"""A corpus in a bucket, by the S3 protocol, against a server on the loopback interface."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from catalogs.catalog import Catalog, Sample, read_particles_of, sample_record_of
from catalogs.errors import InputError
from catalogs.schema import ClassInfo
from catalogs.store import open_store
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


def test_no_bucket(bucket: str, classes: list[ClassInfo], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no corpus at s3://no-such-bucket/c"):
        Catalog.open("s3://no-such-bucket/c")
    with pytest.raises(InputError, match="no corpus can be written at s3://no-such-bucket/c"):
        Catalog.create("s3://no-such-bucket/c", classes=classes, recipe={}, name="demo")
