"""The picks of a tomogram as rows of the particle table, with both scores, size and flags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from catalogs import particles
from catalogs.calibration import Calibration
from catalogs.model_file import ModelCard
from catalogs.schema import ClassInfo
from tlpick.localise import Picks


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
        Its name.
    picks
        One entry for each class.
    classes
        In the same order.
    calibration
        Of the model, by class; classes without one have the calibrated score nan.

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


def particle_volumes(card: ModelCard) -> dict[str, float]:
    """Tell the volume of a particle of each class as the model's segmentation shows it, Å³, where known."""
    return {
        name: calibration.volume
        for name, calibration in card.calibration.items()
        if calibration.volume is not None
    }
