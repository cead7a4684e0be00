"""Reuses the folder of a run: writes another selection of its picks, and the masks that it used."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from catalogs import particles
from catalogs.errors import InputError
from catalogs.file_names import file_name
from catalogs.model_file import ModelCard
from catalogs.volumes import write_mrc
from tlpick.batch.files import ALL, PARTICLES, RESERVED, RUN, read_json
from tlpick.evaluation.pick_selection import Cut, decide, sentence
from tlpick.network.tomograms.inputs import Tomogram
from tlpick.network.tomograms.intake import Preprocessing, prepare
from tlpick.network.tomograms.scratch import Scratch

_log = logging.getLogger(__name__)

#: Memory in bytes for making a mask.
_MEMORY = 4e9


def select_picks(folder: str, to: str | None, cut: Cut) -> pd.DataFrame:
    """Select the picks of a run that a cut keeps, and write them; log a sentence for each tomogram and class.

    Arguments, result and errors are those of :func:`tlpick.select`; ``cut`` says which picks to keep.
    """
    run = _run(folder)
    classes = _card(run, folder).classes
    names = [info.name for info in classes if info.is_particle]
    tables = [particles.empty()]
    sentences: list[str] = []
    for picked in run["tomograms"]:
        place = Path(folder) / file_name(picked["name"], RESERVED)
        table = particles.read(place / ALL if (place / ALL).exists() else place / PARTICLES)
        decision = decide(table, names, picked.get("stands_out", {}), cut, bool(picked.get("unlike", False)))
        tables.append(table[decision.rows])
        sentences += [sentence(picked["name"], each, cut, str(place / ALL)) for each in decision.classes]
    table = pd.concat(tables[1:] or tables, ignore_index=True)
    if to is not None:
        particles.write(
            table,
            to,
            voxel_size={picked["name"]: float(picked["voxel_size"]) for picked in run["tomograms"]},
            shape={picked["name"]: tuple(picked["shape"]) for picked in run["tomograms"]},
            classes=classes,
        )
        sentences.append(f"{len(table)} picks: {to}")
    for line in sentences:
        _log.info(line)
    return table


def write_masks(folder: str, to: str) -> list[Path]:
    """Write the masks of a run, on the grids of its network; log a line for each tomogram.

    Returns
    -------
    list of pathlib.Path
        The masks, ``NAME.mrc`` for each tomogram.

    Raises
    ------
    InputError
        If it is not the folder of a run, or a tomogram has been moved.
    """
    run = _run(folder)
    card = _card(run, folder)
    stated = dict(run["settings"]["terms"])
    if stated.get("crop") is not None:
        stated["crop"] = tuple(stated["crop"])
    known = {name: stated[name] for name in Preprocessing.__dataclass_fields__ if name in stated}
    preprocessing = Preprocessing(**known)
    target = Path(to)
    target.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for picked in run["tomograms"]:
        size = None if preprocessing.voxel_size else float(picked["voxel_size"])
        tomogram = Tomogram(picked["path"], picked["name"], size)
        with Scratch(target, _MEMORY / 4) as scratch:
            prepared = prepare(tomogram, card, preprocessing, scratch, _MEMORY)
            shape = prepared.values.shape
            planes = (
                np.ones((1, *shape[1:]), np.int8)
                if prepared.sample is None
                else prepared.sample[z : z + 1].astype(np.int8)
                for z in range(shape[0])
            )
            path = target / f"{file_name(picked['name'], ())}.mrc"
            write_mrc(path, planes, prepared.grid, origin=prepared.offset, shape=shape, dtype=np.int8)
            share = 1.0 if prepared.sample is None else float(prepared.sample.mean())
        where = picked.get("ice") or "the whole volume"
        _log.info(f"{path}: {where}, {100 * share:.0f} % of the voxels")
        written.append(path)
    return written


def _run(folder: str) -> dict[str, Any]:
    try:
        run = read_json(Path(folder) / RUN)
        run["tomograms"], run["model"]["classes"], run["settings"]["terms"]
    except FileNotFoundError:
        raise InputError(
            f"{folder} is not the folder of a run: it has no {RUN}; give what tlpick run wrote to"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{Path(folder) / RUN} is damaged; run tlpick run again") from error
    return run


def _card(run: dict[str, Any], folder: str) -> ModelCard:
    stated = {name: value for name, value in run["model"].items() if name in ModelCard.model_fields}
    try:
        return ModelCard.model_validate(stated)
    except ValueError as error:
        raise InputError(f"{Path(folder) / RUN} is damaged; run tlpick run again") from error
