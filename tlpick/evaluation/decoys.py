"""What picks in decoys say of picks in the tomogram: which share of them is wrong.

In a decoy (:mod:`tlpick.network.tomograms.decoy`) there is nothing, so a network makes as many wrong picks
in it as chance alone makes it do in the tomogram. Of the picks with at least some score the expected share
of wrong ones is the number of the decoy's picks with that score over that of the tomogram's (Elias & Gygi,
Nat. Methods 4 (2007) 207; one is added to the decoy's, so that a few picks above an empty decoy make no
certainty). The least share that any cut at or below a pick's score gives is the pick's q-value (Storey &
Tibshirani, PNAS 100 (2003) 9440).

A decoy is noise: it knows nothing of other molecules that look alike. What is said here is a lower bound
there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

#: Picks stand out if so many could hardly be chance and at least this share of them is not, or if above a cut
#: that keeps half of them or more, decoys have at most the last share of their number.
CHANCE, SHARE, FEW = 1e-4, 0.2, 0.25


@dataclass(frozen=True, eq=False)
class DecoyEstimate:
    """What decoys say of the picks of one class in one tomogram.

    Attributes
    ----------
    wrong
        (n,) of each pick, the expected share of wrong ones among the picks that are as good or better: its
        q-value.
    expected
        Particles that the picks are expected to hold, at the cut that holds most.
    stands_out
        False if the picks are no better than those in the decoys: then nothing can be promised of them.
    """

    wrong: Floats
    expected: float
    stands_out: bool


def estimate_wrong(scores: ArrayLike, decoys: ArrayLike, n_decoys: int) -> DecoyEstimate:
    """Estimate which share of the picks is wrong.

    Parameters
    ----------
    scores
        (n,) of the picks.
    decoys
        (m,) of those in all decoys.
    n_decoys
        How many decoys there were, of the same volume as the tomogram each.

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
    # picks with one score are kept or dropped together
    n_picks = np.searchsorted(-ranked, -ranked, side="right").astype(np.float64)
    n_wrong = (len(theirs) - np.searchsorted(theirs, ranked, side="left") + 1) / n_decoys
    share = np.minimum(n_wrong / n_picks, 1.0)
    q = np.minimum.accumulate(share[::-1])[::-1]
    wrong = np.empty(len(ours))
    wrong[order] = q
    # were all picks chance, each would be the tomogram's or a decoy's, whichever it fell to
    either = n_picks + n_wrong * n_decoys
    clear = (binom.sf(n_picks - 1, either, 1 / (1 + n_decoys)) < CHANCE) & (share <= 1 - SHARE)
    few = (n_wrong - 1 / n_decoys <= FEW * n_picks) & (2 * n_picks >= len(ours))
    return DecoyEstimate(wrong, float((n_picks * (1 - q)).max()), bool((clear | few).any()))


def best_cut(wrong: ArrayLike, slack: float = 0.0) -> float:
    """Find the cut with the greatest expected F1, or the longest list that is nearly as good.

    Parameters
    ----------
    wrong
        (n,) expected shares of wrong ones, as :class:`DecoyEstimate` has them.
    slack
        Share of the greatest expected F1 that a longer list may cost.

    Returns
    -------
    float
        The greatest ``wrong`` of a pick to keep; below 0 if none is.
    """
    q = np.sort(np.asarray(wrong, np.float64))
    if not len(q):
        return -1.0
    n = np.searchsorted(q, q, side="right").astype(np.float64)
    right = n * (1 - q)
    there = float(right.max())
    if there <= 0:
        return -1.0
    f1 = 2 * right / (n + there)
    return float(q[np.flatnonzero(f1 >= (1 - slack) * f1.max())[-1]])
