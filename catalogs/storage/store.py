"""Objects below a root, on a disk or in a bucket: reading, writing, listing, exclusive creation.

A corpus relies on exclusive creation: exactly one of several writers succeeds, and an object that is visible
under its name is always complete.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from glob import has_magic
from pathlib import Path
from typing import Any, TypeVar

from catalogs.errors import InputError
from catalogs.schema import is_key

_IN_FLIGHT = 32  # requests at a time
_BLOCK = 16 << 20  # bytes of a large object held in memory at a time

#: Options for opening an fsspec file system, by the kind of URL. By default, s3fs asks for an object's size
#: before reading it, and botocore keeps only ten connections.
_SETTINGS: dict[str, dict[str, Any]] = {
    "s3": {"max_concurrency": 1, "config_kwargs": {"max_pool_connections": _IN_FLIGHT}}
}

# Extras of the project by the kind of bucket.
_EXTRAS = {"s3": "s3", "gs": "gcs", "gcs": "gcs"}

# fsspec's memory:// checks whether a name is free and takes it in two steps.
_memory_lock = threading.Lock()

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Entry:
    """Entry of a listing: size of an object, and when it was written (seconds since 1970)."""

    size: int
    modified: float


@dataclass(frozen=True)
class Store:
    """Objects below a root; keys are relative paths with ``/``.

    Attributes
    ----------
    url
        Absolute path or fsspec URL of the root, without a slash at the end.
    conditional
        Whether the storage can create an object only if it is absent. Where it cannot (some S3-compatible
        servers), the last writer wins; readers still never see incomplete objects.
    """

    url: str
    conditional: bool = True

    @property
    def local(self) -> Path | None:
        """The root as a path if it is on a disk."""
        return None if "://" in self.url else Path(self.url)

    def at(self, key: str) -> str:
        """Return the path or URL of an object (InputError if its key leaves the root)."""
        return f"{self.url}/{inside(key)}"

    def _file(self, key: str) -> Path:
        """Return the path of an object on a disk for reading."""
        assert self.local is not None
        return self.local / inside(key)

    def _changed(self, key: str) -> Path:
        """Return the path of an object on a disk for writing or removing, which never follows a link."""
        file = self._file(key)
        linked = self.link_on_the_way(key)
        if linked:
            raise InputError(
                f"{linked} is a symbolic link: nothing is written or removed through it; "
                "replace it by what it points to"
            )
        return file

    def link_on_the_way(self, key: str) -> str:
        """Find the first symbolic link on the way from the root to an object; empty if none."""
        if self.local is None:
            return ""
        path = str(self.local)
        for part in inside(key).strip("/").split("/"):
            path = f"{path}/{part}"
            if os.path.islink(path):
                return path
        return ""

    def _remote(self, key: str) -> tuple[Any, str]:
        """File system of a bucket, and an object's path in it."""
        fs, root = filesystem(self.url)
        return fs, f"{root}/{inside(key)}" if key else root

    def read(self, key: str, most: int | None = None) -> bytes:
        """Read an object, or at most the first ``most`` bytes of it (FileNotFoundError if there is none)."""
        if self.local is not None:
            with open(self._file(key), "rb") as file:
                return file.read(-1 if most is None else most)
        fs, path = self._remote(key)
        data: bytes = fs.cat_file(path) if most is None else fs.cat_file(path, start=0, end=most)
        return data

    def read_those_there(self, keys: Sequence[str]) -> list[bytes | None]:
        """Read many objects in order; None for missing ones."""

        def read(key: str) -> bytes | None:
            try:
                return self.read(key)
            except FileNotFoundError:
                return None

        return in_parallel(read, keys)

    def blocks(self, key: str, size: int) -> Iterator[bytes]:
        """Read an object of ``size`` bytes piece by piece (FileNotFoundError if there is none)."""
        if self.local is not None:
            with open(self._file(key), "rb") as file:
                while block := file.read(_BLOCK):
                    yield block
            return
        if size <= _BLOCK:
            yield self.read(key)
            return
        fs, path = self._remote(key)
        for start in range(0, size, _BLOCK):
            yield fs.cat_file(path, start=start, end=min(start + _BLOCK, size))

    def exists(self, key: str) -> bool:
        """Return whether there is an object of this name now."""
        if self.local is not None:
            return self._file(key).is_file()
        fs, path = self._remote(key)
        fs.invalidate_cache()
        try:
            return bool(fs.info(path)["type"] == "file")
        except FileNotFoundError:
            return False

    def write(self, objects: Mapping[str, bytes]) -> None:
        """Write objects, many at a time; readers that know their names may see incomplete ones meanwhile."""
        in_parallel(self._write_one, objects.items())

    def _write_one(self, item: tuple[str, bytes]) -> None:
        key, data = item
        if self.local is not None:
            file = self._changed(key)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
            with open(file, "rb") as raw:
                os.fsync(raw.fileno())  # after a power cut, a record must not exist without its sample
            return
        fs, path = self._remote(key)
        fs.pipe_file(path, data)

    def create(self, key: str, data: bytes) -> bool:
        """Create a complete object, unless there is one of its name.

        Returns
        -------
        bool
            True if the object now contains ``data``; False if another writer was first.

        Raises
        ------
        OSError
            If the storage accepted the object but does not have it.
        """
        if self.local is not None:
            return _link_new(self._changed(key), data)
        fs, path = self._remote(key)
        try:
            if not self.conditional:
                if not self.exists(key):
                    fs.pipe_file(path, data)
            elif self.url.startswith("memory://"):
                with _memory_lock:
                    fs.pipe_file(path, data, mode="create")
            else:
                fs.pipe_file(path, data, mode="create")
        except OSError:
            # Another writer was first; or this one was, but the answer was lost and the request repeated.
            # The content tells which.
            if not self.exists(key):
                raise
        try:
            return self.read(key) == data
        except FileNotFoundError as error:
            raise OSError(f"{self.at(key)} was written but is missing: the storage loses data") from error

    def entries(self, prefix: str) -> dict[str, Entry]:
        """List all objects that are below a prefix now."""
        if self.local is not None:
            return dict(_walk(self.local, str(self._file(prefix))))
        fs, top = self._remote(prefix)
        fs.invalidate_cache()
        _, root = filesystem(self.url)
        found: dict[str, Any] = fs.find(top, detail=True)
        return {
            path.removeprefix(f"{root}/"): Entry(int(info["size"]), _modified(info))
            for path, info in found.items()
            # a name that is neither an object nor a prefix may have no entries, and a folder that was emptied
            # is an object of its own on some servers
            if info and path.startswith(f"{top.rstrip('/')}/")
        }

    def folders(self, prefix: str) -> list[str]:
        """List the names directly below a prefix, sorted."""
        if self.local is not None:
            folder = self._file(prefix)
            return sorted(os.listdir(folder)) if folder.is_dir() else []
        fs, top = self._remote(prefix)
        fs.invalidate_cache()
        try:
            return sorted({path.rstrip("/").rsplit("/", 1)[-1] for path in fs.ls(top, detail=False)})
        except FileNotFoundError:
            return []

    def sizes(self, prefix: str) -> dict[str, int]:
        """List all objects below a prefix: key -> bytes."""
        return {key: entry.size for key, entry in self.entries(prefix).items()}

    def remove(self, prefix: str) -> None:
        """Remove all objects below a prefix; on a disk, links are removed, but not their targets."""
        if self.local is not None:
            shutil.rmtree(self._changed(prefix), ignore_errors=True)
            return
        self.remove_objects(list(self.entries(prefix)))

    def remove_objects(self, keys: Sequence[str]) -> None:
        """Remove objects; missing ones are ignored."""
        if self.local is not None:
            for key in keys:
                # removes the link itself, not its target
                folder = self._changed(key.rpartition("/")[0]) if "/" in key else self.local
                (folder / inside(key).rpartition("/")[2]).unlink(missing_ok=True)
            return
        fs, _ = filesystem(self.url)
        paths = [self._remote(key)[1] for key in keys]
        at_once = [
            path for path in paths if fs.async_impl and not has_magic(path)
        ]  # one request for many objects
        if at_once:
            with contextlib.suppress(FileNotFoundError):
                fs.rm(at_once)
        for path in set(paths).difference(at_once):
            with contextlib.suppress(FileNotFoundError):
                fs.rm_file(path)


def inside(key: str) -> str:
    """Return a key (InputError if it leads out of the root).

    Keys come from records, indexes and listings, which anybody may have written.
    """
    if key and not is_key(key.removesuffix("/")):
        raise InputError(f"{key!r} would lead out of its folder; nothing was done")
    return key


def open_store(url: str | os.PathLike[str]) -> Store:
    """Make the store of a path or an fsspec URL.

    Raises
    ------
    InputError
        If the kind of URL is unknown, or its package is not installed, or a slash is missing in it.
    """
    text = os.fspath(url).removeprefix("file://")
    if "://" not in text:
        kind, colon, rest = text.partition(":/")
        if colon and kind in _EXTRAS:
            raise InputError(f"{text} lacks a slash; write {kind}://{rest}")
        path = Path(text).expanduser().absolute()
        return Store(str(path.resolve() if ".." in path.parts else path))  # TensorStore does not accept ".."
    try:
        filesystem(text.rstrip("/"))
    except InputError:
        raise
    except ImportError as error:
        extra = _EXTRAS.get(text.split("://")[0])
        hint = f"install the extra {extra!r} of template-learning" if extra else str(error)
        raise InputError(f"{text} needs a package that is not installed: {hint}") from error
    except (ValueError, OSError) as error:  # OSError: the host does not answer
        raise InputError(f"{text} is not a path or URL that can be opened ({error})") from error
    return Store(text.rstrip("/"))


def can_create_if_absent(store: Store) -> bool:
    """Test whether the storage refuses to create an object twice."""
    probe = f"probe-{uuid.uuid4().hex}"
    try:
        refuses = store.create(probe, b"first") and not store.create(probe, b"second")
    except InputError:
        raise
    except (TypeError, ValueError, NotImplementedError):  # this fsspec file system lacks mode="create"
        refuses = False
    store.remove_objects([probe])
    return refuses


def zarr_store(url: str, *, read_only: bool = True) -> Any:
    """Make the Zarr store of a path or an fsspec URL."""
    from catalogs.storage.bounded import bound
    from catalogs.storage.whole import WholeFsspecStore, WholeLocalStore

    bound()
    text = url.removeprefix("file://").rstrip("/")
    if "://" not in text:
        return WholeLocalStore(text, read_only=read_only)
    return WholeFsspecStore.from_url(text, storage_options=_settings(text), read_only=read_only)


def in_parallel(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Call a function that waits for storage on many items in parallel; results are in order."""
    with ThreadPoolExecutor(_IN_FLIGHT, thread_name_prefix="catalogs") as threads:
        try:
            return list(threads.map(function, items))
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise


def filesystem(url: str) -> tuple[Any, str]:
    """Return the file system of a URL, which fsspec caches, and the path of the root in it."""
    from fsspec.core import url_to_fs

    fs, root = url_to_fs(url, **_settings(url))
    return fs, root.rstrip("/")


def _settings(url: str) -> dict[str, Any]:
    """Return the options for opening the file system of a URL; the user's configuration has priority."""
    from fsspec.config import conf

    kind = url.split("://")[0]
    theirs = conf.get(kind, {})
    return {name: value for name, value in _SETTINGS.get(kind, {}).items() if name not in theirs}


def _walk(root: Path, folder: str) -> Iterator[tuple[str, Entry]]:
    """Yield the files below a folder on a disk, while others may change it."""
    try:
        found = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in found:
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(root, entry.path)
            continue
        try:
            status = entry.stat()
        except FileNotFoundError:  # just removed
            continue
        yield Path(entry.path).relative_to(root).as_posix(), Entry(status.st_size, status.st_mtime)


def _modified(info: Mapping[str, Any]) -> float:
    """Find when an object was written from its file system entry; the current time if unknown."""
    for name in ("LastModified", "last_modified", "updated", "mtime", "created"):
        when = info.get(name)
        if isinstance(when, int | float):
            return float(when)
        if isinstance(when, str) and when:
            when = datetime.fromisoformat(when)
        if isinstance(when, datetime):
            return when.timestamp()
    return time.time()


def _link_new(file: Path, data: bytes) -> bool:
    """Create a file with all of its content in one step, unless it exists.

    A hard link is the only POSIX operation that does both: it fails if the name is taken, also over NFS, and
    the file is already complete.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f".{file.name}.{uuid.uuid4().hex[:8]}")
    try:
        with open(unfinished, "wb") as raw:
            raw.write(data)
            raw.flush()
            os.fsync(raw.fileno())
        os.link(unfinished, file)
    except FileExistsError:
        return file.read_bytes() == data
    finally:
        unfinished.unlink(missing_ok=True)
    return True
