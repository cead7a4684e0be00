"""``tlpick`` from the command line: picks on disk, scores, and what it says of bad input."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from catalogs import particles
from catalogs.model_file import fingerprint
from catalogs.particle_formats.base import Context
from catalogs.particle_formats.registry import FORMATS as REGISTRY
from catalogs.volumes import open_volume, write_mrc

Run = Callable[..., Any]


def close(found: pd.DataFrame, truth: pd.DataFrame, within: float) -> bool:
    xyz = [table[["x", "y", "z"]].to_numpy() for table in (found, truth)]
    far = np.linalg.norm(xyz[0][:, None] - xyz[1][None], axis=2)
    return len(found) == len(truth) and bool((far.min(axis=0) < within).all())


def test_dark_balls_are_picked_and_scored(
    tlpick: Run, ball_model: Path, make_balls: Run, tmp_path: Path
) -> None:
    balls = make_balls("tomo-1")
    write_mrc(tmp_path / "tomo-1.mrc", balls.data, 10.0)
    particles.write(balls.truth, tmp_path / "truth.csv", voxel_size=10.0, shape=balls.data.shape)

    done = tlpick("run", ball_model, tmp_path / "tomo-1.mrc", "--to", tmp_path / "picks")
    assert (done.status, done.err) == (0, "")
    assert "tomo-1: 8 ball  (59 x 66 x 40 voxels of 10 Å, 1 tile" in done.out
    assert f"8 ball in 1 tomogram: {tmp_path}/picks/particles.star" in done.out

    picks = particles.read(tmp_path / "picks" / "particles.star")
    assert close(picks, balls.truth, within=8.0)  # the clusters are ragged by noise
    assert set(picks["tomogram"]) == {"tomo-1"}
    assert picks["score"].between(0.6, 1.0).all()
    assert (picks["size"] > 300).all()

    scored = tlpick("score", tmp_path / "picks", tmp_path / "truth.csv")
    assert (scored.status, scored.err) == (0, "")
    first, second, third = scored.out.splitlines()
    assert first.startswith(
        "F1 1.00  precision 1.00  recall 1.00  (ball: 8 found of 8, 0 false; mean distance "
    )
    assert second.startswith("as others count: SHREC'21 1.00 (localisation F1), CZII 1.00 (F-beta 4), ")
    assert third == f"report: {tmp_path}/picks/report.html"
    written = json.loads((tmp_path / "picks" / "score.json").read_text())
    assert written["classes"]["ball"]["f1"] == 1.0
    assert written["classes"]["ball"]["radius_A"] == 50.0


def test_picks_go_to_every_format_that_is_asked_for(
    tlpick: Run, ball_model: Path, make_balls: Run, tmp_path: Path
) -> None:
    for name in ("tomo-1", "tomo-2"):
        balls = make_balls(name)
        write_mrc(tmp_path / f"{name}.mrc", balls.data, 10.0)
    command = ("run", ball_model, tmp_path / "*.mrc", "--to", tmp_path / "picks")
    assert tlpick(*command, "--format", "dynmo").err.startswith("tlpick: there is no format 'dynmo'")
    assert not (tmp_path / "picks").exists()

    refused = tlpick(*command, "--format", "relion5-set")
    assert refused.err == (
        "tlpick: --format relion5-set names the tomograms; give them by --tomograms-star\n"
    )
    assert not (tmp_path / "picks").exists()

    asked = [word for name in REGISTRY for word in ("--format", name)]
    done = tlpick(*command, *asked, "--pixel-size", 2.5, "--tomograms-star", "tomograms.star")
    assert (done.status, done.err) == (0, "")
    picks = particles.read(tmp_path / "picks" / "particles.star")
    context = Context(voxel_size=10.0, shape=balls.data.shape, pixel_size=2.5)
    for name, format in REGISTRY.items():
        lists = (tmp_path / "picks" / "lists").glob(f"{name}*")
        [place] = [path for path in lists if path.stem == name and path.suffix != ".doc"]
        found = particles.load(place, name, context=context).table
        assert len(found) == len(picks), name
        if format.rounding <= 0.01:
            mine, theirs = (
                np.sort(t[["x", "y", "z"]].to_numpy() @ np.array([1, 0.1, 0.01])) for t in (found, picks)
            )
            assert np.allclose(mine, theirs, atol=0.05), name


def test_the_segmentation_is_an_image_with_labels(
    tlpick: Run, ball_model: Path, make_balls: Run, tmp_path: Path
) -> None:
    import zarr

    balls = make_balls("tomo-1")
    write_mrc(tmp_path / "tomo-1.mrc", balls.data, 10.0)
    command = ("run", ball_model, tmp_path / "tomo-1.mrc", "--to", tmp_path / "picks")
    tlpick(*command)
    path = tmp_path / "picks" / "tomo-1" / "segmentation.zarr"
    assert not path.exists()  # nobody asked for it
    tlpick(*command, "--keep-segmentation", "zarr")
    score, labels = open_volume(path), open_volume(path / "labels" / "classes")
    assert score.voxel_size == labels.voxel_size == 10.0
    assert score.shape == labels.shape == balls.data.shape
    assert ((labels.read() == 1) == (score.read() >= 127.5)).all()
    assert zarr.open_group(path, mode="r")["labels"].attrs["ome"]["labels"] == ["classes"]


def test_tiles_and_workers_change_nothing(
    tlpick: Run, ball_model: Path, make_balls: Run, tmp_path: Path
) -> None:
    write_mrc(tmp_path / "tomo-1.mrc", make_balls("tomo-1").data, 10.0)
    for edge in (192, 30):
        folder = tmp_path / f"tile-{edge}"
        done = tlpick("run", ball_model, tmp_path / "tomo-1.mrc", "--to", folder, "--tile", edge)
        assert done.status == 0
    assert "1 tile," not in done.out
    one, many = (tmp_path / f"tile-{edge}" / "particles.star" for edge in (192, 30))
    assert one.read_text() == many.read_text()


@pytest.mark.slow
def test_two_workers_write_what_one_does(
    tlpick: Run, ball_model: Path, make_balls: Run, tmp_path: Path
) -> None:
    paths = [tmp_path / f"tomo-{k}.mrc" for k in range(3)]
    for path in paths:
        write_mrc(path, make_balls(path.stem).data, 10.0)
    paths.insert(1, tmp_path / "absent.mrc")
    for workers in (1, 2):
        done = tlpick("run", ball_model, *paths, "--to", tmp_path / f"by-{workers}", "--workers", workers)
        assert done.status == 1
        assert "24 ball in 3 tomograms" in done.out
    one, two = (tmp_path / f"by-{workers}" / "particles.star" for workers in (1, 2))
    assert one.read_text() == two.read_text()


def test_a_sample_of_a_corpus_is_picked_and_is_its_own_truth(
    tlpick: Run, ball_model: Path, make_balls: Run, sample: Callable[[Any], str], tmp_path: Path
) -> None:
    url = sample(make_balls("demo-1"))
    assert tlpick("run", ball_model, url, "--to", tmp_path / "picks").status == 0
    scored = tlpick("score", tmp_path / "picks", url)
    assert (scored.status, scored.err) == (0, "")
    assert scored.out.startswith("F1 1.00  precision 1.00  recall 1.00  (ball: 8 found of 8, 0 false")
    page = (tmp_path / "picks" / "report.html").read_text()
    assert "<h1>ball in demo-1</h1>" in page

    # A bare list has the radius of the corpus to go by.
    alone = tmp_path / "alone.csv"
    particles.read(tmp_path / "picks" / "particles.star").to_csv(alone, index=False)
    assert tlpick("score", alone, url).out.startswith("F1 1.00")
    assert tlpick("score", alone, url, "--radius", 0.01).out.startswith("F1 0.00")


def test_another_voxel_size_is_refused_or_resampled(
    tlpick: Run, ball_model: Path, make_balls: Run, tmp_path: Path
) -> None:
    fine = make_balls("fine", shape=(75, 131, 118), voxel_size=5.0, contrast=0.4)
    write_mrc(tmp_path / "fine.mrc", fine.data, 5.0)
    refused = tlpick("run", ball_model, tmp_path / "fine.mrc", "--to", tmp_path / "picks")
    assert refused.status == 2
    assert "fine.mrc has voxels of 5 Å, the model 'balls' was trained at 10 Å" in refused.err
    assert "--rescale" in refused.err

    options = ("--to", tmp_path / "picks", "--rescale", "--keep-segmentation", "zarr", "--fdr", "off")
    done = tlpick("run", ball_model, tmp_path / "fine.mrc", *options)
    assert (done.status, done.err) == (0, "")
    picks = particles.read(tmp_path / "picks" / "particles.star")
    assert close(picks, fine.truth, within=8.0)  # the clusters are ragged by noise; see test_pipeline
    assert open_volume(tmp_path / "picks" / "fine" / "segmentation.zarr").voxel_size == 10.0
    # The list is centred on the tomogram that it belongs to, not on the resampled one.
    star = (tmp_path / "picks" / "particles.star").read_text()
    assert "tlVoxelSize" in star
    assert "118" in star


def test_a_voxel_size_may_be_given_and_may_be_a_little_off(
    tlpick: Run, ball_model: Path, make_balls: Run, tmp_path: Path
) -> None:
    balls = make_balls("tomo-1")
    write_mrc(tmp_path / "tomo-1.mrc", balls.data, 0.0)
    refused = tlpick("run", ball_model, tmp_path / "tomo-1.mrc", "--to", tmp_path / "picks")
    assert refused.status == 2
    assert "tomo-1.mrc does not state its voxel size; give it with --voxel-size" in refused.err

    options = ("--to", tmp_path / "picks", "--voxel-size", 10.1)
    assert tlpick("run", ball_model, tmp_path / "tomo-1.mrc", *options).status == 0
    picks = particles.read(tmp_path / "picks" / "particles.star")
    assert close(picks, balls.truth, within=15.0)
    assert picks[["x", "y", "z"]].to_numpy().sum() == pytest.approx(
        1.01 * balls.truth[["x", "y", "z"]].to_numpy().sum(), rel=0.003
    )


def test_what_is_done_is_not_done_again(
    tlpick: Run, ball_model: Path, make_balls: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tlpick.network import model

    segmented = []
    honest = model.segment

    def counting(*arguments: Any, **options: Any) -> Any:
        segmented.append(1)
        return honest(*arguments, **options)

    monkeypatch.setattr(model, "segment", counting)
    for name in ("tomo-1", "tomo-2"):
        write_mrc(tmp_path / f"{name}.mrc", make_balls(name).data, 10.0)

    def pick(*arguments: Any) -> Any:
        return tlpick("run", ball_model, *arguments, "--to", tmp_path / "picks", "--decoys", "off")

    one, two = tmp_path / "tomo-1.mrc", tmp_path / "tomo-2.mrc"
    pick(one)
    assert len(segmented) == 1
    both = pick(one, two)  # only the second is new
    assert len(segmented) == 2
    assert "16 ball in 2 tomograms" in both.out
    assert "16 ball in 2 tomograms" in pick(two).out  # the first is still of this run
    assert len(segmented) == 2
    (tmp_path / "picks" / "tomo-1" / "done.json").unlink()  # as if killed
    pick(one, two)
    assert len(segmented) == 3
    write_mrc(one, make_balls("tomo-3", n=7).data, 10.0)  # another tomogram under the old name
    assert "15 ball in 2 tomograms" in pick(one, two).out
    assert len(segmented) == 4
    assert "15 ball in 2 tomograms" in pick(one, two, "--tile", 40).out  # makes no difference
    assert len(segmented) == 4
    pick(one, two, "--min-size", 0.5)
    assert len(segmented) == 6
    run = json.loads((tmp_path / "picks" / "run.json").read_text())
    assert [tomogram["name"] for tomogram in run["tomograms"]] == ["tomo-1", "tomo-2"]
    assert run["model"]["fingerprint"] == fingerprint(ball_model)
    assert run["radii"] == {"ball": 50.0}


def test_one_bad_tomogram_does_not_stop_the_others(
    tlpick: Run, ball_model: Path, make_balls: Run, tmp_path: Path
) -> None:
    good = make_balls("good")
    write_mrc(tmp_path / "good.mrc", good.data, 10.0)
    write_mrc(tmp_path / "flat.mrc", np.zeros((8, 8, 8), np.float32), 10.0)
    (tmp_path / "cut.mrc").write_bytes((tmp_path / "good.mrc").read_bytes()[:3000])
    paths = [tmp_path / f"{name}.mrc" for name in ("flat", "absent", "cut", "good")]
    done = tlpick("run", ball_model, *paths, "--to", tmp_path / "picks")
    assert done.status == 1
    assert "8 ball in 1 tomogram" in done.out
    *failures, last = done.err.splitlines()
    assert len(failures) == 3
    for line, name in zip(failures, ("flat", "absent", "cut"), strict=True):
        assert line.startswith("FAILED")
        assert f"{name}.mrc" in line
    assert last == "3 of 4 tomograms failed; the same command tries them again"
    run = json.loads((tmp_path / "picks" / "run.json").read_text())
    assert len(run["failed"]) == 3


def test_two_tomograms_of_one_name_are_refused(
    tlpick: Run, ball_model: Path, make_balls: Run, tmp_path: Path
) -> None:
    for folder in ("a", "b"):
        write_mrc(tmp_path / folder / "tomo.mrc", make_balls("tomo", n=2).data, 10.0)
    refused = tlpick(
        "run", ball_model, tmp_path / "a/tomo.mrc", tmp_path / "b/tomo.mrc", "--to", tmp_path / "p"
    )
    assert refused.status == 2
    assert "a/tomo.mrc" in refused.err
    assert "b/tomo.mrc are both named 'tomo'" in refused.err
    assert not (tmp_path / "p").exists()


def refusal(outcome: Any) -> str:
    """The one sentence on stderr of a program that ends with status 2."""
    assert outcome.status == 2
    assert outcome.out == ""
    [line] = outcome.err.splitlines()
    assert line.startswith("tlpick: ")
    assert "Error" not in line
    return str(line)


def test_run_refuses_what_is_no_tomogram_and_no_model(
    tlpick: Run, ball_model: Path, make_balls: Run, tmp_path: Path
) -> None:
    tomogram = tmp_path / "tomo-1.mrc"
    write_mrc(tomogram, make_balls("tomo-1", n=1).data, 10.0)
    to = ("--to", tmp_path / "picks")
    (tmp_path / "note.txt").write_text("no model")
    (tmp_path / "holes.mrc").write_bytes(tomogram.read_bytes())
    write_mrc(tmp_path / "holes.mrc", np.full((8, 8, 8), np.nan, np.float32), 10.0)

    assert "there is no volume" in refusal(tlpick("run", ball_model, tmp_path / "absent.mrc", *to))
    (tmp_path / "note.dat").write_text("no volume")
    assert "note.dat is not a volume" in refusal(tlpick("run", ball_model, tmp_path / "note.dat", *to))
    assert "there is no volume no model" in refusal(tlpick("run", ball_model, tmp_path / "note.txt", *to))
    assert "holes.mrc: the volume holds" in refusal(tlpick("run", ball_model, tmp_path / "holes.mrc", *to))
    assert "there is no model" in refusal(tlpick("run", tmp_path / "absent.tlm", tomogram, *to))
    assert "note.txt is not a model file" in refusal(tlpick("run", tmp_path / "note.txt", tomogram, *to))
    assert "--tile 8" not in refusal(tlpick("run", ball_model, tomogram, *to, "--tile", 4))
    assert "Missing option '--to'" in refusal(tlpick("run", ball_model, tomogram))


def test_score_refuses_what_are_no_picks(tlpick: Run, picked: Path, tmp_path: Path) -> None:
    truth = tmp_path / "truth.csv"
    truth.write_text("tomogram,class_name,x,y,z\ntomo-1,ball,1,2,3\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "note.txt").write_text("no picks")
    (tmp_path / "wrong.star").write_text("no STAR file")
    assert "empty is not the folder of a run" in refusal(tlpick("score", tmp_path / "empty", truth))
    assert "absent does not exist" in refusal(tlpick("score", tmp_path / "absent", truth))
    assert "note.txt" in refusal(tlpick("score", tmp_path / "note.txt", truth))
    assert "wrong.star" in refusal(tlpick("score", tmp_path / "wrong.star", truth))
    (picked / "run.json").write_text("{}")
    assert "run.json is damaged" in refusal(tlpick("score", picked, truth))


def test_score_refuses_truth_that_does_not_fit(tlpick: Run, picked: Path, tmp_path: Path) -> None:
    def truth(text: str, name: str = "truth.csv") -> Path:
        (tmp_path / name).write_text(text)
        return tmp_path / name

    other = truth("tomogram,class_name,x,y,z\ntomo-1,brick,1,2,3\n")
    line = refusal(tlpick("score", picked, other))
    assert "truth.csv has the classes brick, the picks" in line
    assert "have ball; none is in both" in line
    elsewhere = truth("tomogram,class_name,x,y,z\ntomo-9,ball,1,2,3\ntomo-8,ball,1,2,3\n")
    assert "the truth of tomo-9, tomo-8, but" in refusal(tlpick("score", picked, elsewhere))
    assert "absent.star" in refusal(tlpick("score", picked, tmp_path / "absent.star"))
    assert "absent.zarr does not exist" in refusal(tlpick("score", picked, tmp_path / "absent.zarr"))
    assert "truth.txt" in refusal(tlpick("score", picked, truth("x", "truth.txt")))
    assert "picks is not a sample" in refusal(tlpick("score", picked, picked))
    bare = truth("tomogram,class_name,x,y,z,score\ntomo-1,ball,1,2,3,0.5\n", "bare.csv")
    good = truth("tomogram,class_name,x,y,z\ntomo-1,ball,1,2,3\n")
    assert "radius of ball is unknown" in refusal(tlpick("score", bare, good))
    assert tlpick("score", bare, good, "--radius", 10).out.startswith("F1 1.00")


def test_relion_truth_of_another_program_gets_its_sizes_from_the_run(
    tlpick: Run, picked: Path, tmp_path: Path
) -> None:
    picks = particles.read(picked / "particles.star")
    rows = [f"tomo-1 {x - 295} {y - 330} {z - 200} ball" for x, y, z in picks[["x", "y", "z"]].to_numpy()]
    columns = ("rlnTomoName", *(f"rlnCenteredCoordinate{axis}Angst" for axis in "XYZ"), "tlClassName")
    text = "data_particles\n\nloop_\n" + "".join(f"_{name}\n" for name in columns) + "\n".join(rows) + "\n"
    (tmp_path / "truth.star").write_text(text)
    assert "mean distance 0.0 Å" in tlpick("score", picked, tmp_path / "truth.star").out


@pytest.mark.slow
def test_nothing_is_said_on_stderr_by_a_run_of_its_own(
    ball_model: Path, make_balls: Run, tmp_path: Path
) -> None:
    write_mrc(tmp_path / "tomo-1.mrc", make_balls("tomo-1", n=2).data, 10.0)
    code = "import sys, tlpick.cli; sys.argv[0] = 'tlpick'; tlpick.cli.main()"
    arguments = ["run", ball_model, tmp_path / "tomo-1.mrc", "--to", tmp_path / "picks"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
