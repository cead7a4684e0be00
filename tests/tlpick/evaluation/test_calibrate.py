"""Calibrating: probabilities that come true, thresholds that keep what they promise, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from catalogs.errors import InputError
from catalogs.model_file import fingerprint, read_card, read_network
from catalogs.score_calibration import Calibration, Expectation
from catalogs.seeds import generator
from tlpick.evaluation.calibrate import fit
from tlpick.network.picks import above, thresholds

Run = Callable[..., Any]


def scored(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores of right picks around 0.75, of wrong ones around 0.45."""
    rng = generator("calibrate", n, seed)
    right = rng.random(n) < 0.7
    return np.where(right, rng.beta(9, 3, n), rng.beta(5, 6, n)), right


@pytest.mark.parametrize(("n", "method"), [(120, "platt"), (4000, "isotonic")])
def test_probabilities_come_true(n: int, method: str) -> None:
    made = fit(*scored(n), n_truth=n, radius=50.0)
    assert made.method == method
    scores, right = scored(20000, seed=1)  # not those that it was fitted to
    probability = made.probability(scores)
    assert (np.diff(probability[np.argsort(scores)]) >= 0).all()
    bins = np.minimum((probability * 5).astype(int), 4)
    for k in np.unique(bins):
        if (bins == k).sum() > 300:
            assert probability[bins == k].mean() == pytest.approx(right[bins == k].mean(), abs=0.1)
    assert np.isnan(made.probability([np.nan])).all()


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 60), seed=st.integers(0, 1000), share=st.sampled_from([0.0, 0.5, 1.0]))
def test_few_picks_make_no_certainty(n: int, seed: int, share: float) -> None:
    rng = generator("few", n, seed)
    made = fit(rng.random(n), rng.random(n) < share, n_truth=n + 1, radius=50.0)
    assert ((made.probability([0.0, 0.5, 1.0]) > 0) & (made.probability([0.0, 0.5, 1.0]) < 1)).all()
    precision = [point.precision for point in made.curve]
    assert precision == sorted(precision)
    assert [p.recall for p in made.curve] == sorted((p.recall for p in made.curve), reverse=True)


def test_a_score_that_says_the_contrary_says_nothing() -> None:
    scores, right = scored(200)
    made = fit(1 - scores, right, n_truth=200, radius=50.0)
    assert made.slope == 0.0
    assert made.probability([0.1, 0.9]) == pytest.approx([right.mean()] * 2, abs=0.02)


@pytest.mark.parametrize("n", [300, 3000])
def test_a_threshold_keeps_its_promise(n: int) -> None:
    scores, right = scored(20000, seed=100)
    kept, promised, recall = [], [], []
    for seed in range(8):
        point = fit(*scored(n, seed), n_truth=n, radius=50.0).for_precision(0.9)
        assert point.precision >= 0.9
        assert point.n_picks == (scored(n, seed)[0] >= point.threshold).sum()
        these = scores >= point.threshold
        kept.append(right[these].mean())
        promised.append(point.recall)
        recall.append((these & right).sum() / len(right))
    assert np.mean(kept) == pytest.approx(0.9, abs=0.015)
    assert np.mean(recall) == pytest.approx(np.mean(promised), abs=0.03)


def test_what_no_threshold_promises_is_refused() -> None:
    made = fit(*scored(100), n_truth=100, radius=50.0)
    with pytest.raises(InputError, match=r"no score of ball reaches a precision of 0\.9999"):
        made.for_precision(0.9999, "ball")


def test_the_interval_is_wilsons() -> None:
    for right in (0, 3, 90, 100):
        point = Expectation(threshold=0.5, precision=0.9, recall=0.5, n_picks=100, n_right=right)
        reference = binomtest(right, 100).proportion_ci(0.9, method="wilson")
        assert point.interval == pytest.approx((reference.low, reference.high), abs=1e-9)
    assert Expectation(threshold=1.0, precision=0.0, recall=0.0, n_picks=0, n_right=0).interval == (0, 1)


def test_a_calibration_must_rise() -> None:
    with pytest.raises(ValueError, match="a higher score must not mean a lower probability"):
        Calibration(
            method="isotonic", scores=[0.1, 0.2], probabilities=[0.5, 0.4],
            radius=1.0, n_picks=2, n_right=1, n_truth=1, curve=[],
        )  # fmt: skip


def test_calibrate_writes_the_model_and_its_promise(
    tlpick: Run, ball_model: Path, make_balls: Run, sample: Callable[[Any], str], tmp_path: Path
) -> None:
    url = sample(make_balls("held-out", n=10, contrast=1.0))
    corpus = url.rpartition("/samples/")[0]
    model = tmp_path / "balls.tlm"
    model.write_bytes(ball_model.read_bytes())
    before = read_network(model, tmp_path).read_bytes()

    none = tlpick("calibrate", model, corpus)
    assert none.status == 2
    assert "fits --where \"split == 'val'\"; give samples" in none.err
    done = tlpick("calibrate", model, corpus, "--where", "split == 'test'")
    assert (done.status, done.err) == (0, "")
    assert "ball: " in done.out
    assert "picks are right, 10 particles; Platt's curve" in done.out

    card = read_card(model)
    assert read_network(model, tmp_path).read_bytes() == before
    ball = card.calibration["ball"]
    assert ball.n_truth == 10
    # the faint balls are found in part: their volume is what this network shows, not the sphere's
    assert ball.volume is not None
    assert 1e5 < ball.volume < 0.8 * 4 / 3 * np.pi * 50**3
    assert card.provenance["calibration"]["samples"] == ["0123456789abcdef"]
    first = fingerprint(model)
    tlpick("calibrate", model, corpus, "--where", "split == 'test'")
    assert fingerprint(model) == first

    least = thresholds(card, 0.5)["ball"]
    assert least.precision >= 0.5


def test_calibrate_refuses_what_flatters(
    tlpick: Run, ball_model: Path, make_balls: Run, sample: Callable[[Any], str], tmp_path: Path
) -> None:
    from catalogs.model_file import with_card

    corpus = sample(make_balls("seen", n=2)).rpartition("/samples/")[0]
    card = read_card(ball_model)
    trained = tmp_path / "trained.tlm"
    with_card(ball_model, card.model_copy(update={"provenance": {"train": ["0123456789abcdef"]}}), trained)
    refused = tlpick("calibrate", trained, corpus, "--where", "split == 'test'")
    assert refused.status == 2
    assert "was trained on 1 of the 1 samples (seen among them)" in refused.err
    other = tmp_path / "other.tlm"
    with_card(ball_model, card.model_copy(update={"voxel_size": 8.0}), other)
    refused = tlpick("calibrate", other, corpus, "--where", "split == 'test'")
    assert "has voxels of 10 Å, the model was trained at 8 Å" in refused.err


def test_thresholds_need_a_calibrated_model(ball_model: Path) -> None:
    card = read_card(ball_model)
    with pytest.raises(InputError, match="is not calibrated, so no precision can be promised"):
        thresholds(card, 0.9)
    with pytest.raises(InputError, match=r"a precision of 1\.2 is impossible"):
        thresholds(card, 1.2)


def test_only_picks_above_their_threshold_stay() -> None:
    from catalogs import particles

    table = particles.make(
        class_name=["a", "a", "b", "a"], x=[1, 2, 3, 4], y=[0] * 4, z=[0] * 4, score=[0.5, 0.2, 0.1, np.nan]
    )
    point = Expectation(threshold=0.5, precision=0.9, recall=0.5, n_picks=10, n_right=9)
    assert above(table, {"a": point})["x"].tolist() == [1.0, 3.0, 4.0]
