"""A file is there whole or not at all, and nothing is left behind."""

from __future__ import annotations

import os
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
