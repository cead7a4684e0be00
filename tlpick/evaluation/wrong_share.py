"""The expected share of wrong picks, from decoys, mirror images and calibration.

Decoys account for this tomogram's noise, the comparison with the mirror image
(:mod:`tlpick.evaluation.mirror_contest`) for its other molecules, and the calibration for the molecules of
the corpus. Each of them misses some wrong picks, so the largest of the three shares is used.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from catalogs.model_file import ModelCard
from tlpick.evaluation.decoys import estimate_wrong
from tlpick.evaluation.mirror_contest import ENOUGH, contest
from tlpick.evaluation.mirror_likeness import compare
from tlpick.evaluation.pick_selection import LIKENESS, MIRROR, WRONG, WRONG_MOST
from tlpick.network.tomograms.intake import Prepared

Floats = NDArray[np.float64]

#: Largest number of picks of a class that are compared with both hands; the best ones are taken.
MOST = 2000


@dataclass(frozen=True)
class Judgement:
    """Estimates for the picks of a tomogram, class by class.

    Attributes
    ----------
    stands_out
        Class -> whether its picks are better than those in the decoys.
    hands
        Class -> wins minus losses of the best picks against the mirror image, as a share. It is 1 if all
        win, and negative if the mirror image wins, which means that the tomogram has the opposite hand.
        Classes whose hand cannot be seen are missing.
    """

    stands_out: dict[str, bool] = field(default_factory=dict)
    hands: dict[str, float] = field(default_factory=dict)


def add_wrong_share(
    table: pd.DataFrame, chance: pd.DataFrame, card: ModelCard, n_decoys: int, prepared: Prepared
) -> Judgement:
    """Add the expected share of wrong picks to a table.

    Parameters
    ----------
    table
        Picks of the tomogram. The column :data:`~tlpick.evaluation.pick_selection.WRONG` is added, and, if
        the mirror image was compared, ``WRONG_MOST``, ``LIKENESS`` and ``MIRROR`` too.
    chance
        Picks in all decoys of the tomogram.
    card
        Card of the model.
    n_decoys
        Number of decoys; without decoys nothing is estimated.
    prepared
        The tomogram.

    Returns
    -------
    Judgement
    """
    judgement = Judgement()
    if not n_decoys:
        return judgement
    table[WRONG] = np.nan
    for info in card.classes:
        if not info.is_particle:
            continue
        ours = np.flatnonzero((table["class_name"] == info.name).to_numpy())
        scores = table["score"].to_numpy(np.float64)[ours]
        theirs = chance.loc[chance["class_name"] == info.name, "score"].to_numpy(np.float64)
        estimate = estimate_wrong(scores, theirs, n_decoys)
        wrong, clear = estimate.wrong, estimate.stands_out
        if info.name in card.calibration:
            expected = [card.calibration[info.name].expected(score).precision for score in scores]
            wrong = np.maximum(wrong, 1 - np.array(expected, np.float64))
        if info.name in card.means and len(ours) >= ENOUGH:
            best = ours[np.argsort(-scores, kind="stable")[:MOST]]
            xyz = table[["x", "y", "z"]].to_numpy(np.float64)[best] - np.array(prepared.offset)
            hands = compare(prepared.values, prepared.grid, xyz, card.means[info.name], info.radius)
            for column, values in ((LIKENESS, hands.straight), (MIRROR, hands.mirrored)):
                if column not in table:
                    table[column] = np.nan
                table.loc[best, column] = np.round(values, 6)
            told = _ranked(table, ours, wrong)
            if told is not None:
                wrong, most, level = told
                if WRONG_MOST not in table:
                    table[WRONG_MOST] = np.nan
                table.loc[ours, WRONG_MOST] = np.round(most, 6)
                judgement.hands[info.name] = round(level, 3)
                clear = True
        table.loc[ours, WRONG] = np.round(wrong, 6)
        judgement.stands_out[info.name] = clear
    return judgement


def _ranked(
    table: pd.DataFrame, ours: NDArray[np.int64], noise: Floats
) -> tuple[Floats, Floats, float] | None:
    """Rank the picks of a class by score and likeness together, and compare both hands.

    A pick that resembles neither hand is not a particle, whatever its score. Score and likeness have equal
    weight, in standard deviations. The likeness is that of the better hand, so that the rank does not depend
    on which hand wins.
    """
    rows = table.iloc[ours]
    likeness = rows[[LIKENESS, MIRROR]].max(axis=1).to_numpy(np.float64)
    compared = np.isfinite(likeness)
    score = rows["score"].to_numpy(np.float64)
    rank = np.where(compared, _standard(score, compared) + _standard(likeness, compared), -np.inf)
    margin = np.where(compared, (rows[LIKENESS] - rows[MIRROR]).to_numpy(np.float64), 0.0)
    # picks that were not compared come last, sorted by score
    order = np.lexsort((-score, -rank))
    place = np.empty(len(order))
    place[order] = np.arange(len(order))
    told = contest(-place, margin)
    if told is None:
        return None
    by_number = np.sort(noise)[place.astype(np.int64)]
    wrong = np.maximum(told.least, by_number)
    level = -told.level if told.turned else told.level
    return wrong, np.maximum(told.most, wrong), level


def _standard(values: Floats, where: NDArray[np.bool_]) -> Floats:
    spread = float(values[where].std())
    return np.asarray((values - values[where].mean()) / (spread if spread > 0 else 1.0))
