"""The API of ``tlpick`` besides :class:`tlpick.Model`: pick many tomograms, use the results, score picks.

The command line ``tlpick`` is a thin layer over the same functions.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pandas as pd

from catalogs.corpus.catalog import Catalog
from catalogs.errors import InputError
from catalogs.former_names import accepts_former
from catalogs.model_sources import find_model, listed
from catalogs.progress import Progress
from tlpick.api_lists import convert
from tlpick.batch.pipeline import Settings
from tlpick.batch.rank_models import RankedModel
from tlpick.batch.rank_models import rank_models as ranked_models
from tlpick.batch.results import Lists
from tlpick.batch.run import Run, run
from tlpick.batch.save_segmentation import SegmentationFormat
from tlpick.evaluation.calibrate import HELD_OUT
from tlpick.evaluation.comparison import Comparison, Table, compare, compare_files
from tlpick.evaluation.pick_selection import asked_cut
from tlpick.network.localisation.localise import Options
from tlpick.network.model import Model, load_model
from tlpick.network.tomograms.inputs import Selection, paths
from tlpick.network.tomograms.intake import Preprocessing

if TYPE_CHECKING:
    from tlpick.evaluation.fit_check import Difference
    from tlpick.output.pages import Pages


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
        _path(model),
        paths(tomograms),
        os.fspath(to),
        settings,
        cluster=cluster,
        selection=selection,
        precision=precision,
        cut=asked_cut(fdr, top, min_score, precision),
        lists=Lists(tuple(formats), pixel_size, tomograms_star),
        progress=progress,
    )


def select(
    run: Run | str | os.PathLike[str],
    to: str | os.PathLike[str] | None = None,
    *,
    fdr: float | Literal["off"] | None = None,
    top: int | None = None,
    min_score: float | None = None,
) -> pd.DataFrame:
    """Make another selection of the picks of a run, without picking again.

    Parameters
    ----------
    run
        Result of :func:`pick_many`, or its folder.
    to
        List to write; its suffix determines the format. None: no list.
    fdr, top, min_score
        As for :func:`pick_many`.

    Returns
    -------
    pandas.DataFrame
        The particle table of the picks that are kept.

    Raises
    ------
    InputError
        If it is not the folder of a run, or a share of wrong picks is requested without decoys.
    """
    from tlpick.batch.select import select_picks

    cut = asked_cut(fdr, top, min_score)
    return select_picks(_folder(run), None if to is None else os.fspath(to), cut)


def mask(run: Run | str | os.PathLike[str], to: str | os.PathLike[str]) -> list[Path]:
    """Write the masks of a run as MRC: 1 where it picked, 0 outside of the ice and at beads.

    Parameters
    ----------
    run
        Result of :func:`pick_many`, or its folder.
    to
        Folder for the masks.

    Returns
    -------
    list of pathlib.Path
        ``NAME.mrc`` for each tomogram.

    Raises
    ------
    InputError
        If it is not the folder of a run, or a tomogram has been moved.
    """
    from tlpick.batch.select import write_masks

    return write_masks(_folder(run), os.fspath(to))


def report(run: Run | str | os.PathLike[str]) -> Pages:
    """Write the pages of a run again, from the picks in its folder.

    Parameters
    ----------
    run
        Result of :func:`pick_many`, or its folder.

    Returns
    -------
    tlpick.output.pages.Pages
        Paths of the ``report``, and of the page for ``curation``.

    Raises
    ------
    InputError
        If it is not the folder of a run.
    """
    from tlpick.output.pages import write_pages

    return write_pages(_folder(run))


def check(
    model: Model | str | os.PathLike[str],
    tomograms: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    preprocessing: Preprocessing | None = None,
) -> dict[str, list[Difference]]:
    """Find out how tomograms differ from the training data of a model, and what to change; nothing is picked.

    Parameters
    ----------
    model, tomograms, preprocessing
        As for :func:`pick_many`.

    Returns
    -------
    dict of str to list of Difference
        Tomogram -> differences, each with ``words`` and whether it is ``strong``; none if it is like the
        training data.

    Raises
    ------
    InputError
        If a file cannot be read, or the model does not describe its training data.
    """
    from tlpick.batch.check import check_tomograms

    return check_tomograms(_path(model), paths(tomograms), preprocessing)


def models(sources: Sequence[str] | None = None) -> pd.DataFrame:
    """List the models that can be used by name, such as ``tlpick.load_model("NAME")``.

    Parameters
    ----------
    sources
        Folders or URLs; None: those of ``$TLPICK_MODELS``, and the models that come with the program.

    Returns
    -------
    pandas.DataFrame
        Name -> ``summary`` and ``source``.

    Raises
    ------
    InputError
        If a source cannot be reached, or its index is not valid.
    """
    rows = [
        {"name": each.name, "summary": each.entry.summary, "source": each.source} for each in listed(sources)
    ]
    return pd.DataFrame(rows, columns=["name", "summary", "source"]).set_index("name")


def score(
    picks: Table,
    truth: Table,
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
        return compare_files(picks, truth, radii, radius, reviewed, join)
    for unused, given in (("reviewed", reviewed), ("join", join)):
        if given:
            raise InputError(f"`{unused}` is for comparisons with `report=True`")
    return compare(picks, truth, radii, radius)


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


def _path(model: Model | str | os.PathLike[str]) -> str:
    """Return the file of a model."""
    return os.fspath(model.path if isinstance(model, Model) else find_model(model))


def _folder(run: Run | str | os.PathLike[str]) -> str:
    """Return the folder of a run."""
    return os.fspath(run.folder if isinstance(run, Run) else run)


__all__ = [
    "Comparison",
    "RankedModel",
    "Run",
    "calibrate",
    "check",
    "convert",
    "mask",
    "models",
    "pick_many",
    "rank_models",
    "report",
    "score",
    "select",
]
