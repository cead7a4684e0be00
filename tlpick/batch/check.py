"""``tlpick check``: compares tomograms with the training data of a model."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from catalogs.errors import InputError
from catalogs.model_file import read_card
from catalogs.model_sources import SUFFIXES, find_model, listed
from tlpick.evaluation.fit_check import Difference, check_fit
from tlpick.network.tomograms.inputs import Selection, expand
from tlpick.network.tomograms.intake import Preprocessing, prepare
from tlpick.network.tomograms.scratch import Scratch

_log = logging.getLogger(__name__)

#: Memory in bytes for a tomogram.
_MEMORY = 4e9


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Tell models from tomograms: models come first, and are files that end in .tlm, or known names.

    Parameters
    ----------
    arguments
        One or more models, then one or more tomograms.

    Returns
    -------
    models, tomograms
        Paths of the models' files, and the other arguments.

    Raises
    ------
    InputError
        If there is no such model, or there are no tomograms.
    """
    known = {each.name for each in listed()}

    def is_model(word: str) -> bool:
        return Path(word.partition("#")[0]).suffix in SUFFIXES or (word in known and not Path(word).exists())

    n = 1
    while n < len(arguments) and is_model(arguments[n]):
        n += 1
    if n >= len(arguments):
        raise InputError("there are no tomograms to check; name them after the model")
    return [str(find_model(word)) for word in arguments[:n]], list(arguments[n:])


def check_tomograms(
    model: str, arguments: Sequence[str], preprocessing: Preprocessing | None = None
) -> dict[str, list[Difference]]:
    """Compare tomograms with the training data of a model; log what is found.

    Parameters
    ----------
    model
        Path of the model file.
    arguments
        Tomograms, or sources of them; see :func:`tlpick.network.tomograms.inputs.expand`.
    preprocessing
        Their preprocessing for the model.

    Returns
    -------
    dict of str to list of Difference
        Tomogram -> its differences; none if it is like the training data.

    Raises
    ------
    InputError
        If a file cannot be read, or the model does not describe its training data.
    """
    card = read_card(model)
    if not card.looks:
        raise InputError(
            f"the model {model} does not say what its training data look like: it was trained by an older "
            "version; run tlpick calibrate with its corpus, or train again"
        )
    tomograms, wrong = expand(arguments, Selection(voxel_size=card.voxel_size))
    if wrong:
        raise wrong[0][1]
    found: dict[str, list[Difference]] = {}
    for tomogram in tomograms:
        with Scratch(Path(tempfile.gettempdir()), _MEMORY / 4) as scratch:
            prepared = prepare(tomogram, card, preprocessing or Preprocessing(), scratch, _MEMORY)
            differences = check_fit(prepared, card) or []
        name = tomogram.name or Path(tomogram.path).stem
        found[name] = differences
        for line in _in_words(name, differences, len(card.looks)):
            _log.info(line)
    return found


def _in_words(name: str, differences: Sequence[Difference], n_looks: int) -> Iterator[str]:
    """Describe the differences of a tomogram."""
    if not differences:
        yield f"{name}: like the {n_looks} tomograms of the training data that were looked at"
    elif any(each.strong for each in differences):
        yield f"{name}: unlike the training data; do not rely on the picks"
    else:
        yield f"{name}: differs from the training data"
    for each in differences:
        yield f"  {each.words}"
