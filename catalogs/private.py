"""A folder of the user's own on this machine, for files whose names others could guess.

In a shared temporary folder anybody may make what a program is about to open: a link to another file of its
user, for example. So what is there is believed only if it is a folder, no link, that belongs to the user and
that nobody else can enter.
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

_ALIVE = ".alive"  # in a scratch folder; locked as long as its process lives


def private_folder(*parts: str) -> Path:
    """Make a folder of the user's own, or find it.

    It is in the temporary folder, or in the user's cache where somebody else has taken its name there.

    Parameters
    ----------
    parts
        Names of folders below it.

    Raises
    ------
    InputError
        If no folder can be made that is the user's alone.
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
    """Make a folder for the time of the context; it is removed at the end, also of a process that is killed.

    The latter is done by the next one of the same user on the same machine that makes such a folder.

    Parameters
    ----------
    prefix
        Begins its name.
    """
    top = private_folder("scratch")
    with open(top / ".lock", "wb") as lock:  # nobody clears a folder between its making and its locking
        fcntl.flock(lock, fcntl.LOCK_EX)
        _clear(top)
        folder = top / f"{prefix}{uuid.uuid4().hex[:12]}"
        folder.mkdir(mode=0o700)
        alive = open(folder / _ALIVE, "wb")  # noqa: SIM115 - it is locked as long as it is open
        fcntl.flock(alive, fcntl.LOCK_EX)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        alive.close()


def _clear(top: Path) -> None:
    """Remove the scratch folders of processes that are no more."""
    for folder in (each for each in top.iterdir() if each.is_dir() and not each.is_symlink()):
        try:
            file = os.open(folder / _ALIVE, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError:  # its owner removes it at this moment
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            continue
        finally:
            os.close(file)
