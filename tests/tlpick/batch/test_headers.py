"""The header of a tomogram is read once by each process that needs it, and the picks of a run once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tlpick
from catalogs import particles, volumes
from catalogs.errors import InputError
from catalogs.volumes import write_mrc
from catalogs.volumes.once import open_once


def test_a_header_is_read_once_to_name_the_results_to_pick_and_to_draw(
    tmp_path: Path, ball_model: Path, make_balls: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a cluster picks, its workers are other processes and read it once more."""
    write_mrc(tmp_path / "a.mrc", make_balls("a").data, 10.0)
    opened, before = [], volumes._open_file

    def counted(text: str, voxel_size: float | None) -> Any:
        opened.append(Path(text).name)
        return before(text, voxel_size)

    monkeypatch.setattr(volumes, "_open_file", counted)
    done = tlpick.pick_many(ball_model, tmp_path / "a.mrc", tmp_path / "picks")
    assert opened == ["a.mrc"]
    page = done.report.read_text()
    assert "data:image/png" in page  # it has pictures of the tomogram

    lists, load = [], particles.load
    monkeypatch.setattr(
        particles, "load", lambda path, *more: lists.append(Path(path).name) or load(path, *more)
    )
    tlpick.report(done)
    assert opened == ["a.mrc"]
    assert len(lists) == len(set(lists))  # both pages together read each list of picks once
    assert "particles.star" in lists


def test_a_file_that_was_changed_is_opened_again(tmp_path: Path, make_balls: Callable[..., Any]) -> None:
    path, balls = tmp_path / "a.mrc", make_balls("a").data
    write_mrc(path, balls, 10.0)
    first = open_once(path)
    assert open_once(path) is first
    assert open_once(path, voxel_size=10.0) is first
    assert open_once(path, voxel_size=8.0).voxel_size == 8.0
    assert open_once(path).voxel_size == 10.0
    write_mrc(path, balls[:20], 12.0)
    again = open_once(path)
    assert (again.voxel_size, again.shape[0]) == (12.0, 20)
    path.unlink()
    with pytest.raises(InputError, match="there is no volume"):
        open_once(path)
