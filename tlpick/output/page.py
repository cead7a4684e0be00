"""Collects the content of a run's report: picks, truth if known, and settings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import pandas as pd

from catalogs.console import DISTRIBUTION
from tlpick.batch.run_folder import Picks, Result
from tlpick.evaluation.truth import Truth


@dataclass(frozen=True)
class Tomogram:
    """A tomogram of the page: its name in the tables, a name for people, and its path."""

    name: str
    title: str
    path: str | None
    voxel_size: float | None


@dataclass(frozen=True, eq=False)
class Page:
    """The content of the page.

    Attributes
    ----------
    picks
        Particle table; where the truth is known with ``partner`` and ``distance``.
    truth
        Likewise, or None.
    radii
        Class -> radius in Å, of what is picked, in the order of the colours.
    tomograms
        That were picked.
    run
        What ``run.json`` says; empty for a bare list.
    result
        Picks against truth, or None.
    facts
        How it came about, word -> value.
    every
        Also the picks that were not kept, with a column ``kept``; the picks alone where the truth is known.
    """

    picks: pd.DataFrame
    truth: pd.DataFrame | None
    radii: Mapping[str, float]
    tomograms: Sequence[Tomogram]
    run: Mapping[str, Any]
    result: Result | None
    facts: Mapping[str, str]
    every: pd.DataFrame


def page_of(
    picks: Picks, names: Sequence[str], truth: Truth | None = None, result: Result | None = None
) -> Page:
    """Collect what the page of some picks shows; with truth and result, how good they are."""
    sizes = {str(t["name"]): t for t in picks.run.get("tomograms", [])}
    titles = truth.titles if truth else {}
    volumes = truth.volumes if truth else {}
    tomograms = [
        Tomogram(
            name=name,
            title=titles.get(name, name),
            path=sizes[name]["path"] if name in sizes else volumes.get(name),
            voxel_size=sizes[name]["voxel_size"] if name in sizes else None,
        )
        for name in names
    ]
    if result is not None:
        table, there = result.evaluation.picks, result.evaluation.truth
        radii = {score.class_name: score.radius for score in result.evaluation.scores}
    else:
        table, there = picks.table[picks.table["tomogram"].isin(list(names))], None
        radii = {name: radius for name, radius in picks.radii.items() if not math.isnan(radius)}
    facts = _facts(picks, truth, sizes, names)
    every = table.assign(kept=True)
    if result is None and picks.every is not None:
        every = _marked(picks.every[picks.every["tomogram"].isin(list(names))], table)
    return Page(table, there, radii, tomograms, picks.run, result, facts, every)


def _marked(every: pd.DataFrame, kept: pd.DataFrame) -> pd.DataFrame:
    """Add the column ``kept`` to all picks; the two lists are of one run, so places are equal."""
    key = ["tomogram", "class_name", "x", "y", "z"]
    there = set(kept[key].itertuples(index=False, name=None))
    return every.assign(kept=[row in there for row in every[key].itertuples(index=False, name=None)])


def _facts(
    picks: Picks, truth: Truth | None, sizes: Mapping[str, Any], names: Sequence[str]
) -> dict[str, str]:
    facts = {"Picks": str(picks.source)}
    if truth is not None:
        facts["Truth"] = truth.source
    if picks.run:
        model, settings = picks.run["model"], picks.run["settings"]
        facts["Model"] = f"{model['name']} ({model['fingerprint']}), {model['path']}"
        facts["Network"] = (
            f"{model['network']}, {model['n_parameters']:,} parameters, trained at {model['voxel_size']:g} Å"
        )
        corpus = model["provenance"].get("corpus")
        if corpus:
            facts["Trained on"] = str(corpus)
        calibrated = model.get("calibration") or {}
        facts["Scores calibrated"] = (
            ", ".join(f"{name} on {each['n_picks']} held-out picks" for name, each in calibrated.items())
            or "no"
        )
        facts["Picked"] = str(picks.run["created"])
        facts["Voxel probability from"] = (
            ", ".join(f"{name} {least:g}" for name, least in model["thresholds"].items())
            or "the likeliest class"
        )
        facts["Settings"] = ", ".join(f"{word} {_setting(value)}" for word, value in settings.items())
        if names and names[0] in sizes:
            first = sizes[names[0]]
            z, y, x = first["shape"]
            facts["First tomogram"] = f"{x} x {y} x {z} voxels of {first['voxel_size']:.5g} Å"
            if "tile" in first:
                tile = " x ".join(str(n) for n in reversed(first["tile"]))
                facts["Tiles"] = (
                    f"{first['n_tiles']} of {tile} voxels with a halo of {model['halo']}, "
                    f"redundancy {first['redundancy']:.2f}"
                )
            facts["Seconds"] = ", ".join(
                f"{stage} {seconds:.1f}" for stage, seconds in first["seconds"].items()
            )
        facts["Picked by"] = ", ".join(f"{name} {number}" for name, number in picks.run["software"].items())
    facts["Written"] = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC by {DISTRIBUTION} {version(DISTRIBUTION)}"
    return facts


def _setting(value: object) -> str:
    if isinstance(value, Mapping):
        return "(" + ", ".join(f"{key} {_setting(each)}" for key, each in value.items()) + ")"
    if value is None or isinstance(value, bool):
        return "yes" if value else "-" if value is None else "no"
    return f"{value:g}" if isinstance(value, int | float) else str(value)
