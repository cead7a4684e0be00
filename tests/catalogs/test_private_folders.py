"""Files whose names others could guess: in a folder that is the user's own, and nothing left behind."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from catalogs.errors import InputError
from catalogs.private_folders import private_folder, scratch_folder

HOLD = """
import sys, time
from catalogs.private_folders import scratch_folder
with scratch_folder("test-") as folder:
    (folder / "large").write_text("x")
    print(folder, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def shared_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files that everybody may write to, and a cache of the user's own."""
    shared = tmp_path / "tmp"
    shared.mkdir()
    shared.chmod(0o1777)
    monkeypatch.setattr(tempfile, "tempdir", str(shared))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return shared


def test_it_is_the_users_alone(shared_tmp: Path) -> None:
    folder = private_folder("memory")
    assert folder.parent.parent == shared_tmp
    assert [place.stat().st_mode & 0o777 for place in (folder, folder.parent)] == [0o700, 0o700]
    assert private_folder("memory") == folder


@pytest.mark.parametrize("kind", ["link", "open", "file"])
def test_what_somebody_else_has_put_there_is_not_used(shared_tmp: Path, tmp_path: Path, kind: str) -> None:
    victim = tmp_path / "victim"
    victim.mkdir(mode=0o700)
    planted = shared_tmp / f"template-learning-{os.getuid()}"
    if kind == "link":
        planted.symlink_to(victim)
    elif kind == "file":
        planted.write_text("mine")
    else:
        planted.mkdir()
        planted.chmod(0o777)
    assert private_folder("scratch").is_relative_to(tmp_path / "cache")
    assert not list(victim.iterdir())


def test_a_folder_of_another_user_is_not_used(shared_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    me = os.getuid()
    (shared_tmp / f"template-learning-{me + 1}").mkdir(mode=0o700)
    monkeypatch.setattr(os, "getuid", lambda: 1 + me)
    with pytest.raises(InputError, match="set TMPDIR"):  # what this process makes is of another user, too
        private_folder()


def test_a_link_below_it_is_not_followed(shared_tmp: Path, tmp_path: Path) -> None:
    (private_folder() / "memory").symlink_to(tmp_path)
    assert private_folder("memory").is_relative_to(tmp_path / "cache")


def test_nowhere_to_put_it(shared_tmp: Path, tmp_path: Path) -> None:
    (shared_tmp / f"template-learning-{os.getuid()}").write_text("")
    (tmp_path / "cache").write_text("")
    with pytest.raises(InputError, match="set TMPDIR"):
        private_folder()


def test_what_a_killed_process_left_is_cleared_by_the_next(shared_tmp: Path) -> None:
    environment = os.environ | {"TMPDIR": str(shared_tmp)}
    started = [
        subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(2)
    ]
    try:
        folders = [Path(process.stdout.readline().strip()) for process in started if process.stdout]
        assert all((folder / "large").exists() for folder in folders)
        started[0].kill()
        started[0].wait()
        with scratch_folder("test-") as third:
            assert not folders[0].exists()
            assert folders[1].exists()
            with scratch_folder("test-") as fourth:
                assert third.exists()
                assert fourth != third
        assert not third.exists()
    finally:
        for process in started:
            process.kill()
            process.communicate()
