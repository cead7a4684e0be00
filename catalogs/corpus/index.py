"""The index of a corpus: one record per sample, snapshots of all records, and what is newer.

::

    commits/<aa>/<id>.json       the record of a sample; the sample exists if and only if this does
    recent/<id>-<attempt>        announces that the record of <id> will be created or removed
    index/index-<number>.parquet a snapshot of all records; the highest number is the newest

Reading 100,000 records, or only listing their names, would take hundreds of requests. So a reader takes the
newest snapshot and then the records that ``recent/`` names: two listings, one file, and one request for each
new sample. A writer puts a name into ``recent/`` before it creates the record, so that every record is in at
least one of both places; a name without a record is ignored. :func:`compact` makes the next snapshot. Many
programs may do so at any time: a snapshot's name is created only if absent, so one of them wins. Names leave
``recent/`` only when a snapshot with their records exists.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from uuid import uuid4

import pandas as pd

from catalogs.corpus import sample_table, snapshot
from catalogs.corpus.snapshot import Snapshot
from catalogs.errors import InputError
from catalogs.schema import SAMPLE_ID, SampleRecord
from catalogs.storage.store import Entry, Store
from catalogs.versions import NewerFormat, parse_record

COMMITS, RECENT, INDEX = "commits", "recent", "index"

#: Seconds after which a name without a record counts as left by a dead writer.
GRACE = 24 * 3600.0
_COMMIT = re.compile(rf"{COMMITS}/(?P<folder>[0-9a-f]{{2}})/(?P<id>{SAMPLE_ID})\.json")
_EVENT = re.compile(rf"{RECENT}/(?P<event>{SAMPLE_ID}-[0-9a-z]+)")
_SNAPSHOT = re.compile(rf"{INDEX}/index-(\d{{8,18}})\.parquet", re.ASCII)
_KEPT = 2  # snapshots to keep; a reader may just have listed an older one
_TRIES = 5


def commit_key(sample_id: str) -> str:
    """Key of a sample's record."""
    return f"{COMMITS}/{sample_id[:2]}/{sample_id}.json"


def commit_ids(entries: Mapping[str, Entry]) -> dict[str, str]:
    """Find the records in a listing of ``commits/``: sample id -> key."""
    found = (_COMMIT.fullmatch(key) for key in sorted(entries))
    return {match["id"]: match[0] for match in found if match and match["id"].startswith(match["folder"])}


def unfinished_keys(entries: Mapping[str, Entry]) -> list[str]:
    """Find in a listing the temporary files of writers that died."""
    return sorted(key for key in entries if key.rsplit("/", 1)[-1].startswith("."))


def read_record(store: Store, key: str) -> SampleRecord:
    """Read one record.

    Raises
    ------
    FileNotFoundError
        If there is no record.
    InputError
        If it is damaged, or a newer version of this program wrote it.
    """
    return _of_key(parse_record(store.read(key), store.at(key)), store, key)


def _of_key(record: SampleRecord, store: Store, key: str) -> SampleRecord:
    if commit_key(record.sample_id) != key:
        raise InputError(f"{store.at(key)} is the record of another sample; tlgen repair removes it")
    return record


def create_record(store: Store, sample_id: str, attempt: str, data: bytes) -> bool:
    """Make a sample visible: create its record, unless there is one.

    Parameters
    ----------
    store
        Store of the corpus.
    sample_id
        Id of the sample.
    attempt
        End of the name of the sample's group.
    data
        The record.

    Returns
    -------
    bool
        Whether the record in the corpus is this one.
    """
    _announce(store, sample_id, attempt)
    return store.create(commit_key(sample_id), data)


def remove_record(store: Store, sample_id: str) -> None:
    """Remove the record of a sample, also from the index; its group stays."""
    _announce(store, sample_id, uuid4().hex[:6])
    store.remove_objects([commit_key(sample_id)])


def _announce(store: Store, sample_id: str, attempt: str) -> None:
    # not empty, because some stores drop empty objects
    key = f"{RECENT}/{sample_id}-{attempt}"
    store.write({key: b"see commits/\n"})
    if not store.exists(key):  # otherwise the sample would exist, but no reader would find it
        raise OSError(f"{store.at(key)} was written but is missing: the storage loses data")


@dataclass(frozen=True, eq=False)
class View:
    """The samples that a reader has found.

    Attributes
    ----------
    base
        The newest snapshot, if there is one.
    fresh
        Records that the snapshot lacks, or that have changed, by sample id.
    gone
        Samples of the snapshot that no longer exist.
    handled
        Names in ``recent/`` whose records are in ``base`` or ``fresh``.
    idle
        Names in ``recent/`` without a record -> when they were written (seconds since 1970).
    """

    base: Snapshot | None = None
    fresh: dict[str, SampleRecord] = field(default_factory=dict)
    gone: frozenset[str] = frozenset()
    handled: frozenset[str] = frozenset()
    idle: dict[str, float] = field(default_factory=dict)

    def ids(self) -> list[str]:
        """All sample ids, sorted."""
        base = self.base.paths if self.base else {}
        return sorted((base.keys() | self.fresh.keys()) - self.gone)

    def get(self, sample_id: str) -> SampleRecord | None:
        """Return the record of a sample, if it is among these."""
        if sample_id in self.fresh:
            return self.fresh[sample_id]
        if self.base is None or sample_id in self.gone or sample_id not in self.base.paths:
            return None
        return self.base.record(sample_id)

    def records(self) -> list[SampleRecord]:
        """All records, by sample id."""
        base = self.base.records({*self.gone, *self.fresh}) if self.base else ()
        return sorted([*base, *self.fresh.values()], key=lambda record: record.sample_id)

    def frame(self) -> pd.DataFrame:
        """Return the table of samples (:mod:`catalogs.corpus.sample_table`), paths as in the records."""
        tables = [sample_table.as_table(self.fresh.values())]
        if self.base:
            tables.append(self.base.frame({*self.gone, *self.fresh}))
        return sample_table.join(tables)


def find_samples(
    store: Store, before: View | None = None, *, journal: bool = True, base: bool = True
) -> View:
    """Find all current samples.

    Parameters
    ----------
    store
        Store of the corpus.
    before
        Result of the previous call; its records are not read again.
    journal
        Rely on ``recent/``. Otherwise, and without a snapshot, all records are listed.
    base
        Use the newest snapshot; otherwise all records are read.

    Raises
    ------
    InputError
        If a record or the snapshot is damaged or newer than this program.
    """
    before = before or View()
    # list recent/ first: a name that has left it is in a snapshot that a later listing shows
    named = ((_EVENT.fullmatch(key), entry) for key, entry in store.entries(RECENT).items())
    events = {match["event"]: entry for match, entry in named if match}
    newest = _newest(store, before.base) if base else None
    paths = newest.paths if newest else {}
    old = {event for event in events if paths.get(_sample(event), "").endswith(f"/{event}.zarr")}
    wanted = {_sample(event) for event in events.keys() - old}
    gone: set[str] = set()
    if newest is None or not journal:
        there = commit_ids(store.entries(COMMITS)).keys()
        wanted = (wanted | (there - paths.keys())) & there
        gone = paths.keys() - there

    unheard = {_sample(event) for event in events.keys() - before.handled}
    known = {i: record for i, record in before.fresh.items() if i in wanted and i not in unheard}
    found = _read(store, sorted(wanted - known.keys()))
    fresh = known | found
    gone |= (wanted - fresh.keys()) & paths.keys()
    handled = frozenset(event for event in events if event in old or _sample(event) in fresh)
    idle = {event: entry.modified for event, entry in events.items() if event not in handled}
    return View(newest, fresh, frozenset(gone), handled, idle)


def compact(store: Store, *, journal: bool = True, rebuild: bool = False) -> View:
    """Write the next snapshot if there is anything new.

    Parameters
    ----------
    store
        Store of the corpus.
    journal
        As in :func:`find_samples`.
    rebuild
        Read all records again, independent of the snapshot and ``recent/``.

    Returns
    -------
    View
        All samples; its snapshot is the newest.

    Raises
    ------
    InputError
        If a record or the snapshot is damaged or newer than this program.
    OSError
        If other programs keep writing snapshots.
    """
    for _ in range(_TRIES):
        view = find_samples(store, journal=journal and not rebuild, base=not rebuild)
        if view.base is not None and not view.fresh and not view.gone:
            _tidy(store, view)
            return view
        sequence = max(_sequences(store), default=0) + 1
        if view.base is not None and sequence != view.base.sequence + 1:
            continue  # another snapshot has been written meanwhile
        data = snapshot.encode(view.base, view.gone, view.fresh)
        if store.create(_snapshot_key(sequence), data):
            made = snapshot.decode(data, sequence, store.at(_snapshot_key(sequence)))
            _tidy(store, view)
            store.remove_objects([_snapshot_key(n) for n in _sequences(store) if n <= sequence - _KEPT])
            return replace(view, base=made, fresh={}, gone=frozenset())
    raise OSError(
        f"the index of {store.url} was written by other programs {_TRIES} times meanwhile; try again later"
    )


def _tidy(store: Store, view: View) -> None:
    """Remove from ``recent/`` what an existing snapshot contains, and what dead writers left."""
    # where two programs create the same snapshot, this one may not be the one that stays
    done = view.handled if store.conditional else frozenset()
    dead = {event for event, written in view.idle.items() if written < time.time() - GRACE}
    store.remove_objects([f"{RECENT}/{event}" for event in sorted(done | dead)])


def _sample(event: str) -> str:
    return event.partition("-")[0]


def _snapshot_key(sequence: int) -> str:
    return f"{INDEX}/index-{sequence:08d}.parquet"


def _sequences(store: Store) -> list[int]:
    found = (_SNAPSHOT.fullmatch(key) for key in store.entries(INDEX))
    return sorted(int(match[1]) for match in found if match)


def _newest(store: Store, known: Snapshot | None) -> Snapshot | None:
    for _ in range(_TRIES):
        sequence = max(_sequences(store), default=0)
        if not sequence:
            return None
        if known is not None and known.sequence == sequence:
            return known
        key = _snapshot_key(sequence)
        try:
            return snapshot.decode(store.read(key), sequence, store.at(key))
        except FileNotFoundError:  # two newer snapshots have been written since the listing
            continue
    raise OSError(f"the index of {store.url} changes faster than it can be read")


def _read(store: Store, ids: Iterable[str]) -> dict[str, SampleRecord]:
    """Read records, many at a time; missing ones are left out."""
    keys = {sample_id: commit_key(sample_id) for sample_id in ids}
    found: dict[str, SampleRecord] = {}
    newer: list[NewerFormat] = []
    for (sample_id, key), data in zip(keys.items(), store.read_those_there(list(keys.values())), strict=True):
        try:
            if data is not None:
                found[sample_id] = _of_key(parse_record(data, store.at(key)), store, key)
        except NewerFormat as error:
            newer.append(error)
    if len(newer) > 1:
        raise NewerFormat(f"{len(newer)} samples are of a newer format, for example: {newer[0]}")
    if newer:
        raise newer[0]
    return found
