"""What readers find: new samples at once, removed ones no more, whoever compacts the index meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalogs.corpus import index, snapshot
from catalogs.corpus.catalog import Catalog, Sample
from catalogs.errors import InputError
from catalogs.schema import Acquisition, ClassInfo, Intensity, SampleRecord
from catalogs.storage.store import Entry, Store, open_store

MakeSample = Callable[..., Sample]


def record(number: int, attempt: str = "aaaaaa", **other: object) -> SampleRecord:
    sample_id = f"{number:016x}"
    facts = {
        "sample_id": sample_id,
        "name": f"demo-{number:03d}",
        "path": f"samples/{sample_id[:2]}/{sample_id}-{attempt}.zarr",
        "split": "train",
        "created": "2026-01-01T00:00:00+00:00",
        "seed": number,
        "acquisition": Acquisition(dose=50.0 + number),
        "shape": (8, 9, 10),
        "n_tilts": 3,
        "n_particles": 2,
        "n_distractors": 1,
        "class_counts": {"ribosome": 2},
        "structures": {"4v5d": "aa"},
        "occupancy": 0.25,
        "intensity": Intensity(centre=0.5, spread=2.0),
        "seconds": {"pack": 1.5},
        "software": {"numpy": "2"},
        "checksums": {"zarr.json": "00"},
        "n_objects": 30,
        "n_bytes": 1000,
    }
    return SampleRecord.model_validate(facts | other)


def commit(store: Store, made: SampleRecord) -> None:
    attempt = Path(made.path).stem.partition("-")[2]
    assert index.create_record(store, made.sample_id, attempt, made.model_dump_json().encode())


@pytest.fixture(params=["disk", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return open_store(tmp_path if request.param == "disk" else f"memory://{uuid4().hex}/c")


class Reads:
    """Counts what is read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.keys: list[str] = []
        read = Store.read
        monkeypatch.setattr(Store, "read", lambda store, key: (self.keys.append(key), read(store, key))[1])

    def __call__(self) -> list[str]:
        keys, self.keys = self.keys, []
        return [key.partition("/")[0] for key in keys]


def test_a_compacted_index_is_one_read_and_new_records_one_each(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [record(k) for k in range(7)]
    for made in records[:5]:
        commit(store, made)
    assert index.find_samples(store).records() == records[:5]
    assert index.compact(store).records() == records[:5]
    assert store.entries(index.RECENT) == {}
    reads = Reads(monkeypatch)
    view = index.find_samples(store)
    assert view.records() == records[:5]
    assert reads() == ["index"]
    for made in records[5:]:
        commit(store, made)
    reads()
    later = index.find_samples(store, view)
    assert later.ids() == [made.sample_id for made in records]
    assert sorted(reads()) == ["commits"] * 2
    assert index.find_samples(store, later).records() == records
    assert reads() == []  # nothing is read twice
    assert index.find_samples(store).records() == records
    assert sorted(reads()) == ["commits", "commits", "index"]


def test_what_a_frame_says_does_not_depend_on_the_index(store: Store) -> None:
    for k in range(6):
        commit(store, record(k, split="test" if k == 2 else "train"))
    plain = index.find_samples(store).frame()
    index.compact(store)
    compacted = index.find_samples(store).frame()
    pd.testing.assert_frame_equal(plain, compacted)
    commit(store, record(6))
    commit(store, record(7))
    mixed = index.find_samples(store).frame()
    index.compact(store)
    pd.testing.assert_frame_equal(mixed, index.find_samples(store).frame())
    assert compacted.index.name == mixed.index.name == "sample_id"
    assert mixed.loc[f"{6:016x}", "dose"] == 56


def test_a_snapshot_is_plain_parquet(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    commit(store, record(3))
    index.compact(store)
    table = pq.read_table(tmp_path / "index/index-00000001.parquet").to_pandas()
    assert table["dose"].tolist() == [53.0]
    assert table["path"].tolist() == [record(3).path]


_THREADS = """
import os, sys
from pathlib import Path
import pyarrow.parquet
from catalogs.corpus import snapshot

def threads():
    return sorted(Path(f"/proc/self/task/{each}/comm").read_text() for each in os.listdir("/proc/self/task"))

before = threads()
held = snapshot.decode(Path(sys.argv[1]).read_bytes(), 1, "index")
assert list(held.records())
after = [name for name in threads() if not name.startswith("jemalloc")]
assert after == [name for name in before if not name.startswith("jemalloc")], (before, after)
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted in /proc")
def test_reading_an_index_starts_no_threads_that_outlive_the_program(tmp_path: Path) -> None:
    """Now and then one of Arrow's ended with the program, which then aborted with status 134."""
    path = tmp_path / "index.parquet"
    path.write_bytes(snapshot.encode(None, (), {record(k).sample_id: record(k) for k in range(50)}))
    done = subprocess.run([sys.executable, "-c", _THREADS, path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_removed_and_made_again(store: Store) -> None:
    for k in range(3):
        commit(store, record(k))
    index.compact(store)
    before = index.find_samples(store)
    index.remove_record(store, record(1).sample_id)
    gone = index.find_samples(store, before)
    assert gone.ids() == [record(0).sample_id, record(2).sample_id]
    assert gone.get(record(1).sample_id) is None
    assert len(gone.frame()) == len(gone.records()) == 2
    again = record(1, attempt="bbbbbb", seed=99)
    commit(store, again)
    assert index.find_samples(store, gone).get(again.sample_id) == again
    assert index.find_samples(store).records() == [record(0), again, record(2)]
    assert index.compact(store).records() == [record(0), again, record(2)]
    assert index.find_samples(store, before).get(again.sample_id) == again
    assert store.entries(index.RECENT) == {}


def test_removed_then_compacted(store: Store) -> None:
    commit(store, record(0))
    commit(store, record(1))
    index.compact(store)
    index.remove_record(store, record(1).sample_id)
    assert index.compact(store).ids() == [record(0).sample_id]
    assert index.find_samples(store).records() == [record(0)]


def test_an_announced_sample_is_not_there_until_its_record_is(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(store, record(0))
    name = f"recent/{record(1).sample_id}-aaaaaa"
    store.write({name: b"x"})
    assert index.find_samples(store).ids() == [record(0).sample_id]
    view = index.compact(store)
    assert view.ids() == [record(0).sample_id]
    assert list(store.entries(index.RECENT)) == [name]  # its writer may be about to create the record
    store.create(index.commit_key(record(1).sample_id), record(1).model_dump_json().encode())
    assert index.find_samples(store, view).records() == [record(0), record(1)]

    store.write({f"recent/{record(2).sample_id}-aaaaaa": b"x"})
    index.compact(store)
    later = index.time.time() + 2 * index.GRACE
    monkeypatch.setattr(index.time, "time", lambda: later)
    index.compact(store)
    assert store.entries(index.RECENT) == {}  # its writer has died


def test_the_last_sample_goes(store: Store) -> None:
    commit(store, record(0))
    index.compact(store)
    index.remove_record(store, record(0).sample_id)
    assert index.compact(store).ids() == []
    assert index.find_samples(store).records() == []
    assert len(index.find_samples(store).frame()) == 0
    commit(store, record(1))
    assert index.compact(store).records() == [record(1)]
    assert index.find_samples(store).frame()["dose"].tolist() == [51.0]


def test_records_of_many_groups_of_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "_ROWS", 3)
    store = open_store(tmp_path)
    records = [record(k, structures={"4v5d": str(k % 2)}) for k in range(0, 20, 2)]
    for made in records:
        commit(store, made)
    index.compact(store)
    records += [record(k) for k in range(1, 20, 4)]
    for made in records[10:]:
        commit(store, made)
    index.remove_record(store, records[4].sample_id)
    index.compact(store)
    expected = sorted((r for r in records if r != records[4]), key=lambda r: r.sample_id)
    view = index.find_samples(store)
    assert view.records() == expected
    assert [view.get(r.sample_id) for r in reversed(expected)] == expected[::-1]
    assert view.frame()["seed"].tolist() == [r.seed for r in expected]


def test_the_index_may_be_deleted(store: Store) -> None:
    for k in range(3):
        commit(store, record(k))
    index.compact(store)
    store.remove(index.INDEX)
    assert index.find_samples(store).ids() == [record(k).sample_id for k in range(3)]
    assert index.compact(store).records() == [record(k) for k in range(3)]


def test_old_snapshots_go_and_a_reader_that_listed_one_looks_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for k in range(5):
        commit(store, record(k))
        index.compact(store)
    kept = [f"index/index-{n:08d}.parquet" for n in (4, 5)]
    assert sorted(store.entries(index.INDEX)) == kept

    entries, listed = Store.entries, []

    def late(self: Store, prefix: str) -> dict[str, Entry]:
        if prefix == index.INDEX and not listed:
            listed.append(prefix)
            return {"index/index-00000001.parquet": Entry(1, 0.0)}  # as it was long ago
        return entries(self, prefix)

    monkeypatch.setattr(Store, "entries", late)
    assert len(index.find_samples(store).ids()) == 5


def test_damaged_and_newer_indexes_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(tmp_path)
    commit(store, record(0))
    index.compact(store)
    file = tmp_path / "index/index-00000001.parquet"
    whole = file.read_bytes()
    for damage in (b"", whole[: len(whole) // 2], b"x" * 100):
        file.write_bytes(damage)
        with pytest.raises(InputError, match=r"index-00000001\.parquet is damaged; tlgen repair"):
            index.find_samples(store)
    assert index.compact(store, rebuild=True).records() == [record(0)]
    assert index.find_samples(store).records() == [record(0)]
    monkeypatch.setattr(snapshot, "FORMAT_VERSION", 99)
    (tmp_path / "index/index-00000003.parquet").write_bytes(
        snapshot.encode(None, (), {record(0).sample_id: record(0)})
    )
    monkeypatch.undo()
    with pytest.raises(InputError, match=r"index-00000003\.parquet has format version 99"):
        index.find_samples(store)


def test_a_snapshot_of_an_older_program_lacks_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from catalogs.corpus import sample_table

    store = open_store(tmp_path)
    commit(store, record(0))
    whole = index.find_samples(store).frame()
    fewer = [name for name in sample_table.COLUMNS if name != "dqe"]
    monkeypatch.setattr(sample_table, "COLUMNS", fewer)
    index.compact(store)
    monkeypatch.undo()
    pd.testing.assert_frame_equal(index.find_samples(store).frame(), whole)
    commit(store, record(1))
    index.compact(store)
    assert index.find_samples(store).frame()["dqe"].tolist() == [True, True]


def test_many_compact_and_write_at_a_time(store: Store) -> None:
    """Whatever the order, every record is found all the time and at the end."""
    n = 24

    def work(k: int) -> int:
        if k % 3 == 0:
            index.compact(store)
            return 0
        commit(store, record(k))
        return int(record(k).sample_id in index.find_samples(store).ids())

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(work, range(n)))
    written = [record(k) for k in range(n) if k % 3]
    assert sum(found) == len(written)
    assert index.find_samples(store).records() == written
    assert index.compact(store).records() == written
    assert index.find_samples(store).base is not None
    assert store.entries(index.RECENT) == {}


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, str(Path(sys.argv[2]).parent))
from catalogs.corpus import index
from catalogs.storage.store import open_store
from test_index import commit, record
store, first = open_store(sys.argv[1]), int(sys.argv[3])
for k in range(first, first + 10):
    commit(store, record(k))
    if k % 3 == 0:
        index.compact(store)
"""


def test_processes_write_and_compact(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path), __file__]
    workers = [subprocess.Popen([*command, str(100 * k)], env=os.environ) for k in range(2)]
    seen: set[str] = set()
    view = None
    while any(worker.poll() is None for worker in workers):
        view = index.find_samples(open_store(tmp_path), view)
        assert seen <= set(view.ids())  # what was there once stays
        seen = set(view.ids())
    assert [worker.wait() for worker in workers] == [0, 0]
    assert len(index.find_samples(open_store(tmp_path)).records()) == 20


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("commit"), st.integers(0, 3)),
            st.tuples(st.just("remove"), st.integers(0, 3)),
            st.tuples(st.sampled_from(["compact", "rebuild", "look"]), st.just(0)),
        ),
        max_size=14,
    )
)
def test_readers_agree_with_the_records(steps: list[tuple[str, int]]) -> None:
    """A reader that was there all the time, one that comes now and one that lists everything see the same."""
    store = open_store(f"memory://{uuid4().hex}/c")
    old = index.find_samples(store)
    there: dict[str, SampleRecord] = {}
    for number, (word, k) in enumerate(steps):
        made = record(k, attempt=f"{number:06x}")
        if word == "commit" and made.sample_id not in there:
            commit(store, made)
            there[made.sample_id] = made
        elif word == "commit":  # somebody comes second
            assert not index.create_record(
                store, made.sample_id, f"{number:06x}", made.model_dump_json().encode()
            )
        elif word == "remove" and made.sample_id in there:
            index.remove_record(store, made.sample_id)
            del there[made.sample_id]
        elif word == "compact":
            index.compact(store)
        elif word == "rebuild":
            index.compact(store, rebuild=True)
        elif word == "look":
            old = index.find_samples(store, old)
        expected = sorted(there.values(), key=lambda r: r.sample_id)
        assert index.find_samples(store).records() == expected
        assert index.find_samples(store, old).records() == expected
        assert index.find_samples(store, journal=False).ids() == sorted(there)
        assert index.find_samples(store).frame()["path"].tolist() == [r.path for r in expected]


def test_a_corpus_reads_its_samples_through_the_index(
    corpus: Catalog, make_sample: MakeSample, classes: list[ClassInfo], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = [corpus.write(make_sample(k)) for k in range(2)]
    assert corpus.compact() == 2
    fresh = Catalog.open(corpus.url)
    reads = Reads(monkeypatch)
    assert fresh.records() == first
    assert fresh.record(first[1].sample_id) == first[1]
    assert fresh.sample_ids() == [made.sample_id for made in first]
    assert reads() == ["index"]
    assert corpus.verify() == []
