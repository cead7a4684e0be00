"""Zarr's stores, which take an empty object for damage: Zarr itself reads an empty shard as zeros."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zarr.storage import FsspecStore, LocalStore

from catalogs.errors import InputError

if TYPE_CHECKING:
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype


def _refuse_empty(found: Buffer | None, place: Any, key: str) -> Buffer | None:
    if found is not None and not len(found) and not key.endswith((".json", ".zarray", ".zgroup", ".zattrs")):
        raise InputError(f"{place}/{key} is empty: it was cut off; copy the data again")
    return found


class WholeLocalStore(LocalStore):
    """A folder."""

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """Read an object or a part of it; InputError if it is empty."""
        return _refuse_empty(await super().get(key, prototype, byte_range), self.root, key)


class WholeFsspecStore(FsspecStore):
    """A bucket."""

    async def get(
        self,
        key: str,
        prototype: BufferPrototype,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """Read an object or a part of it; InputError if it is empty."""
        return _refuse_empty(await super().get(key, prototype, byte_range), self.path, key)
