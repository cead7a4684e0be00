"""How many picks are right, by how often they look more like the particle than like its mirror image.

Wrong picks win as often as they lose (:mod:`tlpick.evaluation.hands`), so wins less losses count right ones:
all of them if every right pick wins, and fewer where noise lets some lose. How often right picks win is seen
among the surest, by score, on the assumption that those are all right. So there are two answers: without
the assumption the most that can be wrong, with it the least.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

#: Picks that the surest are at least, and in share of all; and how many picks a contest needs.
SUREST, SUREST_SHARE, ENOUGH = 40, 0.1, 80
#: The surest win by so many standard errors, or the hand of the particle cannot be seen.
CLEAR = 4.0


@dataclass(frozen=True, eq=False)
class Contest:
    """What the contest says of picks.

    Attributes
    ----------
    least, most
        (n,) between which values the share of wrong ones lies among the picks that are as good or better.
    level
        Wins less losses of the surest, as a share.
    turned
        The mirror image wins: the tomogram has the other hand.
    """

    least: Floats
    most: Floats
    level: float
    turned: bool


def contest(scores: ArrayLike, margin: ArrayLike) -> Contest | None:
    """Count right picks.

    Parameters
    ----------
    scores
        (n,) of the picks.
    margin
        (n,) by how much each looks more like the particle than like its mirror image.

    Returns
    -------
    Contest or None
        None if there are too few picks, or the surest do not tell the particle from its mirror image.
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
    """Find how many picks from the top on win as often as any: their number, and wins less losses."""
    falling = _falling(won)
    size = max(surest, int((falling >= falling[surest - 1]).sum()))
    return size, float(won[:size].mean())


def _falling(values: Floats) -> Floats:
    """Fit the falling curve that is nearest by least squares."""
    from scipy.optimize import isotonic_regression

    return np.asarray(isotonic_regression(values, increasing=False).x, np.float64)
