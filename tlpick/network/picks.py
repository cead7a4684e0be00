"""Writes picks as rows of the particle table, and applies thresholds of scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from catalogs import particles
from catalogs.console import nearest
from catalogs.errors import InputError
from catalogs.model_file import ModelCard
from catalogs.schema import ClassInfo
from catalogs.score_calibration import Calibration, Expectation
from tlpick.network.localisation.localise import Options, Picks


def as_table(
    tomogram: str,
    picks: Sequence[Picks],
    classes: Sequence[ClassInfo],
    calibration: Mapping[str, Calibration] | None = None,
) -> pd.DataFrame:
    """Make the particle table of one tomogram.

    Parameters
    ----------
    tomogram
        Name of the tomogram.
    picks
        One entry for each class.
    classes
        The classes in the same order.
    calibration
        Calibration of the model by class; without one, the calibrated score is nan.

    Returns
    -------
    pandas.DataFrame
        Particle table with the columns ``calibrated``, ``size`` (voxels of the cluster), ``flags`` and
        ``probability`` (mean over the voxels) besides.
    """
    known = calibration or {}
    counts = [len(each) for each in picks]
    xyz = np.concatenate([np.empty((0, 3)), *(each.centres for each in picks)])
    calibrated = [
        known[info.name].probability(each.scores) if info.name in known else np.full(len(each), np.nan)
        for each, info in zip(picks, classes, strict=True)
    ]
    return particles.make(
        tomogram=tomogram,
        class_name=np.repeat(np.array([info.name for info in classes], object), counts),
        label=np.repeat([info.label for info in classes], counts),
        x=xyz[:, 0],
        y=xyz[:, 1],
        z=xyz[:, 2],
        score=np.concatenate([np.empty(0), *(each.scores for each in picks)]),
        calibrated=np.concatenate([np.empty(0), *calibrated]),
        size=np.concatenate([np.empty(0, np.int64), *(each.voxels for each in picks)]),
        flags=np.array([word for each in picks for word in each.flags], object),
        probability=np.concatenate([np.empty(0), *(each.probability for each in picks)]),
    )


def refuse_unknown_classes(options: Options, card: ModelCard) -> None:
    """Refuse sizes of classes that the model does not know.

    Raises
    ------
    InputError
        If there is such a class; the message suggests the nearest one.
    """
    known = [info.name for info in card.classes]
    for name in options.sizes:
        if name not in known:
            raise InputError(
                f"`min_size` or `max_size` names the class {name!r}, the model {card.name!r} picks "
                f"{', '.join(known)}{nearest(name, known)}"
            )


def particle_volumes(card: ModelCard) -> dict[str, float]:
    """Return the volume of a particle of each class in the model's segmentations, Å³, if known."""
    return {
        name: calibration.volume
        for name, calibration in card.calibration.items()
        if calibration.volume is not None
    }


def thresholds(card: ModelCard, precision: float) -> dict[str, Expectation]:
    """Choose a score threshold for each class, so that the picks have an expected precision.

    Parameters
    ----------
    card
        Card of a calibrated model.
    precision
        Wanted share of right picks; one minus the false discovery rate.

    Returns
    -------
    dict
        Class -> threshold, with precision and recall according to the held-out picks.

    Raises
    ------
    InputError
        If the model is not calibrated, or no threshold reaches the precision.
    """
    if not 0 < precision < 1:
        raise InputError(f"a precision of {precision:g} is impossible; give a number between 0 and 1")
    if not card.calibration:
        raise InputError(
            f"the model {card.name!r} is not calibrated, so no precision can be promised; run tlpick "
            "calibrate with a corpus that has held-out samples"
        )
    without = [info.name for info in card.classes if info.is_particle and info.name not in card.calibration]
    if without:
        raise InputError(
            f"the model {card.name!r} is not calibrated for {', '.join(without)}: it picked none in the "
            "held-out samples; calibrate it with more of them"
        )
    return {name: each.for_precision(precision, name) for name, each in card.calibration.items()}


def above(table: pd.DataFrame, least: Mapping[str, Expectation]) -> pd.DataFrame:
    """Keep the picks that reach the threshold of their class; without a threshold, all are kept."""
    bar = table["class_name"].map({name: each.threshold for name, each in least.items()})
    return table[~(table["score"] < bar.astype(np.float64))].reset_index(drop=True)
