"""Opens volumes whose headers are needed several times: a process reads the header of a file once."""

from __future__ import annotations

import os
import stat
from collections import OrderedDict
from threading import Lock

from catalogs import volumes
from catalogs.volumes.lazy import LazyArray
from catalogs.volumes.volume import Volume

#: Largest number of headers that are kept, without voxels.
_MOST = 4096

#: Path, facts of the file, and the voxel size that was given.
_Key = tuple[str, tuple[int, int, int, int], float | None]

_known: OrderedDict[_Key, Volume] = OrderedDict()
_lock = Lock()


def open_once(path: str | os.PathLike[str], *, voxel_size: float | None = None) -> Volume:
    """Do as :func:`catalogs.volumes.open_volume`, but remember the headers of files on a disk.

    A file is opened again if its size, inode, or a time of its last change differs. Folders and URLs are
    opened each time, because nothing that is quick to read tells whether they have changed.
    """
    text = os.fspath(path)
    facts = _facts(text)
    if facts is None:
        return volumes.open_volume(text, voxel_size=voxel_size)
    with _lock:
        found = _known.get((text, facts, voxel_size)) or _known.get((text, facts, None))
    if found is not None and voxel_size in (None, found.voxel_size):
        return found
    volume = volumes.open_volume(text, voxel_size=voxel_size)
    if isinstance(volume.data, LazyArray):  # others may hold voxels or open files
        with _lock:
            _known[text, facts, voxel_size] = volume
            while len(_known) > _MOST:
                _known.popitem(last=False)
    return volume


def _facts(path: str) -> tuple[int, int, int, int] | None:
    """Return what differs if a file was changed; None if it is not a file on a disk."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns
