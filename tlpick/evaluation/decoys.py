"""Estimates the share of wrong picks in a tomogram from picks in decoys.

A decoy (:mod:`tlpick.network.tomograms.decoy`) contains no particles, so a network makes as many wrong picks
in it as chance causes in the tomogram. Above a given score, the expected share of wrong picks is the number
of picks in the decoy divided by that in the tomogram (Elias & Gygi, Nat. Methods 4 (2007) 207; one is added
to the decoy's number, so that a few picks above an empty decoy do not imply certainty). The smallest share
over all cuts at or below a pick's score is the pick's q-value (Storey & Tibshirani, PNAS 100 (2003) 9440).

A decoy contains only noise and no molecules that look similar. If there are such molecules, the estimate is a
lower bound.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

#: Picks exceed their decoys if their number is unlikely by chance (first value) and at least the second share
#: of them is right, or if above a cut that keeps half or more, decoys have at most the third share of their
#: number.
CHANCE, SHARE, FEW = 1e-4, 0.2, 0.25


@dataclass(frozen=True, eq=False)
class DecoyEstimate:
    """Estimate from decoys for the picks of one class in one tomogram.

    Attributes
    ----------
    wrong
        (n,) q-value of each pick: expected share of wrong ones among the picks that are at least as good.
    expected
        Expected number of right picks at the cut with most of them.
    stands_out
        False if the picks are no better than those in the decoys, so that nothing can be expected of them.
    """

    wrong: Floats
    expected: float
    stands_out: bool


def estimate_wrong(scores: ArrayLike, decoys: ArrayLike, n_decoys: int) -> DecoyEstimate:
    """Estimate which share of the picks is wrong.

    Parameters
    ----------
    scores
        (n,) scores of the picks.
    decoys
        (m,) scores of the picks in all decoys.
    n_decoys
        Number of decoys, each as large as the tomogram.

    Returns
    -------
    DecoyEstimate
    """
    from scipy.stats import binom

    ours, theirs = np.asarray(scores, np.float64), np.sort(np.asarray(decoys, np.float64))
    if not len(ours):
        return DecoyEstimate(np.empty(0), 0.0, False)
    order = np.argsort(-ours, kind="stable")
    ranked = ours[order]
    # picks with equal scores are kept or dropped together
    n_picks = np.searchsorted(-ranked, -ranked, side="right").astype(np.float64)
    n_wrong = (len(theirs) - np.searchsorted(theirs, ranked, side="left") + 1) / n_decoys
    share = np.minimum(n_wrong / n_picks, 1.0)
    q = np.minimum.accumulate(share[::-1])[::-1]
    wrong = np.empty(len(ours))
    wrong[order] = q
    # if all picks were chance, each would fall into the tomogram or a decoy with equal probability
    either = n_picks + n_wrong * n_decoys
    clear = (binom.sf(n_picks - 1, either, 1 / (1 + n_decoys)) < CHANCE) & (share <= 1 - SHARE)
    few = (n_wrong - 1 / n_decoys <= FEW * n_picks) & (2 * n_picks >= len(ours))
    return DecoyEstimate(wrong, float((n_picks * (1 - q)).max()), bool((clear | few).any()))


def best_cut(wrong: ArrayLike, beta: float = 1.0) -> float:
    """Find the cut with the greatest expected F score.

    Parameters
    ----------
    wrong
        (n,) expected shares of wrong ones, as in :class:`DecoyEstimate`.
    beta
        How many times as much recall counts as precision: 1 for F1, 2 for F2.

    Returns
    -------
    float
        The largest ``wrong`` of a pick to keep; below 0 if none is kept.
    """
    q = np.sort(np.asarray(wrong, np.float64))
    if not len(q):
        return -1.0
    n = np.searchsorted(q, q, side="right").astype(np.float64)
    right = n * (1 - q)
    there = float(right.max())
    if there <= 0:
        return -1.0
    score = right / (n + beta**2 * there)
    return float(q[np.flatnonzero(score == score.max())[-1]])
