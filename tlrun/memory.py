"""Shares the memory of one host among the calls that say how much they need.

Each call enters its bytes as a locked file in a folder that all processes of this user on this host share
(those of one batch job, where a batch system divides the host). When a process dies, its lock is released and
its entry no longer counts. A call that does not fit beside the others waits.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from catalogs.amounts import data_size
from catalogs.private_folders import private_folder

#: Share of the host's memory that calls may use; the rest is for the workers and other programs.
SHARE = 0.9
#: Environment variable: the memory that the workers of one cluster on this host may use together.
VARIABLE = "TLRUN_MEMORY"
_LOOK_AGAIN = 0.5  # seconds


class TooLarge(MemoryError):
    """A call needs more memory than the host has."""


def host_memory() -> int:
    """Return the bytes that processes here may use: of the host, the batch job or the container."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([total, *_limits(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))])


def _limits(own: Path, root: Path) -> Iterator[int]:
    """Yield the memory limits of this process' control groups, of version 2 and 1, and of those around."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, kinds, name = line.split(":", 2)
        if kinds not in ("", "memory") and "memory" not in kinds.split(","):
            continue
        top, file = (root, "memory.max") if kinds == "" else (root / "memory", "memory.limit_in_bytes")
        place = top / name.lstrip("/")
        for folder in (place, *place.parents):
            with contextlib.suppress(OSError, ValueError):
                yield int((folder / file).read_text())  # "max" means no limit
            if folder == top:
                break


def share_of(n_bytes: int) -> dict[str, str]:
    """Make the environment variable that limits the workers of one cluster on this host to so many bytes.

    Dask cannot do this: it sees only a worker's own process, and calls run in child processes.
    """
    return {VARIABLE: f"{uuid.uuid4().hex[:8]} {n_bytes}"}


def _own_share() -> tuple[str, int]:
    """Return the name of this process' cluster and its bytes; an empty name means no limit."""
    name, _, n_bytes = os.environ.get(VARIABLE, "").partition(" ")
    return name, int(n_bytes or 0)


def _ledger() -> Path:
    with contextlib.suppress(OSError):
        group = Path("/proc/self/cgroup").read_text()
        name = hashlib.blake2b(group.encode(), digest_size=6).hexdigest()
        return private_folder(f"memory-{name}")
    return private_folder("memory")


@contextmanager
def reserved(needed: int, *, folder: Path | None = None, total: int | None = None) -> Iterator[None]:
    """Wait until the host has so many bytes free, and reserve them for the context.

    Parameters
    ----------
    needed
        Bytes; 0: nothing to wait for.
    folder, total
        Folder of the entries, and memory in bytes; those of the host if left out.

    Raises
    ------
    TooLarge
        The host, or this process' cluster, never has so many bytes, even if nothing else runs.
    """
    if not needed:
        yield
        return
    most = {"": int(SHARE * (host_memory() if total is None else total))}
    cluster, share = _own_share()
    if cluster:
        most[f"{cluster}-"] = int(SHARE * share)
    if needed > (there := min(most.values())):
        raise TooLarge(
            f"it needs {data_size(needed)} of memory, and {os.uname().nodename} has {data_size(there)} for "
            "calls; make the box smaller or the voxels larger, or give workers with more memory"
        )
    folder = folder or _ledger()
    folder.mkdir(mode=0o700, exist_ok=True)
    while (entry := _enter(folder, needed, most, cluster)) is None:
        time.sleep(_LOOK_AGAIN)
    path, file = entry
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()


def _enter(folder: Path, needed: int, most: Mapping[str, int], cluster: str) -> tuple[Path, IO[str]] | None:
    """Enter a call, unless the entries whose names begin in the same way would exceed the limit."""
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        there = list(_entries(folder))
        for start, limit in most.items():
            if sum(n for name, n in there if name.startswith(start)) + needed > limit:
                return None
        path = folder / f"{cluster or 'any'}-{os.getpid()}-{uuid.uuid4().hex[:8]}.bytes"
        file = open(path, "w")  # noqa: SIM115 - the entry counts as long as the file is open
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(str(needed))
        file.flush()
        return path, file


def _entries(folder: Path) -> Iterator[tuple[str, int]]:
    """Yield the entries of living processes: their names and bytes."""
    for path in folder.glob("*.bytes"):
        try:
            with open(path) as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    yield path.name, int(file.read() or 0)
                    continue
                path.unlink(missing_ok=True)  # its process died
        except FileNotFoundError:  # it has just ended
            continue
