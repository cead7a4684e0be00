"""What is made of structures is kept once a host: by content, whole or not, bounded, in a private folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from numpy.typing import NDArray

from catalogs.errors import InputError
from tlgen.molecules import array_cache


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "prepared"
    monkeypatch.setenv("TLGEN_PREPARED", str(place))
    monkeypatch.setattr(array_cache._Size, "bytes", -1.0)
    return place


def refuse() -> dict[str, NDArray[Any]]:
    raise AssertionError("made again")


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(
        st.text(min_size=1, max_size=8),
        arrays_of.arrays(
            st.sampled_from(["u1", "<i8", "<f4", "<f8", "?", "<U5", "S3"]),
            arrays_of.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5),
        ),
        max_size=5,
    )
)
def test_arrays_come_back_to_the_bit(tmp_path_factory: pytest.TempPathFactory, made: dict[str, Any]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TLGEN_PREPARED", str(tmp_path_factory.mktemp("cache")))
        array_cache.cached("kind", "content", (), lambda: made)
        found = array_cache.cached("kind", "content", (), refuse)
    assert list(found) == list(made)
    for name, array in made.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].tobytes() == array.tobytes()
        assert found[name].flags.aligned


def test_other_content_and_other_code_are_made_anew(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(content: Any) -> int:
        make = {"a": np.array(len(files(folder)))}
        return int(array_cache.cached("kind", content, ("tlgen.molecules.modes",), lambda: make)["a"])

    assert [ask(1), ask(1), ask(2), ask([1]), ask(1)] == [0, 0, 1, 2, 0]
    monkeypatch.setattr(array_cache, "source", lambda module: f"another {module}")
    assert ask(1) == 3


def test_writing_to_what_was_found_changes_nothing_for_others(folder: Path) -> None:
    array_cache.cached("kind", 1, (), lambda: {"a": np.arange(5)})["a"][:] = 7
    assert array_cache.cached("kind", 1, (), refuse)["a"].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b[:20], lambda b: b"", lambda b: b + b"x"])
def test_a_damaged_entry_is_made_anew(folder: Path, damage: Any) -> None:
    array_cache.cached("kind", 1, (), lambda: {"a": np.arange(50)})
    (path,) = files(folder)
    path.write_bytes(damage(path.read_bytes()))
    assert array_cache.cached("kind", 1, (), lambda: {"a": np.arange(50)})["a"].sum() == 1225
    assert array_cache.cached("kind", 1, (), refuse)["a"].sum() == 1225


def test_many_processes_at_once_leave_one_whole_entry_each(folder: Path) -> None:
    program = """
import numpy as np
from tlgen.molecules import array_cache
for k in range(40):
    found = array_cache.cached("kind", k % 8, (), lambda: {"a": np.full(20000, k % 8)})
    assert (found["a"] == k % 8).all() and len(found["a"]) == 20000
"""
    running = [subprocess.Popen([sys.executable, "-c", program], env=os.environ) for _ in range(4)]
    assert [each.wait(120) for each in running] == [0] * 4
    assert sorted(path.suffix for path in files(folder)) == [".arrays"] * 8


def test_the_folder_is_for_its_owner_alone(folder: Path) -> None:
    array_cache.cached("kind", 1, (), lambda: {"a": np.arange(5)})
    assert folder.stat().st_mode & 0o077 == 0
    assert all(path.stat().st_mode & 0o077 == 0 for path in files(folder))


def test_a_folder_that_others_can_write_to_is_refused(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(
        InputError, match=r"prepared: prepared structures are kept there, so it must be a folder of y"
    ):
        array_cache.cached("kind", 1, (), refuse)


def test_a_link_to_another_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="TLGEN_PREPARED"):
        array_cache.cached("kind", 1, (), refuse)


def test_somebody_elses_folder_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir(mode=0o700)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(InputError, match="nobody else can write"):
        array_cache.cached("kind", 1, (), refuse)


def test_where_nothing_can_be_kept_it_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("TLGEN_PREPARED", str(tmp_path / "file" / "prepared"))
    for number in (1, 2):
        found = array_cache.cached("kind", 1, (), lambda: {"a": np.array(number)})  # noqa: B023
        assert found["a"] == number


def test_what_was_used_least_recently_goes_when_it_becomes_too_much(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TLGEN_PREPARED_GB", "0.00001")  # 10 kB
    held = array_cache.cached("kind", 0, (), lambda: {"a": np.full(3000, 1, np.uint8)})
    for k in range(1, 6):
        for age, path in enumerate(sorted(files(folder), key=lambda p: p.stat().st_mtime, reverse=True), 1):
            os.utime(path, (0, 1e9 - age))
        array_cache.cached("kind", k, (), lambda: {"a": np.full(3000, 1, np.uint8)})
        assert sum(path.stat().st_size for path in files(folder)) <= 10_000
    array_cache.cached("kind", 5, (), refuse)
    assert array_cache.find("kind", 0, ()) is None
    assert held["a"].sum() == 3000  # who had it keeps it
