"""What ``import tltrain`` offers: train a model, fine-tune one on annotated tomograms, exchange weights.

The command line ``tltrain`` is a thin layer over the same functions.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import pandas as pd

from catalogs import particles
from catalogs.console import nearest
from catalogs.corpus.catalog import Catalog
from catalogs.errors import InputError
from catalogs.former_names import accepts_former, names_now
from catalogs.progress import Progress, progress_of
from tlpick.network.model import Model, load_model
from tlpick.network.tomograms.inputs import Selection, expand, named, paths
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

    how = _how(settings, preprocessing, yes, options)
    reading = _Reading(classes, format, pixel_size, tomogram_type)
    with _annotations(model, tomograms, picks, how, reading) as (start, annotations):
        finetune(
            start,
            annotations,
            to,
            how.settings,
            preprocessing=how.preprocessing,
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

    how = _how(settings, preprocessing, yes, options)
    if how.settings.annotations is not None:
        raise InputError("`annotations` and `learning_curve` exclude each other; give one of them")
    reading = _Reading(classes, format, pixel_size, tomogram_type)
    with _annotations(model, tomograms, picks, how, reading) as (start, annotations):
        points = learn(
            start,
            annotations,
            to,
            sorted(set(counts)),
            how.settings,
            preprocessing=how.preprocessing,
            held_out=held_out,
            progress=progress_of(progress),
        )
    return pd.DataFrame([asdict(point) for point in points])


def import_deepfinder(
    weights: str | os.PathLike[str],
    to: str | os.PathLike[str],
    radii: Mapping[str, float],
    voxel_size: float,
    *,
    contrast: Literal["dark", "bright"] = "dark",
    yes: bool = False,
) -> Model:
    """Make a model from weights that DeepFinder's training wrote.

    Parameters
    ----------
    weights
        File of the weights, ``.h5``.
    to
        The model file, ``.tlm``.
    radii
        Class -> radius in Å, in the order of the network's outputs after the background.
    voxel_size
        Å, of the tomograms on which it was trained.
    contrast
        How protein looks in those tomograms.
    yes
        Continue although sizes are unusual; False: refuse them.

    Returns
    -------
    tlpick.Model

    Raises
    ------
    InputError
        If the weights cannot be read or have another number of classes, or a size is unusual.
    """
    from tltrain.networks import deepfinder_weights

    classes = deepfinder_weights.classes_with(radii)
    deepfinder_weights.import_deepfinder(weights, to, classes, voxel_size, contrast, yes=yes)
    return load_model(to)


def export_deepfinder(model: Model | str | os.PathLike[str], to: str | os.PathLike[str]) -> None:
    """Write the weights of a model, which must be a network ``deepfinder``, for DeepFinder.

    Parameters
    ----------
    model
        A model, its file, or its name.
    to
        The file, ``.h5``.

    Raises
    ------
    InputError
        If it is another network, or the file cannot be written.
    """
    from tltrain.networks.deepfinder_weights import write_deepfinder

    write_deepfinder(to, (model if isinstance(model, Model) else load_model(model)).keras())


@dataclass(frozen=True)
class _How:
    """How a model is fine-tuned, and how its tomograms are preprocessed."""

    settings: FineTuning
    preprocessing: Preprocessing


@dataclass(frozen=True)
class _Reading:
    """How tomograms and particle lists are read; see :func:`fine_tune`."""

    classes: Mapping[str, str] | None
    format: str | None
    pixel_size: float | None
    tomogram_type: str


def _how(
    settings: FineTuning | None, preprocessing: Preprocessing | None, yes: bool, options: Mapping[str, Any]
) -> _How:
    """Put together and check the settings, before anything is read."""
    chosen = _with(settings or FineTuning(), options)
    check(chosen)
    preprocessing = preprocessing or Preprocessing()
    return _How(chosen, replace(preprocessing, yes=yes or preprocessing.yes))


@contextmanager
def _annotations(
    model: Model | str | os.PathLike[str],
    tomograms: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    picks: pd.DataFrame | str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    how: _How,
    reading: _Reading,
) -> Iterator[tuple[str, Annotations]]:
    """Find the model's file, the tomograms, and the particles in them; remarks about them are logged."""
    from tempfile import TemporaryDirectory

    from tltrain.finetune.annotations import read_annotations, read_sizes

    start = model if isinstance(model, Model) else load_model(model)
    voxel_size = how.preprocessing.voxel_size
    selection = Selection(kind=reading.tomogram_type, voxel_size=start.card.voxel_size)
    found, wrong = expand(paths(tomograms), selection)
    if wrong:
        raise wrong[0][1]
    places = read_sizes(named(found, voxel_size), voxel_size)
    with TemporaryDirectory(prefix="tltrain-") as folder:
        if isinstance(picks, pd.DataFrame):
            lists = [str(Path(folder) / "picks.csv")]
            particles.write(picks, lists[0])
        else:
            lists = paths(picks)
        read = read_annotations(
            lists,
            places,
            start.card,
            classes=dict(reading.classes or {}),
            format=reading.format,
            pixel_size=reading.pixel_size,
        )
        for note in read.notes:
            _log.info(note)
        yield start.path, read


def _with(settings: _Settings, options: Mapping[str, Any]) -> _Settings:
    """Set fields of settings; for an unknown field, InputError suggests the nearest one."""
    known = settings.__dataclass_fields__
    options = names_now(settings, options)
    for name in options:
        if name not in known:
            raise InputError(f"there is no setting `{name}`{nearest(name, known)}", parameter=name)
    return replace(settings, **options)
