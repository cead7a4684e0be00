"""The field's metrics: what each makes of a second pick, of a near miss and of a wrong class."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalogs import particles
from catalogs.seeds import generator
from tlpick.evaluation import metrics
from tlpick.evaluation.matching import (
    NONE,
    bootstrap,
    confusion,
    curve,
    evaluate,
    localisation,
    only_reviewed,
)
from tlpick.evaluation.metrics import Counts


def table(*rows: tuple[str, str, float, float]) -> pd.DataFrame:
    """Particles on the x axis: (tomogram, class, x, score)."""
    tomogram, name, x, score = zip(*rows, strict=True) if rows else ([], [], [], [])
    zeros = np.zeros(len(rows))
    return particles.make(
        tomogram=list(tomogram), class_name=list(name), x=list(x), y=zeros, z=zeros, score=list(score)
    )


TRUTH = table(("t", "a", 0, 1), ("t", "a", 1000, 1), ("t", "a", 2000, 1), ("t", "b", 3000, 1))
# two picks of the first, one of the second that is a little off, none of the third, one on the fourth of
# the wrong class, and one where there is nothing
PICKS = table(
    ("t", "a", 0, 0.9), ("t", "a", 20, 0.8), ("t", "a", 1070, 0.7), ("t", "a", 3000, 0.6),
    ("t", "b", 5000, 0.5),
)  # fmt: skip
RADII = {"a": 100.0, "b": 80.0}


def test_every_metric_counts_by_its_own_rules() -> None:
    found = {field.name: field for field in metrics.every_metric(PICKS, TRUTH, RADII)}
    # A pick hits what it lies in, whatever its class: 3 of 4 particles, 5 picks.
    shrec = found["SHREC'21"]
    assert shrec.value == pytest.approx(2 * (3 / 5) * (3 / 4) / (3 / 5 + 3 / 4))
    assert shrec.classes["a"] == Counts(2, 1, 1)
    assert shrec.classes["b"] == Counts(0, 0, 1)
    # Half of the radius: 70 is too far; a second pick is wrong.
    assert found["CZII"].classes["a"] == Counts(1, 3, 2)
    assert found["CZII"].value == pytest.approx(0.5 * 17 / (17 + 16 * 2 + 3))
    # 0.8 of the radius: 70 is near; the second pick is right, too.
    assert found["octopi"].classes["a"] == Counts(3, 1, 1)
    # 135 Å: the second pick is neither.
    assert found["DeePiCt"].classes["a"] == Counts(2, 1, 1, redundant=1)
    # Half of the smallest radius, all classes together: two picks near lose the particle.
    deepfinder = found["DeepFinder"]
    assert deepfinder.more["distance_A"] == 40.0
    assert deepfinder.classes["a"] == Counts(0, 4, 3)
    assert deepfinder.classes["b"] == Counts(0, 1, 1)
    # 20 of 200 Å off is IoU 0.82, 70 is 0.48; the first takes the nearest box, the other is wrong.
    assert found["box IoU 0.6"].classes["a"] == Counts(1, 3, 2)


def test_the_challenge_has_its_own_radii_and_weights() -> None:
    truth = table(("t", "ribosome", 0, 1), ("t", "beta-amylase", 900, 1), ("t", "thyroglobulin", 2000, 1))
    picks = table(("t", "ribosome", 74, 1), ("t", "beta-amylase", 940, 1), ("t", "thyroglobulin", 2064, 1))
    field = metrics.czii(picks, truth, dict.fromkeys(["ribosome", "beta-amylase", "thyroglobulin"], 1.0))
    assert field.classes["ribosome"].right == 1
    assert field.classes["beta-amylase"].right == 0
    assert field.value == 1.0


def test_an_instance_volume_says_what_a_pick_hits() -> None:
    field = metrics.shrec21(PICKS, TRUTH, RADII, lambda ours, theirs: np.array([1, 1, 1, -1, 0]))
    assert (field.classes["a"].right, field.classes["b"].right) == (1, 0)
    assert field.more["localisation_recall"] == 0.5


@pytest.mark.parametrize("both", [(table(), TRUTH), (PICKS, table()), (table(), table())])
def test_nothing_to_find_and_nothing_found(both: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    for field in metrics.every_metric(*both, RADII):
        assert set(field.classes) == set(RADII)
        for counts in field.classes.values():
            assert counts.right == 0
        assert math.isnan(field.value) or field.value == 0.0


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 12))
def test_with_one_pick_near_each_particle_all_agree_with_one_to_one(seed: int, n: int) -> None:
    rng = generator("metrics", seed)
    x = 1000.0 * np.arange(n)
    truth = table(*[("t" if k % 2 else "u", "ab"[k % 3 == 0], x[k], 1.0) for k in range(n)])
    kept = rng.random(n) < 0.7
    off = rng.uniform(-15, 15, n)  # within every rule: IoU 0.6 of 160 Å allows 40
    picks = truth.assign(x=truth["x"] + off, score=rng.random(n))[kept].reset_index(drop=True)
    ours = {score.class_name: score for score in evaluate(picks, truth, RADII).scores}
    for field in metrics.every_metric(picks, truth, RADII):
        for name, counts in field.classes.items():
            assert (counts.right, counts.wrong, counts.missed, counts.redundant) == (
                ours[name].n_found,
                0,
                ours[name].n_truth - ours[name].n_found,
                0,
            )


def test_the_order_of_picks_decides_for_deepict_by_score_alone() -> None:
    truth = table(("t", "a", 0, 1), ("t", "a", 160, 1))
    picks = table(("t", "a", 70, 0.2), ("t", "a", 60, 0.9))  # 60 takes 0, 70 has 160 left
    assert metrics.deepict(picks, truth, {"a": 100.0}).classes["a"] == Counts(2, 0, 0)
    one = table(("t", "a", 0, 1))
    assert metrics.deepict(picks, one, {"a": 100.0}).classes["a"] == Counts(1, 0, 0, redundant=1)


def test_the_area_under_the_curve() -> None:
    truth = table(*[("t", "a", 1000.0 * k, 1.0) for k in range(4)])
    picks = table(("t", "a", 0, 0.9), ("t", "a", 500, 0.8), ("t", "a", 1000, 0.7))
    # recall 1/4 at precision 1, then 2/4 at 2/3
    assert curve(picks, truth, 100.0).auc == pytest.approx(0.25 * 1 + 0.25 * 2 / 3)
    assert math.isnan(curve(picks, truth[:0], 100.0).auc)


def test_confusion_prefers_equal_classes_among_as_many_pairs() -> None:
    truth = table(("t", "a", 0, 1), ("t", "b", 60, 1), ("t", "a", 1000, 1), ("u", "a", 0, 1))
    picks = table(("t", "b", 10, 1), ("t", "a", 50, 1), ("t", "b", 1000, 1), ("t", "a", 9000, 1))
    counts = confusion(picks, truth, RADII)
    assert counts.loc["a"].to_dict() == {"a": 1, "b": 1, NONE: 1}
    assert counts.loc["b"].to_dict() == {"a": 0, "b": 1, NONE: 0}
    assert counts.loc[NONE].to_dict() == {"a": 1, "b": 0, NONE: 0}


def test_localisation_tells_chance_from_a_shifted_origin() -> None:
    truth = table(*[("t", "a", 1000.0 * k, 1.0) for k in range(4)])
    picks = truth.assign(x=truth["x"] + [4, -4, 4, -4], y=5.0)
    error = localisation(evaluate(picks, truth, {"a": 50.0}), "a")
    assert error.offset == pytest.approx((0.0, 5.0, 0.0))
    assert error.mean == error.rms == error.median == pytest.approx(math.hypot(4, 5))
    assert math.isnan(localisation(evaluate(picks, truth[:0], {"a": 50.0}), "a").mean)


def test_the_bootstrap_draws_tomograms() -> None:
    names = [f"t{k}" for k in range(6)]
    truth = table(*[(name, "a", 1000.0 * k, 1.0) for name in names for k in range(20)])
    good = truth[truth["tomogram"].isin(names[:3])]  # all or nothing, by tomogram
    low, high = bootstrap(evaluate(good, truth, {"a": 50.0}))["a"]["recall"]
    assert 0.0 <= low < 0.25
    assert 0.75 < high <= 1.0
    even = truth[truth["x"] < 10000]  # the same in every tomogram
    assert bootstrap(evaluate(even, truth, {"a": 50.0}))["a"]["recall"] == (0.5, 0.5)
    one = bootstrap(evaluate(truth[:20], truth[:20], {"a": 50.0}))["a"]["f1"]
    assert all(math.isnan(bound) for bound in one)


def test_what_nobody_reviewed_is_neither_right_nor_wrong() -> None:
    truth = table(("t", "a", 0, 1), ("t", "a", 95, 1), ("t", "a", 300, 1))
    picks = table(("t", "a", 104, 1), ("t", "a", 90, 1), ("t", "a", 500, 1), ("t", "a", 50, 1))

    def inside(rows: pd.DataFrame) -> np.ndarray:
        return (rows["x"] < 100).to_numpy()

    ours, theirs = only_reviewed(picks, truth, {"a": 12.0}, inside)
    # 104 and 90 compete for 95; 500 and 300 lie outside; 50 is a false pick inside
    assert theirs["x"].tolist() == [0.0, 95.0]
    assert sorted(ours["x"]) == [50.0, 90.0]
    across = only_reviewed(table(("t", "a", 104, 1)), truth, {"a": 12.0}, inside)[0]
    assert across["x"].tolist() == [104.0]  # it lies outside, the particle that it finds does not
