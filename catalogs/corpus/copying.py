"""Copies samples from one corpus to another, between any two stores; existing copies are kept.

Every object is compared with its checksum on the way. A sample appears in the copy in one step, when its
record is written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from catalogs.corpus import index
from catalogs.corpus.commit import write_group
from catalogs.corpus.molecules import STRUCTURES, keys_of
from catalogs.errors import InputError
from catalogs.schema import SampleRecord
from catalogs.storage.checksums import checksum, checksums_of
from catalogs.storage.store import Store, in_parallel
from catalogs.versions import parse_record

_SAMPLES_AT_A_TIME = 4

#: Number of samples copied or found, number of all samples, bytes copied.
OnProgress = Callable[[int, int, int], None]


@dataclass(frozen=True)
class Copied:
    """Result of copying.

    Attributes
    ----------
    copied, present
        Ids of the samples that were copied, and of those that existed before.
    failed
        Sample id -> problem of the sample in the source.
    n_bytes
        Bytes copied.
    """

    copied: tuple[str, ...]
    present: tuple[str, ...]
    failed: dict[str, str]
    n_bytes: int


def copy(
    source: Store, target: Store, ids: Sequence[str], *, on_progress: OnProgress | None = None
) -> Copied:
    """Copy samples, and all molecules of the source.

    Parameters
    ----------
    source, target
        Stores of two existing corpora.
    ids
        Ids of the samples.
    on_progress
        Called after each sample.
    """
    there = index.commit_ids(target.entries(index.COMMITS)).keys()
    _copy_structures(source, target)
    copied: list[str] = []
    failed: dict[str, str] = {}
    n_bytes = 0
    wanted = [sample_id for sample_id in ids if sample_id not in there]
    present = tuple(sample_id for sample_id in ids if sample_id in there)

    def one(sample_id: str) -> int | str:
        try:
            return _copy_sample(source, target, sample_id)
        except (InputError, FileNotFoundError) as error:
            return str(error)

    with ThreadPoolExecutor(_SAMPLES_AT_A_TIME) as threads:
        try:
            for sample_id, came in zip(wanted, threads.map(one, wanted), strict=True):
                if isinstance(came, str):
                    failed[sample_id] = came
                else:
                    copied.append(sample_id)
                    n_bytes += came
                if on_progress:
                    on_progress(len(present) + len(copied) + len(failed), len(ids), n_bytes)
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise
    return Copied(tuple(copied), present, failed, n_bytes)


def _copy_sample(source: Store, target: Store, sample_id: str) -> int:
    """Copy one sample and return its bytes (InputError if it is damaged in the source)."""
    key = index.commit_key(sample_id)
    data = source.read(key)
    record = parse_record(data, source.at(key))
    objects = _read_checked(source, record)
    # the same name as in the source, so that an interrupted copy is overwritten
    write_group(target, record, objects)
    attempt = record.path.removesuffix(".zarr").rpartition("-")[2]
    ours = index.create_record(target, sample_id, attempt, data)
    if not ours and index.read_record(target, key).path != record.path:  # made in the target meanwhile
        target.remove(record.path)
    return record.n_bytes


def _read_checked(store: Store, record: SampleRecord) -> dict[str, bytes]:
    expected = checksums_of(store, record)

    def read(key: str) -> bytes:
        try:
            data = store.read(f"{record.path}/{key}")
        except FileNotFoundError:
            raise InputError(f"{store.at(record.path)}/{key} is missing") from None
        if checksum(data) != expected[key]:
            raise InputError(f"{store.at(record.path)}/{key} has changed since it was written")
        return data

    return dict(zip(expected, in_parallel(read, expected), strict=True))


def _copy_structures(source: Store, target: Store) -> None:
    """Copy the molecules that the target lacks, because samples refer to them."""
    there = target.entries(STRUCTURES)
    missing = [key for key in keys_of(source.entries(STRUCTURES)) if key not in there]
    in_parallel(lambda key: target.create(key, source.read(key)), missing)
