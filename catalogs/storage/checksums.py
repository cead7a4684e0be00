"""Checksums of a sample's objects.

A record has the checksum of the group's root, ``zarr.json``, and the root's attributes have the checksums of
all other objects. So every byte can be checked from the record, which stays small.
"""

from __future__ import annotations

import hashlib
import json

from catalogs.errors import InputError
from catalogs.schema import SampleRecord, is_key
from catalogs.storage.store import Store

ROOT = "zarr.json"


def checksum(data: bytes) -> str:
    """Return the BLAKE2b-128 of an object, as stored in records."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def checksum_of(store: Store, key: str, size: int) -> str:
    """Return the BLAKE2b-128 of a stored object of ``size`` bytes, read part by part."""
    running = hashlib.blake2b(digest_size=16)
    for block in store.blocks(key, size):
        running.update(block)
    return running.hexdigest()


def checksums_of(store: Store, record: SampleRecord) -> dict[str, str]:
    """Find the checksums of all objects of a sample: name in the group -> BLAKE2b-128.

    Raises
    ------
    InputError
        If the group's root, which contains them, is missing or does not match the record.
    """
    if record.format_version == 1:
        return record.checksums
    where = f"{record.path}/{ROOT}"
    try:
        root = store.read(where)
    except FileNotFoundError:
        raise InputError(f"{store.at(where)} is missing") from None
    if checksum(root) != record.checksums.get(ROOT):
        raise InputError(f"{store.at(where)} has changed since it was written")
    try:
        inner: dict[str, str] = json.loads(root)["attributes"]["template_learning"]["checksums"]
        wrong = [key for key, value in inner.items() if not is_key(key) or not isinstance(value, str)]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{store.at(where)} does not contain the checksums of the sample's objects"
        ) from error
    if wrong:
        raise InputError(f"{store.at(where)} names {wrong[0]!r}, which is not an object of a sample")
    return {**inner, ROOT: record.checksums[ROOT]}
