"""Comparison of picks with truth, as Python users get it: of tables, or of files with a report."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from catalogs import particles
from catalogs.errors import InputError
from catalogs.particle_table import without_rejected
from catalogs.particles import DISTRACTOR
from tlpick.batch.run_folder import Result
from tlpick.evaluation.matching import Evaluation, evaluate

#: A particle table, or a list in a file.
Table = pd.DataFrame | str | os.PathLike[str]


@dataclass(frozen=True, eq=False)
class Comparison:
    """Comparison of picks with truth. Notebooks show it as a table.

    Attributes
    ----------
    evaluation
        Scores of each class, and both tables with matched partners.
    result
        With a report also its path, curves, intervals, the metrics of others, and notes on what was left out.
    """

    evaluation: Evaluation
    result: Result | None = None

    @property
    def table(self) -> pd.DataFrame:
        """One row per class: F1, precision, recall, counts, and the mean distance of pairs in Å."""
        rows: list[dict[str, Any]] = [
            {
                "class_name": each.class_name,
                "f1": each.f1,
                "precision": each.precision,
                "recall": each.recall,
                "n_picks": each.n_picks,
                "n_truth": each.n_truth,
                "n_found": each.n_found,
                "mean_distance": each.mean_distance,
            }
            for each in self.evaluation.scores
        ]
        return pd.DataFrame(rows).set_index("class_name")

    @property
    def f1(self) -> dict[str, float]:
        """Class -> F1; nan where there is neither a pick nor a particle."""
        return {each.class_name: each.f1 for each in self.evaluation.scores}

    def _repr_html_(self) -> str:
        """Show the scores in a notebook."""
        return str(self.table.to_html(float_format=lambda value: f"{value:.3f}", na_rep=""))

    def __repr__(self) -> str:
        return str(self.table)


def compare(
    picks: Table, truth: Table, radii: Mapping[str, float] | None, radius: float | None
) -> Comparison:
    """Compare tables or lists; see :func:`tlpick.score`."""
    ours, theirs = _read(picks, "picks"), _read(truth, "truth")
    names = sorted({*ours["class_name"], *theirs["class_name"], *(radii or {})})
    far = {name: radius if radius is not None else (radii or {}).get(name, math.nan) for name in names}
    for name, value in far.items():
        if not value > 0:
            raise InputError(f"the radius of {name} is unknown; give `radii` or `radius`, in Å")
    both = set(ours["tomogram"]) & set(theirs["tomogram"])
    if not both and len(ours) and len(theirs):
        raise InputError(
            f"picks and truth have no tomogram in common: {ours['tomogram'].iloc[0]!r} is the first of the "
            f"picks, {theirs['tomogram'].iloc[0]!r} of the truth; use the same names",
            parameter="truth",
        )
    return Comparison(evaluate(ours, theirs, far))


def compare_files(
    picks: Table,
    truth: Table,
    radii: Mapping[str, float] | None,
    radius: float | None,
    reviewed: str | os.PathLike[str] | None,
    join: Mapping[str, str] | None,
) -> Comparison:
    """Compare files and leave a report; see :func:`tlpick.score`."""
    from tlpick.evaluation.score import score_files

    if isinstance(picks, pd.DataFrame) or isinstance(truth, pd.DataFrame):
        raise InputError("`report` goes beside picks in files; give paths of the picks and of the truth")
    if radii is not None:
        raise InputError("`report` takes the radii of the run; leave out `radii`, or give one `radius`")
    mask = None if reviewed is None else os.fspath(reviewed)
    result = score_files(os.fspath(picks), os.fspath(truth), radius, mask, join)
    return Comparison(result.evaluation, result)


def _read(table: Table, parameter: str) -> pd.DataFrame:
    """Use a particle table, or read it; leave out distractors."""
    if not isinstance(table, pd.DataFrame):
        table = particles.read(Path(table))
    missing = [name for name in ("tomogram", "class_name", "x", "y", "z") if name not in table]
    if missing:
        raise InputError(
            f"`{parameter}` is not a particle table: it has no column {', '.join(missing)}; "
            "catalogs.particles.make makes one"
        )
    return without_rejected(table[table["class_name"] != DISTRACTOR]).reset_index(drop=True)
