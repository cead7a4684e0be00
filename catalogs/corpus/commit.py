"""Adds samples to a corpus: completely or not at all, without locks, even with other writers."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

import numpy as np

from catalogs import intensity
from catalogs.corpus import index, sample_group, thumbnail
from catalogs.corpus.sample_group import Sample
from catalogs.errors import InputError
from catalogs.schema import ClassInfo, SampleRecord
from catalogs.storage.checksums import ROOT, checksum
from catalogs.storage.store import Store

SAMPLES = "samples"
_WAITS = (0.5, 2.0, 5.0)  # seconds: some storages list an object a while after it was written


def commit(store: Store, sample: Sample, classes: Sequence[ClassInfo]) -> SampleRecord:
    """Write a sample and create its record.

    The objects get a name that no other attempt has, and the record is written last. The storage lets only
    one writer create the record; others remove what they wrote.

    Parameters
    ----------
    store
        Store of the corpus.
    sample
        See :class:`~catalogs.corpus.sample_group.Sample`.
    classes
        Classes of the corpus.

    Returns
    -------
    SampleRecord
        Record of the sample that is in the corpus now: this one or the winner's.

    Raises
    ------
    ValueError
        If the arrays do not fit each other or the facts.
    InputError
        If the tomogram holds values that are not numbers, or is constant.
    """
    sample = replace(sample, tomogram=sample_group.round_mantissa(sample.tomogram))
    sample_id = str(sample.facts["sample_id"])
    attempt = uuid4().hex[:6]
    path = f"{SAMPLES}/{sample_id[:2]}/{sample_id}-{attempt}.zarr"
    draft = SampleRecord(
        **sample.facts,
        path=path,
        created=now(),
        # measured on the stored values, so that picking this tomogram normalises it in the same way
        intensity=intensity.measure(sample.tomogram),
        checksums={},
        n_objects=0,
        n_bytes=0,
    )
    _check_arrays(sample, draft.shape)
    objects = sample_group.encode(
        sample,
        voxel_size=draft.acquisition.voxel_size,
        attributes=draft.model_dump(mode="json", exclude={"checksums", "n_objects", "n_bytes", "path"}),
        classes=classes,
        thumbnail=thumbnail.draw(sample.tomogram),
    )
    measured = {
        "checksums": {ROOT: checksum(objects[ROOT])},
        "n_objects": len(objects),
        "n_bytes": sum(map(len, objects.values())),
    }
    record = draft.model_copy(update=measured)

    try:
        write_group(store, record, objects)
    except BaseException:
        store.remove(path)
        raise
    # from here on, nothing is removed after an error: the record may exist, and only the answer be lost
    if index.create_record(store, sample_id, attempt, record.model_dump_json(indent=1).encode()):
        return record
    store.remove(path)
    return index.read_record(store, index.commit_key(sample_id))


def write_group(store: Store, record: SampleRecord, objects: Mapping[str, bytes]) -> None:
    """Write the objects of a sample, the root last, and check that the storage has them all.

    Raises
    ------
    InputError
        If objects are missing.
    """
    root = {key: data for key, data in objects.items() if key == ROOT}
    for part in ({key: data for key, data in objects.items() if key not in root}, root):
        store.write({f"{record.path}/{key}": data for key, data in part.items()})
    for wait in _WAITS:
        try:
            check_complete(store, record)
            return
        except InputError:
            time.sleep(wait)
    check_complete(store, record)


def check_complete(store: Store, record: SampleRecord) -> None:
    """Compare the number and total size of a sample's objects with its record, in one request.

    Raises
    ------
    InputError
        If they differ. Zarr alone would read zeros for a lost object.
    """
    found = store.sizes(record.path)
    if len(found) != record.n_objects or sum(found.values()) != record.n_bytes:
        raise InputError(
            f"the sample {store.at(record.path)} is damaged ({len(found)} objects of {record.n_objects}, "
            f"{sum(found.values())} bytes of {record.n_bytes}); tlgen repair removes it from the corpus, "
            "and tlgen run makes it again"
        )


def _check_arrays(sample: Sample, shape: tuple[int, int, int]) -> None:
    wanted = {"tomogram": np.float32, "classes": np.uint8, "instances": np.uint16}
    if sample.density is not None:
        wanted["density"] = np.float32
    for name, dtype in wanted.items():
        array = getattr(sample, name)
        if array.shape != shape or array.dtype != dtype:
            raise ValueError(f"{name} is {array.dtype} {array.shape}, expected {np.dtype(dtype)} {shape}")
    n = len(sample.tilt_angles)
    if len(sample.tilt_doses) != n or (sample.tilt_images is not None and len(sample.tilt_images) != n):
        raise ValueError("tilt angles, doses and images differ in number")


def now() -> str:
    """Return the current time: UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
