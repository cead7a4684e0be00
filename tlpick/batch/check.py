"""``tlpick check``: compares tomograms with the training data of a model."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from catalogs.errors import InputError
from catalogs.model_file import read_card
from tlpick.evaluation.fit_check import check_fit
from tlpick.network.tomograms.inputs import Selection, expand
from tlpick.network.tomograms.intake import Preprocessing, prepare
from tlpick.network.tomograms.scratch import Scratch

#: Memory in bytes for a tomogram.
_MEMORY = 4e9


def check_tomograms(
    model: str, arguments: Sequence[str], preprocessing: Preprocessing | None = None
) -> Iterator[str]:
    """Compare tomograms with the training data of a model; yield lines to print.

    Parameters
    ----------
    model
        Path of the model file.
    arguments
        Tomograms, or sources of them; see :func:`tlpick.network.tomograms.inputs.expand`.
    preprocessing
        Their preprocessing for the model.

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
    for tomogram in tomograms:
        with Scratch(Path(tempfile.gettempdir()), _MEMORY / 4) as scratch:
            prepared = prepare(tomogram, card, preprocessing or Preprocessing(), scratch, _MEMORY)
            differences = check_fit(prepared, card)
        name = tomogram.name or Path(tomogram.path).stem
        if not differences:
            yield f"{name}: like the {len(card.looks)} tomograms of the training data that were looked at"
            continue
        strong = any(each.strong for each in differences)
        how = (
            "unlike the training data; expect nothing of the picks"
            if strong
            else "differs from the training data"
        )
        yield f"{name}: {how}"
        for each in differences:
            yield f"  {each.words}"
