"""Runs that tell how many picks are wrong, look in the ice only, and leave masks and other choices behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from catalogs import particles
from catalogs.seeds import generator
from catalogs.volumes import open_volume, write_mrc

Run = Callable[..., Any]


@pytest.fixture
def blobs(tmp_path: Path) -> Path:
    """Noise with blobs of the size of a ball, and nothing else: a tomogram without the particle."""
    noise = generator("blobs").standard_normal((48, 96, 96), np.float32)
    blurred = gaussian_filter(noise, 3.0)
    write_mrc(tmp_path / "blobs.mrc", blurred / blurred.std() + 0.3 * noise, 10.0)
    return tmp_path / "blobs.mrc"


def test_nothing_is_promised_of_picks_that_noise_has_too(
    tlpick: Run, ball_model: Path, blobs: Path, tmp_path: Path
) -> None:
    to = tmp_path / "picks"
    done = tlpick("run", ball_model, blobs, "--to", to)
    assert done.status == 0, done.err
    assert "blobs: no ball that stands out" in done.out
    assert "no precision is promised" in done.out
    assert len(particles.read(to / "particles.star")) == 0
    every = particles.read(to / "particles.all.star")
    assert len(every) > 20
    assert json.loads((to / "blobs" / "done.json").read_text())["stands_out"] == {"ball": False}
    forced = tlpick("run", ball_model, blobs, "--to", to, "--top", 5)
    assert "(picked before)" in forced.out
    assert "no precision is promised" in forced.out
    kept = particles.read(to / "particles.star")
    assert kept["score"].tolist() == sorted(every["score"], reverse=True)[:5]
    off = tlpick("run", ball_model, blobs, "--to", to, "--fdr", "off")
    assert f"{len(every)} ball in 1 tomogram" in off.out


def test_balls_stand_out_and_other_choices_need_no_picking(
    tlpick: Run, ball_model: Path, make_balls: Run, tmp_path: Path
) -> None:
    write_mrc(tmp_path / "tomo-1.mrc", make_balls("tomo-1").data, 10.0)
    to = tmp_path / "picks"
    done = tlpick("run", ball_model, tmp_path / "tomo-1.mrc", "--to", to)
    assert "tomo-1: 8 ball (at least about 3 % of them wrong; --fdr 0.1 keeps 8)" in done.out
    table = particles.read(to / "particles.star")
    assert (table["wrong"] <= 0.04).all()
    assert len(particles.read(to / "tomo-1" / "particles.all.star")) == 8
    chosen = tlpick("select", to, "--top", 3, "--to", tmp_path / "three.star")
    assert chosen.status == 0, chosen.err
    assert "3 picks: " in chosen.out
    three = particles.read(tmp_path / "three.star")
    assert sorted(three["score"]) == sorted(table["score"])[-3:]
    strict = tlpick("select", to, "--fdr", 0.01, "--to", tmp_path / "none.star")
    assert "0 picks: " in strict.out
    for wrong, words in (
        (("--fdr", "some"), "is not a share of wrong picks"),
        (("--top", 3, "--fdr", "off"), "--fdr and --top all say which picks are kept"),
    ):
        refused = tlpick("select", to, *wrong, "--to", tmp_path / "x.star")
        assert refused.status == 2
        assert words in refused.err
    nowhere = tlpick("select", tmp_path, "--to", tmp_path / "x.star")
    assert nowhere.status == 2
    assert "is not the folder of a run" in nowhere.err

    off = tlpick("run", ball_model, tmp_path / "tomo-1.mrc", "--to", to, "--decoys", "off")
    assert "wrong" not in off.out
    assert not (to / "tomo-1" / "decoys.star").exists()
    refused = tlpick("run", ball_model, tmp_path / "tomo-1.mrc", "--to", to, "--decoys", "off", "--fdr", 0.1)
    assert refused.status == 2
    assert "--fdr 0.1 needs decoys" in refused.err


def in_vacuum(balls: Any) -> np.ndarray:
    """A tomogram with balls between faces of ice, and two balls above them, one bead in the ice."""
    rng = generator("vacuum")
    matter = gaussian_filter(rng.standard_normal(balls.data.shape, np.float32), 2.0)
    ice = balls.data + 7 * 0.4 * matter / matter.std()
    volume = 100 + 7 * rng.standard_normal((100, *balls.data.shape[1:])).astype(np.float32)
    volume[30:70] = ice
    z, y, x = (np.arange(n) for n in volume.shape)
    for cz, cx in ((10, 20), (88, 40)):
        far = (z[:, None, None] - cz) ** 2 + (y[:, None] - 30) ** 2 + (x - cx) ** 2
        volume[far <= 5**2] -= 14
    bead = (z[:, None, None] - 50) ** 2 + (y[:, None] - 4) ** 2 + (x - 4) ** 2
    volume[bead <= 4**2] -= 300
    return volume


def test_what_lies_outside_of_the_ice_is_not_picked_and_masks_say_so(
    tlpick: Run, ball_model: Path, make_balls: Run, tmp_path: Path
) -> None:
    balls = make_balls("tomo-2", shape=(40, 66, 72))
    write_mrc(tmp_path / "tomo-2.mrc", in_vacuum(balls), 10.0)
    to = tmp_path / "picks"
    run = ("run", ball_model, tmp_path / "tomo-2.mrc", "--to", to, "--fdr", "off")
    without = tlpick(*run, "--slab", "off", "--beads", "off", "--decoys", "off")
    assert "ice" not in without.out
    z = particles.read(to / "particles.star")["z"]
    assert ((z < 200) | (z > 800)).sum() == 2

    done = tlpick(*run)
    assert "; ice from z " in done.out
    assert "1 bead masked" in done.out
    table = particles.read(to / "particles.star")
    assert table["z"].between(250, 750).all()
    xyz = balls.truth[["x", "y", "z"]].to_numpy() + np.array([0, 0, 300])
    near = np.linalg.norm(table[["x", "y", "z"]].to_numpy()[:, None] - xyz, axis=2).min(axis=0)
    assert (near < 50).sum() >= 7
    bead = np.linalg.norm(table[["x", "y", "z"]].to_numpy() - np.array([40, 40, 500]), axis=1)
    assert (bead > 50).all()

    made = tlpick("mask", to, "--to", tmp_path / "masks")
    assert made.status == 0, made.err
    mask = open_volume(tmp_path / "masks" / "tomo-2.mrc").read()
    assert mask.shape == (100, 66, 72)
    assert not mask[:15].any()
    assert not mask[85:].any()
    assert mask[40:60, 20:, 20:].all()
    assert mask[50, 4, 4] == 0
