"""``tlpick score``: every kind of truth, the reviewed region, and thresholds asked for by precision."""

from __future__ import annotations

import bz2
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import emfile
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from catalogs import particles
from catalogs.errors import InputError
from catalogs.model_file import read_card, with_card
from catalogs.volumes import write_mrc
from tlpick.cli_options import localising_options
from tlpick.evaluation.calibrate import fit
from tlpick.evaluation.truth import Truth, hits

Run = Callable[..., Any]


def inside_balls(truth: pd.DataFrame, shape: tuple[int, int, int]) -> NDArray[np.int8]:
    z, y, x = (np.arange(n) * 10.0 for n in shape)
    labels = np.zeros(shape, np.int8)
    for cx, cy, cz in truth[["x", "y", "z"]].to_numpy():
        labels[(z[:, None, None] - cz) ** 2 + (y[:, None] - cy) ** 2 + (x - cx) ** 2 <= 50.0**2] = 1
    return labels


def test_a_whole_corpus_is_the_truth_of_its_samples(
    tlpick: Run, ball_model: Path, make_balls: Run, sample: Callable[[Any], str], tmp_path: Path
) -> None:
    url = sample(make_balls("demo-1"))
    tlpick("run", ball_model, url, "--to", tmp_path / "picks")
    by_sample = tlpick("score", tmp_path / "picks", url)
    by_corpus = tlpick("score", tmp_path / "picks", url.rpartition("/samples/")[0])
    assert by_corpus.status == 0
    assert by_corpus.out == by_sample.out
    assert "<h1>ball in demo-1</h1>" in (tmp_path / "picks" / "report.html").read_text()


def test_a_label_volume_is_a_truth(tlpick: Run, picked: Path, make_balls: Run, tmp_path: Path) -> None:
    labels = inside_balls(make_balls("tomo-1").truth, (40, 66, 59))
    write_mrc(tmp_path / "labels.mrc", labels, 10.0)
    scored = tlpick("score", picked, tmp_path / "labels.mrc")
    assert (scored.status, scored.err) == (0, "")
    assert scored.out.startswith("F1 1.00  precision 1.00  recall 1.00  (ball: 8 found of 8")
    # finer voxels are no hindrance: places are in Å
    (tmp_path / "packed.mrc.bz2").write_bytes(bz2.compress((tmp_path / "labels.mrc").read_bytes()))
    assert "8 found of 8" in tlpick("score", picked, tmp_path / "packed.mrc.bz2").out
    emfile.write(tmp_path / "labels.em", labels.astype(np.float32), {})  # not a list, as .em may be
    assert "8 found of 8" in tlpick("score", picked, tmp_path / "labels.em").out
    write_mrc(tmp_path / "fine.mrc", labels.repeat(2, 0).repeat(2, 1).repeat(2, 2), 5.0)
    assert "8 found of 8" in tlpick("score", picked, tmp_path / "fine.mrc").out

    write_mrc(tmp_path / "strange.mrc", labels * np.int8(7), 10.0)
    refused = tlpick("score", picked, tmp_path / "strange.mrc")
    assert refused.status == 2
    assert "strange.mrc has the value 7, no label of the model (1 ball; 0 is background)" in refused.err
    alone = tmp_path / "alone.csv"
    particles.read(picked / "particles.star").to_csv(alone, index=False)
    assert "only in the folder of a run" in tlpick("score", alone, tmp_path / "labels.mrc").err


def test_only_the_reviewed_region_counts(tlpick: Run, picked: Path, make_balls: Run, tmp_path: Path) -> None:
    truth = make_balls("tomo-1").truth.sort_values("x", ignore_index=True)
    gaps = np.diff(truth["x"])[1:6]
    n = int(gaps.argmax()) + 2
    particles.write(truth[:n], tmp_path / "half.csv", voxel_size=10.0, shape=(40, 66, 59))
    assert f"precision {n / 8:.2f}  recall 1.00" in tlpick("score", picked, tmp_path / "half.csv").out
    mask = np.zeros((40, 66, 59), np.int8)
    mask[:, :, : round((truth["x"][n - 1] + truth["x"][n]) / 20) + 1] = 1  # somebody looked at the left part
    write_mrc(tmp_path / "mask.mrc", mask, 10.0)
    scored = tlpick("score", picked, tmp_path / "half.csv", "--reviewed", tmp_path / "mask.mrc")
    assert f"F1 1.00  precision 1.00  recall 1.00  (ball: {n} found of {n}" in scored.out
    assert "only the reviewed region" in scored.err
    assert f"{n} of 8 picks and {n} of {n} particles" in scored.err
    (tmp_path / "masks").mkdir()
    missing = tlpick("score", picked, tmp_path / "half.csv", "--reviewed", tmp_path / "masks")
    assert missing.status == 2
    assert "has no mask for the tomogram tomo-1" in missing.err
    (tmp_path / "mask.mrc").rename(tmp_path / "masks" / "tomo-1.mrc")
    again = tlpick("score", picked, tmp_path / "half.csv", "--reviewed", tmp_path / "masks")
    assert again.out == scored.out


@pytest.mark.parametrize("option", ["--mask", "--crop"])
def test_only_what_the_run_looked_at_counts(
    tlpick: Run, ball_model: Path, make_balls: Run, tmp_path: Path, option: str
) -> None:
    balls = make_balls("tomo-1")
    write_mrc(tmp_path / "tomo-1.mrc", balls.data, 10.0)
    particles.write(balls.truth, tmp_path / "truth.csv", voxel_size=10.0, shape=balls.data.shape)
    axis = "x" if option == "--mask" else "z"
    places = np.sort(balls.truth[axis])
    n = int(np.diff(places)[2:6].argmax()) + 3
    edge = round((places[n - 1] + places[n]) / 20) + 1
    mask = np.zeros(balls.data.shape, np.int8)
    mask[:, :, :edge] = 1
    write_mrc(tmp_path / "mask.mrc", mask, 10.0)
    value = tmp_path / "mask.mrc" if option == "--mask" else f":{edge}"
    to = ("--to", tmp_path / "picks", "--fdr", "off")
    done = tlpick("run", ball_model, tmp_path / "tomo-1.mrc", *to, option, value)
    assert (done.status, done.err) == (0, "")
    scored = tlpick("score", tmp_path / "picks", tmp_path / "truth.csv", "--radius", 60)
    assert "recall 1.00" in scored.out
    assert f"only what the run looked at counts: {n} of {n} picks and {n} of 8 particles" in scored.err


def test_score_json_has_every_figure(tlpick: Run, picked: Path, make_balls: Run, tmp_path: Path) -> None:
    truth = make_balls("tomo-1").truth.assign(x=lambda t: t["x"] + 20.0)
    particles.write(truth, tmp_path / "truth.csv", voxel_size=10.0, shape=(40, 66, 59))
    tlpick("score", picked, tmp_path / "truth.csv")
    written = json.loads((picked / "score.json").read_text())
    ball = written["classes"]["ball"]
    assert ball["auc"] == 1.0
    assert ball["mean_offset_A"][0] == pytest.approx(-20.0, abs=3.0)
    assert ball["interval_95"]["f1"] == [None, None]
    assert written["confusion"] == {"ball": {"ball": 8, "none": 0}, "none": {"ball": 0, "none": 0}}
    assert set(written["field"]) == {"SHREC'21", "CZII", "DeePiCt", "octopi", "DeepFinder", "box IoU 0.6"}
    assert written["field"]["CZII"]["classes"]["ball"] == {
        "right": 8, "wrong": 0, "missed": 0, "redundant": 0
    }  # fmt: skip


def test_lists_of_other_programs_get_what_they_leave_open_from_the_run(
    tlpick: Run, picked: Path, make_balls: Run, tmp_path: Path
) -> None:
    truth = make_balls("tomo-1").truth
    for name in ("truth.xml", "truth.cmm", "truth.tbl"):
        particles.write(truth, tmp_path / name, voxel_size=10.0, shape=(40, 66, 59))
        scored = tlpick("score", picked, tmp_path / name)
        assert (scored.status, scored.err) == (0, "")
        assert "8 found of 8, 0 false" in scored.out


def test_an_instance_volume_says_in_which_particle_a_pick_lies(tmp_path: Path) -> None:
    instances = np.zeros((10, 12, 14), np.uint16)
    instances[2:5, 2:5, 2:5] = 7
    instances[6:9, 6:9, 8:12] = 9
    write_mrc(tmp_path / "t.mrc", instances, 10.0)
    there = particles.make(tomogram="t", class_name="a", x=[30, 100], y=[30, 70], z=[30, 70], instance=[9, 7])
    truth = Truth("x", there, ["t"], {}, {}, {"t": str(tmp_path / "t.mrc")}, {"t": lambda: instances})
    inside = hits(truth)
    assert inside is not None
    # in the middle of 7, one voxel beside it, two beside it, in 9, far outside of the volume
    ours = particles.make(
        tomogram="t", x=[30, 50, 60, 110, -500], y=[30, 30, 30, 70, 70], z=[30, 30, 30, 70, 70]
    )
    assert inside(ours, there).tolist() == [1, 1, -1, 0, -1]
    assert hits(Truth("x", there, ["t", "u"], {}, instances={"t": lambda: instances})) is None


@pytest.fixture
def calibrated(ball_model: Path, tmp_path: Path) -> Path:
    """The model, as if half of its picks with scores of 0 to 1 were right."""
    scores = np.linspace(0.0, 1.0, 400)
    right = (np.arange(400) * 7919) % 400 < np.arange(400)
    card = read_card(ball_model)
    made = fit(scores, right, n_truth=250, radius=50.0)
    with_card(ball_model, card.model_copy(update={"calibration": {"ball": made}}), tmp_path / "c.tlm")
    return tmp_path / "c.tlm"


def test_a_precision_is_asked_for_and_another_needs_no_picking(
    tlpick: Run, calibrated: Path, ball_model: Path, make_balls: Run, tmp_path: Path
) -> None:
    write_mrc(tmp_path / "tomo-1.mrc", make_balls("tomo-1").data, 10.0)
    to = tmp_path / "picks"
    run = ("run", calibrated, tmp_path / "tomo-1.mrc", "--to", to)
    assert "8 ball in 1 tomogram" in tlpick(*run, "--fdr", "off").out
    every = particles.read(to / "particles.star")
    made = read_card(calibrated).calibration["ball"]
    np.testing.assert_allclose(every["calibrated"], made.probability(every["score"]), atol=1e-6)

    least = made.for_precision(0.85)
    expected = int((every["score"] >= least.threshold).sum())
    done = tlpick(*run, "--precision", 0.85)
    assert f"ball: score at least {least.threshold:.3f}, expected precision 0.85 (" in done.out
    assert f"by {least.n_picks} held-out picks" in done.out
    assert f"{expected} ball in 1 tomogram" in done.out
    assert len(particles.read(to / "particles.star")) == expected
    assert len(particles.read(to / "tomo-1" / "particles.star")) == expected
    assert len(particles.read(to / "tomo-1" / "particles.all.star")) == 8
    page = (to / "report.html").read_text()
    assert "<h2>Thresholds</h2>" in page

    both = tlpick(*run, "--fdr", 0.1, "--precision", 0.9)
    assert both.status == 2
    assert "--fdr and --precision all say which picks are kept; give one of them" in both.err
    too_much = tlpick(*run, "--precision", 0.9999)
    assert "no score of ball reaches a precision of 0.9999" in too_much.err
    bare = tlpick("run", ball_model, tmp_path / "tomo-1.mrc", "--to", to, "--precision", 0.9)
    assert "is not calibrated, so no precision can be promised; run tlpick calibrate" in bare.err


def test_sizes_are_given_for_all_or_for_one_class() -> None:
    made = localising_options(min_size=("0.2", "ribosome=0.4"), max_size=("proteasome=3",))
    assert (made.min_size, made.max_size) == (0.2, None)
    assert made.sizes == {"proteasome": (0.2, 3.0), "ribosome": (0.4, None)}
    for bad in ("a lot", "ribosome=", "-1", "nan"):
        with pytest.raises(InputError, match=r"is not a size; give a share of a particle's volume"):
            localising_options(min_size=(bad,))
    with pytest.raises(InputError, match=r"--min-size of a is 2, more than --max-size of a, 1"):
        localising_options(min_size=("a=2",), max_size=("1",))


def test_a_class_that_the_model_does_not_know_is_refused(
    tlpick: Run, ball_model: Path, make_balls: Run, tmp_path: Path
) -> None:
    write_mrc(tmp_path / "tomo-1.mrc", make_balls("tomo-1", n=1).data, 10.0)
    run = ("run", ball_model, tmp_path / "tomo-1.mrc", "--to", tmp_path / "p")
    refused = tlpick(*run, "--min-size", "bal=0.3")
    assert refused.status == 2
    assert "names the class 'bal', the model 'balls' picks ball; did you mean 'ball'?" in refused.err


def test_one_tomogram_and_the_truth_of_one_are_joined_whatever_they_are_called(
    tlpick: Run, ball_model: Path, make_balls: Run, sample: Callable[[Any], str], tmp_path: Path
) -> None:
    tomogram = make_balls("held-out-7")
    write_mrc(tmp_path / "held-out-7.mrc", tomogram.data, 10.0)
    url = sample(make_balls("demo-1"))
    assert tlpick("run", ball_model, tmp_path / "held-out-7.mrc", "--to", tmp_path / "picks").status == 0
    for truth in (url, url.rpartition("/samples/")[0]):
        scored = tlpick("score", tmp_path / "picks", truth)
        assert scored.status == 0, scored.err
        assert "the truth of demo-1 is used as that of held-out-7: each is the only one" in scored.err
        assert scored.out.startswith("F1 ")
    tomogram.truth.assign(tomogram="other").to_csv(tmp_path / "other.csv", index=False)
    assert tlpick("score", tmp_path / "picks", tmp_path / "other.csv").out.startswith("F1 1.00")


def test_one_tomogram_is_joined_with_one_of_many(tlpick: Run, picked: Path, tmp_path: Path) -> None:
    ours = particles.read(picked / "particles.star")
    far = ours.assign(x=ours["x"] + 300.0)
    named = [("b-1", ours), ("b-2", far), ("tomo-1", far)]
    for tables in (named[:2], named):  # without and with one of the name that was picked
        rows = pd.concat([table.assign(tomogram=name) for name, table in tables])
        rows.drop(columns="score").to_csv(tmp_path / "truth.csv", index=False)
        scored = tlpick("score", picked, tmp_path / "truth.csv", "--join", "tomo-1=b-1")
        assert (scored.status, scored.out[:7]) == (0, "F1 1.00"), scored.err


def test_tomograms_of_other_names_are_joined_by_an_option(
    tlpick: Run, ball_model: Path, make_balls: Run, tmp_path: Path
) -> None:
    one, two = make_balls("a-1"), make_balls("a-2")
    for name, balls in (("a-1", one), ("a-2", two)):
        write_mrc(tmp_path / f"{name}.mrc", balls.data, 10.0)
    assert tlpick("run", ball_model, tmp_path / "a-*.mrc", "--to", tmp_path / "picks").status == 0
    truth = pd.concat([one.truth.assign(tomogram="b-1"), two.truth.assign(tomogram="b-2")])
    truth.to_csv(tmp_path / "truth.csv", index=False)
    refused = tlpick("score", tmp_path / "picks", tmp_path / "truth.csv")
    assert refused.status == 2
    assert "or join them: --join a-1=b-1" in refused.err
    both = ("--join", "a-1=b-1", "--join", "a-2=b-2")
    scored = tlpick("score", tmp_path / "picks", tmp_path / "truth.csv", *both)
    assert (scored.status, scored.out[:7]) == (0, "F1 1.00")
    for pair, words in (
        ("a-1", "--join a-1 is not a pair of names"),
        ("x=b-1", "no tomogram x was picked"),
        ("a-1=b-3", "has no tomogram b-3; did you mean 'b-"),
    ):
        refused = tlpick("score", tmp_path / "picks", tmp_path / "truth.csv", "--join", pair)
        assert (refused.status, words in refused.err) == (2, True), refused.err


def test_a_sample_is_picked_under_its_name_and_a_folder_is_its_tomograms(
    tlpick: Run, ball_model: Path, make_balls: Run, sample: Callable[[Any], str], tmp_path: Path
) -> None:
    url = sample(make_balls("demo-1"))
    corpus = url.rpartition("/samples/")[0]
    for source in (url, corpus):
        folder = tmp_path / f"picks-{source == url}"
        assert tlpick("run", ball_model, source, "--to", folder).status == 0
        assert set(particles.read(folder / "particles.star")["tomogram"]) == {"demo-1"}
        assert (folder / "demo-1" / "done.json").exists()
        assert tlpick("score", folder, corpus).out.startswith("F1 1.00")
    tomograms = tmp_path / "tomograms"
    tomograms.mkdir()
    for name in ("t-1", "t-2"):
        write_mrc(tomograms / f"{name}.mrc", make_balls(name).data, 10.0)
    (tomograms / "notes.md").write_text("not a tomogram\n")
    assert tlpick("run", ball_model, f"{tomograms}/", "--to", tmp_path / "folder").status == 0
    assert set(particles.read(tmp_path / "folder/particles.star")["tomogram"]) == {"t-1", "t-2"}
    refused = tlpick("run", ball_model, tmp_path, "--to", tmp_path / "none")
    assert refused.status == 2
    assert f"'{tmp_path}/*/*.mrc' takes those one folder below" in refused.err
