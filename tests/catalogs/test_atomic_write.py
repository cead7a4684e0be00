"""A file is there whole or not at all, and nothing is left behind."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from catalogs.atomic_write import replacing, write_bytes, write_text


def test_a_file_takes_its_place_when_it_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "new" / "a.txt"
    write_text(file, "first Å")
    with replacing(file, durable=True, ending=".txt") as unfinished:
        unfinished.write_text("second")
        assert unfinished.name.startswith(".a.txt.")
        assert unfinished.suffix == ".txt"
        assert file.read_text(encoding="utf-8") == "first Å"
    assert file.read_text() == "second"
    write_bytes(file, b"\0\1", durable=True)
    assert file.read_bytes() == b"\0\1"
    assert os.listdir(file.parent) == ["a.txt"]
    usual = file.parent / "usual"
    usual.touch()
    assert file.stat().st_mode == usual.stat().st_mode


def test_what_goes_wrong_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    write_text(file, "kept")

    def fail() -> None:
        with replacing(file) as unfinished:
            unfinished.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert file.read_text() == "kept"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("linked", [False, True])
def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path, linked: bool) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    named = tmp_path / "link" if linked else pipe
    if linked:
        named.symlink_to(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    write_text(named, "what was said")
    reader.join(timeout=10)
    assert read == [b"what was said"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert set(os.listdir(tmp_path)) == {"pipe", named.name}


def test_the_null_device_stays_a_device(tmp_path: Path) -> None:
    link = tmp_path / "null"
    link.symlink_to(os.devnull)
    write_text(link, "lost")
    assert link.is_symlink()
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)
