"""Several models pick the same tomograms, and are ranked without labels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import tlpick as package
from catalogs.errors import InputError
from catalogs.model_file import read_card, with_card
from catalogs.schema import ClassInfo
from catalogs.seeds import generator
from catalogs.volumes import write_mrc
from tlpick.evaluation.right_picks import RightPicks, greatest_excess, right_picks

Run = Callable[..., Any]


def test_the_greatest_excess_over_decoys_is_found() -> None:
    assert greatest_excess([0.9, 0.8, 0.7, 0.3, 0.2], [0.35, 0.25, 0.22, 0.21], 1) == 3
    assert greatest_excess([0.9, 0.8, 0.7], [0.75, 0.95], 2) == 2
    assert greatest_excess([], [0.5], 1) == 0
    assert greatest_excess([0.4], [0.5, 0.6], 1) == 0


def test_right_picks_are_counted_in_both_ways() -> None:
    table = pd.DataFrame(
        {"class_name": ["a"] * 4 + ["b"], "score": [0.9, 0.8, 0.7, 0.6, 0.5],
         "wrong_at_most": [0.0, 0.1, 0.2, 0.6, np.nan]}
    )  # fmt: skip
    chance = pd.DataFrame({"class_name": ["a", "b"], "score": [0.65, 0.9]})
    found = right_picks(table, chance, "a", 1, True)
    assert (found.picks, found.by_decoys) == (4, 3)
    assert found.by_mirror == pytest.approx(3 * 0.8)
    other = right_picks(table, chance, "b", 1, True)
    assert other == RightPicks(1, 0, 0)
    assert right_picks(table, chance, "a", 1, False) == RightPicks(4, 0, 0)
    assert (found + other).picks == 5


@pytest.fixture
def blind_model(ball_model: Path, tmp_path: Path) -> Path:
    """The network of balls with random weights: it finds nothing but noise."""
    import keras

    from catalogs.model_file import write_model

    rng = generator("blind")
    entry = keras.Input((None, None, None, 1))
    mixed = keras.layers.Conv3D(1, 5, padding="same")
    out = keras.layers.Conv3D(2, 1, activation="softmax")
    network = keras.Model(entry, out(mixed(entry)))
    kernel = rng.normal(0, 1, (5, 5, 5, 1, 1)).astype(np.float32)
    mixed.set_weights([kernel / np.abs(kernel).sum(), np.zeros(1, np.float32)])
    decide = np.zeros((1, 1, 1, 1, 2), np.float32)
    decide[..., 1] = -20
    out.set_weights([decide, np.array([0, -3], np.float32)])
    file = tmp_path / "blind.keras"
    network.save(file)
    write_model(tmp_path / "blind.tlm", read_card(ball_model), file.read_bytes())
    return tmp_path / "blind.tlm"


def test_a_blind_model_comes_last(
    tlpick: Run, ball_model: Path, blind_model: Path, make_balls: Run, tmp_path: Path
) -> None:
    for name in ("tomo-1", "tomo-2"):
        write_mrc(tmp_path / f"{name}.mrc", make_balls(name, shape=(40, 96, 96), n=14).data, 10.0)
    tomograms = [tmp_path / "tomo-1.mrc", tmp_path / "tomo-2.mrc"]
    said = tlpick("check", blind_model, ball_model, *tomograms, "--to", tmp_path / "picks")
    assert said.status == 0, said.err
    lines = said.out.splitlines()
    first, second = (next(line for line in lines if f"{n}. " in line) for n in (1, 2))
    assert ball_model.name in first
    assert blind_model.name in second
    assert second.endswith("no better than in noise")
    assert "estimates of the number of right picks, without labels, and no promise" in lines[-1]
    done = tmp_path / "picks" / blind_model.stem / "tomo-1" / "done.json"
    written = done.stat().st_mtime_ns

    ranked = package.rank_models([ball_model, blind_model], tomograms, to=tmp_path / "picks")
    assert [each.model for each in ranked] == [str(ball_model), str(blind_model)]
    assert done.stat().st_mtime_ns == written  # not picked again
    assert ranked[0].right.by_decoys == pytest.approx(28, abs=2)
    # among hundreds of picks in noise, more than the number of balls are above those in decoys by chance
    assert ranked[1].right == RightPicks(ranked[1].right.picks, 0, 0)
    assert ranked[1].right.picks > 100
    assert ranked[0].stands_out == 2


def test_mistakes_are_told(tlpick: Run, ball_model: Path, make_balls: Run, tmp_path: Path) -> None:
    write_mrc(tmp_path / "tomo-1.mrc", make_balls("tomo-1").data, 10.0)
    card = read_card(ball_model)
    other = tmp_path / "other.tlm"
    with_card(
        ball_model, card.model_copy(update={"classes": [ClassInfo(name="cube", label=1, radius=50)]}), other
    )
    twin = tmp_path / "twins" / ball_model.name
    twin.parent.mkdir()
    with_card(ball_model, card, twin)
    for arguments, words in (
        ((ball_model, other, tmp_path / "tomo-1.mrc"), "no class of particles in common"),
        ((ball_model, twin, tmp_path / "tomo-1.mrc"), "several models have the name balls"),
        ((ball_model, twin), "there are no tomograms to check"),
        ((ball_model, tmp_path / "gone.tlm", tmp_path / "tomo-1.mrc"), "gone.tlm"),
        ((ball_model, tmp_path / "tomo-1.mrc", "--to", tmp_path / "x"), "--to keeps the picks of several"),
    ):
        refused = tlpick("check", *arguments)
        assert refused.status == 2, refused.out
        assert words in refused.err
    with pytest.raises(InputError, match="two or more different models"):
        package.rank_models([ball_model], tmp_path / "tomo-1.mrc")
    with pytest.raises(InputError, match="compared by decoys"):
        package.rank_models([ball_model, other], tmp_path / "tomo-1.mrc", decoys=0)
