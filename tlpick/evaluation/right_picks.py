"""Estimate without labels how many of a model's picks are right, to choose among models.

Two estimates are made for the picks of a class in a tomogram:

- by decoys: the greatest difference between the number of picks and that of picks in a decoy, over all
  scores. A decoy is noise (:mod:`tlpick.evaluation.decoys`), so other molecules count as right.
- by the mirror image: wins less losses against the mirror image of the particle
  (:mod:`tlpick.evaluation.mirror_contest`), which other molecules do not change.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from tlpick.evaluation.pick_selection import WRONG_MOST


@dataclass(frozen=True)
class RightPicks:
    """Estimated numbers of right picks; of several tomograms or classes, add them.

    Attributes
    ----------
    picks
        Number of all picks.
    by_decoys
        Greatest difference between picks and picks in a decoy.
    by_mirror
        Wins less losses against the mirror image; 0 if the picks do not tell the two hands apart.
    """

    picks: int = 0
    by_decoys: float = 0.0
    by_mirror: float = 0.0

    def __add__(self, other: RightPicks) -> RightPicks:
        return RightPicks(
            self.picks + other.picks, self.by_decoys + other.by_decoys, self.by_mirror + other.by_mirror
        )


def greatest_excess(scores: ArrayLike, decoys: ArrayLike, n_decoys: int) -> float:
    """Find the greatest difference between picks and picks in a decoy down to the same score.

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
    float
        0 or more.
    """
    ours, theirs = (np.sort(np.asarray(each, np.float64)) for each in (scores, decoys))
    if not len(ours):
        return 0.0
    n_picks = len(ours) - np.searchsorted(ours, ours, side="left")
    n_wrong = (len(theirs) - np.searchsorted(theirs, ours, side="left")) / n_decoys
    return max(0.0, float((n_picks - n_wrong).max()))


def right_picks(
    table: pd.DataFrame, chance: pd.DataFrame, class_name: str, n_decoys: int, stands_out: bool
) -> RightPicks:
    """Estimate how many picks of one class in one tomogram are right.

    Parameters
    ----------
    table
        All picks of the tomogram, as :func:`tlpick.evaluation.wrong_share.add_wrong_share` leaves them.
    chance
        The picks in its decoys.
    class_name
        The class.
    n_decoys
        Number of decoys, 1 or more.
    stands_out
        Whether the picks are better than those in the decoys. If not, none counts: with many picks in noise,
        their number differs by more than the number of particles.

    Returns
    -------
    RightPicks
    """
    ours = table[table["class_name"] == class_name]
    theirs = chance.loc[chance["class_name"] == class_name, "score"]
    scores = ours["score"].to_numpy(np.float64)
    if not stands_out:
        return RightPicks(len(ours))
    by_mirror = 0.0
    if WRONG_MOST in ours:
        most = np.sort(pd.to_numeric(ours[WRONG_MOST], errors="coerce").to_numpy(np.float64))
        most = most[np.isfinite(most)]
        if len(most):
            by_mirror = max(0.0, float((np.arange(1, len(most) + 1) * (1 - most)).max()))
    return RightPicks(len(ours), greatest_excess(scores, theirs.to_numpy(np.float64), n_decoys), by_mirror)
