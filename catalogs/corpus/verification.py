"""Verifies that a corpus contains what its records list, and that its index agrees."""

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

#: Kinds of problems: a sample with missing or changed objects; a record that cannot be read; a record of a
#: newer version; an object that does not belong to its sample; a group, or a part of one, without a record; a
#: molecule that cannot be read; an index that differs from the records; a folder or link that this program
#: did not make.
Kind = Literal["sample", "record", "newer", "stranger", "orphan", "structure", "index", "foreign"]

_FOLDER = re.compile("[0-9a-f]{2}")

#: Number of samples checked, number of all samples, bytes read.
OnProgress = Callable[[int, int, int], None]


@dataclass(frozen=True)
class Problem:
    """A problem of a corpus.

    Attributes
    ----------
    kind
        See :data:`Kind`.
    key
        The object or group with the problem, relative to the corpus.
    text
        One sentence.
    sample_id, name
        Id and name of the sample; empty if there is none, or it is unknown.
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
    """Yield the problems of a corpus; samples that are being written now count as orphans.

    Parameters
    ----------
    store
        Store of the corpus.
    deep
        Read every object and compare its checksum; otherwise only their names and sizes.
    journal
        As in :func:`catalogs.corpus.index.find_samples`.
    on_progress
        Called after each sample.
    """
    try:
        total = len(index.find_samples(store, journal=journal).ids())
    except InputError:  # found again below, with all other problems
        total = 0
    seen: dict[str, SampleRecord] = {}
    unreadable: set[str] = set()
    n_bytes = 0
    # one of the 256 folders at a time, since there may be millions of objects
    folders = {*store.folders("samples"), *store.folders(index.COMMITS)}
    foreign = _foreign(store, folders)
    yield from foreign.values()
    for folder in sorted(name for name in folders if _FOLDER.fullmatch(name)):
        # The samples are listed before the records, so that samples committed meanwhile are no orphans.
        # Targets of links are not listed: they may be anything, and only what records name is ours.
        linked = bool(store.link_on_the_way(f"samples/{folder}"))
        groups = {} if linked else _by_group(store.entries(f"samples/{folder}"))
        entries = store.entries(f"{index.COMMITS}/{folder}")
        commits = index.commit_ids(entries)
        named: set[str] = set()
        for sample_id, key in commits.items():
            try:
                record = index.read_record(store, key)
            except FileNotFoundError:  # just removed
                continue
            except InputError as error:
                kind: Kind = "newer" if isinstance(error, NewerFormat) else "record"
                yield Problem(kind, key, str(error), sample_id)
                unreadable.add(sample_id)
                continue
            seen[sample_id] = record
            named.add(record.path)
            # perhaps written since the listing
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
    """Find links and foreign folders among the folders of samples."""
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
    """Sort a listing of ``samples/`` by group: path of the group -> name in it -> entry."""
    groups: dict[str, dict[str, Entry]] = {}
    for key, entry in entries.items():
        sample, _, inside = key.partition(".zarr/")
        groups.setdefault(f"{sample}.zarr" if inside else key, {})[inside] = entry
    return groups


def _orphan(store: Store, key: str, entries: Mapping[str, Entry]) -> Problem:
    text = f"{store.at(key)} has no readable record: it is unfinished, or was abandoned and can be removed"
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
        yield problem("sample", "", f"{error}, which has the checksums of the other objects")
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
                stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in packed.infolist())
                return not stored or packed.testzip() is not None
        except (zipfile.BadZipFile, FileNotFoundError):
            return True

    entries = store.entries(STRUCTURES)
    for key in index.unfinished_keys(entries):
        yield _orphan(store, key, {key: entries[key]})
    keys = keys_of(entries) if deep else []
    for key, bad in zip(keys, in_parallel(broken, keys), strict=True):
        if bad:
            yield Problem("structure", key, f"{store.at(key)} is damaged; tlgen run makes it again")


def _index(
    store: Store, seen: Mapping[str, SampleRecord], unreadable: set[str], journal: bool
) -> Iterator[Problem]:
    """Compare the records with the index, which is read last, so that it must have all records seen."""
    try:
        view = index.find_samples(store, journal=journal)
        found = {record.sample_id: record for record in view.records()}
    except InputError as error:
        if not unreadable:  # otherwise reported already
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
            says = "" if there else "is in the index but does not exist"
        else:
            says = "differs from the index"
        if says:
            name = (seen.get(sample_id) or found[sample_id]).name
            yield Problem("index", key, f"{store.at(key)} {says}", sample_id, name)
