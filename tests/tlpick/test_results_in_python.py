"""What the commands around a run do, called from Python: nothing is printed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tlpick
from catalogs import particles
from catalogs.errors import InputError
from catalogs.volumes import open_volume, write_mrc


@pytest.fixture
def done(ball_model: Path, make_balls: Callable[..., Any], tmp_path: Path) -> tlpick.Run:
    """A run over one tomogram."""
    write_mrc(tmp_path / "tomo-1.mrc", make_balls("tomo-1").data, 10.0)
    return tlpick.pick_many(ball_model, tmp_path / "tomo-1.mrc", tmp_path / "picks")


def test_picks_are_selected_again(
    done: tlpick.Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    three = tlpick.select(done, tmp_path / "three.star", top=3)
    assert len(three) == len(particles.read(tmp_path / "three.star")) == 3
    every = tlpick.select(done.folder, fdr="off")
    assert len(every) >= len(done.picks) > 3
    assert three["score"].min() >= every["score"].nlargest(3).min() - 1e-6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["picks", "three.star", "tomo-1.mrc"]
    assert capfd.readouterr() == ("", "")
    with pytest.raises(InputError, match="`top` and `min_score` all say which picks are kept"):
        tlpick.select(done, top=3, min_score=0.5)
    with pytest.raises(InputError, match="is not the folder of a run"):
        tlpick.select(tmp_path, top=3)


def test_masks_and_pages_are_written(done: tlpick.Run, tmp_path: Path) -> None:
    [path] = tlpick.mask(done, tmp_path / "masks")
    mask = open_volume(path)
    assert mask.shape == open_volume(tmp_path / "tomo-1.mrc").shape
    assert set(mask.read().ravel().tolist()) <= {0, 1}
    before = done.report.stat().st_mtime_ns
    pages = tlpick.report(done)
    assert pages.report == done.report
    assert done.report.stat().st_mtime_ns > before
    assert pages.curation is not None
    assert pages.curation.is_file()
    (tmp_path / "tomo-1.mrc").unlink()
    assert tlpick.report(done.folder).curation is None
    with pytest.raises(InputError, match="there is no volume"):
        tlpick.mask(done, tmp_path / "masks")


def test_lists_are_converted(done: tlpick.Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    star = done.folder / "particles.star"
    made = tlpick.convert(star, tmp_path / "picks.tbl")
    back = tlpick.convert(
        tmp_path / "picks.tbl", tmp_path / "back.csv", volumes=[tmp_path / "tomo-1.mrc"], radii={"ball": 50.0}
    )
    assert made.table is not None
    assert back.table is not None
    assert back.table[["x", "y", "z"]].to_numpy() == pytest.approx(
        made.table[["x", "y", "z"]].to_numpy(), abs=1e-3
    )
    assert "no room there for" in str(made)
    assert "`sidecar` keeps it in a file beside" in str(made)  # a parameter, not a flag
    shifted = tlpick.convert(star, tmp_path / "shifted.star", of_target={"centre": "picker"}, pixel_size=2.5)
    assert shifted.table is not None
    assert (tmp_path / "shifted.star").read_text() != star.read_text()
    assert capfd.readouterr() == ("", "")

    described = tlpick.convert(star)
    assert described.table is not None
    assert len(described.table) == len(done.picks)
    assert described.sentences[0].startswith(f"{star}: RELION 5 particles")
    with pytest.raises(InputError, match="already exists; give another name, or `overwrite`"):
        tlpick.convert(star, tmp_path / "picks.tbl")
    with pytest.raises(InputError, match="there is no fact `voxelsize`; did you mean 'voxel_size'") as wrong:
        tlpick.convert(star, tmp_path / "b.tbl", voxelsize=8.0)
    assert wrong.value.parameter == "voxelsize"
    with pytest.raises(InputError, match="there is no fact `center`; did you mean 'centre'"):
        tlpick.convert(star, tmp_path / "b.star", of_target={"center": "picker"})
    with pytest.raises(InputError, match="`radii` has ball=-1"):
        tlpick.convert(star, tmp_path / "b.tbl", radii={"ball": -1.0})


def test_models_are_listed_by_name() -> None:
    table = tlpick.models()
    assert "ribosome" in table.index
    assert set(table.columns) == {"summary", "source"}
    assert tlpick.load_model("ribosome").card.name
    assert tlpick.models([]).empty
