"""``tlpick convert`` as a user types it."""

from __future__ import annotations

from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import pytest
import starfile

from catalogs import console, particles
from tlpick.cli import tlpick


@pytest.fixture
def picks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    """Picks of two tomograms, in a folder that the test runs in."""
    monkeypatch.chdir(tmp_path)
    table = particles.make(
        tomogram=["TS_1", "TS_1", "TS_2"],
        class_name=["ribosome", "fas", "ribosome"],
        label=[1, 2, 1],
        x=[80.0, 160.0, 240.0],
        y=[8.0, 16.0, 24.0],
        z=[40.0, 48.0, 56.0],
        score=[0.5, 0.25, 1.0],
        flags=["border", "", ""],
    )
    particles.write(table, "picks.csv")
    particles.write(table, "picks.star", voxel_size=8.0, shape=(32, 64, 64))
    return table


def run(capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Run the program; its exit status and what it said on stdout and stderr."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["tlpick", "convert", *words])
        with pytest.raises(SystemExit) as stopped:
            console.run(tlpick)
    said = capfd.readouterr()
    return int(str(stopped.value.code)), said.out, said.err


def test_says_what_it_recognised_and_what_has_no_room(
    picks: pd.DataFrame, capfd: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = run(capfd, "picks.star", "picks.tbl")  # the STAR says the voxel size
    assert status == 0
    assert "picks.star: RELION 5 particles (relion5): data_particles has rlnCenteredCoordinateXAngst" in out
    assert "3 particles (ribosome 2, fas 1) in 2 tomograms" in out
    assert "no room there for class_name, flags; --sidecar" in out
    assert "tomograms: 1 = TS_1, 2 = TS_2" in out
    assert particles.read("picks.tbl")["x"].tolist() == picks["x"].tolist()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ["picks.csv", "p.tbl"],
            "the voxel size of the tomogram 'TS_1' is not known; give it (--voxel-size)",
        ),
        (
            ["picks.csv", "p.star", "--voxel-size", "8"],
            "the size in voxels of the tomogram 'TS_1' is not known",
        ),
        (["picks.csv", "p.star", "--format", "relion4"], "give it (--pixel-size)"),
        (["picks.csv", "p.star", "--shape", "3,4"], "--shape '3,4' is not a size"),
        (["picks.csv", "p.txt", "--voxel-size", "8"], "say which by --format"),
        (["picks.csv", "p.csv", "--from", "dynamos"], "did you mean 'dynamo'?"),
        (["picks.csv"], "give a list to read and one to write"),
        (["nothing.star", "p.csv"], "there is no particle list nothing.star"),
        (["picks.csv", "picks.star", "--voxel-size", "8", "--shape", "9,9,9"], "picks.star already exists"),
        (["picks.csv", "p.mod", "--voxel-size", "8"], "give a folder"),
        (["picks.csv", "p.tbl", "--binning", "4"], "--binning needs the voxel size"),
        (["picks.csv", "p.tbl", "--radius", "ribosome"], "write NAME=Å"),
        (["picks.csv", "p.tbl", "--tomogram-list", "none.doc"], "none.doc cannot be read"),
    ],
)
def test_asks_in_one_sentence(
    picks: pd.DataFrame, capfd: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    before = sorted(Path().iterdir())
    status, _, err = run(capfd, *words)
    assert status == 2
    assert says in err
    assert err.count("\n") == 1
    assert sorted(Path().iterdir()) == before


def test_check_writes_nothing(picks: pd.DataFrame, capfd: pytest.CaptureFixture[str]) -> None:
    before = sorted(Path().iterdir())
    status, out, _ = run(capfd, "--check", "picks.star")
    assert status == 0
    assert "taken as" in out or "its comment says size/2" in out
    assert "TS_1: x 80 to 160 of 512, y 8 to 16 of 512, z 40 to 48 of 256 Å" in out
    assert "TS_2: x 240 to 240 of 512, y 24 to 24 of 512, z 56 to 56 of 256 Å" in out
    assert sorted(Path().iterdir()) == before


def test_check_says_what_it_lacks(picks: pd.DataFrame, capfd: pytest.CaptureFixture[str]) -> None:
    particles.write(picks, "p.em", voxel_size=8.0)
    status, out, _ = run(capfd, "--check", "p.em")
    assert status == 0
    assert "a motive list of TOM or AV3" in out
    assert "are unknown: p.em: the voxel size of the tomogram '1' is not known; give it (--voxel-size)" in out
    status, out, _ = run(capfd, "--check", "p.em", "--voxel-size", "8", "--shape", "32,64,16")
    assert status == 0
    assert "1: x 80 to 160 of 128, y 8 to 16 of 512, z 40 to 48 of 256 Å" in out
    assert "2 of 3 particles lie outside of their tomogram" in out


def test_binning_takes_the_voxel_size_that_the_list_holds(
    picks: pd.DataFrame, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(capfd, "picks.star", "r4.star", "--to-format", "relion4", "--binning", "4")[0] == 0
    assert starfile.read("r4.star")["particles"]["rlnCoordinateX"].tolist() == [40.0, 80.0, 120.0]
    assert run(capfd, "r4.star", "back.csv")[0] == 0
    assert particles.read("back.csv")["x"].tolist() == picks["x"].tolist()
    status, _, err = run(capfd, "r4.star", "other.star", "--to-format", "relion4", "--binning", "3")
    assert status == 2
    assert "do not make the voxels of 8 Å" in err


def test_a_table_of_others_in_voxels(picks: pd.DataFrame, capfd: pytest.CaptureFixture[str]) -> None:
    Path("v.csv").write_text("x,y,z\n10,20,30\n")
    status, _, err = run(capfd, "v.csv", "o.csv", "--voxel-size", "8")
    assert status == 2
    assert "x, y, z of v.csv may be Å, or voxels counted from 0; say which (--unit angstrom, or" in err
    assert run(capfd, "v.csv", "o.csv")[0] == 2  # no size says which, either
    for words, x in (
        (["--voxel-size", "8", "--unit", "voxels"], 80.0),
        (["--voxel-size", "8", "--unit", "angstrom"], 10.0),
        (["--from-pixel-size", "2"], 20.0),
        (["--voxel-size", "8", "--shape", "9,9,9"], 10.0),  # no voxels: they would lie outside
    ):
        assert run(capfd, "v.csv", "o.csv", "--overwrite", *words)[0] == 0
        assert particles.read("o.csv")["x"].tolist() == [x]


def test_check_names_the_choices(picks: pd.DataFrame, capfd: pytest.CaptureFixture[str]) -> None:
    Path("p.txt").write_text("1 2 3\n4 5 6\n")
    status, _, err = run(capfd, "--check", "p.txt")
    assert status == 2
    assert "say which by --from imod-text or coords" in err


def test_there_and_back_with_a_sidecar(picks: pd.DataFrame, capfd: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capfd, "picks.star", "models", "--format", "imod", "--sidecar")
    assert status == 0
    assert "kept in models/particles.tl.csv" in out
    status, out, _ = run(capfd, "models", "back.csv", "--from", "imod")
    assert status == 0
    assert "3 of 3 particles have more about them in particles.tl.csv" in out
    pd.testing.assert_frame_equal(particles.read("back.csv"), picks)


def test_a_volume_says_its_size(picks: pd.DataFrame, capfd: pytest.CaptureFixture[str]) -> None:
    with mrcfile.new("TS_1.mrc") as mrc:
        mrc.set_data(np.zeros((32, 64, 60), np.float32))
        mrc.voxel_size = 8.0
    status, out, _ = run(capfd, "picks.csv", "p.star", "--volume", "TS_1.mrc", "--tomogram", "TS_1")
    assert status == 0
    assert "tomogram: x 60, y 64, z 32 voxels" in out
    stars = starfile.read("p.star")["particles"]
    assert stars["rlnCenteredCoordinateXAngst"].tolist() == [80 - 240.0, 160 - 240.0]


def test_particles_outside_are_said(picks: pd.DataFrame, capfd: pytest.CaptureFixture[str]) -> None:
    """The usual sign of a wrong size, centre or binning."""
    status, out, _ = run(capfd, "picks.csv", "p.star", "--voxel-size", "8", "--shape", "32,64,16")
    assert status == 0
    assert "2 of 3 particles lie outside of their tomogram (one lies at x 160, y 16, z 48 Å" in out


def test_both_centre_rules(picks: pd.DataFrame, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["picks.star", "picker.star", "--pixel-size", "2", "--relion-centre", "picker"]
    assert run(capfd, *words)[0] == 0
    apart = starfile.read("picker.star")["particles"]
    extract = starfile.read("picks.star")["particles"]
    name = "rlnCenteredCoordinateXAngst"
    np.testing.assert_allclose(apart[name] - extract[name], 2.0)  # one unbinned pixel
    assert run(capfd, "picker.star", "back.csv")[0] == 0
    assert particles.read("back.csv")["x"].tolist() == picks["x"].tolist()


def test_radii_make_boxes(picks: pd.DataFrame, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["picks.csv", "boxes", "--format", "cbox", "--voxel-size", "8", "--radius", "ribosome=100"]
    assert run(capfd, *words)[0] == 0
    assert starfile.read("boxes/ribosome/TS_1.cbox")["cryolo"]["Width"].tolist() == [25]
    assert run(capfd, "boxes", "back.csv", "--from", "cbox", "--voxel-size", "8")[0] == 0
    back = particles.read("back.csv").sort_values("x", ignore_index=True)
    assert back["class_name"].tolist() == ["ribosome", "fas", "ribosome"]
    assert back["tomogram"].tolist() == ["TS_1", "TS_1", "TS_2"]


def test_from_pixels_to_voxels(picks: pd.DataFrame, capfd: pytest.CaptureFixture[str]) -> None:
    """A list of unbinned pixels, of a tomogram that IMOD binned by averaging boxes."""
    Path("TS_1.coords").write_text("41.5 1.5 1.5\n")
    words = [
        "TS_1.coords",
        "p.xml",
        "--voxel-size",
        "8",
        "--binning",
        "4",
        "--binning-kind",
        "box",
        "--pixels",
        "a",
    ]
    assert run(capfd, *words)[0] == 0
    assert 'x="10.000000" y="0.000000" z="0.000000"' in Path("p.xml").read_text()


def test_lists_its_formats(picks: pd.DataFrame, capfd: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capfd, "--formats")
    assert status == 0
    assert len(out.splitlines()) == 29
    assert "Dynamo table" in out


def test_from_pixels_to_centred(picks: pd.DataFrame, capfd: pytest.CaptureFixture[str]) -> None:
    """RELION 4 to 5 and back needs the pixel size and the unbinned size, and no voxel size."""
    words = ["picks.star", "r4.star", "--format", "relion4", "--pixel-size", "2"]
    assert run(capfd, *words)[0] == 0
    stars = starfile.read("r4.star")
    starfile.write({"particles": stars["particles"]}, "plain.star")  # without what we wrote beside
    words = ["plain.star", "r5.star", "--pixel-size", "2", "--unbinned-shape", "128,256,256"]
    assert run(capfd, *words)[0] == 0
    centred = starfile.read("r5.star")["particles"]["rlnCenteredCoordinateXAngst"]
    assert centred.tolist() == [80 - 256.0, 160 - 256.0, 240 - 256.0]
    assert run(capfd, "r5.star", "back.csv")[0] == 0
    assert particles.read("back.csv")["z"].tolist() == picks["z"].tolist()


def test_sizes_that_are_unusual_get_a_word(picks: pd.DataFrame, capfd: pytest.CaptureFixture[str]) -> None:
    more = ("--shape", "100,200,200", "--voxel-size", "1", "--radius", "ribosome=4")
    status, _, err = run(capfd, "picks.csv", "out.em", *more)
    assert status == 0, err
    assert "unusual: --voxel-size is 1 Å: tomograms to pick in have voxels of 4 to 25 Å; is it in nm?" in err
    assert "unusual: --radius ribosome is 4 Å" in err


def test_rejected_picks_are_left_out_of_other_programs_lists(tlpick, tmp_path: Path) -> None:
    table = particles.make(
        x=[10.0, 20, 30], y=[10.0, 20, 30], z=[10.0, 20, 30], verdict=["accepted", "rejected", ""]
    )
    particles.write(table, tmp_path / "curated.csv")
    done = tlpick(
        "convert", tmp_path / "curated.csv", tmp_path / "kept.star", "--voxel-size", 10, "--shape", "9,9,9"
    )
    assert done.status == 0, done.err
    assert "1 rejected picks are left out" in done.out
    assert len(particles.read(tmp_path / "kept.star")) == 2
    assert tlpick("convert", tmp_path / "curated.csv", tmp_path / "again.csv").status == 0
    assert list(particles.read(tmp_path / "again.csv")["verdict"]) == ["accepted", "rejected", ""]
