"""Does a corpus hold what its records say? Every byte is read."""

from __future__ import annotations

import hashlib

from catalogs import index
from catalogs.errors import InputError
from catalogs.schema import SampleRecord
from catalogs.store import Store, in_parallel


def checksum(data: bytes) -> str:
    """BLAKE2b-128 of an object, as records keep it."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def problems(store: Store) -> list[str]:
    """List what is wrong with a corpus.

    Parameters
    ----------
    store
        Of the corpus.

    Returns
    -------
    list of str
        One sentence a problem: records that cannot be read, objects that are missing, changed or not
        named by a record, and samples without a record.
    """
    # The samples are listed before the records: what is committed meanwhile is no orphan.
    present: dict[str, set[str]] = {}
    for key in store.sizes("samples"):
        sample, _, inside = key.partition(".zarr/")
        present.setdefault(f"{sample}.zarr" if inside else key, set()).add(inside)

    found: list[str] = []
    for key in index.commit_keys(store):
        try:
            record = index.read_record(store, key)
        except InputError as error:
            found.append(str(error))
            continue
        found += _problems_of(store, record)
        present.pop(record.path, None)
    orphans = [*sorted(present), *index.unfinished_keys(store)]
    found += [
        f"{store.at(key)} has no readable record: unfinished, or given up and free to remove"
        for key in orphans
    ]
    return found


def _problems_of(store: Store, record: SampleRecord) -> list[str]:
    group = store.at(record.path)
    expected = set(record.checksums)
    present = {key.removeprefix(f"{record.path}/") for key in store.sizes(record.path)}
    found = [f"{group}/{key} is missing" for key in sorted(expected - present)]
    found += [f"{group}/{key} does not belong to the sample" for key in sorted(present - expected)]

    def changed(key: str) -> bool:
        return checksum(store.read(f"{record.path}/{key}")) != record.checksums[key]

    here = sorted(expected & present)
    verdicts = in_parallel(changed, here)
    found += [
        f"{group}/{key} has changed since it was written"
        for key, bad in zip(here, verdicts, strict=True)
        if bad
    ]
    return found
