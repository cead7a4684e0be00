"""Damaged data is named and skipped, or stops the stream; a storage that is busy only slows it."""

import itertools
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from threading import Thread
from uuid import uuid4

import numpy as np
import pytest
import zarr

from catalogs.corpus.catalog import Catalog
from catalogs.errors import InputError
from tltrain.data import damage as faults
from tltrain.data.damage import BadData, Closed, Reading, is_passing
from tltrain.data.patch_sources import Labels
from tltrain.data.splits import split_samples
from tltrain.data.stream import open_stream
from tltrain.training.validation import open_validation


def stream_of(catalog, **options):
    return open_stream(catalog, split_samples(catalog).train, patch=24, batch=4, seed=0, **options)


def take(stream, n, start=0):
    return list(itertools.islice(stream.batches(start), n))


@pytest.fixture
def copy(corpus, tmp_path):
    """A corpus that may be damaged."""
    shutil.copytree(corpus.url, tmp_path / "balls")
    return Catalog.open(tmp_path / "balls")


def array_of(catalog, record, name="tomogram"):
    record = record or split_samples(catalog).train[0]
    path = {"tomogram": "0", "classes": "labels/classes/0"}[name]
    return record, zarr.open_array(f"{catalog.url}/{record.path}/{path}", mode="r+")


def shard_of(array):
    return next(file for file in Path(str(array.store_path.store.root), "c").rglob("*") if file.is_file())


def not_a_number(catalog, record=None):
    record, array = array_of(catalog, record)
    array[:, 10:20, 10:20] = np.nan
    return record


def strange_label(catalog, record=None):
    record, array = array_of(catalog, record, "classes")
    array[...] = 77
    return record


def changed_byte(catalog, record=None):
    record, array = array_of(catalog, record)
    shard = shard_of(array)
    data = bytearray(shard.read_bytes())
    data[2000] ^= 4
    shard.write_bytes(data)
    return record


def lost_object(catalog, record=None):
    record, array = array_of(catalog, record, "classes")
    shard_of(array).unlink()
    return record


def cut_off(catalog, record=None):
    record, array = array_of(catalog, record)
    shard = shard_of(array)
    shard.write_bytes(shard.read_bytes()[:-1000])
    return record


DAMAGES = (not_a_number, strange_label, changed_byte, lost_object, cut_off)


@pytest.fixture
def sizes_do_not_tell(monkeypatch):
    """Let the content be looked at, where rewriting a chunk has changed the size of its object."""
    monkeypatch.setattr("catalogs.corpus.catalog.check_complete", lambda store, record: None)


@pytest.mark.parametrize("damage", [not_a_number, strange_label, changed_byte])
def test_what_is_wrong_with_a_block_is_named(copy, damage, sizes_do_not_tell):
    record = damage(copy)
    said = []
    stream = stream_of(copy, max_damaged=0.9, tell=said.append)
    for grey, classes in take(stream, 12):
        assert np.isfinite(grey).all()
        assert classes.max() <= 1
    assert stream.damage.found
    for problem in stream.damage.found:
        assert problem.startswith(f"{record.sample_id}, voxels z 0:40, y ")
        assert np.any(
            [word in problem.lower() for word in ("finite", "label 77", "digest", "crc32c", "checksum")]
        )
    assert said == [f"skipped: {problem}" for problem in stream.damage.found]


@pytest.mark.parametrize("damage", [lost_object, cut_off])
def test_a_tomogram_that_lacks_something_is_skipped_whole(copy, damage):
    record = damage(copy)
    stream = stream_of(copy, max_damaged=0.5)
    take(stream, 12)
    assert len(stream.damage.found) == 1
    assert stream.damage.found[0].startswith(f"{record.sample_id}: ")
    assert stream.damage.share == pytest.approx(1 / 4)


@pytest.mark.parametrize("damage", DAMAGES)
def test_with_damage_the_stream_is_still_the_same_from_any_start(copy, damage, sizes_do_not_tell):
    damage(copy)
    whole = take(stream_of(copy, max_damaged=0.5, readers=1), 8)
    rest = take(stream_of(copy, max_damaged=0.5, readers=6), 4, start=4)
    for (grey, classes), (grey2, classes2) in zip(whole[4:], rest, strict=True):
        np.testing.assert_array_equal(grey, grey2)
        np.testing.assert_array_equal(classes, classes2)


@pytest.mark.parametrize("damage", DAMAGES)
def test_more_than_is_tolerated_stops_with_the_list(copy, damage):
    record = damage(copy)
    with pytest.raises(
        InputError, match=f"cannot be used and 1.0% may be(.|\n)*{record.sample_id}"
    ) as stopped:
        take(stream_of(copy), 30)
    assert np.any(
        [part in str(stopped.value).lower() for part in ("damaged", "digest", "crc32c", "checksum")]
    )


def test_a_training_names_what_it_skips_or_stops_with_the_list(copy, tltrain, tmp_path):
    record = lost_object(copy)
    command = ("fit", copy.url, "--to", tmp_path / "m.tlm", "--steps", 8, "--patch", 16, "--batch", 4)
    status, _, err = tltrain(*command)
    assert status == 2
    first, second = err.strip().splitlines()
    assert first.startswith("tltrain: 25.0% of the tomograms' volume cannot be used and 1.0% may be")
    assert second.startswith(f"  {record.sample_id}: ")
    assert not (tmp_path / "m.tlm").exists()
    status, out, err = tltrain(*command, "--max-damaged", 0.3)
    assert status == 0, err
    assert f"skipped: {record.sample_id}: " in out
    assert (tmp_path / "m.tlm").exists()


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_validates_must_be_whole(copy, damage, sizes_do_not_tell):
    train, (record,) = split_samples(copy)
    damage(copy, record)
    with pytest.raises(InputError, match=f"val-0 .{record.sample_id}., which is needed to validate, is dam"):
        open_validation(copy, [record])
    assert open_validation(copy, train).held


def test_labels_are_looked_up():
    labels = Labels({0: 0, 255: 255, 3: 1, 7: 2})
    assert labels(np.array([0, 3, 7, 255], np.uint8)).tolist() == [0, 1, 2, 255]
    with pytest.raises(ValueError, match="label 5 belongs to no class"):
        labels(np.array([0, 5], np.uint8))
    straight = Labels({0: 0, 1: 1, 2: 2, 255: 255})
    values = np.array([[0, 1], [2, 255]], np.uint8)
    np.testing.assert_array_equal(straight(values), values)
    with pytest.raises(ValueError, match="label 3 belongs to no class"):
        straight(np.array([3], np.uint8))


def test_what_passes_and_what_does_not():
    for error in (
        ConnectionResetError(),
        TimeoutError(),
        OSError("[Errno 16] Please reduce your request rate."),
        ValueError("UNAVAILABLE: Error reading: HTTP response code: 503"),
        RuntimeError("503 Service Unavailable"),
        OSError(121, "Internal Server Error"),
    ):
        assert is_passing(error), error
    for error in (
        FileNotFoundError("x"),
        ValueError("DATA_LOSS: Digest mismatch"),
        InputError("503"),
        OSError("no"),
    ):
        assert not is_passing(error), error


def test_reading_waits_for_the_storage(monkeypatch):
    monkeypatch.setattr(faults, "_FIRST_WAIT", 0.001)
    answers = [ConnectionError(), OSError("SlowDown"), 7]

    def read():
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert Reading()(read, "t", 0) == 7

    def silent():
        raise ConnectionError("refused")

    with pytest.raises(InputError, match=r"t could not be read for 0 minutes \(refused\).*same command"):
        Reading(patience=0.01)(silent, "t", 0)
    with pytest.raises(InputError, match="t may not be read"):
        Reading()(lambda: (_ for _ in ()).throw(PermissionError("403 Forbidden")), "t", 0)
    with pytest.raises(BadData, match="gone"):
        Reading()(lambda: (_ for _ in ()).throw(FileNotFoundError("gone")), "t", 0)
    reading = Reading()
    threading.Timer(0.05, reading.close).start()
    with pytest.raises(Closed):
        reading(silent, "t", 0)


class Flaky:
    """Moto's S3, of which every so many answers about a volume are 503 or closed connections for a while."""

    def __init__(self):
        from moto.server import DomainDispatcherApplication, create_backend_app

        self._app = DomainDispatcherApplication(create_backend_app)
        self.failing, self.every, self.asked, self.failed = False, 3, 0, 0

    def __call__(self, environ, start):
        if self.failing and "/samples/" in environ["PATH_INFO"]:
            self.asked += 1
            if self.asked % self.every == 0:
                self.failed += 1
                if self.failed % 2:
                    start("503 Slow Down", [("Content-Type", "application/xml")])
                    return [b"<Error><Code>SlowDown</Code></Error>"]
                environ["werkzeug.socket"].close()  # the connection is dropped
                return [b""]
        return self._app(environ, start)


@pytest.fixture(params=[True, False], ids=["tensorstore", "zarr"])
def bucket(request, corpus, monkeypatch):
    """A corpus in a bucket that can be made to fail now and then, and what makes it."""
    pytest.importorskip("s3fs", reason="the extra s3 is not installed")
    pytest.importorskip("moto.server", reason="moto is not installed")
    import fsspec
    from fsspec.config import conf
    from werkzeug.serving import make_server

    monkeypatch.setattr(faults, "_FIRST_WAIT", 0.05)
    for name, value in (
        ("ACCESS_KEY_ID", "test"),
        ("SECRET_ACCESS_KEY", "test"),
        ("DEFAULT_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(f"AWS_{name}", value)
    if not request.param:
        monkeypatch.setattr("catalogs.storage.reader._place", lambda url: None)
    app = Flaky()
    serving = make_server("127.0.0.1", 0, app, threaded=True)
    thread = Thread(target=serving.serve_forever)
    thread.start()
    try:
        monkeypatch.setitem(conf, "s3", {"endpoint_url": f"http://127.0.0.1:{serving.server_port}"})
        url = f"s3://flaky-{uuid4().hex[:8]}/balls"
        fsspec.filesystem("s3").mkdir(url.removesuffix("/balls"))
        corpus.copy_to(url)
        yield Catalog.open(url), app
    finally:
        serving.shutdown()
        thread.join()
        serving.server_close()


@pytest.mark.slow
def test_a_storage_that_is_busy_only_slows_the_stream(corpus, bucket):
    catalog, app = bucket
    expected = take(stream_of(corpus), 6)
    app.failing = True
    stream = stream_of(catalog, readers=4)
    given = take(stream, 6)
    app.failing = False
    assert app.failed > 2
    assert stream.damage.found == []
    for (grey, classes), (grey2, classes2) in zip(given, expected, strict=True):
        np.testing.assert_array_equal(grey, grey2)
        np.testing.assert_array_equal(classes, classes2)


@pytest.mark.slow
def test_a_stream_that_is_closed_waits_for_no_storage(bucket):
    catalog, app = bucket
    record = split_samples(catalog).train[0]
    array = catalog.arrays(record.sample_id)["tomogram"]
    app.failing, app.every = True, 1
    reading, raised = Reading(), []

    def read():
        try:
            reading(lambda: array[...], record.name, 0)
        except BaseException as error:
            raised.append(error)

    reader = Thread(target=read, daemon=True)
    reader.start()
    while app.failed < 3:
        assert reader.is_alive()
        time.sleep(0.05)
    reading.close()
    reader.join(60)
    assert [type(error) for error in raised] == [Closed], raised


MEMORY = """
import itertools, resource, sys
from catalogs.corpus.catalog import Catalog
from tltrain.data.augment import Augmentation
from tltrain.data.stream import open_stream
catalog = Catalog.open(sys.argv[1])
stream = open_stream(catalog, catalog.records(), patch=32, batch=4, seed=0, readers=2, per_block=8,
                     augmentation=Augmentation())
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
batches = stream.batches()
next(batches)
first = peak()
for _ in itertools.islice(batches, int(sys.argv[2])):
    pass
print(first, peak())
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_corpus(make_catalog, write_balls, tmp_path):
    # 16 tomograms of 37 MB in memory, of which every part is read several times: ten times what may be used
    catalog = make_catalog(tmp_path / "large")
    for k in range(16):
        write_balls(catalog, f"t{k}", "train", shape=(128, 256, 256), n=2, noise=1.0)
    corpus_mb = 16 * 128 * 256 * 256 * 5 / 1e6
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, catalog.url, "800"], env=os.environ, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    first, peak = map(int, done.stdout.split())
    assert corpus_mb > 10 * 60
    assert peak - first < 60, (first, peak)
