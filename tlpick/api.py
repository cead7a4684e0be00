"""The API of ``tlpick`` besides :class:`tlpick.Model`: pick many tomograms, score picks.

The command line ``tlpick`` is a thin layer over the same functions.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from catalogs import particles
from catalogs.corpus.catalog import Catalog
from catalogs.errors import InputError
from catalogs.former_names import accepts_former
from catalogs.model_sources import find_model
from catalogs.particle_table import without_rejected
from catalogs.particles import DISTRACTOR
from catalogs.progress import Progress
from tlpick.batch.pipeline import Settings
from tlpick.batch.rank_models import RankedModel
from tlpick.batch.rank_models import rank_models as ranked_models
from tlpick.batch.results import Lists
from tlpick.batch.run import Run, run
from tlpick.batch.run_folder import Result
from tlpick.batch.save_segmentation import SegmentationFormat
from tlpick.evaluation.calibrate import HELD_OUT
from tlpick.evaluation.cut import asked_cut
from tlpick.evaluation.matching import Evaluation, evaluate
from tlpick.network.localisation.localise import Options
from tlpick.network.model import Model, load_model
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
    tile: int | None = None,
    decoys: int | None = None,
    keep_segmentation: SegmentationFormat | None = None,
    selection: Selection | None = None,
    precision: float | None = None,
    fdr: float | Literal["off"] | None = None,
    top: int | None = None,
    min_score: float | None = None,
    formats: Sequence[str] = (),
    pixel_size: float | None = None,
    tomograms_star: str | None = None,
    yes: bool = False,
    progress: bool | Progress = False,
) -> Run:
    """Pick the particles of many tomograms.

    It can be called again after an interruption. Tomograms are skipped if the folder has their picks, made
    with the same model and settings from the same voxels. If one tomogram fails, the others go on.

    Parameters
    ----------
    model
        A model, its file, or its name, as :func:`tlpick.load_model` takes it.
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
    tile
        The network sees at most a square of this edge, in voxels, times the length of the volume at a time;
        None: as much as the memory allows.
    decoys
        How many decoys of noise are picked, too, to tell how many picks are wrong; 0: none; None: as many as
        are worth their time.
    keep_segmentation
        ``zarr`` or ``mrc``: the classes and probabilities of all voxels are kept.
    selection
        Which tomograms to take from sources with several.
    precision
        Keep the picks that promise this share of right ones; needs a calibrated model.
    fdr, top, min_score
        Instead of it: the share of wrong picks that may be expected by the decoys (``off``: keep all), the
        number of each class and tomogram, or the least score. Without any, the expected F1 or F2 is made
        greatest.
    formats
        Further formats of the list, such as ``relion5``.
    pixel_size, tomograms_star
        Å of the unbinned tilt series, and RELION 5's ``tomograms.star``, for formats that need them.
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
    path = model.path if isinstance(model, Model) else os.fspath(find_model(model))
    given = [tomograms] if isinstance(tomograms, str | os.PathLike) else tomograms
    if tta not in (1, 4, 8):
        raise InputError(f"`tta` is {tta}; give 1, 4 or 8")
    preprocessing = preprocessing or Preprocessing()
    settings = Settings(
        max_memory=max_memory,
        preprocessing=replace(preprocessing, yes=yes or preprocessing.yes),
        tta=tta,
        localising=localising or Options(),
        tile=tile,
        decoys=decoys,
        keep_segmentation=keep_segmentation,
    )
    return run(
        path,
        [os.fspath(each) for each in given],
        os.fspath(to),
        settings,
        cluster=cluster,
        selection=selection,
        precision=precision,
        cut=asked_cut(fdr, top, min_score, precision),
        lists=Lists(tuple(formats), pixel_size, tomograms_star),
        progress=progress,
    )


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


def score(
    picks: _Table,
    truth: _Table,
    *,
    radii: Mapping[str, float] | None = None,
    radius: float | None = None,
    report: bool = False,
    reviewed: str | os.PathLike[str] | None = None,
    join: Mapping[str, str] | None = None,
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
    report
        Write ``score.json`` and a page with charts and the metrics of other programs beside the picks, as
        ``tlpick score`` does. ``picks`` is then the folder of a run or a list, and ``truth`` may also be a
        corpus, a sample of one, or a volume with the classes' labels; the radii are those of the run.
    reviewed, join
        With ``report``: a mask of where the truth is complete, or a folder with one for each tomogram; and
        the name of a picked tomogram -> what the truth calls it.

    Returns
    -------
    Comparison

    Raises
    ------
    InputError
        If a radius is missing, or the tables have no tomogram in common.
    """
    if report:
        return _with_report(picks, truth, radii, radius, reviewed, join)
    for unused, given in (("reviewed", reviewed), ("join", join)):
        if given:
            raise InputError(f"`{unused}` is for comparisons with `report=True`")
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


def _with_report(
    picks: _Table,
    truth: _Table,
    radii: Mapping[str, float] | None,
    radius: float | None,
    reviewed: str | os.PathLike[str] | None,
    join: Mapping[str, str] | None,
) -> Comparison:
    """Compare files and leave a report."""
    from tlpick.evaluation.score import score_files

    if isinstance(picks, pd.DataFrame) or isinstance(truth, pd.DataFrame):
        raise InputError("`report` goes beside picks in files; give paths of the picks and of the truth")
    if radii is not None:
        raise InputError("`report` takes the radii of the run; leave out `radii`, or give one `radius`")
    mask = None if reviewed is None else os.fspath(reviewed)
    result = score_files(os.fspath(picks), os.fspath(truth), radius, mask, join)
    return Comparison(result.evaluation, result)


def calibrate(
    model: Model | str | os.PathLike[str],
    corpus: Catalog | str | os.PathLike[str],
    *,
    where: str = HELD_OUT,
    to: str | os.PathLike[str] | None = None,
    localising: Options | None = None,
) -> Model:
    """Learn from held-out samples of a corpus what the scores of a model's picks mean.

    After it, picks have the probability that they are right, and :func:`pick_many` takes ``precision``.

    Parameters
    ----------
    model
        A model or its file.
    corpus
        A corpus, or its path or URL.
    where
        Which samples; never those that the model was trained on.
    to
        Where the calibrated model goes; None: it replaces the file of ``model``.
    localising
        How voxels become particles; pick with the same. None: the defaults.

    Returns
    -------
    Model
        The calibrated model.

    Raises
    ------
    InputError
        If no sample fits, one was trained on, or their voxel size is not the model's.
    """
    from tlpick.evaluation.calibrate import calibrate as learn

    path = model.path if isinstance(model, Model) else os.fspath(model)
    url = corpus.url if isinstance(corpus, Catalog) else os.fspath(corpus)
    target = None if to is None else os.fspath(to)
    learn(path, url, where, target, localising)
    return load_model(target or path)


def rank_models(
    models: Sequence[Model | str | os.PathLike[str]],
    tomograms: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    to: str | os.PathLike[str] | None = None,
    preprocessing: Preprocessing | None = None,
    localising: Options | None = None,
    max_memory: float = 4e9,
    decoys: int | None = None,
    progress: bool | Progress = False,
) -> list[RankedModel]:
    """Rank models by an estimate of how many of their picks in some tomograms are right, without labels.

    The picks are compared with the mirror image of the particle, and with picks in noise. It is an estimate
    and no promise.

    Parameters
    ----------
    models
        Two or more models, their files, or their names.
    tomograms
        As :func:`pick_many` takes them.
    to
        Folder for the picks, one folder for each model; finished ones are not picked again. None: picks are
        not kept.
    preprocessing
        How tomograms are preprocessed for the models; None: they must fit as they are.
    localising
        How particles are found in the segmentation; None: the defaults.
    max_memory
        Bytes that may be used.
    decoys
        Number of decoys for each tomogram; None: as many as are worth their time.
    progress
        True shows a bar; or a :class:`catalogs.progress.Progress`.

    Returns
    -------
    list of RankedModel
        The best first.

    Raises
    ------
    InputError
        If there are fewer than two models, they have no class in common, or a tomogram cannot be picked.
    """
    paths = [each.path if isinstance(each, Model) else os.fspath(find_model(each)) for each in models]
    given = [tomograms] if isinstance(tomograms, str | os.PathLike) else tomograms
    settings = Settings(
        max_memory=max_memory,
        preprocessing=preprocessing or Preprocessing(),
        localising=localising or Options(),
        decoys=decoys,
    )
    return ranked_models(
        paths,
        [os.fspath(each) for each in given],
        None if to is None else os.fspath(to),
        settings,
        progress=progress,
    )


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
    return without_rejected(table[table["class_name"] != DISTRACTOR]).reset_index(drop=True)


__all__ = ["Comparison", "RankedModel", "Run", "calibrate", "pick_many", "rank_models", "score"]
