"""Objects below a root, on a disk or in a bucket: read, write, list, and create only if absent.

Creating only if absent is what a corpus is built on: of many writers exactly one wins, and what is
visible under the name is always whole.
"""

from __future__ import annotations

import os
import shutil
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from catalogs.errors import InputError

_IN_FLIGHT = 16  # requests at a time

# fsspec's memory:// looks whether a name is free and takes it in two steps.
_memory_lock = threading.Lock()

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Store:
    """Objects below a root; keys are relative paths with ``/``.

    Attributes
    ----------
    url
        Absolute path or fsspec URL of the root, without a slash at the end.
    conditional
        Whether the storage can create an object only if it is absent. Where it cannot (some S3
        look-alikes), the last writer wins; readers still never see half of anything.
    """

    url: str
    conditional: bool = True

    @property
    def local(self) -> Path | None:
        """The root as a path if it is on a disk."""
        return None if "://" in self.url else Path(self.url)

    def at(self, key: str) -> str:
        """Path or URL of an object."""
        return f"{self.url}/{key}"

    def read(self, key: str) -> bytes:
        """Read an object; FileNotFoundError if there is none."""
        if self.local is not None:
            return (self.local / key).read_bytes()
        fs, root = _filesystem(self.url)
        data: bytes = fs.cat_file(f"{root}/{key}")
        return data

    def exists(self, key: str) -> bool:
        """Tell whether there is an object of this name, as the storage sees it now."""
        if self.local is not None:
            return (self.local / key).is_file()
        fs, root = _filesystem(self.url)
        fs.invalidate_cache()
        return bool(fs.isfile(f"{root}/{key}"))

    def write(self, objects: Mapping[str, bytes]) -> None:
        """Write objects, many at a time; whoever can name them while they are written may see parts."""
        in_parallel(self._write_one, objects.items())

    def _write_one(self, item: tuple[str, bytes]) -> None:
        key, data = item
        if self.local is not None:
            file = self.local / key
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
            return
        fs, root = _filesystem(self.url)
        fs.pipe_file(f"{root}/{key}", data)

    def create(self, key: str, data: bytes) -> bool:
        """Create an object, whole, unless there is one of its name.

        Returns
        -------
        bool
            True if what stands there now is ``data``; False if another writer was first.
        """
        if self.local is not None:
            return _link_new(self.local / key, data)
        fs, root = _filesystem(self.url)
        path = f"{root}/{key}"
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
            # Somebody was first; or this writer was, and only the answer was lost and the request sent
            # again. What stands there tells.
            if not self.exists(key):
                raise
        return self.read(key) == data

    def sizes(self, prefix: str) -> dict[str, int]:
        """List all objects below a prefix: key -> bytes."""
        if self.local is not None:
            top = self.local / prefix
            files = (Path(folder) / name for folder, _, names in os.walk(top) for name in names)
            return {file.relative_to(self.local).as_posix(): file.stat().st_size for file in files}
        fs, root = _filesystem(self.url)
        fs.invalidate_cache()
        found: dict[str, Any] = fs.find(f"{root}/{prefix}", detail=True)
        return {path.removeprefix(f"{root}/"): int(info["size"]) for path, info in found.items()}

    def remove(self, prefix: str) -> None:
        """Remove all objects below a prefix."""
        if self.local is not None:
            shutil.rmtree(self.local / prefix, ignore_errors=True)
            return
        fs, root = _filesystem(self.url)
        keys = [f"{root}/{key}" for key in self.sizes(prefix)]
        if keys:
            fs.rm(keys)


def open_store(url: str | os.PathLike[str]) -> Store:
    """Make a store of a path or an fsspec URL.

    Raises
    ------
    InputError
        If the kind of URL is unknown, or its package is not installed.
    """
    text = os.fspath(url).removeprefix("file://")
    if "://" not in text:
        return Store(str(Path(text).expanduser().absolute()))
    try:
        _filesystem(text.rstrip("/"))
    except ImportError as error:
        extra = {"s3": "s3", "gs": "gcs", "gcs": "gcs"}.get(text.split("://")[0])
        hint = f"install the extra {extra!r} of template-learning" if extra else str(error)
        raise InputError(f"{text} needs a package that is not installed: {hint}") from error
    except ValueError as error:
        raise InputError(f"{text} is not a path or URL that can be opened ({error})") from error
    return Store(text.rstrip("/"))


def can_create_if_absent(store: Store) -> bool:
    """Try whether the storage refuses to create an object twice."""
    probe = f"probe-{uuid.uuid4().hex}"
    try:
        refuses = store.create(probe, b"first") and not store.create(probe, b"second")
    except (TypeError, ValueError, NotImplementedError):  # this fsspec file system knows no mode="create"
        refuses = False
    if store.local is not None:
        (store.local / probe).unlink(missing_ok=True)
    else:
        store.remove(probe)
    return refuses


def zarr_store(url: str) -> Any:
    """Make the read-only Zarr store of a path or an fsspec URL."""
    from zarr.storage import FsspecStore, LocalStore

    text = url.removeprefix("file://").rstrip("/")
    if "://" not in text:
        return LocalStore(text, read_only=True)
    return FsspecStore.from_url(text, read_only=True)


def in_parallel(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Call a function that waits for storage on many items at once; the results are in order."""
    with ThreadPoolExecutor(_IN_FLIGHT) as threads:
        return list(threads.map(function, items))


def _filesystem(url: str) -> tuple[Any, str]:
    """Return the file system of a URL, which fsspec keeps open, and the root's path in it."""
    from fsspec.core import url_to_fs

    fs, root = url_to_fs(url)
    return fs, root.rstrip("/")


def _link_new(file: Path, data: bytes) -> bool:
    """Create a file with all of its content in one step, unless there is one.

    A hard link is the one operation of POSIX that does both: it fails if the name is taken, also over
    NFS, and the file it names is already complete.
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
