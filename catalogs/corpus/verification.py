"""Whether a corpus holds what its records say, and its index says the same."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from catalogs.corpus import index
from catalogs.corpus.molecules import STRUCTURES, keys_of
from catalogs.errors import InputError
from catalogs.schema import SampleRecord
from catalogs.storage.checksums import checksum_of, checksums_of
from catalogs.storage.store import Entry, Store, in_parallel
from catalogs.versions import NewerFormat

#: What may be wrong:
#: a sample that lacks objects or has changed ones; a record that cannot be read; one of a newer version; an
#: object that is no part of the sample it lies in; a group, or part of one, that no record names; a
#: molecule that cannot be read; an index that says something else than the records; a folder, or a link,
#: that this program did not make.
Kind = Literal["sample", "record", "newer", "stranger", "orphan", "structure", "index", "foreign"]

_FOLDER = re.compile("[0-9a-f]{2}")

#: Samples looked at so far, samples in all, bytes read so far.
OnProgress = Callable[[int, int, int], None]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes
    ----------
    kind
        See :data:`Kind`.
    key
        What it is about, relative to the corpus: an object, or a group.
    text
        One sentence.
    sample_id, name
        Of the sample; empty if there is none, or it is not known.
    modified
        When the newest object of an orphan was written (seconds since 1970).
    """

    kind: Kind
    key: str
    text: str
    sample_id: str = ""
    name: str = ""
    modified: float = 0.0


def examine(
    store: Store, *, deep: bool = True, journal: bool = True, on_progress: OnProgress | None = None
) -> Iterator[Problem]:
    """Yield what is wrong with a corpus; samples that are being written at this moment are orphans.

    Parameters
    ----------
    store
        Of the corpus.
    deep
        Read every object and compare its checksum; otherwise only their names and sizes.
    journal
        As :func:`catalogs.corpus.index.find_samples` takes it.
    on_progress
        Called after each sample.
    """
    try:
        total = len(index.find_samples(store, journal=journal).ids())
    except InputError:  # will be found again below, with everything else that is wrong
        total = 0
    seen: dict[str, SampleRecord] = {}
    unreadable: set[str] = set()
    n_bytes = 0
    # One of the 256 folders at a time, for there may be millions of objects.
    folders = {*store.folders("samples"), *store.folders(index.COMMITS)}
    foreign = _foreign(store, folders)
    yield from foreign.values()
    for folder in sorted(name for name in folders if _FOLDER.fullmatch(name)):
        # The samples are listed before the records: what is committed meanwhile is no orphan. What a link
        # points to is not listed: it may be anything, and only what records name of it is ours.
        linked = bool(store.link_on_the_way(f"samples/{folder}"))
        groups = {} if linked else _by_group(store.entries(f"samples/{folder}"))
        entries = store.entries(f"{index.COMMITS}/{folder}")
        commits = index.commit_ids(entries)
        named: set[str] = set()
        for sample_id, key in commits.items():
            try:
                record = index.read_record(store, key)
            except FileNotFoundError:  # removed a moment ago
                continue
            except InputError as error:
                kind: Kind = "newer" if isinstance(error, NewerFormat) else "record"
                yield Problem(kind, key, str(error), sample_id)
                unreadable.add(sample_id)
                continue
            seen[sample_id] = record
            named.add(record.path)
            # written since the listing, perhaps
            present = groups.get(record.path) or _by_group(store.entries(record.path)).get(record.path, {})
            yield from _problems_of(store, record, present, deep)
            n_bytes += record.n_bytes if deep else 0
            if on_progress:
                on_progress(len(seen), max(total, len(seen)), n_bytes)
        for group in sorted(groups.keys() - named):
            if group.rpartition("/")[2].partition("-")[0] not in unreadable:
                yield _orphan(store, group, groups[group])
        for key in index.unfinished_keys(entries):
            yield _orphan(store, key, {key: entries[key]})
    yield from _structures(store, deep)
    yield from _index(store, seen, unreadable, journal)


def _foreign(store: Store, folders: Collection[str]) -> dict[str, Problem]:
    """Find links, and folders that no program of ours makes, where the folders of samples lie."""
    found: dict[str, Problem] = {}
    for folder in sorted(folders):
        odd = not _FOLDER.fullmatch(folder) and not folder.startswith(".")
        for top in ("samples", index.COMMITS):
            link = store.link_on_the_way(f"{top}/{folder}")
            if link or (odd and folder in store.folders(top)):
                where, what = (link, "a symbolic link") if link else (store.at(f"{top}/{folder}"), "foreign")
                text = f"{where} is {what}: tlgen repair removes nothing in it"
                found.setdefault(where, Problem("foreign", f"{top}/{folder}", text))
    return found


def _by_group(entries: Mapping[str, Entry]) -> dict[str, dict[str, Entry]]:
    """Sort a listing below ``samples/`` by the groups: path of the group -> name in it -> entry."""
    groups: dict[str, dict[str, Entry]] = {}
    for key, entry in entries.items():
        sample, _, inside = key.partition(".zarr/")
        groups.setdefault(f"{sample}.zarr" if inside else key, {})[inside] = entry
    return groups


def _orphan(store: Store, key: str, entries: Mapping[str, Entry]) -> Problem:
    text = f"{store.at(key)} has no readable record: unfinished, or given up and free to remove"
    return Problem("orphan", key, text, modified=max(entry.modified for entry in entries.values()))


def _problems_of(
    store: Store, record: SampleRecord, present: Mapping[str, Entry], deep: bool
) -> Iterator[Problem]:
    whole = len(present) == record.n_objects and sum(e.size for e in present.values()) == record.n_bytes
    if whole and not deep:
        return

    def problem(kind: Kind, key: str, text: str) -> Problem:
        where = f"{record.path}/{key}" if key else record.path
        return Problem(kind, where, text, record.sample_id, record.name)

    group = store.at(record.path)
    if not present:
        yield problem("sample", "", f"{group} is missing")
        return
    try:
        expected = checksums_of(store, record)
    except InputError as error:
        yield problem("sample", "", f"{error}, and with it what the other objects are checked by")
        return
    for key in sorted(expected.keys() - present.keys()):
        yield problem("sample", key, f"{group}/{key} is missing")
    for key in sorted(present.keys() - expected.keys()):
        yield problem("stranger", key, f"{group}/{key} does not belong to the sample")

    def changed(key: str) -> bool:
        try:
            return checksum_of(store, f"{record.path}/{key}", present[key].size) != expected[key]
        except FileNotFoundError:
            return True

    here = sorted(expected.keys() & present.keys())
    for key, bad in zip(here, in_parallel(changed, here), strict=True):
        if bad:
            yield problem("sample", key, f"{group}/{key} has changed since it was written")


def _structures(store: Store, deep: bool) -> Iterator[Problem]:
    def broken(key: str) -> bool:
        try:
            with zipfile.ZipFile(io.BytesIO(store.read(key))) as packed:
                return packed.testzip() is not None
        except (zipfile.BadZipFile, FileNotFoundError):
            return True

    entries = store.entries(STRUCTURES)
    for key in index.unfinished_keys(entries):
        yield _orphan(store, key, {key: entries[key]})
    keys = keys_of(entries) if deep else []
    for key, bad in zip(keys, in_parallel(broken, keys), strict=True):
        if bad:
            yield Problem("structure", key, f"{store.at(key)} is damaged; tlgen run makes it anew")


def _index(
    store: Store, seen: Mapping[str, SampleRecord], unreadable: set[str], journal: bool
) -> Iterator[Problem]:
    """Compare the records with what a reader finds; it is read last, so what was seen must be in it."""
    try:
        view = index.find_samples(store, journal=journal)
        found = {record.sample_id: record for record in view.records()}
    except InputError as error:
        if not unreadable:  # else said already
            yield Problem("index", index.INDEX, str(error))
        return
    for sample_id in sorted(seen.keys() | found.keys()):
        if seen.get(sample_id) == found.get(sample_id):
            continue
        key = index.commit_key(sample_id)
        there = store.exists(key)
        if sample_id not in found:
            says = "is not in the index" if there else ""
        elif sample_id not in seen:
            says = "" if there else "is in the index and is not there"
        else:
            says = "is not what the index says"
        if says:
            name = (seen.get(sample_id) or found[sample_id]).name
            yield Problem("index", key, f"{store.at(key)} {says}", sample_id, name)
