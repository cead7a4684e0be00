"""What a crash, a race or a rotten disk does to a corpus."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from uuid import uuid4

import pytest

from catalogs.corpus.catalog import Catalog, Sample
from catalogs.errors import InputError
from catalogs.schema import ClassInfo
from catalogs.storage.store import Store, can_create_if_absent, open_store

MakeSample = Callable[..., Sample]
WRITERS = 16


def race(url: str, sample: Sample) -> tuple[list[str], Catalog]:
    """Write one sample from many threads, all of which find that it is not there yet."""
    barrier = Barrier(WRITERS)

    def write(_: int) -> str:
        catalog = Catalog.open(url)
        look = catalog._standing

        def look_together(sample_id: str) -> object:
            found = look(sample_id)
            barrier.wait(timeout=60)
            return found

        catalog._standing = look_together  # type: ignore[method-assign,assignment]
        return catalog.write(sample).path

    with ThreadPoolExecutor(WRITERS) as threads:
        paths = list(threads.map(write, range(WRITERS)))
    return paths, Catalog.open(url)


@pytest.mark.parametrize("kind", ["disk", "memory"])
def test_of_many_writers_one_wins(
    tmp_path: Path, kind: str, classes: list[ClassInfo], make_sample: MakeSample
) -> None:
    url = str(tmp_path / "c") if kind == "disk" else f"memory://{uuid4().hex}/c"
    Catalog.create(url, classes=classes, recipe={}, name="demo")
    paths, catalog = race(url, make_sample(0))
    assert len(set(paths)) == 1
    assert [record.path for record in catalog.records()] == [paths[0]]
    assert catalog.verify() == []  # no orphans: the losers have removed what they wrote


@pytest.mark.parametrize("kind", ["s3", "gs"])
def test_a_url_with_one_slash_is_no_folder(kind: str) -> None:
    with pytest.raises(
        InputError, match=rf"{kind}:/bucket/corpus lacks a slash; write {kind}://bucket/corpus"
    ):
        open_store(f"{kind}:/bucket/corpus")


def test_create_if_absent_has_one_winner(tmp_path: Path) -> None:
    for store in (open_store(tmp_path), open_store(f"memory://{uuid4().hex}")):
        barrier = Barrier(WRITERS)

        def create(k: int, store: Store = store, barrier: Barrier = barrier) -> bool:
            barrier.wait(timeout=60)
            return store.create("a/b.json", b"%d" % k * 1000)

        with ThreadPoolExecutor(WRITERS) as threads:
            won = list(threads.map(create, range(WRITERS)))
        assert sum(won) == 1
        assert store.read("a/b.json") == b"%d" % won.index(True) * 1000
        assert list(store.sizes("")) == ["a/b.json"]


def test_create_again_after_a_lost_answer(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    assert store.create("a", b"mine")
    assert store.create("a", b"mine")  # the same writer asks again
    assert not store.create("a", b"other")


def test_storage_without_conditional_writes_is_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    store = open_store(f"memory://{uuid4().hex}")
    assert can_create_if_absent(store)
    plain = MemoryFileSystem.pipe_file
    monkeypatch.setattr(
        MemoryFileSystem, "pipe_file", lambda self, path, value, mode="overwrite": plain(self, path, value)
    )
    assert not can_create_if_absent(store)
    assert store.sizes("") == {}
    careful = Store(store.url, conditional=False)
    assert careful.create("a", b"first")
    assert not careful.create("a", b"second")
    assert careful.read("a") == b"first"


# Kills the writing process when n objects and one more are written, or n are and the record is to come.
CRASH = """
import os, pickle, signal, sys
from catalogs.corpus.catalog import Catalog
from catalogs.storage.store import Store
with open(sys.argv[2], "rb") as file:
    sample = pickle.load(file)
left = int(sys.argv[3])
write, create = Store._write_one, Store.create
def count():
    global left
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
Store._write_one = lambda self, item: (write(self, item), count())[0]
Store.create = lambda self, key, data: (count(), create(self, key, data))[1]
Catalog.open(sys.argv[1]).write(sample)
"""


@pytest.mark.parametrize("when", ["among the objects", "after the last object", "before the record"])
def test_a_killed_writer_leaves_nothing_visible(
    tmp_path: Path, corpus: Catalog, make_sample: MakeSample, when: str
) -> None:
    import pickle

    sample = make_sample(0)
    scratch = Catalog.create(tmp_path / "scratch", classes=corpus.classes, recipe={}, name="scratch")
    n = scratch.write(sample).n_objects
    # what is new is announced in one more object, then the record is created
    written = {"among the objects": 7, "after the last object": n - 1, "before the record": n + 1}[when]
    (tmp_path / "sample.pickle").write_bytes(pickle.dumps(sample))
    command = [sys.executable, "-c", CRASH, corpus.url, str(tmp_path / "sample.pickle"), str(written)]
    assert subprocess.run(command, timeout=120, check=False).returncode == -signal.SIGKILL

    assert not corpus.has(sample.facts["sample_id"])
    assert corpus.records() == []
    orphans = corpus.verify()
    assert len(orphans) == 1
    assert "has no readable record" in orphans[0]
    record = corpus.write(sample)  # the next run goes on
    assert corpus.records() == [record]
    assert corpus.verify() == orphans


def test_a_full_disk_leaves_nothing(
    corpus: Catalog, make_sample: MakeSample, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Path.write_bytes

    def full(self: Path, data: bytes) -> int:
        if len(data) > 100_000:
            write(self, data[:1000])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        corpus.write(make_sample(0))
    monkeypatch.undo()
    assert corpus.records() == []
    assert corpus.verify() == []


def test_a_write_that_is_silently_cut_is_noticed(
    corpus: Catalog, make_sample: MakeSample, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", lambda self, data: write(self, data[:50_000]))
    with pytest.raises(InputError, match="is damaged"):
        corpus.write(make_sample(0))
    monkeypatch.undo()
    assert corpus.records() == []
    assert corpus.verify() == []


class TestVerify:
    def test_a_flipped_bit(self, corpus: Catalog, make_sample: MakeSample) -> None:
        corpus.write(make_sample(0))
        record = corpus.write(make_sample(1))
        shard = Path(corpus.sample_url(record.sample_id)) / "0/c/0/0/0"
        data = bytearray(shard.read_bytes())
        data[len(data) // 2] ^= 1
        shard.write_bytes(bytes(data))
        assert corpus.verify() == [f"{shard} has changed since it was written"]

    def test_a_lost_shard(self, corpus: Catalog, make_sample: MakeSample) -> None:
        record = corpus.write(make_sample(0))
        shard = Path(corpus.sample_url(record.sample_id)) / "labels/classes/0/c/0/0/0"
        shard.unlink()
        assert corpus.verify() == [f"{shard} is missing"]
        for read in (corpus.arrays, corpus.open_sample):  # Zarr would have read zeros
            with pytest.raises(InputError, match="is damaged"):
                read(record.sample_id)

    def test_strangers(self, corpus: Catalog, make_sample: MakeSample) -> None:
        record = corpus.write(make_sample(0))
        group = Path(corpus.sample_url(record.sample_id))
        (group / "notes.txt").write_text("hello")
        (group.parent / "other.zarr").mkdir()
        (group.parent / "other.zarr" / "zarr.json").write_text("{}")
        (Path(corpus.url) / "commits/00/.x.json.1234").write_text("{}")
        problems = corpus.verify()
        assert len(problems) == 3
        assert problems[0] == f"{group}/notes.txt does not belong to the sample"
        assert "other.zarr has no readable record" in problems[1]
        assert ".x.json.1234 has no readable record" in problems[2]
        assert len(corpus.records()) == 1
