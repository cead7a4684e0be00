"""What a run leaves in its folder besides its tomograms: one list of all picks, and what was done how.

::

    TOMOGRAM/          see :mod:`tlpick.pipeline`
    particles.star     all picks
    run.json           the model's card, the tomograms, the settings, what failed
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from catalogs import particles
from catalogs.calibration import Expectation
from catalogs.console import DISTRIBUTION
from catalogs.model_file import fingerprint, read_card
from tlpick.files import DONE, PARTICLES, RUN, absolute, write_json
from tlpick.picks import above
from tlpick.pipeline import Failed, Picked, Settings, job_of, read_done


def collect(
    model: str,
    folder: str,
    settings: Settings,
    failed: Sequence[Failed],
    least: Mapping[str, Expectation] | None = None,
) -> tuple[list[Picked], dict[str, int]]:
    """Write the run's own files from what is finished in its folder.

    Tomograms that an earlier call with the same model and settings picked into the folder belong to
    the run as well; what another model left there does not.

    Parameters
    ----------
    model, folder, settings
        Of the run.
    failed
        Tomograms that could not be picked.
    least
        Class -> the score that its picks must reach to be in the run's list; those of the tomograms keep
        all, so that another threshold needs no picking.

    Returns
    -------
    list of Picked, dict
        The tomograms of the run, by name; and class -> number of picks in the run's list.
    """
    card, job, least = read_card(model), job_of(model, settings), least or {}
    found = (read_done(path.parent) for path in sorted(Path(folder).glob(f"*/{DONE}")))
    run = [picked for picked in found if picked is not None and picked.job == job]
    tables = [particles.read(Path(folder) / picked.name / PARTICLES) for picked in run]
    table = above(pd.concat(tables, ignore_index=True) if tables else particles.empty(), least)
    particles.write(
        table,
        Path(folder) / PARTICLES,
        voxel_size={picked.name: picked.voxel_size for picked in run},
        shape={picked.name: picked.shape for picked in run},
        classes=card.classes,
    )
    write_json(
        Path(folder) / RUN,
        {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "model": {"path": absolute(model), "fingerprint": fingerprint(model), **card.model_dump()},
            "radii": {info.name: info.radius for info in card.classes},
            "settings": asdict(settings),
            "thresholds": {
                name: {**point.model_dump(), "interval": point.interval} for name, point in least.items()
            },
            "software": {name: version(name) for name in (DISTRIBUTION, "keras", "numpy", "scipy")},
            "tomograms": [asdict(picked) for picked in run],
            "failed": [{"path": failure.path, "error": failure.error} for failure in failed],
        },
    )
    return run, {info.name: int((table["class_name"] == info.name).sum()) for info in card.classes}
