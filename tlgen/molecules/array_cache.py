"""A cache of arrays on this host, keyed by their inputs; processes map the arrays into memory.

Preparing a structure (its atoms, its flexible variants, its envelope, the ice that it displaces) takes
seconds to minutes. The result is the same for every command, corpus and worker that uses the structure.
The cache folder is ``$TLGEN_PREPARED``, or ``template-learning/prepared`` in the user's cache folder. It can
be removed at any time. Each entry is one file, which is written atomically. The name of an entry includes a
hash of the source code that made it, so a changed program never reads old entries.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import stat
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalogs import seeds
from catalogs.atomic_write import replacing
from catalogs.errors import InputError

#: Largest size of the folder in bytes, unless ``$TLGEN_PREPARED_GB`` is set. The least recently used entries
#: are removed first.
MOST = 10 * 10**9
# When entries are removed, the folder shrinks to this share of the limit.
_AFTERWARDS = 0.8
# Arrays are aligned to this many bytes, for fast access.
_ALIGNED = 64
# Seconds between two updates of an entry's time stamp, which marks it as in use.
_NOTED = 3600.0

Arrays = Mapping[str, NDArray[Any]]


def cached(
    kind: str, content: Any, made_by: tuple[str, ...], make: Callable[[], Arrays]
) -> dict[str, NDArray[Any]]:
    """Find arrays in the cache, or make them and store them there.

    If the folder cannot be written or the disk is full, the arrays are made but not stored.

    Parameters
    ----------
    kind
        Kind of the arrays; also the name of a subfolder.
    content
        Everything that the arrays are computed from. It must be serialisable as JSON.
    made_by
        Modules whose source code determines the arrays.
    make
        Computes the arrays.

    Returns
    -------
    dict
        Arrays of any shape and plain type. Writing to them does not change the file.

    Raises
    ------
    InputError
        The folder belongs to another user, or other users may write to it.
    """
    found = find(kind, content, made_by)
    return store(kind, content, made_by, make()) if found is None else found


def find(kind: str, content: Any, made_by: tuple[str, ...]) -> dict[str, NDArray[Any]] | None:
    """Find arrays in the cache, or None; see :func:`cached`."""
    path = _path(kind, content, made_by)
    return None if path is None else _mapped(path)


def store(kind: str, content: Any, made_by: tuple[str, ...], arrays: Arrays) -> dict[str, NDArray[Any]]:
    """Store arrays in the cache if possible, and return the stored arrays; see :func:`cached`."""
    made = {name: np.asarray(array) for name, array in arrays.items()}
    path = _path(kind, content, made_by)
    if path is None:
        return made
    with suppress(OSError):
        _write(path, made)
        _bound(path.parent.parent, path.stat().st_size)
    # return the mapped file, so that the arrays are not held in memory twice
    return _mapped(path) or made


def _path(kind: str, content: Any, made_by: tuple[str, ...]) -> Path | None:
    place = folder()
    if place is None:
        return None
    return place / kind / f"{seeds.digest([content, [source(name) for name in made_by]])}.arrays"


def folder() -> Path | None:
    """Find or create the cache folder, readable only by its owner; None if it cannot be created.

    Raises
    ------
    InputError
        The folder belongs to another user, or other users may write to it.
    """
    given = os.environ.get("TLGEN_PREPARED")
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return _checked(given or str(Path(base) / "template-learning" / "prepared"))


@cache
def _checked(text: str) -> Path | None:
    try:
        path = Path(text).expanduser()
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.lstat()
    except (OSError, RuntimeError):  # a full disk, or a home folder that is missing or read-only
        return None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise InputError(
            f"{path}: prepared structures are kept there, so it must be a folder of yours to which nobody"
            " else can write; correct its permissions (chmod 700), or name another folder in TLGEN_PREPARED"
        )
    return path


@cache
def source(module: str) -> str:
    """Hash of a module's source code; its name if it has no source. Imports at most its parent packages."""
    found = find_spec(module)
    if found is None or found.origin is None or not Path(found.origin).is_file():
        return module
    return hashlib.blake2b(Path(found.origin).read_bytes(), digest_size=8).hexdigest()


# ---------------------------------------------------------------------------------------------- the files


def _write(path: Path, arrays: Arrays) -> None:
    """Write a file: the length of the header, the header, then the arrays, each at an aligned position."""
    at, described = 0, {}
    for name, array in arrays.items():
        described[name] = [array.dtype.str, list(array.shape), at]
        at += -(-array.nbytes // _ALIGNED) * _ALIGNED
    header = json.dumps({"bytes": at, "arrays": described}).encode()
    header += b" " * (-(len(header) + 8) % _ALIGNED)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    with replacing(path, durable=True) as unfinished, open(unfinished, "wb", opener=_for_the_owner) as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for array in arrays.values():
            file.write(np.ascontiguousarray(array).tobytes())
            file.write(b"\0" * (-array.nbytes % _ALIGNED))


def _for_the_owner(path: str, flags: int) -> int:
    """Open a new file that only its owner may read."""
    return os.open(path, flags | os.O_EXCL, 0o600)


def _mapped(path: Path) -> dict[str, NDArray[Any]] | None:
    """Map a file's arrays into memory; None if the file is missing or damaged."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length < size:
                return None
            header = json.loads(file.read(length))
            if size != 8 + length + header["bytes"]:
                return None
            # private mapping: processes share the pages until one of them writes to a page
            memory = mmap.mmap(
                file.fileno(), size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE
            )
            now = time.time()
            if now - os.fstat(file.fileno()).st_mtime > _NOTED:
                with suppress(OSError):
                    os.utime(path, (now, now))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return {
        name: np.ndarray(tuple(shape), np.dtype(kind), memory, 8 + length + at)
        for name, (kind, shape, at) in header["arrays"].items()
    }


class _Size:
    """Size of the folder in bytes, as this process estimates it."""

    bytes: float = -1.0


def _bound(place: Path, more: int) -> None:
    """Add ``more`` bytes to the folder's size, and remove the least recently used entries above the limit."""
    limit = float(os.environ.get("TLGEN_PREPARED_GB", MOST / 1e9)) * 1e9
    if _Size.bytes < 0 or _Size.bytes + more > limit:
        _Size.bytes = _shrunk(place, limit)
    else:
        _Size.bytes += more


def _shrunk(place: Path, limit: float) -> float:
    files = []
    for path in place.glob("*/*"):
        with suppress(OSError):  # another process may be removing it
            found = path.stat()
            files.append((found.st_mtime, found.st_size, path))
    total = float(sum(size for _, size, _ in files))
    if total <= limit:
        return total
    for _, size, path in sorted(files):
        if total <= _AFTERWARDS * limit:
            break
        with suppress(OSError):  # processes that have mapped the file keep their mapping
            path.unlink()
            total -= size
    return total


__all__ = ["MOST", "cached", "find", "folder", "source", "store"]
