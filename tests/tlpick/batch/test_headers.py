"""The header of a tomogram is read once by each process that needs it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tlpick
from catalogs import volumes
from catalogs.volumes import write_mrc
from tlpick.batch import run


def test_a_header_is_read_once_to_name_the_results_and_once_to_pick(
    tmp_path: Path, ball_model: Path, make_balls: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first is the driver's; where a cluster picks, the second is another process'."""
    write_mrc(tmp_path / "a.mrc", make_balls("a").data, 10.0)
    opened, before = [], volumes._open_file

    def counted(text: str, voxel_size: float | None) -> Any:
        opened.append(Path(text).name)
        return before(text, voxel_size)

    monkeypatch.setattr(volumes, "_open_file", counted)
    monkeypatch.setattr(run, "write_report", lambda folder: tmp_path / "none")  # its pictures read more
    monkeypatch.setattr(run, "write_curation", lambda folder: None)
    tlpick.pick_many(ball_model, tmp_path / "a.mrc", tmp_path / "picks")
    assert opened == ["a.mrc", "a.mrc"]
