"""Structures by PDB id: downloaded once and kept in a folder, with their checksums.

The folder is ``$TLGEN_CACHE``, or ``template-learning/pdb`` in the user's cache folder. Files put there by
hand are used as they are. The folders in ``$TLGEN_STRUCTURES`` are searched first and are never written to;
a machine without a network connection gets its structures from them.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import urllib.error
import urllib.request
from pathlib import Path

from catalogs.atomic_write import write_bytes
from catalogs.errors import InputError
from catalogs.storage.unpacking import gunzip

#: Default address to fetch entries from; ``$TLGEN_PDB_URL`` overrides it. ``/4v5d.cif.gz`` is appended.
PDB_URL = "https://files.rcsb.org/download"

_SUFFIXES = (".cif", ".mmcif", ".pdb", ".ent", ".bcif")
_TIMEOUT = 60  # seconds to wait for an answer
_TRIES = 3
_LARGEST_ENTRY = 4 << 30  # bytes; largest size of an unpacked entry


class Unreachable(InputError):
    """The PDB does not answer, so other entries cannot be fetched either."""


def pdb_id(word: str) -> str | None:
    """Parse a PDB id: ``4V5D`` and ``pdb_00004v5d`` -> ``4v5d``; None if the word is not a PDB id."""
    word = word.lower()
    if re.fullmatch(r"[1-9][a-z0-9]{3}", word):
        return word
    if re.fullmatch(r"pdb_[a-z0-9]{8}", word):
        return word[8:] if word.startswith("pdb_0000") else word
    return None


def cache_folder() -> Path:
    """Folder in which fetched structures are kept."""
    if folder := os.environ.get("TLGEN_CACHE"):
        return Path(folder).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "template-learning" / "pdb"


def given_folders() -> list[Path]:
    """List the folders of structures that the user names in ``$TLGEN_STRUCTURES``."""
    words = os.environ.get("TLGEN_STRUCTURES", "").split(os.pathsep)
    return [Path(word).expanduser() for word in words if word]


def here(entry: str) -> Path | None:
    """Find the unchanged structure file of a PDB entry on this machine; None if there is none."""
    for folder in given_folders():
        if found := _cached(folder, entry):
            return found
    found = _cached(cache_folder(), entry)
    return found if found and _is_intact(found) else None


def fetch(entry: str, *, url: str | None = None, folder: Path | None = None) -> Path:
    """Find the structure file of a PDB entry on this machine, or fetch it into the cache.

    The file is written atomically, next to a ``.sha256`` file for ``sha256sum -c``. A file that has changed
    since it was fetched is fetched again.

    Parameters
    ----------
    entry
        PDB id, lower case.
    url
        Address to fetch from; by default ``$TLGEN_PDB_URL`` or :data:`PDB_URL`.
    folder
        Folder to search and to store the file in, instead of the cache.

    Raises
    ------
    InputError
        There is no such entry, or it cannot be fetched or stored. The message says how to put the file there
        by hand. :class:`Unreachable` if the PDB does not answer.
    """
    if folder is None:
        if found := here(entry):
            return found
        folder = cache_folder()
    found = _cached(folder, entry)
    if found and _is_intact(found):
        return found
    base = (url or base_url()).rstrip("/")
    content = _download(f"{base}/{entry}.cif.gz", entry, folder / f"{entry}.cif.gz", found)
    return _keep(content, folder / f"{entry}.cif.gz")


def bring(entry: str, folder: Path | None) -> Path:
    """Fetch an entry into a folder, or into the cache; a file that is already on this machine is copied.

    Raises
    ------
    InputError
        As :func:`fetch`.
    """
    if folder is None:
        return fetch(entry)
    there = _cached(folder, entry)
    if there and _is_intact(there):
        return there
    found = here(entry)
    if found is None:
        return fetch(entry, folder=folder)
    return _keep(found.read_bytes(), folder / found.name)


def base_url() -> str:
    """Return the address that entries are fetched from."""
    return os.environ.get("TLGEN_PDB_URL") or PDB_URL


def _cached(folder: Path, entry: str) -> Path | None:
    for name in (entry, entry.upper()):
        for suffix in _SUFFIXES:
            for end in (".gz", ""):
                if (path := folder / f"{name}{suffix}{end}").is_file():
                    return path
    return None


def _is_intact(path: Path) -> bool:
    """Whether a file is unchanged since it was fetched; True if it has no checksum (put there by hand)."""
    try:
        stated = _checksum_file(path).read_text().split()
    except FileNotFoundError:
        return True
    with path.open("rb") as file:
        return stated[:1] == [hashlib.file_digest(file, "sha256").hexdigest()]


def _checksum_file(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _download(url: str, entry: str, target: Path, damaged: Path | None) -> bytes:
    reason, silent = "", False
    for _ in range(_TRIES):
        try:
            with urllib.request.urlopen(url, timeout=_TIMEOUT) as answer:
                content: bytes = answer.read()
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 404:
                raise InputError(
                    f"the PDB has no entry {entry!r} ({url} is not there); check the id, or give the path of "
                    "a structure file"
                ) from error
            reason = f"{error.code} {error.reason}"
        except (OSError, http.client.HTTPException) as error:
            reason = str(getattr(error, "reason", None) or error or type(error).__name__)
            if not isinstance(error, http.client.HTTPException):
                silent = True
                break  # no network, so another attempt would fail too
        else:
            if (wrong := _what_is_wrong(content)) is None:
                return content
            reason = wrong
    state = f", and {damaged} has changed since it was fetched" if damaged else ""
    raise (Unreachable if silent else InputError)(
        f"structure {entry!r} cannot be fetched from {url} ({reason}){state}; with a network try again, "
        f"without one put the entry's mmCIF file at {target}, or name a folder that holds it by `structures`"
    )


def _what_is_wrong(content: bytes) -> str | None:
    try:
        text = gunzip(content, _LARGEST_ENTRY, "what came")
    except InputError:
        return "what was received is not a complete gzip file"
    return None if b"_atom_site." in text else "what came holds no atoms"


def _keep(content: bytes, target: Path) -> Path:
    """Write a file and its checksum atomically, so that readers never see an incomplete file."""
    checksum = hashlib.sha256(content).hexdigest()
    try:
        for path, data in (
            (_checksum_file(target), f"{checksum}  {target.name}\n".encode()),
            (target, content),
        ):
            write_bytes(path, data, durable=True)
    except OSError as error:
        raise InputError(
            f"{target} cannot be written ({error.strerror or error}); set TLGEN_CACHE to a folder that can"
        ) from error
    return target
