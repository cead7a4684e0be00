"""What ``import tltrain`` offers: train a model, and fine-tune one on annotated tomograms.

The command line ``tltrain`` is a thin layer over the same functions.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

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
from tltrain.finetune.settings import FineTuning
from tltrain.training.settings import Settings

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

    Interrupted, the same call goes on where it was; finished, it returns at once. Beside the model a folder
    ``MODEL.training`` is left with a page of curves, a table and events for TensorBoard.

    Parameters
    ----------
    corpus
        A corpus, or its path or URL.
    to
        The model file, ``.tlm``.
    settings
        How to train; None: the defaults.
    overwrite
        Replace a model that was trained otherwise; False: refuse to.
    yes
        Go on with values that are unusual; False: refuse them.
    progress
        True shows a bar; or a :class:`catalogs.progress.Progress`.
    options
        Fields of :class:`tltrain.Settings`, such as ``steps=3000``, which go before ``settings``.

    Returns
    -------
    tlpick.Model
        What is at ``to`` now.

    Raises
    ------
    InputError
        If there is no sample to train on, a setting cannot be, or something at ``to`` is no model.
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
        How; None: the defaults.
    preprocessing
        How the tomograms are preprocessed for the model; None: they must fit as they are.
    held_out
        Names of tomograms that are not learned from but choose the best network.
    classes
        Class of the lists -> class of the model, where they differ.
    overwrite
        Replace a model that was tuned otherwise; False: refuse to.
    yes
        Go on with values that are unusual; False: refuse them, unless ``preprocessing`` says yes.
    progress
        True shows a bar; or a :class:`catalogs.progress.Progress`.
    options
        Fields of :class:`tltrain.FineTuning`, such as ``steps=400``, which go before ``settings``.

    Returns
    -------
    tlpick.Model
        The tuned model. If too much was forgotten, the best network before; ``card.training`` says so.

    Raises
    ------
    InputError
        If a setting cannot be, the tomograms do not fit the model, or the picks name none of them.
    """
    from tempfile import TemporaryDirectory

    from tltrain.finetune.annotations import read_annotations, read_sizes
    from tltrain.finetune.finetune import finetune

    start = model if isinstance(model, Model) else load_model(model)
    preprocessing = preprocessing or Preprocessing()
    preprocessing = replace(preprocessing, yes=yes or preprocessing.yes)
    found, wrong = expand(_paths(tomograms), Selection(voxel_size=start.card.voxel_size))
    if wrong:
        raise wrong[0][1]
    places = read_sizes(named(found), preprocessing.voxel_size)
    with TemporaryDirectory(prefix="tltrain-") as folder:
        if isinstance(picks, pd.DataFrame):
            lists = [str(Path(folder) / "picks.csv")]
            particles.write(picks, lists[0])
        else:
            lists = _paths(picks)
        annotations = read_annotations(lists, places, start.card, classes=dict(classes or {}))
        finetune(
            start.path,
            annotations,
            to,
            _with(settings or FineTuning(), options),
            preprocessing=preprocessing,
            held_out=held_out,
            overwrite=overwrite,
            progress=progress_of(progress),
        )
    return load_model(to)


def _paths(given: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[str]:
    """List one path or several."""
    return [os.fspath(each) for each in ([given] if isinstance(given, str | os.PathLike) else given)]


def _with(settings: _Settings, options: Mapping[str, Any]) -> _Settings:
    """Set fields of settings; InputError names the nearest of one that there is not."""
    known = settings.__dataclass_fields__
    options = names_now(settings, options)
    for name in options:
        if name not in known:
            raise InputError(f"there is no setting `{name}`{nearest(name, known)}", parameter=name)
    return replace(settings, **options)
