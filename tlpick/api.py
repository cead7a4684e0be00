"""The API of ``tlpick`` besides :class:`tlpick.Model`: pick many tomograms, score picks.

The command line ``tlpick`` is a thin layer over the same functions.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from catalogs import particles
from catalogs.errors import InputError
from catalogs.former_names import accepts_former
from catalogs.particles import DISTRACTOR
from catalogs.progress import Progress
from tlpick.batch.pipeline import Settings
from tlpick.batch.results import Lists
from tlpick.batch.run import Run, run
from tlpick.evaluation.matching import Evaluation, evaluate
from tlpick.network.localisation.localise import Options
from tlpick.network.model import Model
from tlpick.network.tomograms.inputs import Selection
from tlpick.network.tomograms.intake import Preprocessing

_Table = pd.DataFrame | str | os.PathLike[str]


@accepts_former(terms="preprocessing")
def pick_many(
    model: Model | str | os.PathLike[str],
    tomograms: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    to: str | os.PathLike[str],
    *,
    cluster: str | None = None,
    preprocessing: Preprocessing | None = None,
    localising: Options | None = None,
    tta: int = 1,
    max_memory: float = 4e9,
    selection: Selection | None = None,
    precision: float | None = None,
    formats: Sequence[str] = (),
    yes: bool = False,
    progress: bool | Progress = False,
) -> Run:
    """Pick the particles of many tomograms.

    It can be called again after an interruption. Tomograms are skipped if the folder has their picks, made
    with the same model and settings from the same voxels. If one tomogram fails, the others go on.

    Parameters
    ----------
    model
        A model or its file.
    tomograms
        Volumes (paths or URLs), patterns such as ``data/*.mrc``, text files with one of these per line,
        RELION's ``tomograms.star``, copick projects, corpora.
    to
        Folder for the picks.
    cluster
        Where to run, in one word or as a file, such as ``local:4`` or ``slurm``; None: this process.
    preprocessing
        How tomograms are preprocessed for the model; None: they must fit as they are.
    localising
        How particles are found in the segmentation, and which of them count; None: the defaults.
    tta
        Number of orientations to average over: 1, 4 or 8.
    max_memory
        Bytes that a process may use.
    selection
        Which tomograms to take from sources with several.
    precision
        Keep the picks down to the score with this expected precision; needs a calibrated model. None: all.
    formats
        Further formats of the list, such as ``relion5``.
    yes
        Accept unusual values; False: refuse them, unless ``preprocessing`` accepts them.
    progress
        True shows a bar; or a :class:`catalogs.progress.Progress`.

    Returns
    -------
    Run
        The picks, the failures, and the location of the results.

    Raises
    ------
    InputError
        If the model is not valid, a setting is impossible, or there is nothing to pick.
    """
    path = model.path if isinstance(model, Model) else os.fspath(model)
    given = [tomograms] if isinstance(tomograms, str | os.PathLike) else tomograms
    if tta not in (1, 4, 8):
        raise InputError(f"`tta` is {tta}; give 1, 4 or 8")
    preprocessing = preprocessing or Preprocessing()
    settings = Settings(
        max_memory=max_memory,
        preprocessing=replace(preprocessing, yes=yes or preprocessing.yes),
        tta=tta,
        localising=localising or Options(),
    )
    return run(
        path,
        [os.fspath(each) for each in given],
        os.fspath(to),
        settings,
        cluster=cluster,
        selection=selection,
        precision=precision,
        lists=Lists(tuple(formats)),
        progress=progress,
    )


@dataclass(frozen=True, eq=False)
class Comparison:
    """Comparison of picks with truth. Notebooks show it as a table.

    Attributes
    ----------
    evaluation
        Scores of each class, and both tables with matched partners.
    """

    evaluation: Evaluation

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


def score(
    picks: _Table, truth: _Table, *, radii: Mapping[str, float] | None = None, radius: float | None = None
) -> Comparison:
    """Compare picks with the true particles, one to one, class by class.

    Parameters
    ----------
    picks, truth
        Particle tables, or lists in any format that :func:`catalogs.particles.read` knows. Distractors of a
        simulated truth do not count.
    radii
        Class -> radius of its particles in Å, such as ``model.radii``: the largest distance of a right pick.
    radius
        The same for all classes; has priority over ``radii``.

    Returns
    -------
    Comparison

    Raises
    ------
    InputError
        If a radius is missing, or the tables have no tomogram in common.
    """
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


def _read(table: _Table, parameter: str) -> pd.DataFrame:
    """Use a particle table, or read it; leave out distractors."""
    if not isinstance(table, pd.DataFrame):
        table = particles.read(Path(table))
    missing = [name for name in ("tomogram", "class_name", "x", "y", "z") if name not in table]
    if missing:
        raise InputError(
            f"`{parameter}` is not a particle table: it has no column {', '.join(missing)}; "
            "catalogs.particles.make makes one"
        )
    return table[table["class_name"] != DISTRACTOR].reset_index(drop=True)


__all__ = ["Comparison", "Run", "pick_many", "score"]
