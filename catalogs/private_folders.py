"""Folders that only this user can access, for files whose names others could guess.

In a shared temporary folder, anybody can create the file that a program is about to open, for example as a
link to another file of its user. So an existing folder is used only if it is not a link, belongs to the user
and cannot be entered by others.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from catalogs.errors import InputError

_ALIVE = ".alive"  # in a scratch folder; locked as long as its process runs


def private_folder(*parts: str) -> Path:
    """Make or find a folder of the user's own.

    It is in the temporary folder, or in the user's cache if somebody else has taken its name there.

    Parameters
    ----------
    parts
        Names of folders below it.

    Raises
    ------
    InputError
        If no folder can be made that only the user can access.
    """
    host = os.uname().nodename
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "template-learning" / host
    for top in (Path(tempfile.gettempdir()) / f"template-learning-{os.getuid()}", cache):
        try:
            return _made(top, *parts)
        except OSError:
            continue
    raise InputError(
        f"no folder of your own can be made in {tempfile.gettempdir()} or {cache.parent}; set TMPDIR to a "
        "folder that only you can write to"
    )


def _made(top: Path, *parts: str) -> Path:
    top.parent.mkdir(parents=True, exist_ok=True)
    for place in (top, *(top.joinpath(*parts[: k + 1]) for k in range(len(parts)))):
        with contextlib.suppress(FileExistsError):
            place.mkdir(mode=0o700)
        found = place.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise PermissionError(f"{place} is not a folder of this user alone")
    return top.joinpath(*parts)


@contextmanager
def scratch_folder(prefix: str) -> Iterator[Path]:
    """Make a temporary folder for the context, and remove it at the end.

    Folders of processes that were killed are removed when a process of the same user makes the next one.

    Parameters
    ----------
    prefix
        Beginning of its name.
    """
    top = private_folder("scratch")
    with open(top / ".lock", "wb") as lock:  # so that nobody removes a folder before it is locked
        fcntl.flock(lock, fcntl.LOCK_EX)
        _clear(top)
        folder = top / f"{prefix}{uuid.uuid4().hex[:12]}"
        folder.mkdir(mode=0o700)
        alive = open(folder / _ALIVE, "wb")  # noqa: SIM115 - locked as long as it is open
        fcntl.flock(alive, fcntl.LOCK_EX)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        alive.close()


def _clear(top: Path) -> None:
    """Remove the scratch folders of processes that have ended."""
    for folder in (each for each in top.iterdir() if each.is_dir() and not each.is_symlink()):
        try:
            file = os.open(folder / _ALIVE, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError:  # its owner is removing it
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            continue
        finally:
            os.close(file)
