"""What ``import tltrain`` offers: train a model, and fine-tune one on annotated tomograms.

The command line ``tltrain`` is a thin layer over the same functions.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pandas as pd

from catalogs import particles
from catalogs.console import nearest
from catalogs.corpus.catalog import Catalog
from catalogs.errors import InputError
from catalogs.former_names import accepts_former, names_now
from catalogs.progress import Progress, progress_of
from tlpick.network.model import Model, load_model
from tlpick.network.tomograms.inputs import Selection, expand, named
from tlpick.network.tomograms.intake import Preprocessing
from tltrain.finetune.settings import FineTuning, check
from tltrain.training.settings import Settings

if TYPE_CHECKING:
    from tltrain.finetune.annotations import Annotations

_log = logging.getLogger(__name__)

_Settings = TypeVar("_Settings", Settings, FineTuning)


def fit(
    corpus: Catalog | str | os.PathLike[str],
    to: str | os.PathLike[str],
    *,
    settings: Settings | None = None,
    overwrite: bool = False,
    yes: bool = False,
    progress: bool | Progress = False,
    **options: Any,
) -> Model:
    """Train a network on a corpus and write it as a model file.

    If it is interrupted, the same call continues where it stopped; if the model is finished, it returns at
    once. The folder ``MODEL.training`` beside the model has a page of curves, a table and events for
    TensorBoard.

    Parameters
    ----------
    corpus
        A corpus, or its path or URL.
    to
        The model file, ``.tlm``.
    settings
        How to train; None: the defaults.
    overwrite
        Replace a model that was trained with other settings; False: refuse.
    yes
        Continue with unusual values; False: refuse them.
    progress
        True shows a bar; or a :class:`catalogs.progress.Progress`.
    options
        Fields of :class:`tltrain.Settings`, such as ``steps=3000``; they override ``settings``.

    Returns
    -------
    tlpick.Model
        The model at ``to``.

    Raises
    ------
    InputError
        If there is no sample to train on, a setting is not valid, or the file at ``to`` is not a model.
    """
    from tltrain.training.fit import fit as train

    url = corpus.url if isinstance(corpus, Catalog) else os.fspath(corpus)
    train(
        url,
        to,
        _with(settings or Settings(), options),
        overwrite=overwrite,
        yes=yes,
        progress=progress_of(progress),
    )
    return load_model(to)


@accepts_former(terms="preprocessing")
def fine_tune(
    model: Model | str | os.PathLike[str],
    tomograms: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    picks: pd.DataFrame | str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    to: str | os.PathLike[str],
    *,
    settings: FineTuning | None = None,
    preprocessing: Preprocessing | None = None,
    held_out: Sequence[str] = (),
    classes: Mapping[str, str] | None = None,
    format: str | None = None,
    pixel_size: float | None = None,
    tomogram_type: str = "",
    overwrite: bool = False,
    yes: bool = False,
    progress: bool | Progress = False,
    **options: Any,
) -> Model:
    """Fine-tune a model on annotated tomograms.

    Parameters
    ----------
    model
        A model or its file.
    tomograms
        Volumes, patterns such as ``data/*.mrc``, lists, a ``tomograms.star`` or copick projects.
    picks
        Annotated particles: a particle table whose column ``tomogram`` names the tomograms, or lists in any
        format that :func:`catalogs.particles.read` knows.
    to
        File of the tuned model.
    settings
        How to fine-tune; None: the defaults.
    preprocessing
        How the tomograms are preprocessed for the model; None: they must fit as they are.
    held_out
        Names of tomograms that are not used for training but to choose the best network.
    classes
        Class of the lists -> class of the model, where they differ; "" leaves a class out.
    format
        Format of the lists; None: it is detected.
    pixel_size
        Å of the unbinned tilt series, for lists that count in its pixels.
    tomogram_type
        Which tomograms of a copick project.
    overwrite
        Replace a model that was tuned with other settings; False: refuse.
    yes
        Continue with unusual values; False: refuse them, unless ``preprocessing.yes`` is set.
    progress
        True shows a bar; or a :class:`catalogs.progress.Progress`.
    options
        Fields of :class:`tltrain.FineTuning`, such as ``steps=400``; they override ``settings``.

    Returns
    -------
    tlpick.Model
        The tuned model. If too much was forgotten, it is the best network before that, and ``card.training``
        says so.

    Raises
    ------
    InputError
        If a setting is not valid, the tomograms do not fit the model, or the picks name none of them.
    """
    from tltrain.finetune.finetune import finetune

    chosen = _with(settings or FineTuning(), options)
    check(chosen)  # before anything is read
    start = model if isinstance(model, Model) else load_model(model)
    preprocessing = _preprocessing(preprocessing, yes)
    reading: dict[str, Any] = {
        "classes": classes,
        "format": format,
        "pixel_size": pixel_size,
        "tomogram_type": tomogram_type,
    }
    with _annotations(start, tomograms, picks, preprocessing.voxel_size, **reading) as annotations:
        finetune(
            start.path,
            annotations,
            to,
            chosen,
            preprocessing=preprocessing,
            held_out=held_out,
            overwrite=overwrite,
            progress=progress_of(progress),
        )
    return load_model(to)


def learning_curve(
    model: Model | str | os.PathLike[str],
    tomograms: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    picks: pd.DataFrame | str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    to: str | os.PathLike[str],
    counts: Sequence[int],
    *,
    settings: FineTuning | None = None,
    preprocessing: Preprocessing | None = None,
    held_out: Sequence[str] = (),
    classes: Mapping[str, str] | None = None,
    format: str | None = None,
    pixel_size: float | None = None,
    tomogram_type: str = "",
    yes: bool = False,
    progress: bool | Progress = False,
    **options: Any,
) -> pd.DataFrame:
    """Fine-tune with several numbers of annotations, and compare on tomograms that were not used.

    The folder gets the models, ``curve.csv`` and ``curve.html``. If the call is interrupted, repeat it to
    continue.

    Parameters
    ----------
    model, tomograms, picks, settings, preprocessing, held_out, classes, format, pixel_size, tomogram_type
        As for :func:`fine_tune`; with ``from_scratch`` a network is also trained from scratch.
    to
        The folder.
    counts
        Numbers of annotations; 0 is the model as it is.
    yes, progress, options
        As for :func:`fine_tune`.

    Returns
    -------
    pandas.DataFrame
        A row for each training: annotations, F1, precision, recall, and F1 on simulated tomograms.

    Raises
    ------
    InputError
        If no tomogram is held out, there are not so many annotations, or :func:`fine_tune` would refuse.
    """
    from tltrain.finetune.learning_curve import learn

    chosen = _with(settings or FineTuning(), options)
    check(chosen)  # before anything is read
    if chosen.annotations is not None:
        raise InputError("`annotations` and `learning_curve` exclude each other; give one of them")
    start = model if isinstance(model, Model) else load_model(model)
    preprocessing = _preprocessing(preprocessing, yes)
    reading: dict[str, Any] = {
        "classes": classes,
        "format": format,
        "pixel_size": pixel_size,
        "tomogram_type": tomogram_type,
    }
    with _annotations(start, tomograms, picks, preprocessing.voxel_size, **reading) as annotations:
        points = learn(
            start.path,
            annotations,
            to,
            sorted(set(counts)),
            chosen,
            preprocessing=preprocessing,
            held_out=held_out,
            progress=progress_of(progress),
        )
    return pd.DataFrame([asdict(point) for point in points])


def _preprocessing(given: Preprocessing | None, yes: bool) -> Preprocessing:
    given = given or Preprocessing()
    return replace(given, yes=yes or given.yes)


@contextmanager
def _annotations(
    model: Model,
    tomograms: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    picks: pd.DataFrame | str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    voxel_size: float | None,
    *,
    classes: Mapping[str, str] | None,
    format: str | None,
    pixel_size: float | None,
    tomogram_type: str,
) -> Iterator[Annotations]:
    """Find the tomograms and the particles in them; remarks about them are logged."""
    from tempfile import TemporaryDirectory

    from tltrain.finetune.annotations import read_annotations, read_sizes

    selection = Selection(kind=tomogram_type, voxel_size=model.card.voxel_size)
    found, wrong = expand(_paths(tomograms), selection)
    if wrong:
        raise wrong[0][1]
    places = read_sizes(named(found), voxel_size)
    with TemporaryDirectory(prefix="tltrain-") as folder:
        if isinstance(picks, pd.DataFrame):
            lists = [str(Path(folder) / "picks.csv")]
            particles.write(picks, lists[0])
        else:
            lists = _paths(picks)
        read = read_annotations(
            lists, places, model.card, classes=dict(classes or {}), format=format, pixel_size=pixel_size
        )
        for note in read.notes:
            _log.info(note)
        yield read


def _paths(given: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[str]:
    """List one path or several."""
    return [os.fspath(each) for each in ([given] if isinstance(given, str | os.PathLike) else given)]


def _with(settings: _Settings, options: Mapping[str, Any]) -> _Settings:
    """Set fields of settings; for an unknown field, InputError suggests the nearest one."""
    known = settings.__dataclass_fields__
    options = names_now(settings, options)
    for name in options:
        if name not in known:
            raise InputError(f"there is no setting `{name}`{nearest(name, known)}", parameter=name)
    return replace(settings, **options)
