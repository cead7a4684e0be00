"""What a run leaves in its folder besides its tomograms: one list of all picks, and what was done how.

::

    TOMOGRAM/          see :mod:`tlpick.batch.pipeline`
    particles.star     all picks
    lists/             the same in other formats, as far as they were asked for
    run.json           the model's card, the tomograms, the settings, what failed
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from catalogs import particles
from catalogs.console import DISTRIBUTION
from catalogs.errors import InputError
from catalogs.model_file import ModelCard, fingerprint, read_card
from catalogs.particle_formats import registry
from catalogs.particle_formats.base import Context
from catalogs.particle_formats.files import save
from catalogs.score_calibration import Expectation
from tlpick.batch.files import DONE, PARTICLES, RUN, absolute, write_json
from tlpick.batch.pipeline import Failed, Picked, Settings, job_of, read_done
from tlpick.network.picks import above


@dataclass(frozen=True)
class Lists:
    """Further formats in which the picks of a run are written.

    Attributes
    ----------
    formats
        Names, as ``tlpick convert --formats`` lists them.
    pixel_size
        Å of the unbinned tilt series, for formats that count in its pixels.
    tomograms_star
        RELION 5's tomograms.star, which an optimisation set names.
    """

    formats: tuple[str, ...] = ()
    pixel_size: float | None = None
    tomograms_star: str | None = None

    def check(self) -> None:
        """Refuse a format that there is not, before anything is picked; InputError names the nearest."""
        for name in self.formats:
            if registry.named(name).name == "relion5-set" and self.tomograms_star is None:
                raise InputError("--format relion5-set names the tomograms; give them by --tomograms-star")

    def place(self, folder: str, name: str) -> Path:
        """Where the list of a format goes: a file, or a folder where a file holds one tomogram only."""
        format = registry.named(name)
        suffix = "" if format.one_tomogram or "" in format.suffixes else format.suffixes[0]
        return Path(folder) / "lists" / f"{name}{suffix}"

    def write(self, table: pd.DataFrame, folder: str, run: Sequence[Picked], card: ModelCard) -> None:
        """Write the lists; what a format has no room for goes into a file beside it."""
        context = Context(
            voxel_size={picked.name: picked.voxel_size for picked in run},
            shape={picked.name: picked.shape for picked in run},
            pixel_size=self.pixel_size,
            tomograms_file=self.tomograms_star,
            classes=tuple(card.classes),
        )
        for name in self.formats:
            if not table.empty:
                save(table, self.place(folder, name), name, context, sidecar=True)


def collect(
    model: str,
    folder: str,
    settings: Settings,
    failed: Sequence[Failed],
    least: Mapping[str, Expectation] | None = None,
    lists: Lists | None = None,
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

    lists
        Further formats of the run's list.

    Returns
    -------
    list of Picked, dict
        The tomograms of the run, by name; and class -> number of picks in the run's list.
    """
    card, job, least = read_card(model), job_of(model, settings), least or {}
    found = {path.parent: read_done(path.parent) for path in sorted(Path(folder).glob(f"*/{DONE}"))}
    ours = {place: picked for place, picked in found.items() if picked is not None and picked.job == job}
    run = sorted(ours.values(), key=lambda picked: picked.name)
    tables = [particles.read(place / PARTICLES) for place in sorted(ours, key=lambda at: ours[at].name)]
    table = above(pd.concat(tables, ignore_index=True) if tables else particles.empty(), least)
    particles.write(
        table,
        Path(folder) / PARTICLES,
        voxel_size={picked.name: picked.voxel_size for picked in run},
        shape={picked.name: picked.shape for picked in run},
        classes=card.classes,
    )
    (lists or Lists()).write(table, folder, run, card)
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
