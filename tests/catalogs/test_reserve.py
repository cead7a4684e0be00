"""Space on a disk is taken before a file is written through a map."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from catalogs.atomic_write import reserve
from tlgen.reconstruct import ctf
from tlpick.network.tomograms.scratch import Scratch


def test_space_is_taken_at_once(tmp_path: Path) -> None:
    with open(tmp_path / "a", "wb") as file:
        reserve(file.fileno(), 3_000_000)
        assert os.path.getsize(file.name) == 3_000_000
        assert os.stat(file.name).st_blocks * 512 >= 3_000_000
        reserve(file.fileno(), 0)


def test_a_full_disk_is_an_error_and_no_killed_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_file: int, _offset: int, _size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with Scratch(tmp_path, 0) as scratch, pytest.raises(OSError, match="No space left"):
        scratch.array((4, 5, 6), "float32")
    monkeypatch.setattr(ctf, "_IN_MEMORY", 10)
    with pytest.raises(OSError, match="No space left"):
        ctf.scratch((4, 5, 6))


def test_arrays_in_files_are_written_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctf, "_IN_MEMORY", 10)
    array = ctf.scratch((4, 5, 6))
    array[...] = 7
    assert float(array.sum()) == 840
