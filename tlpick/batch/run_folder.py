"""Reads the folder of a run, and defines the result of scoring it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from catalogs import particles
from catalogs.errors import InputError
from catalogs.particles import DISTRACTOR
from tlpick.batch.files import ALL, PARTICLES, RUN
from tlpick.evaluation.matching import Evaluation, Localisation, PrecisionRecallCurve
from tlpick.evaluation.metrics import Field
from tlpick.evaluation.truth import stated_radii, unique


@dataclass(frozen=True, eq=False)
class Picks:
    """The picks to be scored.

    Attributes
    ----------
    source
        Path that the user gave.
    folder
        Folder for the results.
    table
        Particle table.
    tomograms
        Names of the picked tomograms, including those without picks.
    radii
        Class -> radius in Å, where known.
    run
        Content of ``run.json``; empty for a particle list.
    every
        Also the picks that the run did not keep; None if it kept all, or this is a bare list.
    """

    source: str
    folder: Path
    table: pd.DataFrame
    tomograms: list[str]
    radii: dict[str, float]
    run: dict[str, Any] = field(default_factory=dict)
    every: pd.DataFrame | None = None


@dataclass(frozen=True, eq=False)
class Result:
    """Result of ``tlpick score``, with its page and notes for the user.

    Attributes
    ----------
    evaluation
        One-to-one comparison by class, on which this program relies.
    curves
        Class -> precision and recall over the score, for classes whose picks have scores.
    errors
        Class -> localisation errors of the picks.
    intervals
        Class -> confidence bounds of F1, precision and recall over tomograms; nan for a single one.
    confusion
        Confusion of classes.
    field
        Metrics of other programs.
    report
        The page.
    notes
        Sentences.
    """

    evaluation: Evaluation
    curves: dict[str, PrecisionRecallCurve]
    errors: dict[str, Localisation]
    intervals: dict[str, dict[str, tuple[float, float]]]
    confusion: pd.DataFrame
    field: tuple[Field, ...]
    report: Path
    notes: tuple[str, ...]


def read_picks(path: str) -> Picks:
    """Read the picks of a run's folder, or a particle list.

    Raises
    ------
    InputError
        If the path is neither.
    """
    file = Path(path)
    if (file / RUN).exists():
        try:
            run: dict[str, Any] = json.loads((file / RUN).read_text())
            names = [str(tomogram["name"]) for tomogram in run["tomograms"]]
            no_particles = {
                info["name"] for info in run["model"]["classes"] if not info.get("is_particle", True)
            }
            radii = {
                str(name): float(radius) for name, radius in run["radii"].items() if name not in no_particles
            }
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(f"{file / RUN} is damaged; run tlpick run again") from error
        every = particles.read(file / ALL) if (file / ALL).exists() else None
        return Picks(path, file, particles.read(file / PARTICLES), names, radii, run, every)
    if not file.exists():
        raise InputError(
            f"{path} does not exist; give the folder that tlpick run wrote to, or a particle list"
        )
    try:
        table = particles.read(file)
    except InputError as error:
        if not file.is_dir():
            raise
        raise InputError(
            f"{path} is not the folder of a run: it has no {RUN}; give what tlpick run wrote to"
        ) from error
    table = table[table["class_name"] != DISTRACTOR]
    radii = dict.fromkeys(table["class_name"], math.nan) | stated_radii(file)
    return Picks(path, file if file.is_dir() else file.parent, table, unique(table["tomogram"]), radii)
