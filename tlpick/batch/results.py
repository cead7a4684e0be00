"""Files of a run besides those of its tomograms: the list of all picks, and a record of the run.

::

    TOMOGRAM/          see :mod:`tlpick.batch.pipeline`
    particles.star     the picks that are kept
    particles.all.star all picks, if some were not kept
    lists/             the same in other formats, if requested
    run.json           the model's card, the tomograms, the settings, the failures
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
from catalogs.former_names import as_stored
from catalogs.model_file import ModelCard, fingerprint, read_card
from catalogs.particle_formats import registry
from catalogs.particle_formats.base import Context
from catalogs.particle_formats.files import save
from catalogs.schema import ClassInfo
from catalogs.score_calibration import Expectation
from tlpick.batch.files import ALL, DONE, PARTICLES, RUN, absolute, write_json
from tlpick.batch.pipeline import Failed, Picked, Settings, job_of, read_done
from tlpick.evaluation.pick_selection import ClassCut, Cut, decide
from tlpick.network.picks import above


@dataclass(frozen=True)
class Lists:
    """Further formats for the picks of a run.

    Attributes
    ----------
    formats
        Names as listed by ``tlpick convert --formats``.
    pixel_size
        Pixel size in Å of the unbinned tilt series, for formats that count in its pixels.
    tomograms_star
        RELION 5's tomograms.star, to which an optimisation set refers.
    """

    formats: tuple[str, ...] = ()
    pixel_size: float | None = None
    tomograms_star: str | None = None

    def check(self) -> None:
        """Refuse an unknown format before anything is picked (InputError with the nearest name)."""
        for name in self.formats:
            if registry.named(name).name == "relion5-set" and self.tomograms_star is None:
                raise InputError("`format` relion5-set names the tomograms; give them by `tomograms_star`")

    def place(self, folder: str, name: str) -> Path:
        """Return the path for a format: a file, or a folder if its files have one tomogram only."""
        format = registry.named(name)
        suffix = "" if format.one_tomogram or "" in format.suffixes else format.suffixes[0]
        return Path(folder) / "lists" / f"{name}{suffix}"

    def write(self, table: pd.DataFrame, folder: str, run: Sequence[Picked], card: ModelCard) -> None:
        """Write the lists; what a format cannot hold goes to a file beside it."""
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
    cut: Cut | None = None,
) -> tuple[list[Picked], dict[str, int], list[tuple[Picked, ClassCut]]]:
    """Write the files of the run from the finished tomograms in its folder.

    Tomograms that an earlier call picked with the same model and settings belong to the run, too; those of
    another model do not.

    Parameters
    ----------
    model, folder, settings
        Model, folder and settings of the run.
    failed
        Tomograms that could not be picked.
    least
        Class -> score that its picks must reach, instead of a cut; classes that do not exceed their decoys
        are not kept in any case.
    lists
        Further formats of the list.
    cut
        Which picks are kept; None: those with the largest expected F1 or F2. Another cut needs no new
        picking.

    Returns
    -------
    list of Picked, dict, list
        The tomograms of the run, by name; class -> number of picks that are kept; and what was kept, by
        tomogram and class.

    Raises
    ------
    InputError
        If a share of wrong picks is requested and there were no decoys.
    """
    card, job, least = read_card(model), job_of(model, settings), least or {}
    found = {path.parent: read_done(path.parent) for path in sorted(Path(folder).glob(f"*/{DONE}"))}
    ours = {place: picked for place, picked in found.items() if picked is not None and picked.job == job}
    run = sorted(ours.values(), key=lambda picked: picked.name)
    cut, names = cut or Cut(), [info.name for info in card.classes if info.is_particle]
    tables, every, said = [], [], list[tuple[Picked, ClassCut]]()
    for place in sorted(ours, key=lambda at: ours[at].name):
        picked, table = ours[place], particles.read(place / ALL)
        decision = decide(table, names, picked.stands_out, cut, picked.unlike)
        kept = table[decision.rows].reset_index(drop=True)
        if least:
            kept = above(table, {n: at for n, at in least.items() if picked.stands_out.get(n, True)})
            unclear = [name for name, clear in picked.stands_out.items() if not clear]
            kept = kept[~kept["class_name"].isin(unclear)].reset_index(drop=True)
        write_list(kept, place / PARTICLES, [picked], card.classes)
        tables.append(kept)
        every.append(table)
        said += [(picked, each) for each in decision.classes]
    table = pd.concat(tables, ignore_index=True) if tables else particles.empty()
    write_list(table, Path(folder) / PARTICLES, run, card.classes)
    everything = pd.concat(every, ignore_index=True) if every else particles.empty()
    if len(everything) > len(table):
        write_list(everything, Path(folder) / ALL, run, card.classes)
    else:
        (Path(folder) / ALL).unlink(missing_ok=True)
    (lists or Lists()).write(table, folder, run, card)
    write_json(
        Path(folder) / RUN,
        {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "model": {
                "path": absolute(model),
                "fingerprint": fingerprint(model),
                **card.model_dump(exclude={"means", "looks"}),
            },
            "radii": {info.name: info.radius for info in card.classes},
            "settings": as_stored(settings),
            "thresholds": {
                name: {**point.model_dump(), "interval": point.interval} for name, point in least.items()
            },
            "cut": asdict(cut),
            "kept": [{"tomogram": picked.name, **asdict(each)} for picked, each in said],
            "software": {name: version(name) for name in (DISTRIBUTION, "keras", "numpy", "scipy")},
            "tomograms": [asdict(picked) for picked in run],
            "failed": [{"path": failure.path, "error": failure.error} for failure in failed],
        },
    )
    counts = {info.name: int((table["class_name"] == info.name).sum()) for info in card.classes}
    return run, counts, said


def write_list(table: pd.DataFrame, path: Path, run: Sequence[Picked], classes: Sequence[ClassInfo]) -> None:
    """Write the picks of some tomograms as RELION's list, completely or not at all."""
    particles.write(
        table,
        path,
        voxel_size={picked.name: picked.voxel_size for picked in run},
        shape={picked.name: picked.shape for picked in run},
        classes=classes,
    )
