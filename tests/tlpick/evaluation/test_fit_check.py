"""A tomogram is compared with what its model learned from, and what is unlike it gets no promise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError
from scipy.ndimage import gaussian_filter

from catalogs.model_file import read_card, with_card
from catalogs.seeds import generator
from catalogs.tomogram_look import SHELLS, TomogramLook, look_at
from catalogs.volumes import write_mrc
from tlpick import api
from tlpick.evaluation.fit_check import compare_looks
from tlpick.evaluation.pick_selection import WRONG, Cut, decide, other_hand, sentence

Run = Callable[..., Any]


def noise(seed: str, tilt: float = 90.0, zero: float | None = None, sigma: float = 0.0) -> np.ndarray:
    """White noise of 64 x 96 x 96 voxels of 10 Å with a missing wedge, a zero in its power, or blurred."""
    shape = (64, 96, 96)
    spectrum = np.fft.fftn(generator("look", seed).standard_normal(shape))
    kz, ky, kx = np.meshgrid(*(np.fft.fftfreq(n) for n in shape), indexing="ij")
    spectrum[np.abs(kz) > np.tan(np.radians(min(tilt, 89.9))) * np.abs(kx)] *= 0.05 if tilt < 90 else 1
    if zero is not None:
        squared = (kz**2 + ky**2 + kx**2) / 100
        spectrum *= np.abs(np.sin(np.pi * squared * zero**2)) + 0.05
    volume = np.fft.ifftn(spectrum).real
    if sigma:
        volume = gaussian_filter(volume, sigma)
    return (volume / volume.std()).astype(np.float32)


def look(values: np.ndarray, **changes: Any) -> TomogramLook:
    found = look_at(values, 10.0)
    assert found is not None
    return found.model_copy(update=changes)


def test_wedge_first_zero_and_power_are_measured() -> None:
    plain = look(noise("plain"))
    assert plain.tilt_range == 90.0
    assert plain.first_zero is None
    assert np.allclose(plain.shells, 1 / SHELLS, atol=0.02)
    assert plain.thickness == 640.0
    assert plain.share(np.inf, 20) == pytest.approx(1.0, abs=1e-4)
    assert look(noise("wedge", tilt=50)).tilt_range == pytest.approx(50, abs=5)
    assert look(noise("zero", zero=32)).first_zero == pytest.approx(32, rel=0.08)
    assert look_at(np.zeros((8, 90, 90), np.float32), 10.0) is None
    with pytest.raises(ValidationError):
        TomogramLook.model_validate({**plain.model_dump(), "shells": [1.0]})


def test_differences_are_said_with_what_to_do() -> None:
    known = [look(noise(f"known {k}", tilt=50, zero=z)) for k, z in enumerate((30, 34))]
    assert compare_looks(look(noise("new", tilt=52, zero=32)), known) == []
    [wedge] = compare_looks(look(noise("new", tilt=52, zero=32), tilt_range=35.0), known)
    assert "tilts to about 35 degrees" in wedge.words
    assert "`tilt_range`" in wedge.words
    assert not wedge.strong
    [thick] = compare_looks(look(noise("new", tilt=52, zero=32), thickness=2000.0), known)
    assert "2,000 Å thick, in the training data up to 640 Å" in thick.words
    blurred = compare_looks(look(noise("new", tilt=52, sigma=2.0)), known)
    assert any(each.strong for each in blurred)
    assert any("filtered or denoised" in each.words for each in blurred)


def test_what_is_unlike_gets_no_promise() -> None:
    table = pd.DataFrame(
        {"class_name": ["ball"] * 4, "score": [0.9, 0.8, 0.7, 0.6], WRONG: [0.01, 0.02, 0.05, 0.6]}
    )
    [kept] = decide(table, ["ball"], {"ball": True}, Cut(), unlike=True).classes
    assert kept.wrong is None
    assert kept.at_tenth is None
    assert kept.kept == 3
    words = sentence("t", kept, Cut(), "all.star")
    assert words.startswith("t: 3 ball, and no precision is promised: the tomogram is unlike")
    counted = decide(table.assign(wrong_at_most=[0.1, 0.2, 0.3, 0.7]), ["ball"], {"ball": True}, Cut(), True)
    assert sentence("t", counted.classes[0], Cut(), "all.star").startswith(
        "t: 3 ball (about 5 to 30 % of them"
    )
    assert "mirror image" in other_hand("t", "ball")


def test_check_says_it_and_a_run_promises_nothing(
    tlpick: Run, ball_model: Path, make_balls: Run, tmp_path: Path
) -> None:
    balls = make_balls("tomo-1")
    write_mrc(tmp_path / "tomo-1.mrc", balls.data, 10.0)
    card = read_card(ball_model)
    bare, known = tmp_path / "bare.tlm", tmp_path / "known.tlm"
    with_card(ball_model, card.model_copy(update={"looks": []}), bare)
    refused = tlpick("check", bare, tmp_path / "tomo-1.mrc")
    assert refused.status == 2
    assert "does not say what its training data look like" in refused.err
    like = look_at(np.asarray(balls.data, np.float32), 10.0)
    assert like is not None
    with_card(ball_model, card.model_copy(update={"looks": [like]}), known)
    said = tlpick("check", known, tmp_path / "tomo-1.mrc")
    assert said.status == 0, said.err
    assert "tomo-1: like the 1 tomograms of the training data" in said.out
    other = like.model_copy(update={"shells": [0.9] + [0.1 / (SHELLS - 1)] * (SHELLS - 1)})
    with_card(ball_model, card.model_copy(update={"looks": [other]}), known)
    assert "unlike the training data" in tlpick("check", known, tmp_path / "tomo-1.mrc").out
    found = api.check(known, tmp_path / "tomo-1.mrc")
    assert list(found) == ["tomo-1"]
    assert any(each.strong for each in found["tomo-1"])
    done = tlpick("run", known, tmp_path / "tomo-1.mrc", "--to", tmp_path / "picks", "--decoys", "1")
    assert "no precision is promised: the tomogram is unlike" in done.out
    assert "of them wrong" not in done.out
    page = (tmp_path / "picks" / "report.html").read_text()
    assert "unlike it, so no precision is promised" in page


def test_a_crop_of_a_microtubule_is_unlike_balls(
    tlpick: Run, ball_model: Path, shared: Path, make_balls: Run, tmp_path: Path
) -> None:
    crop = shared / "tomograms" / "13pf_MT.tif"
    if not crop.exists():
        pytest.skip("no ../shared/tomograms/13pf_MT.tif")
    like = look_at(np.asarray(make_balls("tomo-1").data, np.float32), 10.0)
    assert like is not None
    known = tmp_path / "known.tlm"
    with_card(ball_model, read_card(ball_model).model_copy(update={"looks": [like]}), known)
    done = tlpick(
        "run", known, crop, "--to", tmp_path / "picks", "--voxel-size", 10, "--trust-contrast",
        "--decoys", "1",
    )  # fmt: skip
    assert done.status == 0, done.err
    assert "of them wrong" not in done.out
    assert "no precision is promised" in done.out or "0 ball in 1 tomogram" in done.out
