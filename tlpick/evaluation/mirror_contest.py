"""Estimate how many picks are correct from how often they resemble the particle more than its mirror image.

Wrong picks win as often as they lose (:mod:`tlpick.evaluation.mirror_likeness`), so wins minus losses is the
number of correct picks if every correct pick wins, and a smaller number if noise makes some lose. How often
correct picks win is measured on the picks with the highest scores, assuming that all of these are correct.
There are therefore two estimates: the largest share of wrong picks, without this assumption, and the
smallest, with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

#: Smallest number and share of picks with the highest scores, and smallest number of all picks.
SUREST, SUREST_SHARE, ENOUGH = 40, 0.1, 80
#: The best picks must win by this many standard errors; otherwise the hand cannot be seen.
CLEAR = 4.0


@dataclass(frozen=True, eq=False)
class Contest:
    """Estimates for the picks.

    Attributes
    ----------
    least, most
        (n,) bounds of the share of wrong picks among all picks that are at least as good.
    level
        Wins minus losses of the best picks, as a share.
    turned
        Whether the mirror image wins, which means that the tomogram has the opposite hand.
    """

    least: Floats
    most: Floats
    level: float
    turned: bool


def contest(scores: ArrayLike, margin: ArrayLike) -> Contest | None:
    """Estimate the share of wrong picks.

    Parameters
    ----------
    scores
        (n,) scores of the picks.
    margin
        (n,) how much more each pick resembles the particle than its mirror image.

    Returns
    -------
    Contest or None
        None if there are too few picks, or the best do not distinguish the particle from its mirror image.
    """
    ranks, won = np.asarray(scores, np.float64), np.sign(np.asarray(margin, np.float64))
    n = len(ranks)
    if n < ENOUGH:
        return None
    order = np.argsort(-ranks, kind="stable")
    won = won[order]
    surest = max(SUREST, round(SUREST_SHARE * n))
    turned = bool(won[:surest].mean() * np.sqrt(surest) < -CLEAR)
    won = -won if turned else won
    size, level = _top(won, surest)
    if level * np.sqrt(size) < CLEAR:
        return None
    excess = np.clip(_falling(won), 0, level)
    n_picks = np.arange(1, n + 1)
    answers = []
    for right in (excess / level, excess):
        share = np.empty(n)
        share[order] = 1 - right.cumsum() / n_picks
        answers.append(np.clip(share, 0, 1))
    return Contest(answers[0], answers[1], level, turned)


def _top(won: Floats, surest: int) -> tuple[int, float]:
    """Find the number of the best picks, which win most often, and their wins minus losses as a share."""
    falling = _falling(won)
    size = max(surest, int((falling >= falling[surest - 1]).sum()))
    return size, float(won[:size].mean())


def _falling(values: Floats) -> Floats:
    """Fit a decreasing curve by least squares."""
    from scipy.optimize import isotonic_regression

    return np.asarray(isotonic_regression(values, increasing=False).x, np.float64)
