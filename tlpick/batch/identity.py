"""Identifies the content of a tomogram's files: a checksum, and a stamp to recognise unchanged files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from catalogs.seeds import digest

_BLOCK = 2**22  # bytes read at a time
#: Entries by which a store identifies the content of an object.
_TAGS = ("ETag", "etag", "md5Hash", "crc32c")


def stamp(path: str) -> str:
    """Hash the storage's facts about the files: as long as they are equal, the contents are equal.

    On a disk these are inode, size, and the times of the last change of the content and of the inode.
    Programs cannot set the latter, so a copy with an old date is not mistaken for the old file.
    """
    entries = []
    for name, info in _files(path):
        if "://" in path:
            entries.append(
                [name, info["size"], *(str(info.get(key, "")) for key in (*_TAGS, "LastModified"))]
            )
        else:
            facts = Path(info["name"]).stat()
            entries.append([name, facts.st_size, facts.st_ino, facts.st_mtime_ns, facts.st_ctime_ns])
    return digest(entries)


def checksum(path: str) -> str:
    """Hash names and contents of the files; objects with a hash in their store are not read."""
    from fsspec.core import url_to_fs

    fs, _ = url_to_fs(path)
    entries = []
    for name, info in _files(path):
        tags = [str(info[key]) for key in _TAGS if info.get(key)]
        if not tags:
            content = hashlib.blake2b(digest_size=16)
            with fs.open(info["name"], "rb") as file:
                while block := file.read(_BLOCK):
                    content.update(block)
            tags = [content.hexdigest()]
        entries.append([name, info["size"], tags[0]])
    return digest(entries)


def _files(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield all files of a volume with their names in it: one file, or those in a folder."""
    from fsspec.core import url_to_fs

    fs, root = url_to_fs(path)
    found = fs.find(root, detail=True)
    for name in sorted(found):
        yield name.removeprefix(root), found[name]
