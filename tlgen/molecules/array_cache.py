"""Arrays kept on this host by what they were made of, and mapped into memory by all processes that want them.

What is made of a structure (its atoms, its flexible variants, its envelope, the ice that it displaces) takes
seconds to minutes, and is the same for every command, corpus and worker that uses the structure. The folder
is ``$TLGEN_PREPARED``, or ``template-learning/prepared`` in the user's cache folder; it can be removed
at any time. An entry is one file, which appears whole or not at all. Names of entries hold the
source code that made them, so that a changed program finds nothing old.
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
from catalogs.errors import InputError
from catalogs.whole_files import replacing

#: Bytes that the folder may hold, unless ``$TLGEN_PREPARED_GB`` says otherwise; the longest unused go first.
MOST = 10 * 10**9
# So much of it is left when something has to go.
_AFTERWARDS = 0.8
# Arrays begin at multiples of this, as the processor likes them.
_ALIGNED = 64
# Seconds between two notes that an entry is in use.
_NOTED = 3600.0

Arrays = Mapping[str, NDArray[Any]]


def cached(
    kind: str, content: Any, made_by: tuple[str, ...], make: Callable[[], Arrays]
) -> dict[str, NDArray[Any]]:
    """Find arrays in the cache, or make them and put them there.

    Where the folder cannot be written, or the disk is full, they are made and not kept.

    Parameters
    ----------
    kind
        Word for what they are; the name of a folder.
    content
        Everything that they are made of, as JSON can hold it.
    made_by
        Modules whose source code decides what they are.
    make
        Makes them.

    Returns
    -------
    dict
        Arrays of any shape and plain type. Writing to them changes no file.

    Raises
    ------
    InputError
        The folder belongs to somebody else, or others may write to it.
    """
    found = find(kind, content, made_by)
    return store(kind, content, made_by, make()) if found is None else found


def find(kind: str, content: Any, made_by: tuple[str, ...]) -> dict[str, NDArray[Any]] | None:
    """Find arrays in the cache, or None; see :func:`cached`."""
    path = _path(kind, content, made_by)
    return None if path is None else _mapped(path)


def store(kind: str, content: Any, made_by: tuple[str, ...], arrays: Arrays) -> dict[str, NDArray[Any]]:
    """Put arrays into the cache if possible, and return them as they are there; see :func:`cached`."""
    made = {name: np.asarray(array) for name, array in arrays.items()}
    path = _path(kind, content, made_by)
    if path is None:
        return made
    with suppress(OSError):
        _write(path, made)
        _bound(path.parent.parent, path.stat().st_size)
    # mapped, so that the arrays are not a second time in memory
    return _mapped(path) or made


def _path(kind: str, content: Any, made_by: tuple[str, ...]) -> Path | None:
    place = folder()
    if place is None:
        return None
    return place / kind / f"{seeds.digest([content, [source(name) for name in made_by]])}.arrays"


def folder() -> Path | None:
    """Find the folder, or make it, readable for its owner alone; None if it cannot be made.

    Raises
    ------
    InputError
        It belongs to somebody else, or others may write to it.
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
    except (OSError, RuntimeError):  # a full disk, a home that is not there or read only
        return None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise InputError(
            f"{path}: prepared structures are kept there, so it must be a folder of yours to which nobody"
            " else can write; mend it (chmod 700), or name another one in TLGEN_PREPARED"
        )
    return path


@cache
def source(module: str) -> str:
    """Hash of a module's source code; its name if it has none. Imports its parents at most."""
    found = find_spec(module)
    if found is None or found.origin is None or not Path(found.origin).is_file():
        return module
    return hashlib.blake2b(Path(found.origin).read_bytes(), digest_size=8).hexdigest()


# ---------------------------------------------------------------------------------------------- the files


def _write(path: Path, arrays: Arrays) -> None:
    """Write a file: the length of the header, the header, and the arrays from the next aligned byte on."""
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
    """Open a new file that nobody else may read."""
    return os.open(path, flags | os.O_EXCL, 0o600)


def _mapped(path: Path) -> dict[str, NDArray[Any]] | None:
    """Map a file's arrays into memory; None if there is no such file, or a broken one."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length < size:
                return None
            header = json.loads(file.read(length))
            if size != 8 + length + header["bytes"]:
                return None
            # private: pages are shared with all other processes until somebody writes to them
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
    """What this process believes the folder to hold."""

    bytes: float = -1.0


def _bound(place: Path, more: int) -> None:
    """Remove what was used least recently if the folder, with so many bytes more, holds too much."""
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
        with suppress(OSError):  # who has mapped it keeps it
            path.unlink()
            total -= size
    return total


__all__ = ["MOST", "cached", "find", "folder", "source", "store"]
