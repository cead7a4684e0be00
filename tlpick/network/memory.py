"""The memory of this process: what it holds, and how it is given back after a sweep.

TensorFlow's oneDNN has an allocator of its own, which keeps whatever the largest sweep took until the
process ends: nothing else can use it, and the next tomogram finds the memory full. So where one picks, it
allocates from the C library (:func:`catalogs.machine.prefer_onednn`), and that gives back what is free once a
sweep is done.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

#: glibc's parameters: pieces that are mapped each on its own, at most; from which size on; and what stays at
#: the heap's end.
_MMAP_MAX, _MMAP_THRESHOLD, _TRIM_THRESHOLD = -4, -3, -1
_DEFAULTS = {_MMAP_MAX: 65536, _MMAP_THRESHOLD: 128 << 10, _TRIM_THRESHOLD: 128 << 10}
#: Bytes: where a sweep may take less, none may be lost between pieces.
_LITTLE = 500_000_000


def resident() -> int:
    """Bytes that this process holds in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def reused(n_bytes: float) -> Iterator[None]:
    """Keep what is freed meanwhile for what is allocated next, and give it back to the system at the end.

    A sweep allocates and frees the same few large pieces again and again; mapped anew each time, their pages
    would have to be cleared each time, which takes a tenth of the sweep. But some memory is lost between
    pieces that are kept, so where there is little, each piece is mapped anew. Where the C library is not
    glibc, it does as it always does.

    Parameters
    ----------
    n_bytes
        What the sweep needs.
    """
    library = _glibc()
    if library is None:
        yield
        return
    if n_bytes < _LITTLE:
        library.mallopt(_MMAP_THRESHOLD, 1 << 20)
    else:
        library.mallopt(_MMAP_MAX, 0)
        library.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    try:
        yield
    finally:
        for parameter, value in _DEFAULTS.items():
            library.mallopt(parameter, value)
        give_back()


def give_back() -> None:
    """Return freed memory to the system: the C library keeps it for later, and it would count as used."""
    if (library := _glibc()) is not None:
        library.malloc_trim(0)


@cache
def _glibc() -> Any:
    """Find the C library of this process, if it is glibc."""
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") and hasattr(library, "mallopt") else None
