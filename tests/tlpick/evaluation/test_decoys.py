"""Decoys promise what comes true, small numbers make no certainty, and cuts are what was asked for."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from catalogs import particles
from catalogs.errors import InputError
from catalogs.seeds import generator
from tlpick.evaluation.decoys import best_cut, estimate_wrong
from tlpick.evaluation.pick_selection import Cut, decide, sentence


def simulated(seed: int, n_right: int = 200, n_wrong: int = 400, n_decoys: int = 1) -> tuple[np.ndarray, ...]:
    """Scores of right and wrong picks, which of them are right, and scores in decoys."""
    rng = generator("decoys", seed)
    right, wrong = rng.normal(0.65, 0.1, n_right), rng.normal(0.4, 0.1, n_wrong)
    scores = np.concatenate([right, wrong])
    return scores, np.arange(len(scores)) < n_right, rng.normal(0.4, 0.1, n_wrong * n_decoys)


def test_the_promised_share_comes_true() -> None:
    for share in (0.05, 0.1, 0.3):
        errors = []
        for seed in range(20):
            scores, right, theirs = simulated(seed)
            kept = estimate_wrong(scores, theirs, 1).wrong <= share
            errors.append((~right[kept]).mean() - share)
        assert abs(np.median(errors)) < 0.05
        assert max(errors) < 0.15
    scores, _, theirs = simulated(0, n_decoys=4)
    q = estimate_wrong(scores, theirs, 4).wrong
    order = np.argsort(-scores)
    assert (np.diff(q[order]) >= 0).all()
    assert estimate_wrong(scores, theirs, 4).stands_out


def test_few_picks_make_no_certainty_and_chance_promises_nothing() -> None:
    assert estimate_wrong([0.9, 0.8], [], 1).wrong.tolist() == [0.5, 0.5]
    assert estimate_wrong([0.9, 0.8], [], 1).stands_out
    assert not estimate_wrong([0.6, 0.5], [0.9, 0.8, 0.4], 1).stands_out
    assert estimate_wrong(np.linspace(0.8, 0.9, 30), np.linspace(0.3, 0.7, 30), 1).stands_out
    assert not estimate_wrong([], [0.3], 2).stands_out
    for seed in range(20):  # the same molecule-free noise in the tomogram and in its decoy
        rng = generator("chance", seed)
        estimate = estimate_wrong(rng.normal(0.5, 0.1, 300), rng.normal(0.5, 0.1, 300), 1)
        assert not estimate.stands_out


def test_the_best_cut_has_nearly_the_best_true_f1() -> None:
    lost = []
    for seed in range(10):
        scores, right, theirs = simulated(seed)
        estimate = estimate_wrong(scores, theirs, 1)
        f1 = lambda keep: 2 * right[keep].sum() / (keep.sum() + right.sum())  # noqa: B023, E731
        lost.append(max(f1(scores >= s) for s in scores) - f1(estimate.wrong <= best_cut(estimate.wrong)))
    assert np.mean(lost) < 0.02
    # right, wrong, right, wrong, ... from the third on: by F1 the list ends earlier than by F2
    wrong = np.array([0, 0, 0, 1 / 4, 1 / 5, 2 / 6, 2 / 7, 3 / 8, 3 / 9, 6 / 12, 7 / 14, 12 / 20])
    n = np.array([1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 14, 20])
    shares = np.repeat(wrong, np.diff(n, prepend=0))
    assert (shares <= best_cut(shares, 2)).sum() > (shares <= best_cut(shares)).sum()
    assert best_cut([]) < 0
    assert best_cut([1.0, 1.0]) < 0


def table(scores: list[float], wrong: list[float] | None = None) -> pd.DataFrame:
    n = len(scores)
    extra = {} if wrong is None else {"wrong": wrong}
    return particles.make(
        tomogram="a",
        class_name="ball",
        label=1,
        x=np.arange(n),
        y=np.zeros(n),
        z=np.zeros(n),
        score=scores,
        **extra,
    )


def test_cuts_keep_what_they_say_and_sentences_tell() -> None:
    picks = table([0.9, 0.8, 0.7, 0.6, 0.5], [0.02, 0.05, 0.08, 0.3, 0.6])
    for cut, n in (
        (Cut("fdr", 0.1), 3),
        (Cut("fdr", 0.01), 0),
        (Cut("top", 2), 2),
        (Cut("score", 0.55), 4),
        (Cut("all"), 5),
    ):
        made = decide(picks, ["ball"], {"ball": True}, cut)
        assert made.rows.tolist() == [True] * n + [False] * (5 - n), cut
    made = decide(picks, ["ball"], {"ball": True}, Cut())
    assert sentence("TS_01", made.classes[0], Cut(), "particles.all.star") == (
        "TS_01: 3 ball (at least about 8 % of them wrong; --fdr 0.1 keeps 3), "
        "2 weaker ones in particles.all.star"
    )
    none = decide(picks, ["ball"], {"ball": False}, Cut())
    assert not none.rows.any()
    told = sentence("TS_01", none.classes[0], Cut(), "particles.all.star")
    assert "no ball that stands out" in told
    assert "no precision is promised" in told
    assert "%" not in told
    forced = decide(picks, ["ball"], {"ball": False}, Cut("top", 2))
    assert "2 kept by --top 2" in sentence("TS_01", forced.classes[0], Cut("top", 2), "x")


def test_without_decoys_all_is_kept_and_no_share_can_be_asked_for() -> None:
    picks = table([0.9, 0.8])
    assert decide(picks, ["ball"], {}, Cut()).rows.all()
    assert decide(picks, ["ball", "other"], {}, Cut()).classes[1].all == 0
    with pytest.raises(InputError, match=r"`fdr=0\.1` needs decoys"):
        decide(picks, ["ball"], {}, Cut("fdr", 0.1))
