"""Molecules of a corpus: arrays that scenes refer to by their digest; each is stored once."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalogs.errors import InputError
from catalogs.storage.npz import read_npz
from catalogs.storage.store import Store

STRUCTURES = "structures"
_KEY = re.compile(rf"{STRUCTURES}/[0-9a-f]{{1,64}}\.npz")


def put(store: Store, digest: str, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Store the arrays of a molecule under its digest, unless they exist."""
    if not has(store, digest):
        packed = io.BytesIO()
        np.savez(packed, allow_pickle=False, **arrays)
        store.create(_key(digest), packed.getvalue())


def has(store: Store, digest: str) -> bool:
    """Return whether there are arrays under this digest."""
    return store.exists(_key(digest))


@lru_cache(maxsize=256)
def get(store: Store, digest: str) -> Mapping[str, NDArray[Any]]:
    """Read the arrays of a molecule (InputError if the digest is unknown, or they are damaged)."""
    try:
        data = store.read(_key(digest))
    except FileNotFoundError:
        raise InputError(f"{store.at(_key(digest))} is missing; run tlgen again to make it") from None
    return read_npz(data, store.at(_key(digest)))


def keys_of(listing: Iterable[str]) -> list[str]:
    """Select the molecules in a listing."""
    return sorted(key for key in listing if _KEY.fullmatch(key))


def _key(digest: str) -> str:
    return f"{STRUCTURES}/{digest}.npz"
