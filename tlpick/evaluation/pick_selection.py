"""Selects the picks of a run: by the expected share of wrong ones, by number, or by score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from catalogs.errors import InputError
from tlpick.evaluation.decoys import best_cut

#: Column of the expected share of wrong picks among those at least as good; nan if unknown.
WRONG = "wrong"
#: Upper bound of this share, if the mirror image was compared: right picks that lose count as wrong.
WRONG_MOST = "wrong_at_most"
#: Correlation of a pick with the mean particle of the training data, and with its mirror image.
LIKENESS, MIRROR = "likeness", "mirror"
#: How many times as much recall counts as precision where other molecules are counted. Wrong picks can be
#: sorted out later by classification, but missed particles are lost.
BETA = 2.0


@dataclass(frozen=True)
class Cut:
    """The requested selection.

    Attributes
    ----------
    by
        ``best``: the largest expected F1, or F2 where other molecules are counted; ``fdr``: a share of wrong
        picks; ``top``: a number for each class; ``score``: a score threshold; ``all``.
    value
        The share, the number or the score.
    """

    by: Literal["best", "fdr", "top", "score", "all"] = "best"
    value: float = 0.0

    def words(self) -> str:
        """Describe it by command-line options."""
        return {
            "best": "the greatest expected F score",
            "fdr": f"--fdr {self.value:g}",
            "top": f"--top {self.value:g}",
            "score": f"--min-score {self.value:g}",
            "all": "--fdr off",
        }[self.by]


def asked_cut(
    fdr: float | str | None = None,
    top: int | None = None,
    min_score: float | None = None,
    precision: float | None = None,
) -> Cut:
    """Choose the selection of picks from at most one of several options.

    Parameters
    ----------
    fdr
        Expected share of wrong picks among the kept ones; ``off`` keeps all.
    top
        Number of picks for each class and tomogram.
    min_score
        Score threshold.
    precision
        Expected precision by the model's calibration, which excludes the other options.

    Returns
    -------
    Cut
        Without an option, the largest expected F1 or F2.

    Raises
    ------
    InputError
        If more than one is given, or a value is impossible.
    """
    given = {"fdr": fdr, "top": top, "min_score": min_score, "precision": precision}
    named = [f"`{name}`" for name, value in given.items() if value is not None]
    if len(named) > 1:
        raise InputError(f"{' and '.join(named)} all say which picks are kept; give one of them")
    if fdr == "off":
        return Cut("all")
    if fdr is not None:
        if isinstance(fdr, str) or not 0 < fdr < 1:
            raise InputError(
                f"`fdr={fdr}` is not a share of wrong picks; give a number between 0 and 1, or off"
            )
        return Cut("fdr", fdr)
    if top is not None:
        if top < 1:
            raise InputError(f"`top={top}` keeps nothing; give 1 or more")
        return Cut("top", top)
    return Cut() if min_score is None else Cut("score", min_score)


@dataclass(frozen=True)
class ClassCut:
    """The picks of one class that a cut keeps in one tomogram.

    Attributes
    ----------
    class_name
        Name of the class.
    kept, all
        Numbers of picks.
    wrong
        Expected share of wrong ones among the kept picks; None if unknown.
    at_tenth
        Number of picks that ``--fdr 0.1`` keeps; None if unknown.
    stands_out
        False if the picks are no better than those in decoys; None if there were no decoys.
    least
        Lowest score of the kept picks; None if there are none.
    at_most
        Upper bound of the share of wrong ones; None if the number of other molecules is unknown.
    unlike
        Whether the tomogram is unlike the training data, and only noise was counted, so that no precision can
        be expected.
    """

    class_name: str
    kept: int
    all: int
    wrong: float | None = None
    at_tenth: int | None = None
    stands_out: bool | None = None
    least: float | None = None
    at_most: float | None = None
    unlike: bool = False


@dataclass(frozen=True, eq=False)
class Decision:
    """The rows of a table that are kept, and the result for each class."""

    rows: NDArray[np.bool_]
    classes: list[ClassCut] = field(default_factory=list)


def decide(
    table: pd.DataFrame,
    classes: list[str],
    stands_out: Mapping[str, bool],
    cut: Cut,
    unlike: bool = False,
) -> Decision:
    """Select the picks of one tomogram.

    Parameters
    ----------
    table
        All picks, a particle table; with the column :data:`WRONG` if there were decoys.
    classes
        Names, in order.
    stands_out
        Class -> whether its picks are better than those in the decoys; empty without decoys.
    cut
        The requested selection.
    unlike
        Whether the tomogram is unlike the model's training data.

    Returns
    -------
    Decision

    Raises
    ------
    InputError
        If a share of wrong picks is requested without decoys.
    """
    rows = np.zeros(len(table), bool)
    name = table["class_name"].to_numpy()
    score = table["score"].to_numpy(np.float64)
    wrong = np.full(len(table), np.nan)
    if WRONG in table:  # a list has no number where nothing is known
        wrong = pd.to_numeric(table[WRONG], errors="coerce").to_numpy(np.float64)
    most = np.full(len(table), np.nan)
    if WRONG_MOST in table:
        most = pd.to_numeric(table[WRONG_MOST], errors="coerce").to_numpy(np.float64)
    said = []
    for each in classes:
        ours = np.flatnonzero(name == each)
        clear = stands_out.get(each)
        known = clear is not None and bool(np.isfinite(wrong[ours]).all())
        counted = known and len(ours) > 0 and bool(np.isfinite(most[ours]).all())
        stay = ours[_stay(score[ours], wrong[ours], bool(clear), known, cut, BETA if counted else 1.0)]
        rows[stay] = True
        strange = unlike and not counted
        promised = known and bool(clear) and not strange
        said.append(
            ClassCut(
                class_name=each,
                kept=len(stay),
                all=len(ours),
                wrong=float(wrong[stay].max()) if promised and len(stay) else None,
                at_tenth=int((wrong[ours] <= 0.1).sum()) if promised else None,
                stands_out=clear if known and len(ours) else None,
                least=float(score[stay].min()) if len(stay) else None,
                unlike=strange,
                at_most=float(most[stay].max()) if promised and counted and len(stay) else None,
            )
        )
    return Decision(rows, said)


def _stay(
    score: NDArray[np.float64],
    wrong: NDArray[np.float64],
    clear: bool,
    known: bool,
    cut: Cut,
    beta: float,
) -> NDArray[np.bool_]:
    if cut.by == "all":
        return np.ones(len(score), bool)
    if cut.by == "score":
        return np.asarray(score >= cut.value)
    if cut.by == "top":
        keep = np.zeros(len(score), bool)
        keep[np.argsort(-score, kind="stable")[: int(cut.value)]] = True
        return keep
    if not known and len(score):
        if cut.by == "fdr":
            raise InputError(
                f"`fdr={cut.value:g}` needs decoys, and these picks were made without; run tlpick run again "
                "without `decoys` off, or choose by `top` or `min_score`"
            )
        return np.ones(len(score), bool)
    if not clear:
        return np.zeros(len(score), bool)
    bar = best_cut(wrong, beta) if cut.by == "best" else cut.value
    return np.asarray(wrong <= bar)


def sentence(tomogram: str, kept: ClassCut, cut: Cut, every: str) -> str:
    """Describe in one sentence the number of picks and their expected share of wrong ones."""
    left = kept.all - kept.kept
    weaker = f", {left:,} weaker {'one' if left == 1 else 'ones'} in {every}" if left else ""
    if kept.stands_out is False:
        told = (
            f"{tomogram}: no {kept.class_name} that stands out: the {kept.all:,} picks are no better than "
            "what the network finds in noise with the tomogram's own power. The tomogram is unlike what the "
            "model was trained on, or holds none; no precision is promised"
        )
        return f"{told}; {kept.kept:,} kept by {cut.words()}{weaker}" if kept.kept else f"{told}{weaker}"
    start = f"{tomogram}: {kept.kept:,} {kept.class_name}"
    if kept.unlike and kept.all:
        return (
            f"{start}, and no precision is promised: the tomogram is unlike what the model was trained on "
            f"(`tlpick check` says how){weaker}"
        )
    if kept.wrong is None:
        return start + weaker
    share = f"at least about {100 * kept.wrong:.0f} % of them wrong"
    if kept.at_most is not None:
        low, high = round(100 * kept.wrong), round(100 * kept.at_most)
        share = f"about {f'{low} to ' if high - low > 2 else ''}{high} % of them wrong"
    tenth = "" if cut.by == "fdr" else f"; --fdr 0.1 keeps {kept.at_tenth or 0:,}"
    return f"{start} ({share}{tenth}){weaker}"


def other_hand(tomogram: str, class_name: str) -> str:
    """Report that a tomogram has the other hand."""
    return (
        f"{tomogram}: the picks look like the mirror image of the {class_name} of the training data, so the "
        "tomogram seems to have the other hand; check the sign of the tilt angles and the tilt axis"
    )
