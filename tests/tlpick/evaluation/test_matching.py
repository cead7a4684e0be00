"""Evaluating: one to one, by class and tomogram; the curve agrees with evaluating again and again."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalogs import particles
from catalogs.seeds import generator
from tlpick.evaluation.matching import curve, evaluate, match


def table(rows: list[tuple[str, str, float, float]]) -> pd.DataFrame:
    """Particles on the x axis: (tomogram, class, x, score)."""
    tomogram, name, x, score = zip(*rows, strict=True) if rows else ([], [], [], [])
    zeros = np.zeros(len(rows))
    return particles.make(
        tomogram=list(tomogram), class_name=list(name), x=list(x), y=zeros, z=zeros, score=list(score)
    )


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(0, 5), m=st.integers(0, 5), radius=st.floats(0.1, 1.2))
def test_the_match_is_the_best_of_all(seed: int, n: int, m: int, radius: float) -> None:
    rng = generator("match", seed)
    picks, truth = rng.random((n, 3)), rng.random((m, 3))
    i, j, distance = match(picks, truth, radius)
    assert len(set(i)) == len(i) == len(set(j)) == len(j)
    np.testing.assert_allclose(distance, np.linalg.norm(picks[i] - truth[j], axis=1))
    assert (distance <= radius).all()

    few, many = (picks, truth) if n <= m else (truth, picks)
    best = (0, 0.0)
    for order in itertools.permutations(range(len(many)), len(few)):
        far = np.linalg.norm(few - many[list(order)], axis=1) if len(few) else np.empty(0)
        near = far[far <= radius]
        best = min(best, (-len(near), float(near.sum())))
    assert (-len(i), pytest.approx(float(distance.sum()))) == best


def test_a_second_pick_of_a_particle_is_false_and_far_ones_find_nothing() -> None:
    truth = table([("t", "a", 0.0, math.nan), ("t", "a", 100.0, math.nan), ("t", "a", 300.0, math.nan)])
    picks = table(
        [("t", "a", 8.0, 0.9), ("t", "a", 3.0, 0.8), ("t", "a", 110.0, 0.7), ("t", "a", 200.0, 0.6)]
    )
    result = evaluate(picks, truth, {"a": 20.0})
    [score] = result.scores
    assert (score.n_picks, score.n_truth, score.n_found) == (4, 3, 2)
    assert (score.precision, score.recall) == (0.5, 2 / 3)
    assert score.f1 == pytest.approx(2 * 0.5 * (2 / 3) / (0.5 + 2 / 3))
    assert score.mean_distance == pytest.approx((3 + 10) / 2)
    assert result.picks["partner"].tolist() == [-1, 0, 1, -1]
    assert result.truth["partner"].tolist() == [1, 2, -1]


def test_classes_and_tomograms_are_kept_apart_and_others_left_out() -> None:
    truth = table([("t", "a", 0.0, math.nan), ("u", "a", 50.0, math.nan), ("t", "distractor", 9.0, math.nan)])
    picks = table([("t", "b", 0.0, 0.9), ("u", "a", 0.0, 0.8), ("u", "a", 52.0, 0.7), ("t", "c", 0.0, 0.9)])
    a, b = evaluate(picks, truth, {"a": 10.0, "b": 10.0}).scores
    assert (a.n_picks, a.n_truth, a.n_found) == (2, 2, 1)
    assert (b.n_picks, b.n_truth, b.n_found) == (1, 0, 0)
    assert b.precision == 0.0
    assert math.isnan(b.recall)


def test_nothing_against_nothing_has_no_score() -> None:
    [score] = evaluate(table([]), table([]), {"a": 10.0}).scores
    assert math.isnan(score.f1)
    assert math.isnan(score.mean_distance)


def test_the_curve_is_the_evaluation_at_each_threshold() -> None:
    rng = generator("curve")
    truth = particles.make(
        tomogram=rng.choice(["t", "u"], 30), **dict(zip("xyz", rng.random((3, 30)), strict=True))
    )
    picks = particles.make(
        tomogram=rng.choice(["t", "u"], 40),
        score=rng.integers(1, 12, 40) / 12,
        **dict(zip("xyz", rng.random((3, 40)), strict=True)),
    )
    line = curve(picks, truth, 0.25)
    assert line.thresholds.tolist() == sorted(set(picks["score"]))
    for k, threshold in enumerate(line.thresholds):
        [score] = evaluate(picks[picks["score"] >= threshold], truth, {"particle": 0.25}).scores
        assert line.precision[k] == pytest.approx(score.precision)
        assert line.recall[k] == pytest.approx(score.recall)
        assert line.f1[k] == pytest.approx(score.f1)
